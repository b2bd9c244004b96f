"""The building blocks of the model, and their measured speed-ups.

A speed-up in a comment is the ratio of median times, before over after: float32, two cores of an
Intel Xeon (Sapphire Rapids), jax 0.10.2.
"""

import functools
import re
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from vit_jax.errors import InputError
from vit_jax.model.product import product, product_p
from vit_jax.model.short_attention import fits, short_attention
from vit_jax.parallel.sharding import constrain, of_kernel

SIGMOIDS = {'quick': 1.702, 'silu': 1.0}  # activations x σ(a x), with their a

# Whether dropout is on; or, if the examples are part of a larger batch, their places in it.
Train = bool | Int[Array, 'b']


def layer_norm(epsilon: float, dtype: str = 'float32') -> nn.LayerNorm:
    """A norm of features, in float32 inside."""
    # E[x²] - E[x]² reads x once instead of twice; what it cancels is lost in bfloat16 anyway.
    return nn.LayerNorm(epsilon=epsilon, dtype=dtype, use_fast_variance=dtype == 'bfloat16')


# Patterns of the paths of linear layers that can have adapters, see `Extras.lora_kernels`.
ADAPTED = {'attention': '^transformer/attn/', 'all': '^transformer/'}


class Linear(nn.Module):
    """x W + b over the last axis, initialised like torch's: W and b from U(±1/√in_features).

    In a layer, W may have a low-rank adapter: x W + x A B + b, with A like W and B of zeros.

    Args:
      in_features, out_features, bias, dtype: as usual.
      rank: of A B; 0 for no adapter.
      adapted: which layers have one, a key of `ADAPTED`.

    Reference: https://arxiv.org/abs/2106.09685, with α = r.
    """

    in_features: int
    out_features: int
    bias: bool = True
    dtype: str = 'float32'
    rank: int = 0
    adapted: str = 'all'

    @nn.compact
    def __call__(self, x: Float[Array, '*b i']) -> Float[Array, '*b o']:
        def init(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
            bound = self.in_features**-0.5
            return jax.random.uniform(key, shape, minval=-bound, maxval=bound)

        kernel = self.param('kernel', init, (self.in_features, self.out_features))
        x, path = x.astype(self.dtype), '/'.join(self.path)
        sharding = of_kernel(f'{path}/kernel', kernel.shape)
        out = product(x, kernel, sharding)
        if self.rank and re.match(ADAPTED[self.adapted], path):
            a = self.param('lora_a', init, (self.in_features, self.rank))
            b = self.param('lora_b', nn.initializers.zeros, (self.rank, self.out_features))
            out += product(product(x, a), b)
        if sharding is not None:
            out = constrain(out, sharding.outputs)
        if self.bias:
            # Added in float32, where its gradient is summed.
            out = (out + self.param('bias', init, (self.out_features,))).astype(self.dtype)
        return out


class Dropout(nn.Module):
    """Zeros features at random, and scales the others so that the expectation stays.

    Each example has random numbers of its own, so the masks do not depend on how a batch is split,
    over devices or in time.
    """

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, 'b *n'], train: Train) -> Float[Array, 'b *n']:
        if train is False or not self.rate:
            return x
        draw = functools.partial(jax.random.bernoulli, p=1 - self.rate, shape=x.shape[1:])
        return jnp.where(jax.vmap(draw)(_example_keys(self, x, train)), x / (1 - self.rate), 0)


class DropPath(nn.Module):
    """Zeros a block's whole output for some examples, and scales the others, like `Dropout`.

    Reference: stochastic depth (https://arxiv.org/abs/1603.09382).
    """

    @nn.compact
    def __call__(
        self, x: Float[Array, 'b n d'], rate: Float[Array, ''] | None, train: Train
    ) -> Float[Array, 'b n d']:
        if train is False or rate is None:
            return x
        draw = functools.partial(jax.random.bernoulli, p=1 - rate, shape=(1, 1))
        kept = jax.vmap(draw)(_example_keys(self, x, train))
        return jnp.where(kept, x / (1 - rate).astype(x.dtype), 0)


def _example_keys(module: nn.Module, x: Float[Array, 'b *n'], train: Train) -> jax.Array:
    places = jnp.arange(len(x)) if train is True else train
    return jax.vmap(jax.random.fold_in, (None, 0))(module.make_rng('dropout'), places)


