"""Biases that a format lacks and our parameters have: zeros."""

import functools
from collections.abc import Iterable

import numpy as np

from vit_jax.errors import InputError
from vit_jax.weights.files import Arrays, Stored, Tensors


def add_zeros(tensors: Tensors, weights: Iterable[str]) -> Tensors:
    """Adds the biases of weights [out, in] that have none.

    Raises:
      InputError: if one has a bias.
    """
    zeros = {}
    for name in weights:
        if name in tensors and len(shape := tensors[name].shape) == 2:
            bias = name.removesuffix('weight') + 'bias'
            if bias in tensors:
                raise InputError(f'{bias}: expected no such array')
            read = functools.partial(np.zeros, shape[:1], np.float32)
            zeros[bias] = Stored(shape[:1], 'float32', read)
    return tensors | zeros


def drop_zeros(arrays: Arrays, biases: Iterable[str]) -> Arrays:
    """Leaves biases out.

    Raises:
      InputError: if one is not zero.
    """
    arrays = dict(arrays)
    for name in biases:
        if name in arrays and arrays.pop(name).any():
            raise InputError(f"format 'huggingface': expected zeros, since it has no {name}")
    return arrays
