"""vit-pytorch's state dict (`vit_pytorch/vit.py`, versions 0.24 to 0.27), both directions.

torch's Linear keeps its weight as [out, in], ours is [in, out]; its layers are numbered, ours are
stacked along a leading axis. Nothing else differs.
"""

import math
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from vit_jax.arguments import pair
from vit_jax.errors import InputError
from vit_jax.model import ViT
from vit_jax.weights.files import Tensors, abstract_variables

# Theirs → ours. {} is the number of the layer.
NAMES = {
    'pos_embedding': 'pos_embedding',
    'cls_token': 'cls_token',
    'to_patch_embedding.1.weight': 'to_patch_embedding/kernel',
    'to_patch_embedding.1.bias': 'to_patch_embedding/bias',
    'transformer.layers.{}.0.norm.weight': 'transformer/attn/norm/scale',
    'transformer.layers.{}.0.norm.bias': 'transformer/attn/norm/bias',
    'transformer.layers.{}.0.fn.to_qkv.weight': 'transformer/attn/fn/to_qkv/kernel',
    'transformer.layers.{}.0.fn.to_out.0.weight': 'transformer/attn/fn/to_out/kernel',
    'transformer.layers.{}.0.fn.to_out.0.bias': 'transformer/attn/fn/to_out/bias',
    'transformer.layers.{}.1.norm.weight': 'transformer/ff/norm/scale',
    'transformer.layers.{}.1.norm.bias': 'transformer/ff/norm/bias',
    'transformer.layers.{}.1.fn.net.0.weight': 'transformer/ff/fn/net_0/kernel',
    'transformer.layers.{}.1.fn.net.0.bias': 'transformer/ff/fn/net_0/bias',
    'transformer.layers.{}.1.fn.net.3.weight': 'transformer/ff/fn/net_1/kernel',
    'transformer.layers.{}.1.fn.net.3.bias': 'transformer/ff/fn/net_1/bias',
    'mlp_head.0.weight': 'mlp_head/layers_0/scale',
    'mlp_head.0.bias': 'mlp_head/layers_0/bias',
    'mlp_head.1.weight': 'mlp_head/layers_1/kernel',
    'mlp_head.1.bias': 'mlp_head/layers_1/bias',
}


def recognises(tensors: Tensors) -> bool:
    """Whether these are the parameters of vit-pytorch's ViT."""
    return {'pos_embedding', 'cls_token', 'to_patch_embedding.1.weight'} <= tensors.keys()


def to_flax(tensors: Tensors, overrides: dict[str, Any], name: str) -> tuple[ViT, dict[str, Any]]:
    """The model and the variables that a state dict describes.

    Args:
      tensors: the state dict.
      overrides: the ViT's own arguments; they win over what the file tells.
      name: of the file, for errors.

    Raises:
      InputError: where a parameter is missing, unknown or of another shape than the ViT's.
    """
    try:
        model = ViT(**{**_infer(tensors, overrides), **overrides})
    except (TypeError, InputError) as error:
        raise InputError(f'{name}: {error}') from None
    shapes = {
        name: leaf.shape
        for name, leaf in flatten_dict(abstract_variables(model)['params'], sep='/').items()
    }
    params = {}
    unused = dict(tensors)
    for theirs, ours in NAMES.items():
        if ours not in shapes:
            continue
        stacked = '{}' in theirs
        names = [theirs.format(layer) for layer in range(model.depth if stacked else 1)]
        missing = [name for name in names if name not in unused]
        if missing:
            raise InputError(f'{name}: expected a parameter {missing[0]}, but there is none')
        arrays = [_transpose(ours, unused.pop(name)).astype(np.float32) for name in names]
        for theirs_here, array in zip(names, arrays, strict=True):
            expected = shapes[ours][1:] if stacked else shapes[ours]
            if array.shape != expected:
                raise InputError(
                    f'{name}: {theirs_here}: expected {expected}, got {array.shape} '
                    f'(a Linear as [in, out]); overrides can set what the file does not tell'
                )
        params[ours] = np.stack(arrays) if stacked else np.ascontiguousarray(arrays[0])
    if unused:
        raise InputError(f'{name}: parameters that the ViT has no place for: {", ".join(unused)}')
    return model, {'params': unflatten_dict(params, sep='/')}


