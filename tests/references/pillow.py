"""Pillow's operations under AutoAugment's names, and pictures to test them on."""

import functools

import numpy as np
from PIL import Image, ImageEnhance, ImageOps
from sklearn.datasets import load_sample_image

ENHANCERS = {
    'brightness': ImageEnhance.Brightness,
    'color': ImageEnhance.Color,
    'contrast': ImageEnhance.Contrast,
    'sharpness': ImageEnhance.Sharpness,
}


@functools.cache
def picture(name):
    rng = np.random.default_rng(0)
    if name.startswith('photo'):
        photo = Image.fromarray(load_sample_image('china.jpg')).resize((64, 48))
    else:
        photo = Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8))
    return pixels(photo.convert('L') if name.endswith('grey') else photo)


def pillow(image):
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def pixels(image):
    return np.asarray(image).reshape(image.height, image.width, -1)


def by_pillow(image, name, value):
    image, fill = pillow(image), 128 if image.shape[-1] == 1 else (128, 128, 128)

    def affine(*coefficients):
        affine, nearest = Image.Transform.AFFINE, Image.Resampling.NEAREST
        return image.transform(image.size, affine, coefficients, nearest, fillcolor=fill)

    if name in ENHANCERS:
        return pixels(ENHANCERS[name](image).enhance(value))
    functions = {
        'identity': lambda: image,
        'shear_x': lambda: affine(1, value, 0, 0, 1, 0),
        'shear_y': lambda: affine(1, 0, 0, value, 1, 0),
        'translate_x': lambda: affine(1, 0, value, 0, 1, 0),
        'translate_y': lambda: affine(1, 0, 0, 0, 1, value),
        'rotate': lambda: image.rotate(value, fillcolor=fill),
        'posterize': lambda: (
            ImageOps.posterize(image, int(value)) if value else image.point(lambda _: 0)
        ),  # Pillow rejects 0 bits
        'solarize': lambda: ImageOps.solarize(image, value),
        'autocontrast': lambda: ImageOps.autocontrast(image),
        'equalize': lambda: ImageOps.equalize(image),
        'invert': lambda: ImageOps.invert(image),
    }
    return pixels(functions[name]())
