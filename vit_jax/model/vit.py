"""The Vision Transformer (https://arxiv.org/abs/2010.11929) as Flax linen modules.

Names, arguments, defaults and initialisation are those of vit-pytorch's `vit.py` (versions 0.24 to
0.27, https://github.com/lucidrains/vit-pytorch), so the same weights give the same logits. All
other options are in `extras.py` and handed down whole, as `extras`: skip them on a first reading.

Axes: b images, h w pixels, c channels, p1 p2 pixels of a patch, n tokens, d features.
"""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Float, Num

from vit_jax.model.arguments import check_arguments
from vit_jax.model.extras import Extras
from vit_jax.model.head import Head
from vit_jax.model.layers import Dropout, DropPath, Train, stack
from vit_jax.model.record import tokens
from vit_jax.model.shapes import grid, image_grid, pair


class PreNorm(nn.Module):
    dim: int
    fn: nn.Module
    extras: Extras = Extras()

    def setup(self) -> None:
        self.norm = self.extras.norm()
        if self.extras.layer_scale is not None:
            start = nn.initializers.constant(self.extras.layer_scale)
            self.gamma = self.param('gamma', start, (self.dim,))

    def __call__(self, x: Float[Array, 'b n d'], **kwargs: Train) -> Float[Array, 'b n d']:
        x = self.fn(self.norm(x), **kwargs)
        return x if self.extras.layer_scale is None else (x * self.gamma).astype(x.dtype)


class FeedForward(nn.Module):
    dim: int
    hidden_dim: int
    dropout: float = 0.0
    extras: Extras = Extras()

    def setup(self) -> None:
        linear, hidden = self.extras.linear, self.extras.hidden(self.hidden_dim)
        self.net = [linear(self.dim, hidden), linear(self.hidden_dim, self.dim)]
        self.drop = Dropout(self.dropout)

    def __call__(self, x: Float[Array, 'b n d'], train: Train = False) -> Float[Array, 'b n d']:
        x = self.drop(self.extras.activate(self.net[0](x)), train)
        return self.drop(self.net[1](x), train)


class Attention(nn.Module):
    dim: int
    heads: int = 8
    dim_head: int = 64
    dropout: float = 0.0
    extras: Extras = Extras()

    def setup(self) -> None:
        inner_dim = self.dim_head * self.heads
        self.project_out = not (self.heads == 1 and self.dim_head == self.dim)
        self.to_qkv = self.extras.linear(self.dim, inner_dim * 3, bias=self.extras.qkv_bias)
        if self.extras.qk_norm:
            self.q_norm, self.k_norm = self.extras.norm(), self.extras.norm()
        self.drop_weights = Dropout(self.extras.attn_dropout)
        if self.project_out:
            self.to_out = self.extras.linear(inner_dim, self.dim)
            self.drop = Dropout(self.dropout)

    def __call__(self, x: Float[Array, 'b n d'], train: Train = False) -> Float[Array, 'b n d']:
        qkv = jnp.split(self.to_qkv(x), 3, axis=-1)
        q, k, v = (rearrange(t, 'b n (h d) -> b n h d', h=self.heads) for t in qkv)
        if self.extras.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        out = self.extras.attend(q, k, v, self.drop_weights, train)
        out = rearrange(out, 'b n h d -> b n (h d)')
        return self.drop(self.to_out(out), train) if self.project_out else out


class Transformer(nn.Module):
    dim: int
    depth: int
    heads: int
    dim_head: int
    mlp_dim: int
    dropout: float = 0.0
    extras: Extras = Extras()

    def setup(self) -> None:
        attn = Attention(self.dim, self.heads, self.dim_head, self.dropout, self.extras)
        ff = FeedForward(self.dim, self.mlp_dim, self.dropout, self.extras)
        self.attn = PreNorm(self.dim, attn, self.extras)
        self.ff = PreNorm(self.dim, ff, self.extras)
        self.drop_path = DropPath()

    def __call__(self, x: Float[Array, 'b n d'], train: Train = False) -> Float[Array, 'b n d']:
        def layer(self: 'Transformer', x: Array, rate: Any) -> tuple[Array, None]:
            x = self.drop_path(self.attn(x, train=train), rate, train) + x
            x = self.drop_path(self.ff(x, train=train), rate, train) + x
            return x, None

        # for layer in layers: x = layer(x). One layer is compiled; its parameters are stacked.
        layers = stack(layer, self.depth, self.extras.remat, self.extras.unroll)
        return layers(self, x, self.extras.drop_rates(self.depth))[0]


