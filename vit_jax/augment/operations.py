"""The operations that AutoAugment and its successors choose from, as Pillow defines them.

Each is one of three things: an affine map of coordinates, a lookup table of pixel values, or a
blend with another version of the image (grey, smoothed). So any one operation costs one map, one
lookup and two blends, and one compiled program can apply a different operation to each image of a
batch.

Source: Pillow's Image, ImageOps, ImageEnhance and ImageFilter, matched down to the rounding.
Results may differ by one where Pillow's floats fall just short of a whole number (autocontrast,
blends), and where a map hits the border between two pixels. Names by Cubuk et al., "AutoAugment"
(https://arxiv.org/abs/1805.09501, table 6).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

Image = UInt8[Array, 'h w c']
Scalar = Float[Array, '']

OPERATIONS = (
    'identity',
    'shear_x',  # value: horizontal pixels per row
    'shear_y',
    'translate_x',  # pixels
    'translate_y',
    'rotate',  # degrees, counterclockwise
    'brightness',  # factor; 1 changes nothing
    'color',
    'contrast',
    'sharpness',
    'posterize',  # bits kept
    'solarize',  # threshold: values from here up are inverted
    'autocontrast',  # this one and the rest ignore the value
    'equalize',
    'invert',
)

FILL = 128  # grey, for pixels from outside the image


def apply_operation(image: Image, operation: Int[Array, ''], value: Scalar) -> Image:
    """Applies one of the OPERATIONS.

    Args:
      image: grey or RGB.
      operation: its index in OPERATIONS.
      value: see OPERATIONS.
    """
    image = warp(image, _affine_maps(value, *image.shape[:2])[operation])
    image = look_up(image, _tables(image, value)[operation])
    image = jnp.where(operation == OPERATIONS.index('color'), color(image, value), image)
    return jnp.where(operation == OPERATIONS.index('sharpness'), sharpness(image, value), image)


def warp(image: Image, coefficients: Float[Array, '6']) -> Image:
    """Takes each pixel (x, y) from (ax + by + c, dx + ey + f), with nearest-neighbour sampling.

    dm_pix.affine_transform does this too, but computes coordinates for every channel of every
    pixel, which takes four (32 pixels) to seven (224 pixels) times as long on CPUs.

    Args:
      coefficients: a, b, c, d, e, f, for coordinates of pixel centres: the first is (0.5, 0.5).
    """
    height, width, _ = image.shape
    y, x = jnp.mgrid[:height, :width] + 0.5
    a, b, c, d, e, f = coefficients
    column = jnp.floor(a * x + b * y + c).astype(jnp.int32)
    row = jnp.floor(d * x + e * y + f).astype(jnp.int32)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    return jnp.where(inside[..., None], image[row, column], jnp.uint8(FILL))


def look_up(image: Image, table: UInt8[Array, '256 c']) -> Image:
    """Replaces each value with its entry in its channel's table."""
    return jnp.take_along_axis(table, image.reshape(-1, image.shape[-1]), axis=0).reshape(
        image.shape
    )


def blend(other: Any, image: Any, factor: Scalar) -> UInt8[Array, '...']:
    """From `other` (factor 0) to the image (1) and beyond, clipped as in Pillow."""
    mixture = other + factor * (image - jnp.asarray(other, jnp.float32))
    return jnp.clip(mixture, 0, 255).astype(jnp.uint8)


def grey(image: Image) -> UInt8[Array, 'h w 1']:
    """ITU-R 601 luma, rounded."""
    if image.shape[-1] != 3:
        return image
    weights = jnp.array([19595, 38470, 7471], jnp.int32)  # of 2 ** 16
    return ((image @ weights + 2**15) >> 16).astype(jnp.uint8)[..., None]


def color(image: Image, factor: Scalar) -> Image:
    """From grey (factor 0) to the image (1) and more saturated (above 1)."""
    return blend(grey(image), image, factor)


def sharpness(image: Image, factor: Scalar) -> Image:
    """From smoothed (factor 0) to the image (1) and sharper (above 1); border pixels stay."""
    kernel = jnp.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], jnp.float32) / 13
    height, width, _ = image.shape
    padded = jnp.pad(image.astype(jnp.float32), ((1, 1), (1, 1), (0, 0)))
    sums = sum(
        kernel[i, j] * padded[i : i + height, j : j + width] for i in range(3) for j in range(3)
    )
    inner = jnp.zeros((height, width, 1), bool).at[1:-1, 1:-1].set(True)
    return blend(jnp.where(inner, jnp.floor(sums + 0.5), image), image, factor)


