"""What transformers' ViTs have in common, and a table of how one differs from the others.

Sizes and options are in `config.json`; the arrays must agree. Arrays that our parameters do not
match one to one are unpacked when they are read, and packed again when they are written.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from vit_jax.errors import InputError
from vit_jax.model.shapes import pair
from vit_jax.model.vit import ViT
from vit_jax.weights.accounting import (
    HEAD,
    Entry,
    check_expressible,
    check_projection,
    linear,
    norm,
    shorten,
)
from vit_jax.weights.families.tables import ACTIVATIONS, KINDS, PLAIN, SIZES
from vit_jax.weights.files import Arrays, Tensors
from vit_jax.weights.infer import (
    count_layers,
    infer_classes,
    infer_positions,
    shape_of,
    split_heads,
)
from vit_jax.weights.timm import conv_layout

Config = dict[str, Any]
PATCHES, QKV, DOWN = 'to_patch_embedding', 'transformer/attn/fn/to_qkv', 'transformer/ff/fn/net_1'
POOL, CLASSIFIER = 'mlp_head/attention_pool', 'mlp_head/layers_1'
NORMS = ('norm_tokens', 'transformer/attn/norm', 'transformer/ff/norm', 'mlp_head/layers_0')
TOKENS = ('cls_token', 'dist_token', 'register_tokens', 'pos_embedding')
SCALES = ('transformer/attn/gamma', 'transformer/ff/gamma', f'{POOL}/probe')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """How transformers stores one kind of ViT.

    Args:
      types: the `model_type` in `config.json`; the first is written.
      architectures: transformers' classes without and with a classifier.
      names: module or parameter of ours → module or array of theirs; several of theirs are equal
        parts of our outputs. {} is the layer's number.
      base: prefix of all their names but the classifier's, if there is a classifier.
      renamed: patterns of other names that files may have, and how `names` has them.
      axes: number of axes of their array, for parameters of which ours has leading ones.
      fixed: arguments of the ViT that all of the family have.
      expressible: other arguments, and the values they may have; besides `PLAIN`.
      free: other arguments that may have any value.
      defaults: what `config.json` may leave out.
      read: the ViT's arguments in a config, given the arrays; besides `SIZES` and `fixed`.
      write: completes the keys of a config for a model and its arrays.
      unpack: replaces arrays by those in `names`, given their prefix and the config.
      pack: the reverse, given the prefix and the model.
      misfit: why the family cannot express a model, else ''.
      needs: an array that the files must have, to distinguish two families with the same types.
      aside: prefixes of arrays that are not the ViT's, and are left out with a note.
      mask_axes: number of axes of the mask token, which only training uses; 0 if there is none.
      square: whether images and patches must be square.
      has_names: whether the classifier's outputs are classes, with names.
      RESIZE: how its own code resizes position embeddings.
    """

    types: tuple[str, ...]
    architectures: tuple[str, str]
    names: Mapping[str, str | tuple[str, ...]]
    base: str
    renamed: tuple[tuple[str, str], ...] = ()
    axes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    expressible: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    free: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    read: Callable[[Config, Tensors], dict[str, Any]] = lambda config, tensors: {}
    write: Callable[[Config, ViT, Arrays], Config] = lambda config, model, arrays: config
    unpack: Callable[[Tensors, str, Config], Tensors] = lambda tensors, prefix, config: tensors
    pack: Callable[[Arrays, str, ViT], Arrays] = lambda arrays, prefix, model: arrays
    misfit: Callable[[ViT], str] = lambda model: ''
    needs: str = ''
    aside: tuple[str, ...] = ()
    mask_axes: int = 0
    square: bool = False
    has_names: bool = True
    RESIZE: str = 'bicubic_no_antialias'

    @property
    def HEAD_ARRAY(self) -> str:
        return f'{self.names[CLASSIFIER]}.weight' if CLASSIFIER in self.names else ''

    def name(self, ours: str, prefix: str) -> str:
        """Their first name for a parameter or module of ours; of the first layer."""
        theirs = self.names[ours]
        return prefix + (theirs if isinstance(theirs, str) else theirs[0]).format(0)

    def prefix(self, tensors: Tensors) -> str:
        """The prefix of the backbone's arrays in a file."""
        return self.base if self.name(PATCHES, self.base) + '.weight' in tensors else ''

    def open(self, tensors: Tensors, config: Config) -> tuple[Tensors, list[str]]:
        """The arrays of a file, one for each in `names`, and notes on those that are left out."""
        tensors = rename(tensors, self.renamed)
        notes = []
        if aside := [name for name in tensors if name.startswith(self.aside)]:
            notes.append(f'{len(aside)} arrays besides the ViT ignored: {shorten(aside)}')
        prefix = self.prefix(tensors)
        unused = {f'{prefix}embeddings.{name}' for name in ('mask_token', 'position_ids')}
        tensors = {n: x for n, x in tensors.items() if n not in {*aside, *unused}}
        return self.unpack(tensors, prefix, config), notes

    def arguments(self, config: Config, tensors: Tensors) -> dict[str, Any]:
        """The ViT's arguments in a config, of the arrays that `open` returns.

        Raises:
          InputError: if one is missing, or our ViT does not support it.
        """
        act = config.get('hidden_act')
        if act not in list(ACTIVATIONS):
            raise InputError(
                f'expected hidden_act to be one of {", ".join(ACTIVATIONS)}, got {act!r}'
            )
        qkv_bias = bool(config.get('qkv_bias', True))
        arguments = {'gelu': ACTIVATIONS[act], 'qkv_bias': qkv_bias, **self.fixed}
        arguments |= {name: config.get(theirs) for name, theirs in SIZES.items()}
        arguments |= self.read(config, tensors)
        for name in SIZES:
            value, kinds = arguments[name], KINDS.get(name, int)
            if not isinstance(value, kinds) or isinstance(value, bool):
                raise InputError(f'config.json has {value!r} for {name}, expected a number')
        if self.square and not _is_square(arguments['image_size'], arguments['patch_size']):
            raise InputError(
                f'{self.types[0]}: expected square images and patches, got '
                f'{arguments["image_size"]} and {arguments["patch_size"]}'
            )
        return arguments

    def infer(self, tensors: Tensors, known: dict[str, Any]) -> dict[str, Any]:
        """Infers the ViT's arguments from the shapes and `config.json`.

        Raises:
          InputError: if an array is missing, or does not fit.
        """
        prefix = self.prefix(tensors)
        dim, channels, p1, p2 = shape_of(tensors, self.name(PATCHES, prefix) + '.weight', 4)
        patch_size = p1 if p1 == p2 else (p1, p2)
        inner_dim = shape_of(tensors, self.name(QKV, prefix) + '.weight', 2)[0]
        mlp_dim = shape_of(tensors, self.name(DOWN, prefix) + '.weight', 2)[1]
        layers = prefix + str(self.names[DOWN]).split('{}')[0]
        registers, pooler = (
            self.name(n, prefix) if n in self.names else ''
            for n in ('register_tokens', 'mlp_head/pre_logits')
        )
        num_registers = shape_of(tensors, registers, 3)[1] if registers in tensors else 0
        pooler = f'{pooler}.weight'
        is_pooled = pooler in tensors and self.HEAD_ARRAY not in tensors  # classifiers use none
        inferred = {
            **infer_classes(tensors, self.HEAD_ARRAY, 0, known),
            'patch_size': patch_size,
            'channels': channels,
            'dim': dim,
            'depth': count_layers(tensors, layers),
            **split_heads(inner_dim, known.get('heads')),
            'mlp_dim': mlp_dim,
            'num_registers': num_registers,
            'representation_size': shape_of(tensors, pooler, 2)[0] if is_pooled else 0,
            'image_size': known['image_size'],
        }
        if 'pos_embedding' not in self.names:
            return inferred
        axes = self.axes.get('pos_embedding', 3)
        length = shape_of(tensors, self.name('pos_embedding', prefix), axes)[axes - 2]
        num_prefix = num_registers + sum(name in self.names for name in TOKENS[:2])
        known = {'posemb': 'learned', **known}
        return inferred | infer_positions(length, num_prefix, patch_size, known)

    def allowed(self, model: ViT) -> dict[str, tuple[Any, ...]]:
        """The values that arguments of a model may have."""
        allowed = PLAIN | {name: (value,) for name, value in self.fixed.items()}
        allowed |= self.expressible
        allowed |= {name: (getattr(model, name),) for name in self.free}
        if not model.num_classes and 'mlp_head/pre_logits' in self.names:
            allowed['representation_size'] = (model.representation_size,)
        return allowed

    def count_misfits(self, model: ViT) -> int:
        """The number of arguments of a model that the family cannot express."""
        allowed = self.allowed(model)
        wrong = sum(getattr(model, name) not in values for name, values in allowed.items())
        return wrong + bool(self.misfit(model))

    def check(self, model: ViT) -> None:
        """Validates that transformers computes what the model does.

        Raises:
          InputError: if it does not.
        """
        check_projection(model, 'huggingface')
        check_expressible(model, 'huggingface', self.allowed(model))
        misfit = self.misfit(model)
        if self.square and not _is_square(model.image_size, model.patch_size):
            misfit = 'square images and patches'
        if misfit:
            raise InputError(f"format 'huggingface', {self.types[0]}: expected {misfit}")

    def entries(self, model: ViT, tensors: Tensors | None = None) -> list[Entry]:
        """The layout of the arrays: in a file with these `tensors`, or, without, for writing."""
        if tensors is None:
            prefix = self.base if model.num_classes else ''
        else:
            prefix = self.prefix(tensors)
        entries: list[Entry] = []
        for ours, theirs in self.names.items():
            before = '' if f'{ours}/' in HEAD else prefix
            if isinstance(theirs, tuple):
                entries += linear(ours, tuple(before + name for name in theirs))
            elif ours == PATCHES:
                kernel = f'{before}{theirs}.weight'
                entries.append(Entry(f'{ours}/kernel', kernel, *conv_layout(model)))
                entries.append(Entry(f'{ours}/bias', f'{before}{theirs}.bias'))
            elif ours in (*TOKENS, *SCALES):
                entries.append(Entry(ours, before + theirs, *_fewer_axes(self.axes.get(ours))))
            elif ours in NORMS or ours == f'{POOL}/norm':
                entries += norm(ours, before + theirs)
            else:
                entries += linear(ours, before + theirs)
        return entries

    def config(self, model: ViT, arrays: Arrays) -> Config:
        """The contents of `config.json` for a model and its arrays."""
        names = {act: name for name, act in reversed(ACTIVATIONS.items())}
        config = {
            'architectures': [self.architectures[bool(model.num_classes)]],
            'model_type': self.types[0],
            **{theirs: getattr(model, ours) for ours, theirs in SIZES.items()},
            'hidden_act': names[model.gelu],
            'qkv_bias': model.qkv_bias,
        }
        if self.square:
            config |= {n: pair(config[n])[0] for n in ('image_size', 'patch_size')}
        return self.write(config, model, arrays)

    def packed(self, arrays: Arrays, model: ViT) -> Arrays:
        """The arrays to write, of those that `entries` names."""
        prefix = self.base if model.num_classes else ''
        arrays = self.pack(arrays, prefix, model)
        if self.mask_axes:
            shape = (1,) * (self.mask_axes - 1) + (model.dim,)
            arrays |= {f'{prefix}embeddings.mask_token': np.zeros(shape, np.float32)}
        return arrays


def rename(tensors: Tensors, patterns: Iterable[tuple[str, str]]) -> Tensors:
    """Replaces regular expressions in names.

    Raises:
      InputError: if two arrays have one name then.
    """
    for theirs, ours in patterns:
        renamed = {re.sub(theirs, ours, name): x for name, x in tensors.items()}
        if len(renamed) < len(tensors):
            twice = sorted(set(tensors) - set(renamed))
            raise InputError(f'unexpected arrays, which are there twice: {shorten(twice)}')
        tensors = renamed
    return tensors


def _is_square(*sizes: Any) -> bool:
    return all(len(set(pair(size))) == 1 for size in sizes)


def _fewer_axes(axes: int | None) -> tuple[Any, ...]:
    """To a parameter from an array without its leading axes, each of length 1, and back."""
    if axes is None:
        return ()

    def to_ours(array: np.ndarray) -> np.ndarray:
        return array.reshape((1,) * (3 - axes) + array.shape)

    def to_theirs(array: np.ndarray) -> np.ndarray:
        return array.reshape(array.shape[3 - axes :])

    return to_ours, to_theirs
