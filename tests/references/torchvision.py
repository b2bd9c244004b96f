"""torchvision's RandomResizedCrop, drawn by NumPy."""

import math

import numpy as np


def torchvision_crop(rng, height, width, min_area):
    """RandomResizedCrop.get_params: top, left, height and width."""
    for _ in range(10):
        area = height * width * rng.uniform(min_area, 1)
        aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w = round(math.sqrt(area * aspect))
        h = round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return rng.integers(height - h + 1), rng.integers(width - w + 1), h, w
    return torchvision_central_crop(height, width)


def torchvision_central_crop(height, width):
    if width / height < 3 / 4:
        w, h = width, round(width / (3 / 4))
    elif width / height > 4 / 3:
        w, h = round(height * (4 / 3)), height
    else:
        w, h = width, height
    return (height - h) // 2, (width - w) // 2, h, w


def is_central_crop(h, w, height, width):
    """Which boxes have the size of the fallback; an attempt that fits hardly ever has it."""
    return ((h, w) == np.array(torchvision_central_crop(height, width)[2:])[:, None]).all(axis=0)
