"""How many floating-point operations and how much memory a ViT takes."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vit_jax.arguments import pair
from vit_jax.model import ViT
from vit_jax.step import create_state, train_step


class Memory(NamedTuple):
    """Bytes on one device.

    Args:
      state: parameters and AdamW's two moments, which stay.
      step: what a training step needs besides: the batch, activations, gradients.
    """

    state: int
    step: int


def flops_per_image(model: ViT) -> int:
    """Of one forward pass over one image of `image_size`: its matrix products, 2 a multiply-add.

    Training counts three times as much: the backward pass has two products for each one of the
    forward pass, its gradients by input and by parameter. What rematerialisation computes again
    does not count, as in the field's model FLOPs utilisation (https://arxiv.org/abs/2204.02311,
    appendix B).
    """
    rows, columns = model.grid
    patch_height, patch_width = pair(model.patch_size)
    patches = rows * columns
    tokens = patches + model.num_prefix
    inner_dim = model.heads * model.dim_head
    feed_forward = 2 * model.dim * model.mlp_dim
    projects = not (model.heads == 1 and model.dim_head == model.dim)
    attention = (
        3 * model.dim * inner_dim + 2 * tokens * inner_dim + projects * inner_dim * model.dim
    )
    layers = model.depth * tokens * (attention + feed_forward)
    embedding = patches * model.channels * patch_height * patch_width * model.dim

    head = model.dim * model.representation_size
    head += (model.representation_size or model.dim) * model.num_classes
    head *= 1 + model.distilled
    if model.pool == 'map':
        keys_and_values = 2 * model.dim * inner_dim + 2 * inner_dim  # a token, with the one query
        query = 2 * model.dim * inner_dim  # and the output projection
        head += patches * keys_and_values + query + feed_forward
    return 2 * (embedding + layers + head)


def training_memory(model: ViT, batch_size: int) -> Memory:
    """Of a training step with AdamW, as XLA plans it for the device that is there.

    Compiles the step and takes no memory for it. Not in it: the framework itself, the data set.

    Args:
      batch_size: images on one device, of `image_size`.
    """
    images = jax.ShapeDtypeStruct((batch_size, *pair(model.image_size), model.channels), np.float32)
    labels = jax.ShapeDtypeStruct((batch_size,), np.int32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    optimizer = optax.adamw(1e-3)

    def targets(images: jax.Array, labels: jax.Array, _: jax.Array) -> tuple[jax.Array, jax.Array]:
        return images, jax.nn.one_hot(labels, model.num_classes)

    step = partial(
        train_step, model=model, optimizer=optimizer, augment=targets, normalize=jnp.asarray
    )
    create = partial(create_state, model=model, optimizer=optimizer)
    state = jax.eval_shape(create, key, images)
    batch = {'image': images, 'label': labels, 'position': labels}
    compiled = jax.jit(step, donate_argnums=0).lower(state, batch, key).compile()
    plan: Any = compiled.memory_analysis()
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    peak = plan.argument_size_in_bytes + plan.output_size_in_bytes - plan.alias_size_in_bytes
    return Memory(size, peak + plan.temp_size_in_bytes - size)
