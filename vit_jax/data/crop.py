"""The part of a picture that a random-resized-crop takes, on the host and on devices alike.

Source: Szegedy et al., "Going deeper with convolutions" (https://arxiv.org/abs/1409.4842), as in
torchvision's RandomResizedCrop, except that a side that rounds to 0 is one pixel here.
"""

import math
from typing import Any

ATTEMPTS = 10
MAX_ASPECT = 4 / 3


def choose_crop(uniform: Any, height: int, width: int, min_area: float) -> Any:
    """A part of random area, aspect ratio and position.

    Areas are uniform from `min_area` to the whole picture, aspect ratios log-uniform from 3/4 to
    4/3. The first of ten attempts that fits is taken; if none fits, the largest centred part with
    an aspect ratio in that range.

    Args:
      uniform: floats [2 * ATTEMPTS + 2], uniform in [0, 1), of NumPy or JAX, which then also does
        the arithmetic.
      height, width: of the picture, pixels.
      min_area: smallest fraction of its area, (0, 1].

    Returns:
      int [4]: top, left, height, width.
    """
    xp = uniform.__array_namespace__()
    areas = (min_area + (1 - min_area) * uniform[:ATTEMPTS]) * (height * width)
    aspects = xp.exp((2 * uniform[ATTEMPTS : 2 * ATTEMPTS] - 1) * math.log(MAX_ASPECT))
    # The central crop comes last: it always fits.
    central = xp.asarray(
        [min(height, round(width * MAX_ASPECT)), min(width, round(height * MAX_ASPECT))],
        dtype=uniform.dtype,
    )
    heights = xp.concat([xp.round(xp.sqrt(areas / aspects)), central[:1]])
    widths = xp.concat([xp.round(xp.sqrt(areas * aspects)), central[1:]])
    first = xp.argmax((heights <= height) & (widths <= width))
    size = xp.maximum(xp.stack([heights[first], widths[first]]), 1)
    rest = xp.asarray([height, width], dtype=uniform.dtype) - size
    corner = xp.floor(xp.where(first < ATTEMPTS, uniform[-2:] * (rest + 1), rest / 2))
    return xp.astype(xp.concat([corner, size]), xp.int32)
