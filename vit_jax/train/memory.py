"""The memory that training a ViT takes: on the device at hand, and on accelerators that are not."""

import importlib.util
import os
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


class Chip(NamedTuple):
    """An accelerator to plan for.

    Args:
      size: bytes of its memory that jax gives to a program.
      topology: one such chip, in libtpu's words; '' for a GPU.
    """

    size: int
    topology: str = ''


CHIPS = {
    'v5e': Chip(int(15.75 * 2**30), 'v5e:1x1'),
    'v6e': Chip(int(31.25 * 2**30), 'v6e:1x1'),
    'h100': Chip(int(0.75 * 79.1 * 2**30)),  # jax takes 75 % unless XLA_PYTHON_CLIENT_MEM_FRACTION
}


class Plan(NamedTuple):
    """The largest batch that an accelerator trains on.

    Args:
      batch_size: images; 0 if not even one fits.
      memory: that it takes, or that one image would take.
      compiled: whether the compiler planned it, or `counted_memory`.
    """

    batch_size: int
    memory: Memory
    compiled: bool


def training_memory(model: ViT, batch_size: int, device: Any = None) -> Memory:
    """The memory of a training step with AdamW, as XLA plans it.

    Compiles the step but allocates nothing. The framework itself and the data set are not included.

    Args:
      batch_size: images of `image_size` per device.
      device: one of a topology; None for the device at hand.
    """
    learner, state, images = _abstract(model, batch_size)
    labels = jax.ShapeDtypeStruct((batch_size,), np.int32)
    batch = {'image': images, 'label': labels, 'position': labels}
    key = jax.eval_shape(lambda: jax.random.key(0))
    sharding = device and jax.sharding.SingleDeviceSharding(device)
    step = jax.jit(
        learner.train_step, donate_argnums=0, in_shardings=sharding, out_shardings=sharding
    )
    plan: Any = step.lower(state, batch, key).compile().memory_analysis()
    size = _bytes(state)
    peak = plan.argument_size_in_bytes + plan.output_size_in_bytes - plan.alias_size_in_bytes
    return Memory(size, peak + plan.temp_size_in_bytes - size)


def counted_memory(model: ViT, batch_size: int, chip: Chip) -> Memory:
    """The memory of a training step with AdamW by our own count, without a compiler.

    What the backward pass reads is what jax saves for it. The work on one layer takes about as much
    as that layer would save without rematerialisation; a GPU's compiler fuses half of it away. A
    TPU stores tokens in rows of 16, and a copy of the parameters in bfloat16. A test holds this
    against XLA's plans for v5e, v6e and H100.
    """
    if model.attention != 'xla' and (chip.topology or model.dtype == 'bfloat16'):
        model = model.clone(attention='pallas')  # saves what any fused kernel saves
    else:
        model = model.clone(attention='xla')
    _, state, _ = _abstract(model, 1)
    gradients = _bytes(state.params)
    layer = _saved(model.clone(depth=1, remat='none'))
    if chip.topology:
        tokens = model.num_prefix + model.grid[0] * model.grid[1]
        rows = -(-tokens // 16) * 16 / tokens
        copies = gradients // 2 if model.dtype == 'bfloat16' else 0
        step = gradients + copies + batch_size * rows * (_saved(model) + layer)
    else:
        step = gradients + batch_size * (_saved(model) + layer / 2)
    return Memory(_bytes(state), int(step))


def largest_batch(model: ViT, chip: Chip) -> Plan:
    """The largest batch that fits, as the compiler plans it if libtpu is installed.

    Else by `counted_memory`. Compiles twice, a minute or more each.
    """
    without, with_one = (sum(counted_memory(model, b, chip)) for b in (0, 1))
    batch_size = max(0, int((chip.size - without) / (with_one - without)))
    if not (batch_size and chip.topology and importlib.util.find_spec('libtpu')):
        memory = counted_memory(model, max(batch_size, 1), chip)
        return Plan(batch_size, memory, compiled=False)
    (device,) = _describe(chip)
    model = model.clone(attention='pallas' if model.attention == 'auto' else model.attention)
    part = max(1, batch_size * 3 // 4)  # surely fits
    planned = sum(training_memory(model, part, device))
    batch_size = int((chip.size - without) / (planned - without) * part)
    while batch_size > part:
        try:
            return Plan(batch_size, training_memory(model, batch_size, device), compiled=True)
        except jax.errors.JaxRuntimeError as error:  # too large after all
            if 'RESOURCE_EXHAUSTED' not in str(error):
                raise
            batch_size = max(part, batch_size * 19 // 20)
    return Plan(part, training_memory(model, part, device), compiled=True)


def _abstract(model: ViT, batch_size: int) -> tuple[Learner, Any, jax.ShapeDtypeStruct]:
    """A learner, and the shapes of its state and of a batch's images."""
    shape = batch_size, *pair(model.image_size), model.channels
    images = jax.ShapeDtypeStruct(shape, np.float32)
    learner = Learner(model, jnp.asarray, optimizer=optax.adamw(1e-3))
    key = jax.eval_shape(lambda: jax.random.key(0))
    return learner, jax.eval_shape(learner.init, key, images), images


def _saved(model: ViT) -> int:
    """Bytes that the forward pass of one image saves for the backward pass."""

    def saved(batch_size: int) -> int:
        _, state, images = _abstract(model, batch_size)
        rngs = {'dropout': jax.random.key(0)}

        def backward(params: Any, images: jax.Array) -> Any:
            def logits(params: Any) -> Any:
                return model.apply({'params': params}, images, train=True, rngs=rngs)

            return jax.vjp(logits, params)[1]

        return _bytes(jax.eval_shape(backward, state.params, images))

    return saved(2) - saved(1)  # without the parameters, which it saves too


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _describe(chip: Chip) -> Any:
    """The devices of an absent TPU."""
    from jax.experimental.topologies import get_topology_desc

    # libtpu looks for chips and for its peers unless it is told that there are none.
    absent = {
        'TPU_SKIP_MDS_QUERY': '1',
        'TPU_ACCELERATOR_TYPE': 'v5litepod-1',
        'TPU_WORKER_HOSTNAMES': 'localhost',
        'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
    }
    for name, value in absent.items():
        os.environ.setdefault(name, value)
    bounds = (1, 1, 1)
    return get_topology_desc(
        platform='tpu', topology_name=chip.topology, chips_per_host_bounds=bounds
    ).devices