def from_flax(model: ViT, params: Any) -> Tensors:
    """The state dict of a model and the parameters that `ViT.init` or `to_flax` laid out.

    Raises:
      InputError: where vit-pytorch's ViT could not compute the same with it.
    """
    for argument, theirs in (('qkv_bias', False), ('norm_eps', 1e-5), ('gelu', 'erf')):
        if getattr(model, argument) != theirs:
            raise InputError(
                f"format 'seed': expected a model with {argument}={theirs!r}, which is all that "
                f'vit-pytorch has, got {getattr(model, argument)!r}'
            )
    ours = {name: np.asarray(array) for name, array in flatten_dict(params, sep='/').items()}
    tensors = {}
    for theirs, name in NAMES.items():
        if name not in ours:
            continue  # to_out, where the attention has no projection
        layers = ours[name] if '{}' in theirs else ours[name][None]
        for layer, array in enumerate(layers):
            tensors[theirs.format(layer)] = np.ascontiguousarray(_transpose(name, array))
    return tensors


def _infer(tensors: Tensors, overrides: dict[str, Any]) -> dict[str, Any]:
    """The ViT's arguments, as far as shapes and overrides tell them."""

    def shape(name: str, ndim: int = 2) -> tuple[int, ...]:
        if name not in tensors:
            raise InputError(f'expected a parameter {name}, but there is none')
        if tensors[name].ndim != ndim:
            raise InputError(f'{name}: expected {ndim} axes, got shape {tensors[name].shape}')
        return tensors[name].shape

    dim, patch_dim = shape('to_patch_embedding.1.weight')
    first = 'transformer.layers.0.'
    inner_dim = shape(first + '0.fn.to_qkv.weight')[0] // 3
    projects_out = first + '0.fn.to_out.0.weight' in tensors  # else one head, as wide as the tokens
    heads = overrides.get('heads', 0) if projects_out else 1
    if heads < 1 or inner_dim % heads:
        raise InputError(
            f'the number of heads is not in the file; expected heads= dividing {inner_dim}, '
            f'got {heads or "none"}'
        )
    layers = {name.split('.')[2] for name in tensors if name.startswith('transformer.layers.')}
    patch_size, channels = _infer_patch(patch_dim, overrides)
    grid = math.isqrt(shape('pos_embedding', 3)[1] - 1)
    patch_height, patch_width = pair(patch_size)
    return {
        'image_size': (grid * patch_height, grid * patch_width),
        'patch_size': patch_size,
        'channels': channels,
        'num_classes': shape('mlp_head.1.weight')[0],
        'dim': dim,
        'depth': len(layers),
        'heads': heads,
        'dim_head': inner_dim // heads,
        'mlp_dim': shape(first + '1.fn.net.0.weight')[0],
    }


def _infer_patch(patch_dim: int, overrides: dict[str, Any]) -> tuple[int | tuple[int, int], int]:
    """Patch size and channels; at most one of RGB and grey can make a square patch."""
    if 'patch_size' in overrides:
        height, width = pair(overrides['patch_size'])
        return overrides['patch_size'], patch_dim // (height * width)
    for channels in (overrides['channels'],) if 'channels' in overrides else (3, 1):
        side = math.isqrt(patch_dim // max(channels, 1))
        if side * side * channels == patch_dim:
            return side, channels
    raise InputError(
        f'expected square patches of RGB or grey, got {patch_dim} numbers a patch; '
        f'give patch_size=(height, width)'
    )


def _transpose(ours: str, array: np.ndarray) -> np.ndarray:
    return array.T if ours.endswith('kernel') else array
