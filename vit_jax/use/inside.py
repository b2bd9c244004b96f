"""What a model has learned, as pictures: its patch filters, positions and tokens.

The filters and positions are those of figure 7 in https://arxiv.org/abs/2010.11929; the tokens as
colours follow figure 1 in https://arxiv.org/abs/2304.07193.
"""

import math
from typing import Any

import numpy as np
from einops import rearrange
from jaxtyping import Float, UInt8
from PIL import Image

from vit_jax.model.shapes import pair
from vit_jax.use.attention_sheet import SIDE, title_of
from vit_jax.use.contact_sheet import contact_sheet
from vit_jax.use.predict import Picture, Predictor

NUM_FILTERS = 25
TILE = 14  # pixels of a filter or a grid of positions, at least


def draw_inside(predictor: Predictor, image: Picture | None = None) -> Image.Image:
    """The patch filters and positions of a model; and with a picture, the tokens of its patches.

    Args:
      predictor: of the model.
      image: a picture as for the predictor.

    Raises:
      InputError: if it is not a picture.
    """
    panels, title = {}, 'Inside the model'
    if image is not None:
        pixels = predictor.preprocess(image)
        title = title_of(predictor, pixels)
        grid = predictor.model.grid
        tokens = predictor.tokens([pixels])[0, predictor.model.num_prefix :]
        row, column = grid[0] // 2, grid[1] // 2
        similar = similarity(tokens)[row * grid[1] + column].reshape(grid)
        panels = {
            'picture': pixels,
            'patches: 3 components as colours': _scaled(
                components(tokens).reshape(*grid, 3), (0, 1)
            ),
            f'patches: similarity to that in row {row + 1}, column {column + 1}': _scaled(similar)[
                ..., None
            ],
        }
    panels['patch filters: components'] = _tiles(filters(predictor))
    if predictor.model.posemb != 'rope2d':
        similar = position_similarity(predictor)
        panels['positions: similarity to each other'] = _tiles(similar[..., None])
    images = np.stack([_fit(panel) for panel in panels.values()])
    return contact_sheet(images, [[caption] for caption in panels], 3, title)


def filters(predictor: Predictor) -> Float[np.ndarray, 'filters p1 p2 c']:
    """The principal components of the patch embedding's filters, largest first."""
    p1, p2 = pair(predictor.model.patch_size)
    kernel = np.asarray(predictor.variables['params']['to_patch_embedding']['kernel'])
    found, *_ = np.linalg.svd(kernel - kernel.mean(axis=1, keepdims=True), full_matrices=False)
    return rearrange(found[:, :NUM_FILTERS], '(p1 p2 c) f -> f p1 p2 c', p1=p1, p2=p2)


def position_similarity(predictor: Predictor) -> Float[np.ndarray, 'n rows columns']:
    """The cosine similarity of each patch's position embedding to those of all patches."""
    model = predictor.model
    learned = predictor.variables['params'].get('pos_embedding')
    positions = np.asarray(model.extras.positions(learned, model.grid, model.dim))
    similar = similarity(positions[0, model.num_prefix :])
    return similar.reshape(-1, *model.grid)


def similarity(tokens: Float[np.ndarray, 'n d']) -> Float[np.ndarray, 'n n']:
    """The cosine similarity of each token to each."""
    unit = tokens / np.maximum(np.linalg.norm(tokens, axis=-1, keepdims=True), 1e-12)
    return unit @ unit.T


def components(tokens: Float[np.ndarray, 'n d']) -> Float[np.ndarray, 'n 3']:
    """The first three principal components of tokens."""
    left, scale, _ = np.linalg.svd(tokens - tokens.mean(axis=0), full_matrices=False)
    found = (left * scale)[:, :3]
    return np.pad(found, ((0, 0), (0, 3 - found.shape[1])))


def _scaled(values: Float[np.ndarray, '*n'], axes: Any = None) -> UInt8[np.ndarray, '*n']:
    """Values from the smallest, 0, to the largest, 255; of all, or along axes."""
    low, high = (f(values, axis=axes, keepdims=True) for f in (np.min, np.max))
    return (255 * (values - low) / np.maximum(high - low, 1e-12)).astype(np.uint8)


def _tiles(tiles: Float[np.ndarray, 'n h w c']) -> UInt8[np.ndarray, 'hh ww c']:
    """Small images side by side on white, each from black to white."""
    factor = math.ceil(TILE / min(tiles.shape[1:3]))
    tiles = tiles.repeat(factor, 1).repeat(factor, 2)
    columns = math.ceil(len(tiles) ** 0.5)
    lines = (0, -len(tiles) % columns), (0, 1), (0, 1), (0, 0)
    framed = np.pad(_scaled(tiles, (1, 2, 3)), lines, constant_values=255)
    return rearrange(framed, '(r q) h w c -> (r h) (q w) c', q=columns)


def _fit(pixels: UInt8[np.ndarray, 'h w c']) -> UInt8[np.ndarray, 'side side 3']:
    """Resizes to a panel; few pixels stay squares."""
    coloured = Image.fromarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
    small = max(coloured.size) < SIDE
    method = Image.Resampling.NEAREST if small else Image.Resampling.BICUBIC
    return np.asarray(coloured.resize((2 * SIDE, 2 * SIDE), method))
