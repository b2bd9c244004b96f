"""Augmentation inside the compiled step, each example with its own key.

A key belongs to one example at one step, so the random numbers do not depend on how the batch is
split over devices.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import dm_pix
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, UInt8

from vit_jax.augment.mix import mix, rectangle
from vit_jax.augment.operations import brightness_table, color, contrast_table, look_up
from vit_jax.augment.policies import autoaugment, randaugment, threeaugment, trivialaugment
from vit_jax.data.crop import ATTEMPTS, choose_crop
from vit_jax.errors import InputError

Image = UInt8[Array, 'h w c']

POLICIES = ('none', 'randaugment', 'autoaugment', 'trivialaugment', 'threeaugment')
ERASED_AREA = (0.02, 1 / 3)  # fraction of the image
ERASED_ASPECT = 3.3


def augment(
    images: UInt8[Array, 'b h w c'],
    labels: Int[Array, 'b'] | UInt8[Array, 'b num_classes'],
    keys: Key[Array, 'b'],
    *,
    num_classes: int,
    random_resized_crop: float,
    pad_and_crop: int,
    horizontal_flip: bool,
    color_jitter: tuple[float, float, float, float],
    policy: str,
    num_ops: int,
    magnitude: float,
    erasing_prob: float,
    mixup_alpha: float,
    cutmix_alpha: float,
    mix_prob: float,
    mix_switch_prob: float,
    label_smoothing: float,
    axis_name: str | None = None,
) -> tuple[UInt8[Array, 'b h w c'], Float[Array, 'b num_classes']]:
    """Augments a batch, in the order of the arguments.

    Args:
      images: pixels 0 to 255.
      labels: classes, 0 to num_classes - 1; or, multi-label, 1 for each class of an example.
      keys: one per example.
      num_classes: of the data set.
      random_resized_crop: smallest fraction of the image's area that is cropped and resized back to
        the original size; 0 for none.
      pad_and_crop: pixels of black padding on each side before a crop of the original size.
      horizontal_flip: mirror each image left to right with probability 1/2.
      color_jitter: largest change of brightness, contrast and saturation (factors 1 ± x), and of
        hue (± x turns of the colour wheel, up to 0.5).
      policy: 'none', 'randaugment', 'autoaugment' (the CIFAR-10 policy), 'trivialaugment' or
        'threeaugment'.
      num_ops, magnitude: of randaugment.
      erasing_prob: probability of replacing a rectangle with noise.
      mixup_alpha, cutmix_alpha, mix_prob, mix_switch_prob: see `vit_jax.augment.mix.mix`.
      label_smoothing: a in [0, 1): a target t becomes (1 - a) t + a / num_classes.
      axis_name: of the mapped axis over the devices that share the batch, under pmap.

    Returns:
      The images, and for each a target: a distribution over the classes; multi-label, the share of
      the image that has each class.

    Raises:
      InputError: if the policy is unknown, the colour jitter is out of range, or the padding is
        larger than the image.
    """
    check_augmentation(policy, color_jitter)
    if pad_and_crop > min(images.shape[1:3]):
        raise InputError(
            f'augment.pad_and_crop: expected at most the {min(images.shape[1:3])} pixels of an '
            f'image, got {pad_and_crop}'
        )
    operate: dict[str, Callable[[Image, jax.Array], Image]] = {
        'randaugment': partial(randaugment, num_ops=num_ops, magnitude=magnitude),
        'autoaugment': autoaugment,
        'trivialaugment': trivialaugment,
        'threeaugment': threeaugment,
    }

    def augment_one(image: Image, key: jax.Array) -> Image:
        crop_key, pad_key, flip_key, jitter_key, policy_key, erase_key = jax.random.split(key, 6)
        if random_resized_crop:
            image = _random_resized_crop(image, crop_key, random_resized_crop)
        if pad_and_crop:
            image = _pad_and_crop(image, pad_key, pad_and_crop)
        if horizontal_flip:
            image = _flip(image, flip_key)
        if any(color_jitter):
            image = _color_jitter(image, jitter_key, *color_jitter)
        if policy != 'none':
            image = operate[policy](image, policy_key)
        if erasing_prob:
            image = _erase(image, erase_key, erasing_prob)
        return image

    keys, mix_keys = jnp.unstack(jax.vmap(jax.random.split)(keys), axis=1)
    images = jax.vmap(augment_one)(images, keys)
    targets = jax.nn.one_hot(labels, num_classes) if labels.ndim == 1 else jnp.float32(labels)
    if (mixup_alpha or cutmix_alpha) and mix_prob:
        images, targets = mix(
            images,
            targets,
            mix_keys,
            mixup_alpha=mixup_alpha,
            cutmix_alpha=cutmix_alpha,
            prob=mix_prob,
            switch_prob=mix_switch_prob,
            axis_name=axis_name,
        )
    return images, optax.smooth_labels(targets, label_smoothing)


def check_augmentation(policy: Any, color_jitter: Any) -> None:
    """Validates the options that are not plain numbers.

    Raises:
      InputError: see `augment`.
    """
    if policy not in POLICIES:
        raise InputError(f'augment.policy: expected one of {", ".join(POLICIES)}, got {policy!r}')
    if (
        len(color_jitter) != 4
        or not all(isinstance(x, int | float) and 0 <= x <= 1 for x in color_jitter)
        or color_jitter[3] > 0.5
    ):
        raise InputError(
            f'augment.color_jitter: expected (brightness, contrast, saturation, hue), each 0 to 1 '
            f'and hue at most 0.5, got {color_jitter}'
        )


def _random_resized_crop(image: Image, key: jax.Array, min_area: float) -> Image:
    height, width, _ = image.shape
    uniform = jax.random.uniform(key, (2 * ATTEMPTS + 2,))
    part = choose_crop(uniform, height, width, min_area).astype(jnp.float32)
    corner, size = part[:2], part[2:]
    scale = jnp.array([height, width]) / size
    resized = jax.image.scale_and_translate(
        image.astype(jnp.float32), image.shape, (0, 1), scale, -corner * scale, 'linear'
    )
    return _to_pixels(resized)


def _pad_and_crop(image: Image, key: jax.Array, pad: int) -> Image:
    padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    top, left = jax.random.randint(key, (2,), 0, 2 * pad + 1)
    return jax.lax.dynamic_slice(padded, (top, left, 0), image.shape)


def _flip(image: Image, key: jax.Array) -> Image:
    return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def _color_jitter(
    image: Image, key: jax.Array, brightness: float, contrast: float, saturation: float, hue: float
) -> Image:
    """torchvision's ColorJitter, always in this order."""
    draws = jax.random.uniform(key, (4,), minval=-1.0)
    factors = 1 + draws[:3] * jnp.array([brightness, contrast, saturation])
    image = look_up(image, _every_channel(brightness_table(factors[0]), image))
    image = look_up(image, _every_channel(contrast_table(image, factors[1]), image))
    image = color(image, factors[2])
    if hue and image.shape[-1] == 3:
        image = _to_pixels(255 * dm_pix.adjust_hue(image / jnp.float32(255), hue * draws[3]))
    return image