def gelu(x: Float[Array, '*b d'], form: str) -> Float[Array, '*b d']:
    """x Φ(x): 'erf' is exact, as in PyTorch; 'tanh' is the approximation that Google's models use.

    'quick' is CLIP's cruder one, x σ(1.702 x), and 'silu' is x σ(x).

    Reference: https://arxiv.org/abs/1606.08415
    """
    if form == 'tanh':
        return nn.gelu(x)
    if form in SIGMOIDS:
        return x * nn.sigmoid(SIGMOIDS[form] * x)
    # With erf like torch, not erfc like jax: the forward pass is 2.1 times as fast.
    return x * (0.5 * (1 + jax.lax.erf(x * np.sqrt(0.5).astype(x.dtype))))


def attend(
    q: Float[Array, '#b m h d'],
    k: Float[Array, 'b n h d'],
    v: Float[Array, 'b n h d'],
    implementation: str,
    drop: Callable[[Float[Array, 'b h m n']], Float[Array, 'b h m n']] = lambda weights: weights,
) -> Float[Array, 'b m h d']:
    """softmax(q kᵀ / √d) v for each head, the softmax in float32.

    Args:
      q, k, v: queries, keys and values.
      implementation: 'xla'; 'cudnn', the fused kernel of NVIDIA GPUs, which needs bfloat16;
        'pallas', `short_attention` for TPUs; or 'auto', the best of them for the first device. With
        queries of another shape than the keys, only 'xla'.
      drop: dropout of the weights, with 'xla'.

    Raises:
      InputError: if the device has no such kernel.
    """
    q, k, v = (constrain(x, 'tensor', None) for x in (q, k, v))
    if implementation == 'auto':
        implementation = best_attention(jax.devices()[0], k)
    if implementation == 'pallas':
        out = checkpoint_name(short_attention(_joined(q, k, v), q.shape[2]), 'attention')
        return out.reshape(q.shape)
    if implementation == 'cudnn':
        # cuDNN's backward pass takes even lengths only; every published variant's is odd.
        n = q.shape[1]
        lengths = jnp.full(q.shape[0], n, jnp.int32)
        padded = jnp.pad(_joined(q, k, v), ((0, 0), (0, n % 2), (0, 0)))
        try:
            attended = jax.nn.dot_product_attention(
                *(x.reshape(*x.shape[:2], *q.shape[2:]) for x in jnp.split(padded, 3, axis=-1)),
                query_seq_lengths=lengths,
                key_value_seq_lengths=lengths,
                implementation='cudnn',
            )
        except RuntimeError as error:
            raise InputError(f"attention='cudnn': {error} Choose 'xla'.") from None
        return attended[:, :n]
    # Scaling q costs n·d multiplications, scaling the scores n²: a training step is 1.05 times as
    # fast (100 pixels, dim 128).
    q, k, v = (x.swapaxes(1, 2) for x in (q * q.shape[-1] ** -0.5, k, v))
    dots = (q @ k.mT).astype(jnp.float32)
    weights = jnp.exp(dots - jax.lax.stop_gradient(dots.max(axis=-1, keepdims=True)))
    # Dividing after the product with v costs n·d divisions instead of n²: inference is 1.09 (S/16)
    # to 1.22 times as fast (100 pixels, dim 128).
    attended = (drop(weights).astype(v.dtype) @ v) / weights.sum(axis=-1, keepdims=True)
    return attended.astype(v.dtype).swapaxes(1, 2)


def _joined(*arrays: Float[Array, 'b n h d']) -> Float[Array, 'b n qkv']:
    """Side by side; XLA finds that they are the parts of one array."""
    return jnp.concatenate([x.reshape(*x.shape[:2], -1) for x in arrays], axis=-1)


def best_attention(device: Any, k: Any) -> str:
    """The implementation of attention that a device is fastest with.

    Args:
      device: with the platform, kind and compute capability of a `jax.Device`.
      k: keys [b, n, h, d], or their shape and dtype.
    """
    _, n, h, d = k.shape
    if device.platform == 'tpu' and fits(n, 3 * h * d, k.dtype.itemsize):
        return 'pallas'
    is_nvidia = device.device_kind.startswith('NVIDIA')  # Ampere is 8.0
    if is_nvidia and float(device.compute_capability) >= 8 and k.dtype == jnp.bfloat16:
        return 'cudnn' if d % 8 == 0 and d <= 128 else 'xla'
    return 'xla'


