"""Checksums of arrays, computed on their devices."""

from typing import Any

import jax
import jax.numpy as jnp


def array_checksums(tree: Any) -> tuple[dict[str, int], bool]:
    """A checksum of each array by its name, and whether all values are finite.

    Computed where the arrays are, whatever their sharding: nothing is gathered. The sum of all
    words, each times an odd number of its own, modulo 2³²: no change of one word goes unnoticed,
    any other with 2⁻³².
    """
    sums, finite = jax.device_get(_checksums(tree))
    leaves = jax.tree_util.tree_leaves_with_path(sums)
    name = jax.tree_util.keystr
    return {name(path, simple=True, separator='/'): int(x) for path, x in leaves}, bool(finite)


@jax.jit
def _checksums(tree: Any) -> tuple[Any, jax.Array]:
    def weighted_sum(x: jax.Array) -> jax.Array:
        bits = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize]
        words = jax.lax.bitcast_convert_type(x, bits).astype(jnp.uint32)
        place = jnp.zeros(x.shape, jnp.uint32)
        for axis, size in enumerate(x.shape):
            place = place * size + jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
        return (words * (2 * place + 1)).sum(dtype=jnp.uint32)

    finite = [jnp.isfinite(x).all() for x in jax.tree.leaves(tree)]
    return jax.tree.map(weighted_sum, tree), jnp.stack(finite).all()