def gaussian_blur(image: Image, sigma: Scalar) -> Image:
    """Blurs by a Gaussian of up to 2 pixels, cut off at 6; the border is repeated outwards.

    Pillow approximates it by three box blurs.
    """
    weights = jax.nn.softmax(-((np.arange(-6, 7) / sigma) ** 2) / 2)
    blurred = image.astype(jnp.float32)
    for axis in range(2):
        padded = jnp.pad(blurred, [(6, 6) if i == axis else (0, 0) for i in range(3)], 'edge')
        shifted = [
            jax.lax.slice_in_dim(padded, i, i + image.shape[axis], axis=axis) for i in range(13)
        ]
        blurred = sum(weight * x for weight, x in zip(weights, shifted, strict=True))
    return jnp.round(blurred).astype(jnp.uint8)


def brightness_table(value: Scalar) -> UInt8[Array, '256']:
    """From black (factor 0) to the image (1) and brighter (above 1)."""
    return blend(jnp.zeros(256), _VALUES, value)


def contrast_table(image: Image, value: Scalar) -> UInt8[Array, '256']:
    """From the mean grey value (factor 0) to the image (1) and more contrast (above 1)."""
    total, number = grey(image).sum(dtype=jnp.uint32), image.shape[0] * image.shape[1]
    mean = (2 * total + number) // (2 * number)  # rounded; exact up to 8 megapixels
    return blend(jnp.full(256, mean), _VALUES, value)


_VALUES = np.arange(256, dtype=np.uint8)


def _tables(image: Image, value: Scalar) -> UInt8[Array, 'operations 256 c']:
    channels = image.shape[-1]
    bits = jnp.clip(jnp.round(value), 0, 8).astype(jnp.int32)
    counts = jax.vmap(lambda x: jnp.zeros(256, jnp.int32).at[x].add(1), 1)(
        image.reshape(-1, channels)
    )
    tables: dict[str, Any] = {
        'brightness': brightness_table(value),
        'contrast': contrast_table(image, value),
        'posterize': _VALUES & (-1 << (8 - bits)).astype(jnp.uint8),
        'solarize': jnp.where(value > _VALUES, _VALUES, 255 - _VALUES),
        'autocontrast': jax.vmap(_autocontrast_table, out_axes=1)(counts),
        'equalize': jax.vmap(_equalize_table, out_axes=1)(counts),
        'invert': 255 - _VALUES,
    }
    shape = (256, channels)
    return jnp.stack(
        [
            jnp.broadcast_to(x if x.ndim == 2 else x[:, None], shape)
            for x in (tables.get(name, _VALUES) for name in OPERATIONS)
        ]
    )


def _autocontrast_table(counts: Int[Array, '256']) -> UInt8[Array, '256']:
    """Stretches the range of values to 0 … 255."""
    low, high = jnp.argmax(counts > 0), 255 - jnp.argmax(counts[::-1] > 0)
    stretched = (_VALUES.astype(jnp.int32) - low) * 255 // jnp.maximum(high - low, 1)
    return jnp.where(high > low, jnp.clip(stretched, 0, 255).astype(jnp.uint8), _VALUES)


def _equalize_table(counts: Int[Array, '256']) -> UInt8[Array, '256']:
    """Spreads the values evenly over 0 … 255."""
    last = counts[255 - jnp.argmax(counts[::-1] > 0)]
    step = (counts.sum() - last) // 255
    below = jnp.cumsum(counts) - counts
    spread = jnp.clip((step // 2 + below) // jnp.maximum(step, 1), 0, 255).astype(jnp.uint8)
    return jnp.where(step > 0, spread, _VALUES)


def _affine_maps(value: Scalar, height: int, width: int) -> Float[Array, 'operations 6']:
    angle = -jnp.deg2rad(value)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    centre_x, centre_y = width / 2, height / 2
    identity = (1, 0, 0, 0, 1, 0)
    maps: dict[str, Any] = {
        'shear_x': (1, value, 0, 0, 1, 0),
        'shear_y': (1, 0, 0, value, 1, 0),
        'translate_x': (1, 0, value, 0, 1, 0),
        'translate_y': (1, 0, 0, 0, 1, value),
        'rotate': (
            cos,
            sin,
            centre_x - cos * centre_x - sin * centre_y,
            -sin,
            cos,
            centre_y + sin * centre_x - cos * centre_y,
        ),
    }
    rows = [jnp.stack(jnp.broadcast_arrays(*maps.get(name, identity))) for name in OPERATIONS]
    return jnp.stack([row.astype(jnp.float32) for row in rows])
