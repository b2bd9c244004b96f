"""Muon: orthogonal updates for the matrices of the layers, AdamW's for everything else."""

import math
from typing import Any

import jax
import numpy as np
import optax
from flax.traverse_util import flatten_dict
from jaxtyping import Array, Float


def muon(
    adam: optax.GradientTransformation, *, b1: float, moments_dtype: str, gated: bool
) -> optax.GradientTransformation:
    """Momentum, orthogonalised by Newton-Schulz iterations; Adam for everything else.

    Each matrix, of i inputs and o outputs, moves by 0.2 √max(i, o) times an orthogonal matrix, so
    its elements move about as far as AdamW's do: one learning rate and one weight decay serve both
    (Moonlight, https://arxiv.org/abs/2502.16982). Queries, keys and values are
    orthogonalised separately although they lie side by side, which works better
    (https://kellerjordan.github.io/posts/muon/), and so are the gate and the values of a gated
    block.

    Args:
      adam: for all other parameters.
      b1: of the momentum, which is Nesterov's; 0.95 is usual.
      moments_dtype: of the momentum.
      gated: whether the feed-forward blocks are.
    """
    side_by_side = {'to_qkv': 3, 'net_0': 1 + gated}

    def split(path: Any, x: Float[Array, 'depth i po']) -> Float[Array, 'depth i p o']:
        module, name = path[-2].key, path[-1].key
        parts = 1 if name == 'lora_a' else side_by_side.get(module, 1)  # its columns are the rank
        return x.reshape(*x.shape[:-1], parts, -1)

    def join(x: Float[Array, 'depth i p o']) -> Float[Array, 'depth i po']:
        return x.reshape(*x.shape[:-2], -1)

    def scale(x: Float[Array, 'depth i p o']) -> Float[Array, 'depth i p o']:
        return 0.2 * math.sqrt(max(x.shape[1], x.shape[3])) * x

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, mu = jax.tree_util.tree_map_with_path(split, (updates, state.mu))
        updates, state = orthogonal.update(updates, state._replace(mu=mu))
        updates = jax.tree.map(lambda x: join(scale(x)), updates)
        return updates, state._replace(mu=jax.tree.map(join, state.mu))

    # All other axes, of the layers and of the parts, hold matrices side by side.
    axes = optax.contrib.MuonDimensionNumbers(reduction_axis=-3, output_axis=-1)
    orthogonal = optax.contrib.scale_by_muon(
        beta=b1,
        mu_dtype=moments_dtype,
        weight_dimension_numbers=lambda updates: jax.tree.map(lambda _: axes, updates),
    )
    of_matrices = optax.GradientTransformation(orthogonal.init, update)
    return optax.partition({'muon': of_matrices, 'adamw': adam}, groups)


def groups(params: Any) -> Any:
    """'muon' for the matrices of the layers, kernels and adapters; 'adamw' for everything else."""

    def group(path: Any, x: Any) -> str:
        is_matrix = path[0].key == 'transformer' and len(x.shape) == 3  # stacked over depth
        return 'muon' if is_matrix else 'adamw'

    return jax.tree_util.tree_map_with_path(group, params)


def describe_groups(params: Any, factors: Any) -> str:
    """A line on how many parameters learn by which update.

    Args:
      params: or their shapes.
      factors: of the learning rate, from `vit_jax.train.optim.learning_rate_factors`.
    """
    counts = {'muon': 0, 'adamw': 0}
    leaves, factors = flatten_dict(params), flatten_dict(factors)
    for path, group in flatten_dict(groups(params)).items():
        learning = np.count_nonzero(factors[path]) / factors[path].size
        counts[group] += round(learning * math.prod(leaves[path].shape))
    return (
        f'muon for {counts["muon"]:,} parameters, the matrices of the layers; adamw for the other '
        f'{counts["adamw"]:,}'
    )
