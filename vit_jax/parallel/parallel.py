"""One pure step over any number of devices: `jax.jit` over a mesh, or `jax.pmap`.

A batch is split over the devices. A state is made, saved and restored as global arrays that lie as
`placed` says; `spread` makes of it what the steps take, and `collect` the other way round. Each
process passes its own `rows` of a batch to `put_batch`, which assembles the global batch.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vit_jax.errors import InputError
from vit_jax.parallel.sharding import AXES, ROWS, place_state


class Jit:
    """The compiler partitions the step: arrays are global and carry their sharding.

    Args:
      mesh: of the axes data, fsdp and tensor, see `vit_jax.parallel.sharding`.
      batch_size: examples per step.
      zero_stage: of fsdp: 3 splits the parameters, their gradients and their moments; 1 not the
        parameters.
    """

    axis_name = None

    def __init__(self, mesh: Mesh, batch_size: int, zero_stage: int = 3) -> None:
        self.mesh = mesh
        self.replicated = NamedSharding(mesh, PartitionSpec())
        self.sharded = NamedSharding(mesh, PartitionSpec(ROWS))
        self.batch_size = batch_size
        self.share = batch_size // (mesh.shape['data'] * mesh.shape['fsdp'])
        self.rows = own_rows(self.sharded, batch_size)
        self._zero_stage = zero_stage

    def placed(self, state: Any) -> Any:
        """The shapes of a state, with the sharding of each array.

        Args:
          state: arrays, or their shapes.
        """
        return place_state(self.mesh, state, self._zero_stage)

    def taken(self, state: Any) -> Any:
        """The shapes of what the steps take for a state, with their shardings."""
        return self.placed(state)

    def spread(self, state: Any) -> Any:
        return put(self, state)

    def collect(self, state: Any) -> Any:
        is_split = any(not x.is_fully_replicated for x in jax.tree.leaves(state))
        if is_split or jax.process_count() > 1:
            return state
        # Of replicated arrays, Orbax compiles and saves a slice for each device.
        return jax.tree.map(lambda x: x.addressable_data(0), state)

    def put_batch(self, batch: Any) -> Any:
        return put_rows(batch, self.sharded)

    def place_gradients(self, gradients: Any) -> Any:
        """Gradients of parameters, inside a step, where the optimizer needs them."""
        shardings = _shardings(place_state(self.mesh, gradients))
        return jax.lax.with_sharding_constraint(gradients, shardings)

    def train_step(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """A step (state, batch, …) → (state, metrics) that uses up the state.

        What it takes by name lies as `spread` puts it.
        """

        @functools.wraps(step)
        def placed_step(state: Any, *arguments: Any, **named: Any) -> Any:
            after, metrics = step(state, *arguments, **named)
            shardings = _shardings(self.placed(after))
            return jax.lax.with_sharding_constraint((after, metrics), (shardings, self.replicated))

        return jax.jit(self._on_mesh(placed_step), donate_argnums=0)

    def eval_step(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """A step (state, batch) → metrics."""
        return jax.jit(self._on_mesh(step), out_shardings=self.replicated)

    def _on_mesh(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """A step traced with the mesh in context, where what depends on it looks for it."""

        @functools.wraps(step)
        def traced(*arguments: Any, **named: Any) -> Any:
            with jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh):
                return step(*arguments, **named)

        return traced


class Pmap:
    """Each device runs the step on its share; arrays have a leading axis over the devices."""

    axis_name = 'data'

    def __init__(self, devices: Sequence[jax.Device], batch_size: int) -> None:
        self.devices = devices
        self.mesh = Mesh(np.array(devices), ('data',))
        self.replicated = NamedSharding(self.mesh, PartitionSpec())
        self.sharded = NamedSharding(self.mesh, PartitionSpec('data'))
        self.batch_size = batch_size
        self.share = batch_size // len(devices)
        self.rows = own_rows(self.sharded, batch_size)

    def placed(self, state: Any) -> Any:
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self.replicated), state
        )

    def taken(self, state: Any) -> Any:
        def take(x: Any) -> jax.ShapeDtypeStruct:
            shape = len(self.devices), *x.shape
            return jax.ShapeDtypeStruct(shape, x.dtype, sharding=self.sharded)

        return jax.tree.map(take, state)

    def spread(self, state: Any) -> Any:
        def spread(x: jax.Array) -> jax.Array:
            copies = [shard.data[None] for shard in x.addressable_shards]
            shape = len(self.devices), *x.shape
            return jax.make_array_from_single_device_arrays(shape, self.sharded, copies)

        return jax.tree.map(spread, put(self, state))

    def collect(self, state: Any) -> Any:
        def collect(x: jax.Array) -> jax.Array:
            copies = [shard.data[0] for shard in x.addressable_shards]
            return jax.make_array_from_single_device_arrays(x.shape[1:], self.replicated, copies)

        return jax.tree.map(collect, state)

    def put_batch(self, batch: Any) -> Any:
        shares = jax.tree.map(lambda x: x.reshape(-1, self.share, *x.shape[1:]), batch)
        return put_rows(shares, self.sharded)

    def place_gradients(self, gradients: Any) -> Any:
        return gradients

    def train_step(self, step: Callable[..., Any]) -> Callable[..., Any]:
        return jax.pmap(
            functools.partial(step, axis_name=self.axis_name),
            axis_name=self.axis_name,
            devices=self.devices,
            in_axes=(0, 0, None),  # what is passed by name has the leading axis too
            out_axes=(0, None),
            donate_argnums=0,
        )

    def eval_step(self, step: Callable[..., Any]) -> Callable[..., Any]:
        return jax.pmap(
            functools.partial(step, axis_name=self.axis_name),
            axis_name=self.axis_name,
            devices=self.devices,
            out_axes=None,
        )


def init(parallel: Jit | Pmap, init: Callable[..., Any], *arguments: Any) -> Any:
    """A new state, made where it lies.

    Args:
      init: arguments → state.
    """
    shardings = _shardings(parallel.placed(jax.eval_shape(init, *arguments)))
    return jax.jit(init, out_shardings=shardings)(*arguments)


def put(parallel: Jit | Pmap, state: Any) -> Any:
    """A state, or a part of one under its name, where it lies."""
    return jax.device_put(state, _shardings(parallel.placed(state)))


def _shardings(placed: Any) -> Any:
    return jax.tree.map(lambda x: x.sharding, placed)


def own_rows(sharding: NamedSharding, batch_size: int) -> range:
    """The rows of a global batch that this process's devices hold, which are contiguous."""
    places = sharding.addressable_devices_indices_map((batch_size,)).values()
    own = [range(batch_size)[place[0]] for place in places if place]
    rows = range(min(rows.start for rows in own), max(rows.stop for rows in own))
    if {row for part in own for row in part} != set(rows):
        raise InputError('parallel: expected the devices of each process side by side in the mesh')
    return rows