def _every_channel(table: UInt8[Array, '256'], image: Image) -> UInt8[Array, '256 c']:
    return jnp.broadcast_to(table[:, None], (256, image.shape[-1]))


def _erase(image: Image, key: jax.Array, prob: float) -> Image:
    """Random Erasing with uniform noise, the best variant in https://arxiv.org/abs/1708.04896.

    A rectangle longer than the image is clipped; the paper draws another instead.
    """
    height, width, _ = image.shape
    use_key, box_key, noise_key = jax.random.split(key, 3)
    area, aspect, y, x = jax.random.uniform(box_key, (4,))
    area = (ERASED_AREA[0] + area * (ERASED_AREA[1] - ERASED_AREA[0])) * height * width
    aspect = jnp.exp((2 * aspect - 1) * jnp.log(ERASED_ASPECT))
    size = jnp.stack([jnp.sqrt(area * aspect), jnp.sqrt(area / aspect)])
    size = jnp.clip(jnp.round(size), 1, jnp.array([height, width]))
    corner = jnp.floor(jnp.stack([y, x]) * (jnp.array([height, width]) - size + 1))
    erased = rectangle(image, corner, size) & jax.random.bernoulli(use_key, prob)
    noise = jax.random.bits(noise_key, image.shape, jnp.uint8)
    return jnp.where(erased[..., None], noise, image)


def _to_pixels(values: Float[Array, 'h w c']) -> Image:
    return jnp.clip(jnp.round(values), 0, 255).astype(jnp.uint8)
