"""transformers' ViTs, as they are saved in folders; see `families` and `huggingface_folder`.

Source: https://github.com/huggingface/transformers, `models/`.
"""

from typing import Any, NoReturn

from vit_jax.errors import InputError
from vit_jax.model.vit import ViT
from vit_jax.weights.accounting import Entry
from vit_jax.weights.families import FAMILIES, choose
from vit_jax.weights.families.family import PATCHES
from vit_jax.weights.files import Tensors

EXPRESSIBLE = {'posemb': ('learned',)}
HEAD_ARRAY = 'classifier.weight'
RESIZE = 'bicubic_no_antialias'


def recognises(tensors: Tensors) -> bool:
    """Whether these are the arrays of one of transformers' ViTs."""
    endings = tuple(f'{family.names[PATCHES]}.weight' for family in FAMILIES)
    return any(name.endswith(endings) for name in tensors)


def infer(tensors: Tensors, known: dict[str, Any]) -> NoReturn:
    """Raises InputError: the number of heads and the family are in the folder's `config.json`."""
    raise InputError('expected the folder with config.json, got a file without it')


def check(model: ViT) -> None:
    """Validates that one of transformers' ViTs computes what the model does.

    Raises:
      InputError: if none does.
    """
    choose(model)


def entries(model: ViT, tensors: Tensors | None = None) -> list[Entry]:
    """The layout of the arrays, for writing, before the family packs them."""
    return choose(model).entries(model)
