"""The training step of `vit_jax` around any linen module, on random images."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from vit_jax.model.vit import ViT
from vit_jax.parallel.parallel import Jit, create_parallel
from vit_jax.train.step import Learner


def normalize(images: jax.Array) -> jax.Array:
    return images / jnp.float32(127.5) - 1


def create_training(
    model: nn.Module,
    image_size: int,
    num_classes: int,
    batch_size: int,
    devices: Sequence[jax.Device] | None = None,
) -> tuple[Any, tuple[Any, ...]]:
    """The jitted step with AdamW over all devices, which donates its state; and its arguments.

    Args:
      model: any linen module with the call signature of `vit_jax.ViT`.
      image_size: pixels, of square images.
      num_classes: of the random labels.
      batch_size: over all devices.
      devices: to run on; None for all.
    """
    rng = np.random.default_rng(0)
    parallel = create_parallel('jit', batch_size, devices)
    batch = {
        'image': rng.integers(0, 256, (batch_size, image_size, image_size, 3), np.uint8),
        'label': rng.integers(0, num_classes, batch_size, np.int32),
        'position': np.arange(batch_size, dtype=np.int32),
    }
    key = jax.random.key(0)
    learner = Learner(model, normalize, optimizer=optax.adamw(1e-3))
    state = jax.jit(learner.init)(key, jnp.zeros((1, image_size, image_size, 3)))
    return parallel.train_step(learner.train_step), (
        parallel.spread(state),
        parallel.put_batch(batch),
        key,
    )


def abstract_training(
    model: ViT, batch_size: int, parallel: Jit | None = None
) -> tuple[Any, tuple[Any, ...]]:
    """The jitted step and the shapes of its arguments, to compile it without allocating arrays.

    Args:
      parallel: devices to compile for; None for one of those at hand.
    """
    size = model.image_size
    batch = {
        'image': jax.ShapeDtypeStruct((batch_size, size, size, model.channels), np.uint8),
        'label': jax.ShapeDtypeStruct((batch_size,), np.int32),
        'position': jax.ShapeDtypeStruct((batch_size,), np.int32),
    }
    key = jax.random.key(0)
    learner = Learner(model, normalize, optimizer=optax.adamw(1e-3))
    images = jax.ShapeDtypeStruct((1, size, size, model.channels), np.float32)
    state = jax.eval_shape(learner.init, key, images)
    if parallel is None:
        return jax.jit(learner.train_step, donate_argnums=0), (state, batch, key)
    learner = dataclasses.replace(learner, place_gradients=parallel.place_gradients)

    def put(tree: Any, sharding: Any) -> Any:
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
        )

    arguments = parallel.placed(state), put(batch, parallel.sharded), put(key, parallel.replicated)
    return parallel.train_step(learner.train_step), arguments