class ViT(Extras, nn.Module, kw_only=True):
    """An image is worth 16x16 words: patches and a cls token through a pre-norm Transformer.

    Args:
      image_size: largest input in pixels; an int, or (height, width).
      patch_size: pixels, an int or (height, width); divides `image_size`.
      num_classes: number of logits; 0: no classifier, a call returns what it would read.
      dim: features of a token.
      depth: number of layers.
      heads: attention heads.
      mlp_dim: hidden features of the feed-forward blocks.
      pool: what the classifier reads: 'cls', the cls token; 'mean', the mean of all tokens; 'gap',
        the mean of the patches; 'cls_gap', cls and that mean; 'map', attention over the patches.
      channels: colour channels of the input.
      dim_head: features of an attention head.
      dropout: rate in the attention outputs and the feed-forward blocks, [0, 1).
      emb_dropout: rate after the position embedding, [0, 1).
      **extras: see `vit_jax.model.extras.Extras`.

    Call with normalised images [b, h, w, c]; returns float32 logits [b, num_classes]. Smaller ones
    use the first positions. Dropout takes `rngs={'dropout': key}` and `train=True`, or see `Train`.
    Raises InputError if an argument or the shape of the images does not fit.
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

    def __post_init__(self) -> None:
        super().__post_init__()
        check_arguments(self)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches in an image of `image_size`."""
        return grid(self.image_size, self.patch_size)

    def setup(self) -> None:
        def embedding(name: str, n: int) -> Any:
            return self.param(name, nn.initializers.normal(1.0), (1, n, self.dim)) if n else None

        extras = self.extras
        patch_dim = self.channels * math.prod(pair(self.patch_size))
        self.to_patch_embedding = extras.linear(patch_dim, self.dim, bias=extras.patch_bias)
        self.pos_embedding = embedding('pos_embedding', extras.num_positions(math.prod(self.grid)))
        self.prefix_tokens = [embedding(name, n) for name, n in extras.prefix.items()]
        self.drop = Dropout(self.emb_dropout)
        self.norm_tokens = extras.norm() if extras.embed_norm else lambda x: x
        self.transformer = Transformer(
            self.dim, self.depth, self.heads, self.dim_head, self.mlp_dim, self.dropout, extras
        )
        self.mlp_head = Head(
            self.dim, self.num_classes, self.pool, self.heads, self.dim_head, self.mlp_dim, extras
        )

    def __call__(
        self, images: Num[Array | np.ndarray, 'b h w c'], train: Train = False
    ) -> Float[Array, 'b num_classes']:
        grid, (p1, p2) = image_grid(self, images.shape), pair(self.patch_size)
        x = rearrange(jnp.asarray(images), 'b (h p1) (w p2) c -> b (h w) (p1 p2 c)', p1=p1, p2=p2)
        x = self.to_patch_embedding(x)
        b, n, d = x.shape
        prefix = [jnp.repeat(tokens, b, axis=0) for tokens in self.prefix_tokens]
        x = jnp.concatenate((*prefix, x), axis=1)
        positions = self.extras.positions(self.pos_embedding, grid, d)
        x += positions[:, : self.num_prefix + n]
        x = self.drop(x.astype(self.dtype), train)
        x = self.transformer(self.norm_tokens(x), train)
        x = self.mlp_head.pool_tokens(x)
        return self.mlp_head(x, train)

    tokens = tokens  # instead of logits, by `apply(…, method='tokens')`
