"""Work that each device of a mesh does alone: XLA cannot partition it, or partitions it badly."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType, PartitionSpec


def on_own_rows(f: Callable[..., Any]) -> Callable[..., Any]:
    """A function of rows that each device runs on its own rows.

    XLA partitions almost everything. It cannot partition a kernel; and of a loop that ends when all
    rows are done, it makes one that asks all devices after each iteration.

    Args:
      f: arrays with a leading axis of rows → arrays with the same.

    Returns:
      `f` itself where there is no mesh to partition over, as under pmap.
    """
    mesh = jax.sharding.get_abstract_mesh()
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    if not (axes := tuple(name for name, kind in kinds if kind == AxisType.Auto)):
        return f
    rows = PartitionSpec(axes)
    return jax.shard_map(f, in_specs=rows, out_specs=rows, check_vma=False)
