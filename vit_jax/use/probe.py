"""How much the features of a frozen model know: nearest neighbours, and a linear classifier.

Axes: n training examples, m queries, d features, k classes.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, Float32, Int, Int32

from vit_jax.data.order import epoch_order
from vit_jax.errors import InputError
from vit_jax.model.vit import ViT

NEIGHBOURS = 20
TEMPERATURE = 0.07
CHUNK = 2**26  # similarities that are held at once, 256 MiB
STRENGTHS = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)  # of L2, strongest first
MAX_STEPS = 300  # of L-BFGS
# Largest element of the gradient: that far from the minimum, per unit of l2, a parameter can be.
TOLERANCE = 1e-3
RESOLUTION = 2e-7  # of a gradient of the mean loss, in float32
HIGHEST = jax.lax.Precision.HIGHEST  # float32 products on every device


def knn_votes(
    features: Float32[np.ndarray, 'n d'],
    labels: Int[np.ndarray, 'n'],
    queries: Float32[np.ndarray, 'm d'],
    num_classes: int,
    neighbours: int = NEIGHBOURS,
    temperature: float = TEMPERATURE,
) -> Float32[np.ndarray, 'm k']:
    """Votes of the nearest training examples, as DINO counts them.

    The similarity s of two pictures is the cosine of their features. Each of the most similar
    training examples votes for its class with exp(s / temperature).

    Args:
      features, labels: of the training examples; fewer than `neighbours` all vote.
      queries: features of the pictures to classify.
      num_classes: k.
      neighbours, temperature: DINO's are 20 and 0.07.

    Returns:
      The sum of the votes for each class.

    Raises:
      InputError: if there are no training examples, or an option is out of range.

    Reference: https://arxiv.org/abs/2104.14294, appendix F.1; `eval_knn.py` of
    https://github.com/facebookresearch/dino.
    """
    if neighbours < 1 or not temperature > 0 or not len(features):
        raise InputError(
            f'expected training examples, neighbours from 1 and a temperature above 0, '
            f'got {len(features)}, {neighbours} and {temperature}'
        )
    rows = max(1, min(len(queries), 1024, CHUNK // len(features)))
    padded = np.zeros((math.ceil(len(queries) / rows) * rows, queries.shape[1]), np.float32)
    padded[: len(queries)] = queries
    options = {'neighbours': min(neighbours, len(features)), 'num_classes': num_classes}
    train, classes = _normalised(jnp.asarray(features)), jnp.asarray(labels)
    found = [
        np.asarray(_votes(train, classes, padded[start : start + rows], temperature, **options))
        for start in range(0, len(padded), rows)
    ]
    return np.concatenate([*found, np.zeros((0, num_classes), np.float32)])[: len(queries)]


@functools.partial(jax.jit, static_argnames=('neighbours', 'num_classes'))
def _votes(
    train: Float[Array, 'n d'],
    labels: Int[Array, 'n'],
    queries: Float[Array, 'm d'],
    temperature: float | Array,
    *,
    neighbours: int,
    num_classes: int,
) -> Float[Array, 'm k']:
    similarity = jnp.matmul(_normalised(queries), train.T, precision=HIGHEST)
    nearest, indices = jax.lax.top_k(similarity, neighbours)
    weights = jnp.exp(nearest / temperature)
    add = jax.vmap(lambda at, w: jnp.zeros(num_classes, w.dtype).at[at].add(w))
    votes: Array = add(labels[indices], weights)
    return votes


def _normalised(x: Float[Array, 'n d']) -> Float[Array, 'n d']:
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


class LinearProbe(NamedTuple):
    """A linear classifier of features.

    Args:
      kernel, bias: logits are features @ kernel + bias; standardisation is part of them.
      l2: strength of the regularisation.
      held_out: the accuracy on the held-out tenth for each strength that was tried.
    """

    kernel: Float32[np.ndarray, 'd k']
    bias: Float32[np.ndarray, 'k']
    l2: float
    held_out: dict[float, float]

    def logits(self, features: Float32[np.ndarray, 'm d']) -> Float32[np.ndarray, 'm k']:
        return np.asarray(_logits(features, self.kernel, self.bias))


@jax.jit
def _logits(x: Float[Array, 'm d'], kernel: Array, bias: Array) -> Float[Array, 'm k']:
    return jnp.matmul(x, kernel, precision=HIGHEST) + bias


def fit_linear(
    features: Float32[np.ndarray, 'n d'],
    labels: Int[np.ndarray, 'n'],
    num_classes: int,
    strengths: tuple[float, ...] = STRENGTHS,
) -> LinearProbe:
    """Fits a linear classifier: softmax cross-entropy with L2, by full-batch L-BFGS.

    Minimises mean cross-entropy + l2 / 2 · Σ kernel², where the features are standardised to mean 0
    and variance 1; scikit-learn's `LogisticRegression` does so with C = 1 / (n · l2). Among several
    strengths, the best on a held-out tenth, a random one but always the same, is refitted to all
    examples: by accuracy, of equals by cross-entropy.

    Args:
      features, labels: of the training examples.
      num_classes: k.
      strengths: candidates for l2.

    Raises:
      InputError: if there are fewer than two examples to choose from several strengths, or a
        strength is not positive.
    """
    if not strengths or min(strengths) <= 0 or len(features) < 1 + (len(strengths) > 1):
        raise InputError(
            f'expected two training examples or more and positive strengths of L2, '
            f'got {len(features)} and {strengths}'
        )
    x, y = jnp.asarray(features), jnp.asarray(labels, jnp.int32)
    mean, std = x.mean(axis=0), jnp.maximum(x.std(axis=0), 1e-6)
    x = (x - mean) / std
    strength, held_out = strengths[0], dict[float, float]()
    start = jnp.zeros((x.shape[1], num_classes)), jnp.zeros(num_classes)
    if len(strengths) > 1:
        order = epoch_order(0, 0, len(features))
        aside, rest = np.split(order, [max(1, len(order) // 10)])
        params, scores = start, {}
        for candidate in sorted(strengths, reverse=True):  # each starts from the one before
            params = _minimise(params, x[rest], y[rest], candidate)
            correct, loss = _score(params, x[aside], y[aside])
            held_out[candidate] = int(correct) / len(aside)
            scores[candidate] = held_out[candidate], -float(loss)
        strength = max(scores, key=lambda candidate: scores[candidate])
    kernel, bias = _minimise(start, x, y, strength)
    kernel = kernel / std[:, None]
    bias = bias - jnp.matmul(mean, kernel, precision=HIGHEST)
    return LinearProbe(np.asarray(kernel), np.asarray(bias), strength, held_out)


Params = tuple[Float[Array, 'd k'], Float[Array, 'k']]


@jax.jit
def _minimise(
    params: Params, x: Float[Array, 'n d'], y: Int32[Array, 'n'], l2: float | Array
) -> Params:
    """The kernel and bias of least loss, from a start."""

    def loss(params: Params) -> Array:
        cross_entropy = optax.softmax_cross_entropy_with_integer_labels(_logits(x, *params), y)
        return cross_entropy.mean() + l2 / 2 * jnp.sum(params[0] ** 2)

    optimizer = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(loss)

    def step(carry: Any) -> Any:
        params, state, number, *_ = carry
        value, gradient = value_and_grad(params, state=state)
        updates, state = optimizer.update(
            gradient, state, params, value=value, grad=gradient, value_fn=loss
        )
        params = optax.apply_updates(params, updates)
        return params, state, number + 1, optax.tree.norm(optax.tree.get(state, 'grad'), jnp.inf)

    enough = jnp.maximum(TOLERANCE * l2, RESOLUTION)
    start = params, optimizer.init(params), 0, jnp.inf
    params, *_ = jax.lax.while_loop(lambda c: (c[3] > enough) & (c[2] < MAX_STEPS), step, start)
    return params


@jax.jit
def _score(params: Params, x: Float[Array, 'm d'], y: Int32[Array, 'm']) -> tuple[Array, Array]:
    """How many are right, and the mean cross-entropy."""
    logits = _logits(x, *params)
    cross_entropy = optax.softmax_cross_entropy_with_integer_labels(logits, y)
    return (logits.argmax(axis=-1) == y).sum(), cross_entropy.mean()


def with_head(
    model: ViT, variables: dict[str, Any], probe: LinearProbe
) -> tuple[ViT, dict[str, Any]]:
    """A model with a fitted classifier in place of its own, if it has one.

    Of a distilled model, both heads become this classifier; the mean of their logits is its answer
    to the mean of their features.
    """
    params = flatten_dict(variables['params'], sep='/')
    for layer in ('layers_1', 'dist') if model.distilled else ('layers_1',):
        params[f'mlp_head/{layer}/kernel'] = probe.kernel
        params[f'mlp_head/{layer}/bias'] = probe.bias
    model = model.clone(num_classes=len(probe.bias))
    return model, {'params': unflatten_dict(params, sep='/')}


def accuracy(scores: Float32[np.ndarray, 'm k'], labels: Int[np.ndarray, 'm']) -> dict[str, float]:
    """'accuracy', and with more than five classes 'top_5_accuracy', of scores for each class."""
    order = np.argsort(-scores, axis=-1, kind='stable')
    right = order == labels[:, None]
    top_5 = {'top_5_accuracy': float(right[:, :5].any(axis=-1).mean())}
    return {'accuracy': float(right[:, 0].mean()), **(top_5 if scores.shape[1] > 5 else {})}
