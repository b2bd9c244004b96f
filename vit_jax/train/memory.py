"""The memory that training a ViT takes: on the device at hand, and on accelerators that are not."""

import functools
import importlib.util
import math
import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AbstractMesh

from vit_jax.model.layers import best_attention
from vit_jax.model.shapes import num_tokens, pair
from vit_jax.model.vit import ViT
from vit_jax.parallel.sharding import AXES, place_state
from vit_jax.train.optim import create_optimizer
from vit_jax.train.step import Learner


class Memory(NamedTuple):
    """Bytes on one device.

    Args:
      state: parameters and the optimizer's moments, which stay.
      step: what a training step needs in addition: batch, activations, gradients.
    """

    state: int
    step: int


def planned_optimizer(
    name: str = 'adamw', moments_dtype: str = 'float32'
) -> optax.GradientTransformation:
    """An optimizer whose state is as large as that of a run; its numbers do not matter.

    Args:
      name, moments_dtype: see `vit_jax.train.optim.create_optimizer`.

    Raises:
      InputError: if either is unknown.
    """
    return create_optimizer(
        name,
        optax.constant_schedule(1e-3),
        weight_decay=0.05,
        b1=0.9,
        b2=0.999,
        clip_norm=1.0,
        moments_dtype=moments_dtype,
    )


ADAMW = planned_optimizer()


class Chip(NamedTuple):
    """An accelerator to plan for.

    Args:
      size: bytes of its memory that jax gives to a program.
      platform, device_kind, compute_capability: as of its `jax.Device`.
      topology: one such chip, in libtpu's words.
    """

    size: int
    platform: str
    device_kind: str
    compute_capability: str = ''
    topology: str = ''


CHIPS = {
    'v5e': Chip(int(15.75 * 2**30), 'tpu', 'TPU v5 lite', topology='v5e:1x1'),
    'v5p': Chip(int(95.74 * 2**30), 'tpu', 'TPU v5p', topology='v5p:1x1x1'),
    'v6e': Chip(int(31.25 * 2**30), 'tpu', 'TPU v6 lite', topology='v6e:1x1'),
    # jax takes 75 % of a GPU's memory, unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise.
    'h100': Chip(int(0.75 * 79.1 * 2**30), 'gpu', 'NVIDIA H100', compute_capability='9.0'),
}


class Plan(NamedTuple):
    """The largest batch that an accelerator trains on.

    Args:
      batch_size: images; 0 if not even one fits.
      memory: of that batch; of one image if none fits.
      compiled: whether the compiler planned it, or `counted_memory`.
    """

    batch_size: int
    memory: Memory
    compiled: bool


def training_memory(
    model: ViT,
    batch_size: int,
    device: Any = None,
    optimizer: optax.GradientTransformation = ADAMW,
) -> Memory:
    """The memory of a training step, as XLA plans it.

    Compiles the step but allocates nothing. The framework itself and the data set are not included.

    Args:
      batch_size: images of `image_size` per device.
      device: one of a topology; None for the device at hand.
      optimizer: see `planned_optimizer`.
    """
    learner, state, images = _abstract(model, batch_size, optimizer)
    labels = jax.ShapeDtypeStruct((batch_size,), np.int32)
    batch = {'image': images, 'label': labels, 'position': labels}
    key = jax.eval_shape(lambda: jax.random.key(0))
    sharding = device and jax.sharding.SingleDeviceSharding(device)
    step = jax.jit(
        learner.train_step, donate_argnums=0, in_shardings=sharding, out_shardings=sharding
    )
    size = _bytes(state)
    return Memory(size, planned_bytes(step.lower(state, batch, key).compile()) - size)


def planned_bytes(compiled: Any) -> int:
    """The memory of a compiled program, as XLA plans it."""
    plan = compiled.memory_analysis()
    peak = plan.argument_size_in_bytes + plan.output_size_in_bytes - plan.alias_size_in_bytes
    return peak + plan.temp_size_in_bytes


