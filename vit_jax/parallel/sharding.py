"""Where arrays lie on a mesh of devices: one table of rules, and what the model asks of it.

The axes of the mesh:
  data    each of its devices holds a whole copy of the state, and its own rows of a batch;
  fsdp    splits the rows too, and the state, which is gathered layer by layer where it is used
          (fully sharded data parallelism, https://arxiv.org/abs/2304.11277);
  tensor  splits heads and hidden features, as Megatron does (https://arxiv.org/abs/1909.08053).

The model looks for the mesh in the context of its trace (`jax.sharding.use_abstract_mesh`). Without
one, or with one of other axes, nothing here changes anything.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ('data', 'fsdp', 'tensor')
ROWS = ('data', 'fsdp')  # the axes that split a batch

# Pattern of a parameter's path, and the axes that split its last dimensions; the first that matches
# counts. An axis that does not divide its dimension leaves it whole. Moments lie as their
# parameters do. The columns of q, k and v do not line up with heads: XLA exchanges them.
RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    (r'/v_(row|col)/', ()),  # Adafactor's means over rows and columns: small, so whole
    (r'(to_qkv|to_kv|net_0)/kernel$', ('fsdp', 'tensor')),
    (r'(to_qkv|to_kv|net_0)/bias$', ('tensor',)),
    (r'(to_out|net_1)/kernel$', ('tensor', 'fsdp')),
    (r'/kernel$', ('fsdp', None)),
    (r'', ()),
)

Axis = str | tuple[str, ...] | None
Axes = Sequence[Axis]


def placed(mesh: Mesh | AbstractMesh, shape: Sequence[int], axes: Axes) -> NamedSharding:
    """A sharding of an array's last dimensions; its first ones are whole.

    Args:
      mesh: of `AXES`.
      shape: of the array.
      axes: of the mesh, for each dimension that may be split.
    """
    first = len(shape) - len(axes)
    fitting = (
        a if n % _num_parts(mesh, a) == 0 else None
        for a, n in zip(axes, shape[first:], strict=True)
    )
    return NamedSharding(mesh, PartitionSpec(*[None] * first, *fitting))


def _num_parts(mesh: Mesh | AbstractMesh, axis: Axis) -> int:
    """How many parts an axis of the mesh, several or none split a dimension into."""
    names = (axis,) if isinstance(axis, str) else axis or ()
    return math.prod(mesh.shape[name] for name in names)


def of_state(
    mesh: Mesh | AbstractMesh, path: str, shape: Sequence[int], without: str = ''
) -> NamedSharding:
    """Where an array of the state lies.

    Args:
      mesh: of `AXES`.
      path: of the array in the state, its names joined by '/'.
      shape: of the array.
      without: an axis of the mesh that does not split it.
    """
    rule = next(axes for pattern, axes in RULES if re.search(pattern, path))
    axes = tuple(None if axis == without else axis for axis in rule)
    return placed(mesh, shape, axes if len(axes) <= len(shape) else ())


def place_state(mesh: Mesh | AbstractMesh, state: Any, zero_stage: int = 3) -> Any:
    """The shapes of a state, with the sharding of each array.

    Args:
      mesh: of `AXES`.
      state: arrays, or their shapes; its parameters are named 'params'.
      zero_stage: what fsdp splits: 3, all of it; 1, not the parameters.
    """

    def place(path: Any, x: Any) -> jax.ShapeDtypeStruct:
        name = jax.tree_util.keystr(path, simple=True, separator='/')
        without = 'fsdp' if zero_stage == 1 and name.startswith('params') else ''
        sharding = of_state(mesh, name, x.shape, without)
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    return jax.tree_util.tree_map_with_path(place, state)


class KernelSharding(NamedTuple):
    """How the kernel of a Linear layer is used.

    Args:
      stored: where it lies, and its gradient.
      used: where the product with it reads it: on all devices of fsdp.
      outputs: the axis that splits its outputs.
    """

    stored: NamedSharding
    used: NamedSharding
    outputs: str | None

    @property
    def transposed(self) -> 'KernelSharding':
        """Of the kernel's transpose, with which the gradient of the inputs is computed."""
        stored, used = (
            NamedSharding(x.mesh, PartitionSpec(*x.spec[::-1])) for x in (self.stored, self.used)
        )
        return KernelSharding(stored, used, used.spec[-1])


def of_kernel(path: str, shape: Sequence[int]) -> KernelSharding | None:
    """How a kernel [i, o] is used on the mesh in context; None if it lies whole on each device."""
    if (mesh := _mesh()) is None:
        return None
    used = of_state(mesh, path, shape, without='fsdp')
    return KernelSharding(of_state(mesh, path, shape), used, used.spec[-1])


def constrain(x: Any, *axes: str | None) -> Any:
    """An array of rows, split over the devices by rows and, if they are named, by further axes.

    Args:
      x: [b, ...].
      axes: of the last dimensions.
    """
    if (mesh := _mesh()) is None:
        return x
    between = [None] * (x.ndim - 1 - len(axes))
    return jax.lax.with_sharding_constraint(x, placed(mesh, x.shape, (ROWS, *between, *axes)))


def _mesh() -> AbstractMesh | None:
    """The mesh in context, if the model is to be split over it."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.axis_names != AXES or any(kind != AxisType.Auto for kind in mesh.axis_types):
        return None
    return mesh if mesh.shape['fsdp'] * mesh.shape['tensor'] > 1 else None


def on_own_rows(f: Callable[..., Any]) -> Callable[..., Any]:
    """A function of rows that each device runs on its own rows.

    XLA partitions almost everything, but not a kernel.

    Args:
      f: arrays with a leading axis of rows → arrays with the same.

    Returns:
      `f` itself where there is no mesh to partition over, as under pmap.
    """
    mesh = jax.sharding.get_abstract_mesh()
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    axes = tuple(name for name, kind in kinds if kind == AxisType.Auto and name != 'tensor')
    if not axes:
        return f
    rows = PartitionSpec(axes)
    return jax.shard_map(f, in_specs=rows, out_specs=rows, check_vma=False)
