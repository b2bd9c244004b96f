"""Augmentation inside the compiled step, each example with its own key.

A key belongs to one example at one step and nothing else, so that what is drawn does not depend
on how the batch is spread over devices.
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, UInt8


def augment(
    images: UInt8[Array, 'b h w c'],
    labels: Int[Array, 'b'],
    keys: Key[Array, 'b'],
    *,
    num_classes: int,
    horizontal_flip: bool,
    pad_and_crop: int,
    label_smoothing: float,
) -> tuple[UInt8[Array, 'b h w c'], Float[Array, 'b num_classes']]:
    """Augments a batch.

    Args:
      images: pixels 0 to 255.
      labels: classes, 0 to num_classes - 1.
      keys: one for each example.
      num_classes: of the data set.
      horizontal_flip: mirror each image left to right with probability 1/2.
      pad_and_crop: pixels of black added on each side before a window of the old size is cut out.
      label_smoothing: probability spread evenly over all classes, [0, 1).

    Returns:
      The images, and the targets: a distribution over the classes for each.
    """

    def augment_one(image: jax.Array, key: jax.Array) -> jax.Array:
        flip_key, crop_key = jax.random.split(key)
        if horizontal_flip:
            image = _flip(image, flip_key)
        if pad_and_crop:
            image = _pad_and_crop(image, crop_key, pad_and_crop)
        return image

    images = jax.vmap(augment_one)(images, keys)
    targets = optax.smooth_labels(jax.nn.one_hot(labels, num_classes), label_smoothing)
    return images, targets


def _flip(image: UInt8[Array, 'h w c'], key: jax.Array) -> UInt8[Array, 'h w c']:
    return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def _pad_and_crop(image: UInt8[Array, 'h w c'], key: jax.Array, pad: int) -> UInt8[Array, 'h w c']:
    padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    top, left = jax.random.randint(key, (2,), 0, 2 * pad + 1)
    return jax.lax.dynamic_slice(padded, (top, left, 0), image.shape)
