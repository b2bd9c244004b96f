"""`vit_jax`'s own training step around any linen module, on random pictures."""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from vit_jax.model.vit import ViT
from vit_jax.parallel.parallel import create_parallel
from vit_jax.train.step import create_state, train_step


def normalize(images: jax.Array) -> jax.Array:
    return images / jnp.float32(127.5) - 1


def create_training(
    model: nn.Module,
    image_size: int,
    num_classes: int,
    batch_size: int,
    devices: Sequence[jax.Device] | None = None,
) -> tuple[Any, tuple[Any, ...]]:
    """The jitted step with AdamW over all devices, which donates its state; and its arguments."""
    rng = np.random.default_rng(0)
    parallel = create_parallel('jit', batch_size, devices)
    batch = {
        'image': rng.integers(0, 256, (batch_size, image_size, image_size, 3), np.uint8),
        'label': rng.integers(0, num_classes, batch_size, np.int32),
        'position': np.arange(batch_size, dtype=np.int32),
    }
    key = jax.random.key(0)
    create, step = _functions(model, num_classes)
    state = jax.jit(create)(key, jnp.zeros((1, image_size, image_size, 3)))
    return parallel.train_step(step), (parallel.spread(state), parallel.put_batch(batch), key)


def abstract_training(model: ViT, batch_size: int) -> tuple[Any, tuple[Any, ...]]:
    """The jitted step and its arguments' shapes, to be lowered and compiled without memory."""
    size = model.image_size
    batch = {
        'image': jax.ShapeDtypeStruct((batch_size, size, size, model.channels), np.uint8),
        'label': jax.ShapeDtypeStruct((batch_size,), np.int32),
        'position': jax.ShapeDtypeStruct((batch_size,), np.int32),
    }
    key = jax.random.key(0)
    create, step = _functions(model, model.num_classes)
    state = jax.eval_shape(
        create, key, jax.ShapeDtypeStruct((1, size, size, model.channels), np.float32)
    )
    return jax.jit(step, donate_argnums=0), (state, batch, key)


def _functions(model: nn.Module, num_classes: int) -> tuple[Any, Any]:
    def augment(
        images: jax.Array, labels: jax.Array, keys: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        return images, jax.nn.one_hot(labels, num_classes)

    parts: dict[str, Any] = dict(model=model, optimizer=optax.adamw(1e-3))
    step = functools.partial(train_step, augment=augment, normalize=normalize, **parts)
    return functools.partial(create_state, **parts), step
