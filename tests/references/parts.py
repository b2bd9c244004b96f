"""Building blocks shared by the references, in float64."""

import numpy as np
from scipy.special import erf, softmax

GELU = {
    'erf': lambda x: x / 2 * (1 + erf(x / np.sqrt(2))),
    'tanh': lambda x: x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    'quick': lambda x: x / (1 + np.exp(-1.702 * x)),
}


def patches(images, grid, patch):
    """Cuts [b, h, w, c] into [b, n, patch height, patch width, c], row by row."""
    (rows, columns), (height, width) = grid, patch
    x = np.asarray(images, np.float64).reshape(len(images), rows, height, columns, width, -1)
    return x.swapaxes(2, 3).reshape(len(images), rows * columns, height, width, -1)


def prepend(tokens, x):
    return np.concatenate([*(np.repeat(token, len(x), axis=0) for token in tokens), x], axis=1)


def attend(q, k, v):
    """Softmax attention of [b, n, heads, size]."""
    scores = np.einsum('bqhd,bkhd->bhqk', q, k) / np.sqrt(q.shape[-1])
    return np.einsum('bhqk,bkhd->bqhd', softmax(scores, axis=-1), v)


def layer_norm(x, scale, bias, eps):
    deviation = np.sqrt(x.var(axis=-1, keepdims=True) + eps)
    return (x - x.mean(axis=-1, keepdims=True)) / deviation * scale + bias
