"""What a model looks at: its attention to the patches, over the picture and as numbers."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from vit_jax.model.shapes import pair
from vit_jax.use.contact_sheet import contact_sheet
from vit_jax.use.predict import Picture, Predictor

SIDE = 224  # pixels of a panel, at least
PALE, MOST_OPAQUE = 0.7, 0.8  # of the picture without attention, and of the colours over it


def patch_attention(
    attention: Float32[np.ndarray, '*l n n'], model: Any, size: tuple[int, int] | None = None
) -> Float32[np.ndarray, '*l rows columns']:
    """How much of the attention to the patches each patch gets; sums to 1.

    The attention is that of the cls token, or the mean of all patches' if the model has none.

    Args:
      attention: weights, the prefix tokens first.
      model: the `vit_jax.ViT`.
      size: (height, width) of the images in pixels; None for the model's.
    """
    height, width = size or pair(model.image_size)
    p1, p2 = pair(model.patch_size)
    first = model.num_prefix
    row = attention[..., 0, :] if model.class_token else attention[..., first:, :].mean(axis=-2)
    patches = row[..., first:]
    patches = patches / patches.sum(axis=-1, keepdims=True)
    return patches.reshape(*patches.shape[:-1], height // p1, width // p2)


def rollout(attention: Float32[np.ndarray, '*b l h n n']) -> Float32[np.ndarray, '*b n n']:
    """How much of each input token is in each output token, if layers only mixed tokens.

    A layer mixes by the mean of its heads, and half of it is the residual connection:
    A_l ⋯ A_2 A_1 with A = (mean of heads + I) / 2.

    Reference: https://arxiv.org/abs/2005.00928
    """
    mixing = (attention.mean(axis=-3) + np.eye(attention.shape[-1], dtype=np.float32)) / 2
    rolled = mixing[..., 0, :, :]
    for layer in range(1, mixing.shape[-3]):
        rolled = mixing[..., layer, :, :] @ rolled
    return rolled


def draw_attention(
    predictor: Predictor, image: Picture, layers: Iterable[int]
) -> list[Image.Image]:
    """Where layers look: a sheet for each, with the rollout, the mean of its heads and each head.

    The more attention a patch gets, the brighter its colour: see `highlight`.

    Args:
      predictor: of the model.
      image: a picture as for the predictor.
      layers: counted from 0; the rollout is that of the layers up to each.

    Raises:
      InputError: if it is not a picture.
    """
    pixels = predictor.pixels(image)
    ((name, probability),) = predictor.top_k([pixels], 1)[0]
    (attention,) = predictor.attention([pixels])
    sheets = []
    for layer in layers:
        heads = attention[layer]
        weights = np.stack([rollout(attention[: layer + 1]), heads.mean(axis=0), *heads])
        maps = patch_attention(weights, predictor.model)
        captions = [
            ['picture'],
            [f'rollout of layers 1 to {layer + 1}'],
            [f'layer {layer + 1}: mean of heads'],
            *([f'head {i + 1}'] for i in range(len(heads))),
        ]
        shown = enlarge(pixels)
        panels = np.stack([shown, *(highlight(shown, weights) for weights in maps)])
        title = f'{name} {probability:.1%}; layer {layer + 1} of {len(attention)}'
        sheets.append(contact_sheet(panels, captions, math.ceil(len(panels) ** 0.5), title))
    return sheets


def enlarge(pixels: UInt8[np.ndarray, 'h w c']) -> UInt8[np.ndarray, 'hh ww 3']:
    """Pixels in RGB, of at least 224 on the shorter side; those of a small picture stay square."""
    height, width, _ = pixels.shape
    factor = max(1, math.ceil(SIDE / min(height, width)))
    return np.broadcast_to(pixels, (height, width, 3)).repeat(factor, 0).repeat(factor, 1)


def highlight(
    pixels: UInt8[np.ndarray, 'h w 3'], weights: Float32[np.ndarray, 'rows columns']
) -> UInt8[np.ndarray, 'h w 3']:
    """Lays the weights over a picture, which turns grey: from dark where they are 0 to yellow."""
    from matplotlib import colormaps

    height, width, _ = pixels.shape
    shares = Image.fromarray(weights / weights.max())
    share = np.asarray(shares.resize((width, height), Image.Resampling.BICUBIC)).clip(0, 1)
    colours = 255 * colormaps['inferno'](share)[..., :3]
    grey = pixels.mean(axis=-1, keepdims=True)
    opacity = MOST_OPAQUE * share[..., None] ** 0.5
    return (opacity * colours + (1 - opacity) * PALE * grey).astype(np.uint8)
