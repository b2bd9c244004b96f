"""The Vision Transformer in JAX: train it, trust the run, use what you trained."""

from typing import TYPE_CHECKING, Any

from vit_jax.errors import InputError
from vit_jax.model import ViT
from vit_jax.variants import create_model

if TYPE_CHECKING:
    from vit_jax.predict import Predictor
    from vit_jax.weights import load_weights, save_weights

__version__ = '0.1.0'
__all__ = ['InputError', 'Predictor', 'ViT', 'create_model', 'load_weights', 'save_weights']


def __getattr__(name: str) -> Any:
    """Imports on first use what brings Orbax, so that the model alone is there at once."""
    if name == 'Predictor':
        from vit_jax.predict import Predictor

        return Predictor
    if name in ('load_weights', 'save_weights'):
        from vit_jax import weights

        return getattr(weights, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
