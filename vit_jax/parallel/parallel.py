"""One pure step over any number of devices: `jax.jit` over a mesh, or `jax.pmap`.

Both replicate the state and split the batch. Between uses (fresh, saved, restored) a state is one
plain copy; `spread` puts it on the devices, `collect` takes one copy back. Each process passes its
own `rows` of a batch to `put_batch`, which assembles the global batch.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vit_jax.errors import InputError


class Jit:
    """The compiler partitions the step: arrays are global and carry their sharding."""

    axis_name = None

    def __init__(self, devices: Sequence[jax.Device], batch_size: int) -> None:
        self.mesh = Mesh(np.array(devices), ('data',))
        self.replicated = NamedSharding(self.mesh, PartitionSpec())
        self.sharded = NamedSharding(self.mesh, PartitionSpec('data'))
        self.batch_size = batch_size
        self.rows = own_rows(devices, batch_size)

    def spread(self, state: Any) -> Any:
        return jax.device_put(state, self.replicated)

    def collect(self, state: Any) -> Any:
        # Of replicated arrays, Orbax compiles and saves a slice for each device.
        return jax.tree.map(lambda x: x.addressable_data(0), state)

    def put_batch(self, batch: Any) -> Any:
        return put_rows(batch, self.sharded)

    def train_step(self, step: Callable[..., Any]) -> Callable[..., Any]:
        return jax.jit(self._on_mesh(step), donate_argnums=0, out_shardings=self.replicated)

    def eval_step(self, step: Callable[..., Any]) -> Callable[..., Any]:
        return jax.jit(self._on_mesh(step), out_shardings=self.replicated)

    def _on_mesh(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """A step traced with the mesh in context, where what XLA cannot partition looks for it."""

        @functools.wraps(step)
        def traced(*arguments: Any) -> Any:
            with jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh):
                return step(*arguments)

        return traced


class Pmap:
    """Each device runs the step on its share; arrays have a leading axis over the devices."""

    axis_name = 'data'

    def __init__(self, devices: Sequence[jax.Device], batch_size: int) -> None:
        self.devices = devices
        self.sharded = NamedSharding(Mesh(np.array(devices), ('data',)), PartitionSpec('data'))
        self.batch_size = batch_size
        self.rows = own_rows(devices, batch_size)

    def spread(self, state: Any) -> Any:
        copies = len(self.devices)
        return jax.tree.map(
            lambda x: jax.device_put(np.broadcast_to(x, (copies, *np.shape(x))), self.sharded),
            state,
        )

    def collect(self, state: Any) -> Any:
        return jax.tree.map(lambda x: x[0], state)

    def put_batch(self, batch: Any) -> Any:
        share = self.batch_size // len(self.devices)
        shares = jax.tree.map(lambda x: x.reshape(-1, share, *x.shape[1:]), batch)
        return put_rows(shares, self.sharded)

    def train_step(self, step: Callable[..., Any]) -> Callable[..., Any]:
        return jax.pmap(
            functools.partial(step, axis_name=self.axis_name),
            axis_name=self.axis_name,
            devices=self.devices,
            in_axes=(0, 0, None),
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


def own_rows(devices: Sequence[jax.Device], batch_size: int) -> range:
    """The rows of a global batch that this process's devices hold, which are contiguous."""
    share = batch_size // len(devices)
    own = [i for i, device in enumerate(devices) if device.process_index == jax.process_index()]
    return range(own[0] * share, (own[-1] + 1) * share)


def put_rows(rows: Any, sharding: NamedSharding) -> Any:
    """Global arrays, assembled from each process's rows."""
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), rows)


def create_parallel(
    mode: str, batch_size: int, devices: Sequence[jax.Device] | None = None
) -> Jit | Pmap:
    """How steps run over `devices` (default: all).

    Args:
      mode: 'jit' or 'pmap'.
      batch_size: examples per step, over all devices.

    Raises:
      InputError: if the mode is unknown or the number of devices does not divide the batch.
    """
    devices = jax.devices() if devices is None else devices
    if mode not in ('jit', 'pmap'):
        raise InputError(f"parallel.mode: expected 'jit' or 'pmap', got {mode!r}")
    if batch_size < 1 or batch_size % len(devices):
        raise InputError(
            f'batch_size: expected a multiple of the {len(devices)} devices, got {batch_size}'
        )
    return Jit(devices, batch_size) if mode == 'jit' else Pmap(devices, batch_size)