def stack(layer: Callable, depth: int, remat: str, unroll: int) -> Callable:
    """A number of layers, each with its own parameters, as a scan over one.

    Args:
      layer: method of a linen module: tokens, and an input of each layer → tokens, None.
      depth: number of layers.
      remat: 'none', 'dots' or 'full', see `vit_jax.model.extras.Extras`.
      unroll: layers compiled into one iteration of the scan over layers.
    """
    return nn.scan(
        _rematerialize(layer, remat, unroll),
        length=depth,
        unroll=unroll,
        variable_axes={'params': 0, 'intermediates': 0},
        split_rngs={'params': True, 'dropout': True},
    )


def _rematerialize(layer: Callable, remat: str, unroll: int) -> Callable:
    """A layer whose backward pass recomputes activations instead of storing them, see `stack`."""
    if remat == 'none':
        return layer
    # On two CPU cores a training step with 'dots' is 1.37 (S/16) and 1.07 times as fast (100
    # pixels, dim 128) as one that stores everything.
    saved = {
        # The outputs of the Linear layers, and fused attention, which need not run twice.
        'dots': jax.checkpoint_policies.save_from_both_policies(
            jax.checkpoint_policies.save_only_these_names('attention'),
            lambda primitive, *_, **__: (
                primitive is product_p or 'dot_product_attention_fwd' in primitive.name
            ),
        ),
        # Only each layer's input.
        'full': jax.checkpoint_policies.nothing_saveable,
    }
    # Across unrolled layers, common-subexpression elimination would undo the rematerialisation.
    return nn.remat(layer, prevent_cse=unroll > 1, policy=saved[remat])


def rope2d(height: int, width: int, dim: int, theta: float) -> Float[np.ndarray, '2 n 1 d']:
    """Cosines and sines of the angles by which `rotate` turns each patch's queries and keys.

    A quarter of the features turns with the row of the patch's centre, a quarter with its column,
    both in [-1, 1]; the other half, their partners, by the same angles.

    Reference: https://arxiv.org/abs/2508.10104, section 3.2, after https://arxiv.org/abs/2104.09864.

    Args:
      height, width: of the grid of patches.
      dim: features of a head, a multiple of 4.
      theta: the largest of the wavelengths, in units of half the picture, is below it.
    """
    centres = [2 * (np.arange(n) + 0.5) / n - 1 for n in (height, width)]
    places = np.stack(np.meshgrid(*centres, indexing='ij'), axis=-1).reshape(-1, 2)
    frequencies = theta ** -np.arange(0, 1, 4 / dim)
    angles = 2 * np.pi * places[:, :, None] * frequencies
    angles = np.tile(angles.reshape(len(places), -1), 2)[:, None]  # the same for all heads
    return np.stack([np.cos(angles), np.sin(angles)]).astype(np.float32)


def rotate(
    x: Float[Array, 'b n h d'], turns: Float[np.ndarray, '2 p 1 d'], num_prefix: int
) -> Float[Array, 'b n h d']:
    """Queries or keys with those of the patches turned by `rope2d`; the prefix stays as it is."""
    (cos, sin), patches = turns.astype(x.dtype), x[:, num_prefix:]
    one, other = jnp.split(patches, 2, axis=-1)
    turned = patches * cos + jnp.concatenate([-other, one], axis=-1) * sin
    return jnp.concatenate([x[:, :num_prefix], turned], axis=1)


def sincos2d(height: int, width: int, dim: int) -> Float[np.ndarray, '1 n d']:
    """The fixed position embedding of a grid of height x width patches, row by row.

    sin(x ω), cos(x ω), sin(y ω), cos(y ω), a quarter of the features each; the frequencies ω fall
    geometrically from 1 to 1/10,000.

    Source: MoCo v3 (https://arxiv.org/abs/2104.02057), as in big_vision's `models/vit.py`.
    """
    omega = np.geomspace(1, 1e-4, dim // 4)
    y, x = np.mgrid[:height, :width].reshape(2, -1, 1) * omega
    return np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=1, dtype=np.float32)[
        None
    ]