def put_rows(rows: Any, sharding: NamedSharding) -> Any:
    """Global arrays, assembled from each process's rows."""
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), rows)


def create_parallel(
    mode: str,
    batch_size: int,
    devices: Sequence[jax.Device] | None = None,
    *,
    data: int = -1,
    fsdp: int = 1,
    tensor: int = 1,
    zero_stage: int = 3,
) -> Jit | Pmap:
    """How steps run over `devices` (default: all).

    Args:
      mode: 'jit' or 'pmap'.
      batch_size: examples per step, over all devices.
      data, fsdp, tensor: devices along each axis of the mesh, see `vit_jax.parallel.sharding`; -1
        for the rest of them.
      zero_stage: see `Jit`.

    Raises:
      InputError: if an option is wrong, the axes do not make up the devices, or the number of
        devices that split the batch does not divide it.
    """
    devices = jax.devices() if devices is None else devices
    count = len(devices)
    if mode not in ('jit', 'pmap'):
        raise InputError(f"parallel.mode: expected 'jit' or 'pmap', got {mode!r}")
    if zero_stage not in (1, 3):
        raise InputError(f'parallel.zero_stage: expected 1 or 3, got {zero_stage!r}')
    sizes = mesh_sizes(count, data, fsdp, tensor)
    if mode == 'pmap' and sizes != (count, 1, 1):
        raise InputError(
            f"parallel.mode='pmap': expected a mesh of data alone, got {_describe(sizes)}; "
            f"choose 'jit'"
        )
    parts = sizes[0] * sizes[1]
    along = '' if sizes[2] == 1 else ' along data and fsdp'
    if batch_size < 1 or batch_size % parts:
        raise InputError(
            f'batch_size: expected a multiple of the {parts} devices{along}, got {batch_size}'
        )
    if mode == 'pmap':
        return Pmap(devices, batch_size)
    return Jit(Mesh(np.array(devices).reshape(sizes), AXES), batch_size, zero_stage)


def mesh_sizes(count: int, data: int, fsdp: int, tensor: int) -> tuple[int, int, int]:
    """The devices along each axis of a mesh.

    Args:
      count: of all devices.
      data, fsdp, tensor: see `create_parallel`.

    Raises:
      InputError: if their product is not the number of devices.
    """
    sizes = data, fsdp, tensor
    known = math.prod(size for size in sizes if size != -1)
    if sizes.count(-1) == 1 and known > 0 and count % known == 0:
        data, fsdp, tensor = (count // known if size == -1 else size for size in sizes)
    if min(data, fsdp, tensor) < 1 or data * fsdp * tensor != count:
        raise InputError(
            f'parallel: expected a mesh of the {count} devices, got {_describe(sizes)}; '
            f'-1 stands for the rest, once'
        )
    return data, fsdp, tensor


def _describe(sizes: Sequence[int]) -> str:
    return ', '.join(f'{axis}={size}' for axis, size in zip(AXES, sizes, strict=True))
