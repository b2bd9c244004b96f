"""Attention over short sequences as one TPU kernel, forward and backward.

A published ViT has 50 to 1,025 tokens, so the keys, the values and the scores of an image fit into
a TPU core's vector memory. The kernel reads queries, keys and values as the projection leaves them,
[b, n, 3 h d], and writes [b, n, h d]: no copy changes a layout, and the n x n scores never leave
the core. Libraries' flash kernels, made for thousands of tokens, want [b, h, n, d] and a multiple
of 128 tokens.

The backward pass computes the scores again. Reference for its formulas: FlashAttention,
https://arxiv.org/abs/2205.14135, appendix B.4.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from vit_jax.parallel.sharding import on_own_rows

T = TypeVar('T')
VECTOR_MEMORY = 100 * 2**20  # bytes of a core that a kernel may ask for; v5e and v6e have 128 MiB


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def short_attention(qkv: Float[Array, 'b n qkv'], heads: int) -> Float[Array, 'b n out']:
    """softmax(q kᵀ / √d) v for each head; products accumulate in float32, the softmax is float32.

    Other platforms than TPUs interpret the kernel, which is slow.

    Args:
      qkv: queries, keys and values of all heads, one after the other.
      heads: h.
    """
    b, n, width = qkv.shape
    return _call(_forward, heads, (b, n, width // 3), qkv)


def fits(num_tokens: int, width: int, itemsize: int) -> bool:
    """Whether the backward pass of one image fits into a core's vector memory.

    Args:
      num_tokens: n.
      width: 3 h d.
      itemsize: bytes of a number of qkv.
    """
    blocks = 2 * num_tokens * (2 * width + width // 3) * itemsize  # in and out, double-buffered
    scores = 8 * num_tokens**2 * 4
    return blocks + scores <= VECTOR_MEMORY


def _save(qkv: Float[Array, 'b n qkv'], heads: int) -> tuple[Array, Array]:
    return short_attention(qkv, heads), qkv


def _gradient(heads: int, qkv: Array, gradient: Array) -> tuple[Array]:
    return (_call(_backward, heads, qkv.shape, qkv, gradient),)


short_attention.defvjp(_save, _gradient)


def _call(kernel: Callable, heads: int, shape: tuple[int, ...], *arrays: Array) -> Array:
    """Runs a kernel on one image after the other, each device of a mesh on its own images.

    Args:
      shape: of the result.
    """
    _, n, width = shape

    def run(*arrays: Array, interpret: bool) -> Array:
        images = len(arrays[0])

        def image(width: int) -> pl.BlockSpec:
            return pl.BlockSpec((None, n, width), lambda i: (i, 0, 0))

        return pl.pallas_call(
            functools.partial(kernel, heads=heads),
            grid=(images,),
            in_specs=[image(x.shape[-1]) for x in arrays],
            out_specs=image(width),
            out_shape=jax.ShapeDtypeStruct((images, n, width), arrays[0].dtype),
            name=f'short_attention{kernel.__name__}',
            interpret=interpret,
            compiler_params=pltpu.CompilerParams(
                dimension_semantics=('parallel',), vmem_limit_bytes=VECTOR_MEMORY
            ),
        )(*arrays)

    return jax.lax.platform_dependent(
        *arrays,
        tpu=on_own_rows(functools.partial(run, interpret=False)),
        default=functools.partial(run, interpret=True),
    )


def _parts(width: int, heads: int) -> list[tuple[slice, slice, slice]]:
    """For each head, the columns of its queries, which are also its output's, keys and values."""
    d = width // 3 // heads
    columns = [slice(i * d, (i + 1) * d) for i in range(3 * heads)]
    return list(zip(columns[:heads], columns[heads : 2 * heads], columns[2 * heads :], strict=True))


def _dot(a: Array, b: Array, over: tuple[int, int]) -> Float[Array, 'm n']:
    """Σ over one axis of each, accumulated in float32."""
    axes = ((over[0],), (over[1],)), ((), ())
    return jax.lax.dot_general(a, b, axes, preferred_element_type=jnp.float32)


def _scores(q: Array, k: Array) -> Float[Array, 'keys queries']:
    """k qᵀ / √d. With queries along the lanes, the softmax's maxima and sums need no shuffles."""
    return _dot(k, q * jnp.asarray(q.shape[-1] ** -0.5, q.dtype), (1, 1))


def _one_ahead(items: Iterator[T]) -> Iterator[T]:
    """The same, each when the next one has been computed.

    The products of the next head then run beside the softmax of this one: on a v5e, a forward pass
    of B/16 issues 3,544 instead of 4,803 instructions an image, a backward pass 6,567 of 8,283.
    """
    last = next(items)
    for item in items:
        yield last
        last = item
    yield last


def _forward(qkv: Any, out: Any, *, heads: int) -> None:
    parts = _parts(qkv.shape[-1], heads)
    products = (_scores(qkv[:, q], qkv[:, k]) for q, k, _ in parts)
    for (q, _, v), scores in zip(parts, _one_ahead(products), strict=True):
        exp = jnp.exp(scores - scores.max(axis=0, keepdims=True))
        attended = _dot(qkv[:, v], exp.astype(qkv.dtype), (0, 0))
        out[:, q] = (attended * (1 / exp.sum(axis=0, keepdims=True))).astype(out.dtype).T


def _backward(qkv: Any, gradient: Any, out: Any, *, heads: int) -> None:
    parts = _parts(qkv.shape[-1], heads)
    products = (
        (_scores(qkv[:, q], qkv[:, k]), _dot(qkv[:, v], gradient[:, q], (1, 1)))
        for q, k, v in parts
    )
    for (q, k, v), (scores, dp) in zip(parts, _one_ahead(products), strict=True):
        exp = jnp.exp(scores - scores.max(axis=0, keepdims=True))
        p = exp * (1 / exp.sum(axis=0, keepdims=True))
        out[:, v] = _dot(p.astype(qkv.dtype), gradient[:, q], (1, 0)).astype(out.dtype)
        root = (q.stop - q.start) ** -0.5
        ds = (p * (dp - (p * dp).sum(axis=0, keepdims=True)) * root).astype(qkv.dtype)
        out[:, q] = _dot(qkv[:, k], ds, (0, 0)).astype(out.dtype).T
        out[:, k] = _dot(ds, qkv[:, q], (1, 0)).astype(out.dtype)
