"""The Vision Transformer (https://arxiv.org/abs/2010.11929) as Flax linen modules.

Names, arguments, defaults and initialisation are those of vit-pytorch's `vit.py` (versions 0.24 to
0.27, https://github.com/lucidrains/vit-pytorch), so with its weights these modules give its logits.

Axes: b images, h w pixels, c channels, p1 p2 pixels of a patch, n tokens (the cls token first),
d features. Images are [b, h, w, c], tokens [b, n, d].
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange, repeat
from jaxtyping import Array, Float, Num

from vit_jax.errors import InputError


def pair(t: int | tuple[int, int]) -> tuple[int, int]:
    height_width = t if isinstance(t, tuple) else (t, t)
    if len(height_width) != 2 or not all(isinstance(x, int) and x > 0 for x in height_width):
        raise InputError(f'expected a size in pixels, an int or (height, width), got {t!r}')
    return height_width


LayerNorm = functools.partial(nn.LayerNorm, epsilon=1e-5, use_fast_variance=False)  # as torch's


class Linear(nn.Module):
    """x W + b over the last axis, initialised as torch's: W and b from U(±1/√in_features)."""

    in_features: int
    out_features: int
    bias: bool = True
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x: Float[Array, '*b i']) -> Float[Array, '*b o']:
        def init(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
            bound = self.in_features**-0.5
            return jax.random.uniform(key, shape, minval=-bound, maxval=bound)

        kernel = self.param('kernel', init, (self.in_features, self.out_features))
        # All leading axes as one: XLA's CPU backend is slow at weight gradients that contract two.
        out = x.reshape(-1, self.in_features).astype(self.dtype) @ kernel.astype(self.dtype)
        if self.bias:
            out += self.param('bias', init, (self.out_features,)).astype(self.dtype)
        return out.reshape(*x.shape[:-1], self.out_features)


class PreNorm(nn.Module):
    dim: int  # as in vit-pytorch; linen's norm sees it from its input
    fn: nn.Module
    dtype: str = 'float32'

    def setup(self) -> None:
        self.norm = LayerNorm(dtype=self.dtype)

    def __call__(self, x: Float[Array, 'b n d'], **kwargs: bool) -> Float[Array, 'b n d']:
        return self.fn(self.norm(x), **kwargs)


class FeedForward(nn.Module):
    dim: int
    hidden_dim: int
    dropout: float = 0.0
    dtype: str = 'float32'

    def setup(self) -> None:
        self.net = [
            Linear(self.dim, self.hidden_dim, dtype=self.dtype),
            Linear(self.hidden_dim, self.dim, dtype=self.dtype),
        ]
        self.drop = nn.Dropout(self.dropout)

    def __call__(self, x: Float[Array, 'b n d'], train: bool = False) -> Float[Array, 'b n d']:
        x = nn.gelu(self.net[0](x), approximate=False)
        x = self.drop(x, deterministic=not train)
        x = self.net[1](x)
        return self.drop(x, deterministic=not train)


class Attention(nn.Module):
    dim: int
    heads: int = 8
    dim_head: int = 64
    dropout: float = 0.0
    dtype: str = 'float32'

    def setup(self) -> None:
        inner_dim = self.dim_head * self.heads
        self.project_out = not (self.heads == 1 and self.dim_head == self.dim)
        self.to_qkv = Linear(self.dim, inner_dim * 3, bias=False, dtype=self.dtype)
        if self.project_out:
            self.to_out = Linear(inner_dim, self.dim, dtype=self.dtype)
            self.drop = nn.Dropout(self.dropout)

    def __call__(self, x: Float[Array, 'b n d'], train: bool = False) -> Float[Array, 'b n d']:
        qkv = self.to_qkv(x)
        q, k, v = rearrange(qkv, 'b n (qkv h d) -> qkv b h n d', qkv=3, h=self.heads)

        dots = q @ k.mT * self.dim_head**-0.5
        attn = nn.softmax(dots.astype(jnp.float32)).astype(self.dtype)

        out = rearrange(attn @ v, 'b h n d -> b n (h d)')
        return self.drop(self.to_out(out), deterministic=not train) if self.project_out else out


class Transformer(nn.Module):
    dim: int
    depth: int
    heads: int
    dim_head: int
    mlp_dim: int
    dropout: float = 0.0
    dtype: str = 'float32'
    remat: bool = False

    def setup(self) -> None:
        attn = Attention(self.dim, self.heads, self.dim_head, self.dropout, self.dtype)
        ff = FeedForward(self.dim, self.mlp_dim, self.dropout, self.dtype)
        self.attn = PreNorm(self.dim, attn, self.dtype)
        self.ff = PreNorm(self.dim, ff, self.dtype)

    def __call__(self, x: Float[Array, 'b n d'], train: bool = False) -> Float[Array, 'b n d']:
        def layer(self: 'Transformer', x: jax.Array) -> tuple[jax.Array, None]:
            x = self.attn(x, train=train) + x
            x = self.ff(x, train=train) + x
            return x, None

        # One compiled layer, run `depth` times; parameters are stacked along a leading axis.
        layers = nn.scan(
            nn.remat(layer, prevent_cse=False) if self.remat else layer,
            length=self.depth,
            variable_axes={'params': 0},
            split_rngs={'params': True, 'dropout': True},
        )
        return layers(self, x)[0]


class ViT(nn.Module, kw_only=True):
    """An image is worth 16x16 words: patches and a cls token through a pre-norm Transformer.

    Args:
      image_size: largest input in pixels; an int, or (height, width).
      patch_size: pixels, an int or (height, width), dividing `image_size`.
      num_classes: number of logits.
      dim: features of a token.
      depth: number of layers.
      heads: attention heads of `dim_head` features each.
      mlp_dim: hidden features of the feed-forward blocks.
      pool: 'cls' reads the logits off the cls token, 'mean' off the mean of all tokens, cls too.
      channels: colour channels of the input.
      dropout: share of features dropped in attention outputs and feed-forward blocks.
      emb_dropout: share of features dropped after the position embedding.
      dtype: of the computation, 'float32' or 'bfloat16'; parameters, softmax, norms and logits
        stay float32.
      remat: recompute a layer's inside in the backward pass instead of storing it: less memory.

    Call with images [b, h, w, channels], normalised floats; returns logits [b, num_classes],
    float32. Dropout acts only with `train=True`, which needs `rngs={'dropout': key}`. An image
    smaller than `image_size` takes the first of the position embeddings, as in vit-pytorch.

    Raises:
      InputError: where sizes, `pool` or the images do not fit.
    """

    image_size: int | tuple[int, int]
    patch_size: int | tuple[int, int]
    num_classes: int
    dim: int
    depth: int
    heads: int
    mlp_dim: int
    pool: str = 'cls'
    channels: int = 3
    dim_head: int = 64
    dropout: float = 0.0
    emb_dropout: float = 0.0
    dtype: str = 'float32'
    remat: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_arguments(self)

    def setup(self) -> None:
        image_height, image_width = pair(self.image_size)
        patch_height, patch_width = pair(self.patch_size)
        self.num_patches = (image_height // patch_height) * (image_width // patch_width)
        patch_dim = self.channels * patch_height * patch_width

        self.to_patch_embedding = Linear(patch_dim, self.dim, dtype=self.dtype)
        randn = nn.initializers.normal(1.0)
        self.pos_embedding = self.param('pos_embedding', randn, (1, self.num_patches + 1, self.dim))
        self.cls_token = self.param('cls_token', randn, (1, 1, self.dim))
        self.drop = nn.Dropout(self.emb_dropout)
        self.transformer = Transformer(
            self.dim,
            self.depth,
            self.heads,
            self.dim_head,
            self.mlp_dim,
            self.dropout,
            self.dtype,
            self.remat,
        )
        self.mlp_head = nn.Sequential([LayerNorm(), Linear(self.dim, self.num_classes)])

    def __call__(
        self, images: Num[Array | np.ndarray, 'b h w c'], train: bool = False
    ) -> Float[Array, 'b num_classes']:
        p1, p2 = pair(self.patch_size)
        b, h, w, c = images.shape
        n = (h // p1) * (w // p2)
        if h % p1 or w % p2 or c != self.channels or n > self.num_patches:
            raise InputError(
                f'expected images [b, h, w, {self.channels}] with h a multiple of {p1}, w of {p2} '
                f'and at most {self.num_patches} patches, got {list(images.shape)}'
            )
        x = rearrange(jnp.asarray(images), 'b (h p1) (w p2) c -> b (h w) (p1 p2 c)', p1=p1, p2=p2)
        x = self.to_patch_embedding(x)

        cls_tokens = repeat(self.cls_token, '1 1 d -> b 1 d', b=b)
        x = jnp.concatenate([cls_tokens.astype(x.dtype), x], axis=1)
        x += self.pos_embedding[:, : n + 1].astype(x.dtype)
        x = self.drop(x, deterministic=not train)

        x = self.transformer(x, train)

        x = x.mean(axis=1) if self.pool == 'mean' else x[:, 0]
        return self.mlp_head(x.astype(jnp.float32))


def _check_arguments(vit: ViT) -> None:
    for name in ('num_classes', 'dim', 'depth', 'heads', 'mlp_dim', 'channels', 'dim_head'):
        if getattr(vit, name) < 1:
            raise InputError(f'expected {name} of at least 1, got {getattr(vit, name)}')
    for name in ('dropout', 'emb_dropout'):
        if not 0 <= getattr(vit, name) < 1:
            raise InputError(f'expected {name} from 0 to below 1, got {getattr(vit, name)}')
    for name, known in (('pool', ('cls', 'mean')), ('dtype', ('float32', 'bfloat16'))):
        if getattr(vit, name) not in known:
            raise InputError(f'expected {name} out of {known}, got {getattr(vit, name)!r}')
    height, width = pair(vit.image_size)
    patch_height, patch_width = pair(vit.patch_size)
    if height % patch_height or width % patch_width:
        raise InputError(
            f'patch_size must divide image_size: expected a divisor of {height} x {width} pixels, '
            f'got {patch_height} x {patch_width}; change either'
        )
