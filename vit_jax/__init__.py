"""The Vision Transformer in JAX: train it, trust the run, use what you trained."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vit_jax.errors import InputError

if TYPE_CHECKING:
    from vit_jax.model.variants import create_model
    from vit_jax.model.vit import ViT
    from vit_jax.train.config import default_config, load_config
    from vit_jax.train.trainer import train
    from vit_jax.use.predict import Predictor
    from vit_jax.weights import load_weights, save_weights

__version__ = '0.1.0'
__all__ = [
    'InputError',
    'Predictor',
    'ViT',
    'create_model',
    'default_config',
    'load_config',
    'load_weights',
    'save_weights',
    'train',
]

_ON_FIRST_USE = {
    'Predictor': 'vit_jax.use.predict',
    'ViT': 'vit_jax.model.vit',
    'create_model': 'vit_jax.model.variants',
    'default_config': 'vit_jax.train.config',
    'load_config': 'vit_jax.train.config',
    'load_weights': 'vit_jax.weights',
    'save_weights': 'vit_jax.weights',
}


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    """Imports on first use what is slow to import, so that a command starts at once."""
    if name == 'train':  # the package of that name, which is callable
        return import_module('vit_jax.train')
    if name in _ON_FIRST_USE:
        return getattr(import_module(_ON_FIRST_USE[name]), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
