"""transformers' ViTs: one module for those that name their arrays alike."""

from typing import Any

from vit_jax.errors import InputError
from vit_jax.model.vit import ViT
from vit_jax.weights.families.clip import CLIP
from vit_jax.weights.families.dinov2 import DINOV2, DINOV2_WITH_REGISTERS
from vit_jax.weights.families.dinov3 import DINOV3, GATED_DINOV3
from vit_jax.weights.families.family import Config, Family
from vit_jax.weights.families.siglip import SIGLIP, SIGLIP_CLASSIFIER
from vit_jax.weights.families.vit import DEIT, DISTILLED_DEIT, IJEPA, MAE, VIT
from vit_jax.weights.files import Tensors

# In the order of preference for writing a model that several can express.
FAMILIES = (
    VIT,
    DISTILLED_DEIT,
    DEIT,
    SIGLIP_CLASSIFIER,
    IJEPA,
    DINOV2,
    DINOV2_WITH_REGISTERS,
    SIGLIP,
    CLIP,
    DINOV3,
    GATED_DINOV3,
    MAE,
)
# Asked for, and not computed by our ViT.
REFUSED = {
    'beit': 'its positions are biases of the attention',
    'data2vec-vision': 'its positions are biases of the attention',
    'siglip2': 'NaFlex resizes its positions for each picture',
    'siglip2_vision_model': 'NaFlex resizes its positions for each picture',
}


def find(config: Config, tensors: Tensors) -> tuple[Family, Config]:
    """The family of a folder, and the part of its config that describes the ViT.

    Raises:
      InputError: if there is none.
    """
    kind: Any = config.get('model_type')
    types = sorted({name for family in FAMILIES for name in family.types})
    if kind in list(REFUSED):
        raise InputError(f'model_type {kind!r} is not supported: {REFUSED[kind]}')
    if kind not in types:
        raise InputError(f'expected model_type to be one of {", ".join(types)}, got {kind!r}')
    family = min(
        (family for family in FAMILIES if kind in family.types and _has(tensors, family.needs)),
        key=lambda family: not family.needs,
    )
    vision = config.get('vision_config', {})
    if not isinstance(vision, dict):
        raise InputError(f'expected vision_config to be an object, got {vision!r}')
    return family, {**family.defaults, **config, **vision}


def choose(model: ViT) -> Family:
    """The first family that computes what the model does.

    Raises:
      InputError: if there is none; it says what the closest one lacks.
    """
    errors = []
    for family in FAMILIES:
        try:
            family.check(model)
        except InputError as error:
            errors.append((family.count_misfits(model), error))
        else:
            return family
    raise min(errors, key=lambda counted: counted[0])[1]


def _has(tensors: Tensors, name: str) -> bool:
    return any(theirs.endswith(name) for theirs in tensors)
