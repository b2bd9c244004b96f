"""The Vision Transformer (https://arxiv.org/abs/2010.11929) as Flax linen modules.

Names, arguments, defaults and initialisation are those of vit-pytorch's `vit.py` (versions 0.24 to
0.27, https://github.com/lucidrains/vit-pytorch), so with its weights these modules give its logits.

Axes: b images, h w pixels, c channels, p1 p2 pixels of a patch, n tokens (cls, distillation and
register tokens first, as far as there are any), d features. Images are [b, h, w, c], tokens
[b, n, d].
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange, repeat
from jaxtyping import Array, Float, Num

from vit_jax.arguments import arguments_for, check_arguments, check_images, pair
from vit_jax.head import Head
from vit_jax.layers import LayerNorm, Linear, attend, gelu, rematerialize, sincos2d


class PreNorm(nn.Module):
    dim: int  # as in vit-pytorch; linen's norm sees it from its input
    fn: nn.Module
    norm_eps: float = 1e-5
    layer_scale: float | None = None
    dtype: str = 'float32'

    def setup(self) -> None:
        self.norm = LayerNorm(epsilon=self.norm_eps, dtype=self.dtype)
        if self.layer_scale is not None:
            start = nn.initializers.constant(self.layer_scale)
            self.gamma = self.param('gamma', start, (self.dim,))

    def __call__(self, x: Float[Array, 'b n d'], **kwargs: bool) -> Float[Array, 'b n d']:
        x = self.fn(self.norm(x), **kwargs)
        return x if self.layer_scale is None else x * self.gamma.astype(x.dtype)


class FeedForward(nn.Module):
    dim: int
    hidden_dim: int
    dropout: float = 0.0
    gelu: str = 'erf'
    dtype: str = 'float32'

    def setup(self) -> None:
        self.net = [
            Linear(self.dim, self.hidden_dim, dtype=self.dtype),
            Linear(self.hidden_dim, self.dim, dtype=self.dtype),
        ]
        self.drop = nn.Dropout(self.dropout)

    def __call__(self, x: Float[Array, 'b n d'], train: bool = False) -> Float[Array, 'b n d']:
        x = gelu(self.net[0](x), self.gelu)
        x = self.drop(x, deterministic=not train)
        x = self.net[1](x)
        return self.drop(x, deterministic=not train)


class Attention(nn.Module):
    dim: int
    heads: int = 8
    dim_head: int = 64
    dropout: float = 0.0
    qkv_bias: bool = False
    qk_norm: bool = False
    norm_eps: float = 1e-5
    attention: str = 'xla'
    dtype: str = 'float32'

    def setup(self) -> None:
        inner_dim = self.dim_head * self.heads
        self.project_out = not (self.heads == 1 and self.dim_head == self.dim)
        self.to_qkv = Linear(self.dim, inner_dim * 3, bias=self.qkv_bias, dtype=self.dtype)
        if self.qk_norm:
            self.q_norm = LayerNorm(epsilon=self.norm_eps, dtype=self.dtype)
            self.k_norm = LayerNorm(epsilon=self.norm_eps, dtype=self.dtype)
        if self.project_out:
            self.to_out = Linear(inner_dim, self.dim, dtype=self.dtype)
            self.drop = nn.Dropout(self.dropout)

    def __call__(self, x: Float[Array, 'b n d'], train: bool = False) -> Float[Array, 'b n d']:
        qkv = self.to_qkv(x)
        q, k, v = rearrange(qkv, 'b n (qkv h d) -> qkv b n h d', qkv=3, h=self.heads)
        if self.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        out = rearrange(attend(q, k, v, self.attention), 'b n h d -> b n (h d)')
        return self.drop(self.to_out(out), deterministic=not train) if self.project_out else out


class Transformer(nn.Module):
    dim: int
    depth: int
    heads: int
    dim_head: int
    mlp_dim: int
    dropout: float = 0.0
    qkv_bias: bool = False
    qk_norm: bool = False
    layer_scale: float | None = None
    norm_eps: float = 1e-5
    gelu: str = 'erf'
    attention: str = 'xla'
    dtype: str = 'float32'
    remat: str = 'dots'
    unroll: int = 1

    def setup(self) -> None:
        attn = Attention(**arguments_for(Attention, self))
        ff = FeedForward(self.dim, self.mlp_dim, self.dropout, self.gelu, self.dtype)
        self.attn = PreNorm(self.dim, attn, self.norm_eps, self.layer_scale, self.dtype)
        self.ff = PreNorm(self.dim, ff, self.norm_eps, self.layer_scale, self.dtype)

    def __call__(self, x: Float[Array, 'b n d'], train: bool = False) -> Float[Array, 'b n d']:
        def layer(self: 'Transformer', x: jax.Array) -> tuple[jax.Array, None]:
            x = self.attn(x, train=train) + x
            x = self.ff(x, train=train) + x
            return x, None

        # One compiled layer, run `depth` times; parameters are stacked along a leading axis.
        layers = nn.scan(
            rematerialize(layer, self.remat, self.unroll),
            length=self.depth,
            unroll=self.unroll,
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
      heads: attention heads, of `dim_head` features each.
      mlp_dim: hidden features of the feed-forward blocks.
      pool: what the logits are read off: 'cls', the cls token; 'mean', the mean of all tokens, cls
        too, as in vit-pytorch; 'gap', the mean of the patches; 'map', attention over the patches.
      channels: colour channels of the input.
      dropout, emb_dropout: shares of features dropped in attention outputs and feed-forward blocks,
        and after the position embedding.
      posemb: position embedding, 'learned' for all tokens, 'learned_patches' for patches only, or
        'sincos2d', fixed, for patches only.
      class_token: whether there is a cls token.
      distilled: a distillation token (https://arxiv.org/abs/2012.12877) after the cls token, with a
        head of its own; the logits are the mean of both heads'.
      num_registers: register tokens (https://arxiv.org/abs/2309.16588) after those two.
      qkv_bias: whether queries, keys and values have a bias.
      qk_norm: whether each head's queries and keys are normed (https://arxiv.org/abs/2302.05442).
      layer_scale: initial factor of each block's features (https://arxiv.org/abs/2103.17239); None
        for no factors.
      fc_norm: with pool='gap', norm the mean of the patches instead of the patches.
      representation_size: features of a tanh layer before the logits; 0 for none.
      norm_eps: added to the variance in all norms.
      gelu: 'erf', exact, or the 'tanh' approximation.
      attention: 'xla', or 'cudnn' for the fused kernel of NVIDIA GPUs, which takes bfloat16.
      dtype: of the computation, 'float32' or 'bfloat16'; parameters, softmax, norms and logits stay
        float32.
      remat: what the backward pass computes again instead of reading it from memory: 'none',
        'dots' (all but the matrix products with parameters) or 'full' (whole layers).
      unroll: layers compiled one after the other in an iteration of the scan over them.

    Call with images [b, h, w, channels], normalised floats; returns logits [b, num_classes],
    float32. Dropout acts only with `train=True`, which needs `rngs={'dropout': key}`. An image
    smaller than `image_size` takes the first of the position embeddings, as in vit-pytorch.

    Raises:
      InputError: where an argument or the images do not fit.
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
    posemb: str = 'learned'
    class_token: bool = True
    distilled: bool = False
    num_registers: int = 0
    qkv_bias: bool = False
    qk_norm: bool = False
    layer_scale: float | None = None
    fc_norm: bool = False
    representation_size: int = 0
    norm_eps: float = 1e-5
    gelu: str = 'erf'
    attention: str = 'xla'
    dtype: str = 'float32'
    remat: str = 'dots'
    unroll: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_arguments(self)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches of an image of `image_size`."""
        (height, width), (p1, p2) = pair(self.image_size), pair(self.patch_size)
        return height // p1, width // p2

    @property
    def num_prefix(self) -> int:
        """Tokens before the patches."""
        return self.class_token + self.distilled + self.num_registers

    def setup(self) -> None:
        p1, p2 = pair(self.patch_size)
        randn = nn.initializers.normal(1.0)
        self.to_patch_embedding = Linear(self.channels * p1 * p2, self.dim, dtype=self.dtype)
        if self.posemb != 'sincos2d':
            k = math.prod(self.grid) + (self.num_prefix if self.posemb == 'learned' else 0)
            self.pos_embedding = self.param('pos_embedding', randn, (1, k, self.dim))
        names = ('cls_token', 'dist_token', 'register_tokens')
        numbers = zip(names, (self.class_token, self.distilled, self.num_registers), strict=True)
        self.prefix = [self.param(name, randn, (1, k, self.dim)) for name, k in numbers if k]
        self.drop = nn.Dropout(self.emb_dropout)
        self.transformer = Transformer(**arguments_for(Transformer, self))
        self.mlp_head = Head(**arguments_for(Head, self))

    def __call__(
        self, images: Num[Array | np.ndarray, 'b h w c'], train: bool = False
    ) -> Float[Array, 'b num_classes']:
        p1, p2 = pair(self.patch_size)
        b, h, w, _ = images.shape
        check_images(self, images.shape)
        x = rearrange(jnp.asarray(images), 'b (h p1) (w p2) c -> b (h w) (p1 p2 c)', p1=p1, p2=p2)
        x = self.to_patch_embedding(x)
        if self.posemb == 'sincos2d':
            x += sincos2d(h // p1, w // p2, self.dim).astype(x.dtype)
        elif self.posemb == 'learned_patches':
            x += self.pos_embedding[:, : x.shape[1]].astype(x.dtype)

        prefix = [repeat(tokens.astype(x.dtype), '1 n d -> b n d', b=b) for tokens in self.prefix]
        x = jnp.concatenate([*prefix, x], axis=1)
        if self.posemb == 'learned':
            x += self.pos_embedding[:, : x.shape[1]].astype(x.dtype)
        x = self.drop(x, deterministic=not train)
        return self.mlp_head(self.transformer(x, train))
