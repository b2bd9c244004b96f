"""Augmentation policies: RandAugment, AutoAugment's for CIFAR-10, TrivialAugment, 3-Augment.

The strongest values are torchvision's. Unlike in the authors' code (and big_vision's), the sign is
random for brightness, colour, contrast and sharpness too, and a larger magnitude solarises more,
not less.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

from vit_jax.augment.operations import OPERATIONS, apply_operation, gaussian_blur, grey

Image = UInt8[Array, 'h w c']

NUM_WITHOUT_INVERT = OPERATIONS.index('invert')  # RandAugment and TrivialAugment stop before it
SIGNED = slice(OPERATIONS.index('shear_x'), OPERATIONS.index('posterize'))

# By operation: the neutral value, and the strongest change from it.
SPANS = {
    'shear_x': (0.0, 0.3),
    'shear_y': (0.0, 0.3),
    'translate_x': (0.0, 150 / 331),  # fraction of the side
    'translate_y': (0.0, 150 / 331),
    'rotate': (0.0, 30.0),
    'brightness': (1.0, 0.9),
    'color': (1.0, 0.9),
    'contrast': (1.0, 0.9),
    'sharpness': (1.0, 0.9),
    'posterize': (8.0, -4.0),
    'solarize': (256.0, -256.0),
}
WIDE_SPANS = {
    'shear_x': (0.0, 0.99),
    'shear_y': (0.0, 0.99),
    'translate_x': (0.0, 1.0),  # CIFAR: 32 of 32 pixels
    'translate_y': (0.0, 1.0),
    'rotate': (0.0, 135.0),
    'brightness': (1.0, 0.99),
    'color': (1.0, 0.99),
    'contrast': (1.0, 0.99),
    'sharpness': (1.0, 0.99),
    'posterize': (8.0, -6.0),
    'solarize': (256.0, -256.0),
}

# Pairs of (operation, probability, level from 0 to 9).
CIFAR_POLICY = (
    (('invert', 0.1, 0), ('contrast', 0.2, 6)),
    (('rotate', 0.7, 2), ('translate_x', 0.3, 9)),
    (('sharpness', 0.8, 1), ('sharpness', 0.9, 3)),
    (('shear_y', 0.5, 8), ('translate_y', 0.7, 9)),
    (('autocontrast', 0.5, 0), ('equalize', 0.9, 0)),
    (('shear_y', 0.2, 7), ('posterize', 0.3, 7)),
    (('color', 0.4, 3), ('brightness', 0.6, 7)),
    (('sharpness', 0.3, 9), ('brightness', 0.7, 9)),
    (('equalize', 0.6, 0), ('equalize', 0.5, 0)),
    (('contrast', 0.6, 7), ('sharpness', 0.6, 5)),
    (('color', 0.7, 7), ('translate_x', 0.5, 8)),
    (('equalize', 0.3, 0), ('autocontrast', 0.4, 0)),
    (('translate_y', 0.4, 3), ('sharpness', 0.2, 6)),
    (('brightness', 0.9, 6), ('color', 0.2, 8)),
    (('solarize', 0.5, 2), ('invert', 0.0, 0)),
    (('equalize', 0.2, 0), ('autocontrast', 0.6, 0)),
    (('equalize', 0.2, 0), ('equalize', 0.6, 0)),
    (('color', 0.9, 9), ('equalize', 0.6, 0)),
    (('autocontrast', 0.8, 0), ('solarize', 0.2, 8)),
    (('brightness', 0.1, 3), ('color', 0.7, 0)),
    (('solarize', 0.4, 5), ('autocontrast', 0.9, 0)),
    (('translate_y', 0.9, 9), ('translate_y', 0.7, 9)),
    (('autocontrast', 0.9, 0), ('solarize', 0.8, 3)),
    (('equalize', 0.8, 0), ('invert', 0.1, 0)),
    (('translate_y', 0.7, 9), ('autocontrast', 0.9, 0)),
)


def randaugment(image: Image, key: jax.Array, *, num_ops: int, magnitude: float) -> Image:
    """Random operations of one fixed strength.

    Args:
      num_ops: number of operations, applied in sequence.
      magnitude: 0 (none) to 10 (strongest).

    Source: Cubuk et al., https://arxiv.org/abs/1909.13719.
    """
    for op_key in jax.random.split(key, num_ops):
        choice_key, sign_key = jax.random.split(op_key)
        operation = jax.random.randint(choice_key, (), 0, NUM_WITHOUT_INVERT)
        image = _apply(image, sign_key, operation, magnitude / 10, SPANS)
    return image


def trivialaugment(image: Image, key: jax.Array) -> Image:
    """One random operation of random strength, up to very strong.

    Source: Müller and Hutter, https://arxiv.org/abs/2103.10158, with its "wide" ranges.
    """
    choice_key, level_key, sign_key = jax.random.split(key, 3)
    operation = jax.random.randint(choice_key, (), 0, NUM_WITHOUT_INVERT)
    level = jax.random.randint(level_key, (), 0, 31) / 30
    return _apply(image, sign_key, operation, level, WIDE_SPANS)


def autoaugment(image: Image, key: jax.Array) -> Image:
    """A random one of the 25 pairs of operations found for CIFAR-10.

    Source: Cubuk et al., https://arxiv.org/abs/1805.09501, table 7.
    """
    choice_key, *op_keys = jax.random.split(key, 3)
    pair = jax.random.randint(choice_key, (), 0, len(CIFAR_POLICY))
    for i, op_key in enumerate(op_keys):
        names, probabilities, levels = zip(*(ops[i] for ops in CIFAR_POLICY), strict=True)
        use_key, sign_key = jax.random.split(op_key)
        operation = jnp.array([OPERATIONS.index(name) for name in names])[pair]
        use = jax.random.bernoulli(use_key, jnp.array(probabilities)[pair])
        level = jnp.array(levels)[pair] / 9
        image = _apply(image, sign_key, jnp.where(use, operation, 0), level, SPANS)
    return image


def threeaugment(image: Image, key: jax.Array) -> Image:
    """One of three at random: grey, solarised (values from 128 up inverted), or blurred.

    Source: 3-Augment of "DeiT III" (https://arxiv.org/abs/2204.07118), whose colour jitter follows
    it; `color_jitter` comes before.
    """
    choice_key, sigma_key = jax.random.split(key)
    solarized = jnp.where(image < 128, image, 255 - image)
    blurred = gaussian_blur(image, jax.random.uniform(sigma_key, minval=0.1, maxval=2.0))
    choices = jnp.broadcast_to(grey(image), image.shape), solarized, blurred
    return jax.lax.select_n(jax.random.randint(choice_key, (), 0, len(choices)), *choices)


def _apply(
    image: Image,
    key: jax.Array,
    operation: Int[Array, ''],
    level: float | Float[Array, ''],
    spans: dict[str, tuple[float, float]],
) -> Image:
    """Applies an operation with a strength of 0 to 1, and a random sign if it is in SIGNED."""
    neutral, strongest = jnp.array([spans.get(name, (0.0, 0.0)) for name in OPERATIONS]).T
    signed = jnp.zeros(len(OPERATIONS), bool).at[SIGNED].set(True)
    sides = jnp.ones(len(OPERATIONS))
    sides = sides.at[OPERATIONS.index('translate_x')].set(image.shape[1])
    sides = sides.at[OPERATIONS.index('translate_y')].set(image.shape[0])
    sign = jnp.where(signed[operation] & jax.random.bernoulli(key), -1, 1)
    value = neutral + sign * level * strongest * sides
    return apply_operation(image, operation, value[operation])
