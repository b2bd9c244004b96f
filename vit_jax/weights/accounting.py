"""Maps a format's arrays to a ViT's parameters and accounts for every array on either side.

Both sides are flat: arrays by name. A list of `Entry` describes the layout of a format.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from vit_jax.errors import InputError
from vit_jax.model.shapes import parameter_shapes
from vit_jax.model.vit import ViT
from vit_jax.weights.files import Arrays, Tensors, as_input_error

FLOATS = ('float16', 'bfloat16', 'float32', 'float64')
HEAD = ('mlp_head/layers_1/', 'mlp_head/dist/')
# What a format can express unless it says otherwise, see `check_expressible`.
PLAIN: dict[str, tuple[Any, ...]] = {
    'posemb': ('learned', 'learned_patches', 'sincos2d'),
    'patch_bias': (True,),
    'embed_norm': (False,),
    'gelu': ('erf', 'tanh'),
    'gated': (False,),
}


def unchanged(array: np.ndarray) -> np.ndarray:
    return array


class Entry(NamedTuple):
    """One parameter of a ViT, and the arrays that hold it in a format.

    Args:
      ours: the parameter's name.
      theirs: the array's name; {} is the layer's number, for formats that do not stack layers.
        Several names are equal parts of our last axis.
      to_ours, to_theirs: convert an array between the two layouts.
    """

    ours: str
    theirs: str | tuple[str, ...]
    to_ours: Callable[[np.ndarray], np.ndarray] = unchanged
    to_theirs: Callable[[np.ndarray], np.ndarray] = unchanged

    @property
    def parts(self) -> tuple[str, ...]:
        return (self.theirs,) if isinstance(self.theirs, str) else self.theirs


def linear(ours: str, theirs: str | tuple[str, ...]) -> list[Entry]:
    """Our Linear [in, out] and its bias, from torch's [out, in]."""
    names = (theirs,) if isinstance(theirs, str) else theirs
    weights, biases = tuple(f'{n}.weight' for n in names), tuple(f'{n}.bias' for n in names)
    return [
        Entry(f'{ours}/kernel', weights, np.transpose, np.transpose),
        Entry(f'{ours}/bias', biases),
    ]


def norm(ours: str, theirs: str, scale: str = '.weight', bias: str = '.bias') -> list[Entry]:
    """A LayerNorm, by default with torch's names."""
    return [Entry(f'{ours}/scale', theirs + scale), Entry(f'{ours}/bias', theirs + bias)]


def to_flax(
    tensors: Tensors, entries: Iterable[Entry], model: ViT, name: str, new: Iterable[str] = ()
) -> Arrays:
    """Converts the arrays of a file to the parameters of `model`, float32.

    Args:
      tensors: the file's arrays.
      entries: the layout of its format.
      model: the one that the file describes.
      name: of the file, for errors.
      new: names of parameters to set to zero instead of reading them.

    Raises:
      InputError: if an array is missing, left over, misshaped or not of finite floats.
    """
    layouts = {entry.ours: entry for entry in entries}
    shapes = parameter_shapes(model)
    stored = [ours for ours in shapes if ours not in set(new)]
    unused = dict(tensors)
    for ours in stored:
        if ours not in layouts:
            raise InputError(f'{name}: its format has no array for {ours}, which the model needs')
        no_memory = np.broadcast_to(np.float32(0), shapes[ours])
        for theirs, _, expected in _pieces(layouts[ours], no_memory):
            if theirs not in unused:
                raise InputError(f'{name}: expected an array {theirs}, got none')
            got = unused.pop(theirs)
            if got.shape != expected.shape or got.dtype not in FLOATS:
                raise InputError(
                    f'{name}: {theirs}: expected floats of shape {expected.shape}, got '
                    f'{got.dtype} {got.shape}; options such as heads= or image_size= can supply '
                    f'what the file lacks'
                )
    if unused:
        raise InputError(f'{name}: unexpected arrays ({len(unused)}): {shorten(unused)}')
    params = {ours: np.zeros(shape, np.float32) for ours, shape in shapes.items()}
    for ours in stored:
        for theirs, place, _ in _pieces(layouts[ours], params[ours]):
            with as_input_error(name):
                array = tensors[theirs].read()
            with np.errstate(over='ignore'):
                place[...] = layouts[ours].to_ours(array)
            if not np.isfinite(place).all():
                raise InputError(f'{name}: {theirs}: expected finite float32 numbers')
    return params


def from_flax(params: Arrays, entries: Iterable[Entry]) -> Arrays:
    """Converts all parameters of a model to the arrays of a format."""
    layouts = {entry.ours: entry for entry in entries}
    return {
        theirs: np.ascontiguousarray(array)
        for ours, param in params.items()
        for theirs, _, array in _pieces(layouts[ours], param)
    }


def check_expressible(model: ViT, format: str, expressible: Mapping[str, tuple[Any, ...]]) -> None:
    """Validates a model against what a format's own code computes.

    Args:
      expressible: by argument of the ViT, the values that it may have; besides `PLAIN`.

    Raises:
      InputError: if arguments have other values; it names them all.
    """
    allowed_values = {**PLAIN, **expressible}
    wrong = {
        n: allowed for n, allowed in allowed_values.items() if getattr(model, n) not in allowed
    }
    if not wrong:
        return
    expected = ', '.join(
        f'{" or ".join(f"{name}={value!r}" for value in allowed)} (got {getattr(model, name)!r})'
        for name, allowed in wrong.items()
    )
    advice = 'train with ' + ' '.join(f'--config.model.{n}={wrong[n][0]}' for n in wrong)
    if wrong.keys() <= {'gelu', 'norm_eps'}:  # no parameter depends on them
        options = ' '.join(f'--{n.replace("_", "-")} {wrong[n][0]}' for n in wrong)
        advice += f', or convert with {options} at the cost of accuracy'
    raise InputError(
        f'format {format!r}: expected a model with {expected}, which is what its readers compute; '
        f'{advice}'
    )


def check_projection(model: ViT, format: str) -> None:
    """Validates a model for a format whose attention always projects and whose heads split `dim`.

    Raises:
      InputError: if there is only one head, or the heads do not split `dim`.
    """
    inner_dim = model.heads * model.dim_head
    if model.heads == 1 or inner_dim != model.dim:
        raise InputError(
            f'format {format!r}: expected several heads with dim = heads * dim_head, got '
            f'dim={model.dim}, heads={model.heads}, dim_head={model.dim_head}; train with '
            f'--config.model.heads and --config.model.dim_head whose product is the dim'
        )


def shorten(names: Iterable[str]) -> str:
    """The first few of many names."""
    first, *rest = sorted(names)
    return ', '.join([first, *rest[:3]]) + (', …' if len(rest) > 3 else '')


def _pieces(entry: Entry, array: np.ndarray) -> Iterable[tuple[str, np.ndarray, np.ndarray]]:
    """For each of their arrays: its name, our part for it, and that part in their layout; views."""
    for part, name in zip(np.split(array, len(entry.parts), -1), entry.parts, strict=True):
        if '{}' in name:
            for layer, layer_part in enumerate(part):
                yield name.format(layer), layer_part, entry.to_theirs(layer_part)
        else:
            yield name, part, entry.to_theirs(part)
