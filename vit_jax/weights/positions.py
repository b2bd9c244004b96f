"""Position embeddings for formats that know learned ones alone."""

import numpy as np

from vit_jax.model.vit import ViT
from vit_jax.weights.files import Arrays


def with_learned_positions(model: ViT, params: Arrays) -> tuple[ViT, Arrays]:
    """The same function of images of `image_size`, with its position embeddings as a parameter.

    Args:
      model: with any `posemb`.
      params: by name.
    """
    positions = model.positions(params.get('pos_embedding'), model.grid, model.dim)
    learned = {'pos_embedding': np.asarray(positions, np.float32)}
    return model.clone(posemb='learned'), params | learned
