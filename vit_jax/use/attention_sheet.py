"""Where a model looks, over the picture."""

import math
from collections.abc import Iterable

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from vit_jax.use.attention import patch_attention, rollout
from vit_jax.use.contact_sheet import contact_sheet
from vit_jax.use.predict import Picture, Predictor

SIDE = 224  # pixels of a panel, at least
PALE, MOST_OPAQUE = 0.7, 0.8  # of the picture without attention, and of the colours over it


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
    pixels = predictor.preprocess(image)
    (attention,) = predictor.attention([pixels])
    shown, sheets = enlarge(pixels), []
    answer = title_of(predictor, pixels)
    reader = 'the cls token' if predictor.model.class_token else 'the mean patch'
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
        panels = np.stack([shown, *(highlight(shown, weights) for weights in maps)])
        title = f'{answer}; what {reader} attends to in layer {layer + 1} of {len(attention)}'
        sheets.append(contact_sheet(panels, captions, math.ceil(len(panels) ** 0.5), title))
    return sheets


def title_of(predictor: Predictor, pixels: UInt8[np.ndarray, 'h w c']) -> str:
    """The likeliest class of a preprocessed picture; of a backbone, that there is none."""
    if not predictor.model.num_classes:
        return 'a backbone'
    ((name, probability),) = predictor.top_k([pixels], 1)[0]
    return f'{name} {probability:.1%}'


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
