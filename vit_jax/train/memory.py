"""The memory that training a ViT takes."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vit_jax.model.shapes import pair
from vit_jax.model.vit import ViT
from vit_jax.train.step import Learner


class Memory(NamedTuple):
    """Bytes on one device.

    Args:
      state: parameters and AdamW's two moments, which stay.
      step: what a training step needs in addition: batch, activations, gradients.
    """

    state: int
    step: int


def training_memory(model: ViT, batch_size: int) -> Memory:
    """The memory of a training step with AdamW, as XLA plans it for the device at hand.

    Compiles the step but allocates nothing. The framework itself and the data set are not included.

    Args:
      batch_size: images of `image_size` per device.
    """
    images = jax.ShapeDtypeStruct((batch_size, *pair(model.image_size), model.channels), np.float32)
    labels = jax.ShapeDtypeStruct((batch_size,), np.int32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    learner = Learner(model, jnp.asarray, optimizer=optax.adamw(1e-3))
    state = jax.eval_shape(learner.init, key, images)
    batch = {'image': images, 'label': labels, 'position': labels}
    compiled = jax.jit(learner.train_step, donate_argnums=0).lower(state, batch, key).compile()
    plan: Any = compiled.memory_analysis()
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    peak = plan.argument_size_in_bytes + plan.output_size_in_bytes - plan.alias_size_in_bytes
    return Memory(size, peak + plan.temp_size_in_bytes - size)
