"""The Vision Transformer in JAX: train it, trust the run, use what you trained."""

from vit_jax.errors import InputError
from vit_jax.model import ViT

__version__ = '0.1.0'
__all__ = ['InputError', 'ViT']