def counted_memory(
    model: ViT,
    batch_size: int,
    chip: Chip,
    mesh: tuple[int, int, int] = (1, 1, 1),
    zero: int = 3,
    optimizer: optax.GradientTransformation = ADAMW,
) -> Memory:
    """The memory of a training step by our own count, without a compiler.

    What the backward pass reads is what jax saves for it. The work on one layer takes about as much
    as that layer would save without rematerialisation; a GPU's compiler fuses half of it away. A
    TPU stores tokens in rows of 16, and a copy of the parameters in bfloat16. A test holds this
    against XLA's plans for v5e, v6e and H100.

    Args:
      model: to train.
      batch_size: over all chips.
      chip: of which there may be several,
      mesh: along the axes data, fsdp and tensor. What tensor saves of the activations does not
        count.
      zero: see `vit_jax.parallel.parallel.Jit`.
      optimizer: see `planned_optimizer`.
    """
    state, gradients, image = _count(model, chip, optimizer)
    if mesh != (1, 1, 1):
        state, gradients = _split(model, mesh, zero, optimizer)
    return Memory(state, gradients + batch_size // (mesh[0] * mesh[1]) * image)


def _split(
    model: ViT, sizes: tuple[int, int, int], zero: int, optimizer: optax.GradientTransformation
) -> tuple[int, int]:
    """Bytes of a chip's part of the state; and of the gradients, with one layer gathered."""
    _, state, _ = _abstract(model.clone(attention='xla'), 1, optimizer)
    mesh = AbstractMesh(sizes, AXES)

    parts = place_state(mesh, state, zero), place_state(mesh, {'gradients': state.params})
    layer = _bytes(state.params['transformer']) // model.depth // sizes[2]
    return held_bytes(parts[0]), held_bytes(parts[1]) + layer


def held_bytes(placed: Any) -> int:
    """Bytes that one device holds of arrays.

    Args:
      placed: their shapes and shardings.
    """
    return sum(
        x.dtype.itemsize * math.prod(x.sharding.shard_shape(x.shape))
        for x in jax.tree.leaves(placed)
    )


def largest_batch(model: ViT, chip: Chip, optimizer: optax.GradientTransformation = ADAMW) -> Plan:
    """The largest batch that fits: as XLA plans it if libtpu is installed, else by our own count.

    XLA compiles at least twice, a minute or more each time.
    """
    state, gradients, image = _count(model, chip, optimizer)
    room = chip.size - state - gradients
    batch_size = max(0, room // image)
    if not (batch_size and chip.platform == 'tpu' and importlib.util.find_spec('libtpu')):
        memory = Memory(state, gradients + max(batch_size, 1) * image)
        return Plan(batch_size, memory, compiled=False)
    (device,) = absent_devices(chip)
    model = model.clone(attention=chosen_attention(model, chip))

    def plan(batch_size: int) -> Plan:
        """Of this batch, or of the next smaller one that fits."""
        try:
            memory = training_memory(model, batch_size, device, optimizer)
            return Plan(batch_size, memory, compiled=True)
        except jax.errors.JaxRuntimeError as error:
            if 'RESOURCE_EXHAUSTED' not in str(error) or batch_size == 1:
                raise
            return plan(batch_size * 19 // 20)

    part = plan(max(1, batch_size * 3 // 4))
    image = max(1, (part.memory.step - gradients) // part.batch_size)
    larger = min(room // image, 2 * part.batch_size)
    return plan(larger) if larger > part.batch_size else part


def chosen_attention(model: ViT, device: Any) -> str:
    """The implementation of attention that the model uses on a `jax.Device` or a `Chip`."""
    if model.attention != 'auto':
        return model.attention
    shape = 1, num_tokens(model), model.heads, model.dim_head
    return best_attention(device, jax.ShapeDtypeStruct(shape, jnp.dtype(model.dtype)))


def _count(model: ViT, chip: Chip, optimizer: optax.GradientTransformation) -> tuple[int, int, int]:
    """Bytes of the state, of the gradients, and of each image; see `counted_memory`."""
    fused = chosen_attention(model, chip) != 'xla'
    # 'pallas' saves what any fused kernel saves.
    model = model.clone(attention='pallas' if fused else 'xla')
    _, state, _ = _abstract(model, 1, optimizer)
    saved, layer = _saved(model), _saved(model.clone(depth=1, remat='none'))
    gradients = _bytes(state.params)
    if chip.platform == 'gpu':
        return _bytes(state), gradients, saved + layer // 2
    copies = gradients // 2 if model.dtype == 'bfloat16' else 0
    tokens = num_tokens(model)
    rows = -(-tokens // 16) * 16
    return _bytes(state), gradients + copies, (saved + layer) * rows // tokens


def _abstract(
    model: ViT, batch_size: int, optimizer: optax.GradientTransformation = ADAMW
) -> tuple[Learner, Any, jax.ShapeDtypeStruct]:
    """A learner, and the shapes of its state and of a batch's images."""
    shape = batch_size, *pair(model.image_size), model.channels
    images = jax.ShapeDtypeStruct(shape, np.float32)
    learner = Learner(model, jnp.asarray, optimizer=optimizer)
    key = jax.eval_shape(lambda: jax.random.key(0))
    return learner, jax.eval_shape(learner.init, key, images), images


@functools.cache
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


def absent_devices(chip: Chip, topology: str | None = None) -> list[Any]:
    """The devices of TPUs that need not be there, to compile for.

    Args:
      chip: of which there is one,
      topology: or several, in libtpu's words, such as 'v5e:16x16'.
    """
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
    one = {} if topology else {'chips_per_host_bounds': (1, 1, 1)}
    name = topology or chip.topology
    return get_topology_desc(platform='tpu', topology_name=name, **one).devices
