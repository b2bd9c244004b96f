"""The Vision Transformer (https://arxiv.org/abs/2010.11929) as Flax linen modules.

Names, arguments, defaults and initialisation are those of vit-pytorch's `vit.py` (versions 0.24 to
0.27, https://github.com/lucidrains/vit-pytorch), so with its weights these modules give its logits.

Axes: b images, h w pixels, c channels, p1 p2 pixels of a patch, n tokens (the cls token first),
d features. Images are [b, h, w, c], tokens [b, n, d].
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange, repeat
from jaxtyping import Array, Float, Num

from vit_jax.arguments import check_arguments, pair
from vit_jax.errors import InputError
from vit_jax.layers import LayerNorm, Linear, attend, gelu

# What the backward pass finds stored; it computes the rest again. On two CPU cores a step with
# 'dots' is 1.37 (S/16) and 1.07 times as fast (100 pixels, dim 128) as one that stores all.
SAVED = {
    'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,  # what Linears gave
    'full': jax.checkpoint_policies.nothing_saveable,  # a layer's input
}


class PreNorm(nn.Module):
    dim: int  # as in vit-pytorch; linen's norm sees it from its input
    fn: nn.Module
    norm_eps: float = 1e-5
    dtype: str = 'float32'

    def setup(self) -> None:
        self.norm = LayerNorm(epsilon=self.norm_eps, dtype=self.dtype)

    def __call__(self, x: Float[Array, 'b n d'], **kwargs: bool) -> Float[Array, 'b n d']:
        return self.fn(self.norm(x), **kwargs)


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
    attention: str = 'xla'
    dtype: str = 'float32'

    def setup(self) -> None:
        inner_dim = self.dim_head * self.heads
        self.project_out = not (self.heads == 1 and self.dim_head == self.dim)
        self.to_qkv = Linear(self.dim, inner_dim * 3, bias=self.qkv_bias, dtype=self.dtype)
        if self.project_out:
            self.to_out = Linear(inner_dim, self.dim, dtype=self.dtype)
            self.drop = nn.Dropout(self.dropout)

    def __call__(self, x: Float[Array, 'b n d'], train: bool = False) -> Float[Array, 'b n d']:
        qkv = self.to_qkv(x)
        q, k, v = rearrange(qkv, 'b n (qkv h d) -> qkv b n h d', qkv=3, h=self.heads)
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
    norm_eps: float = 1e-5
    gelu: str = 'erf'
    attention: str = 'xla'
    dtype: str = 'float32'
    remat: str = 'dots'
    unroll: int = 1

    def setup(self) -> None:
        attn = Attention(
            self.dim,
            self.heads,
            self.dim_head,
            self.dropout,
            self.qkv_bias,
            self.attention,
            self.dtype,
        )
        ff = FeedForward(self.dim, self.mlp_dim, self.dropout, self.gelu, self.dtype)
        self.attn = PreNorm(self.dim, attn, self.norm_eps, self.dtype)
        self.ff = PreNorm(self.dim, ff, self.norm_eps, self.dtype)

    def __call__(self, x: Float[Array, 'b n d'], train: bool = False) -> Float[Array, 'b n d']:
        def layer(self: 'Transformer', x: jax.Array) -> tuple[jax.Array, None]:
            x = self.attn(x, train=train) + x
            x = self.ff(x, train=train) + x
            return x, None

        if self.remat != 'none':
            # Between unrolled layers, XLA would find that it computes something twice, and undo it.
            layer = nn.remat(layer, prevent_cse=self.unroll > 1, policy=SAVED[self.remat])
        # One compiled layer, run `depth` times; parameters are stacked along a leading axis.
        layers = nn.scan(
            layer,
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
      heads: attention heads of `dim_head` features each.
      mlp_dim: hidden features of the feed-forward blocks.
      pool: 'cls' reads the logits off the cls token, 'mean' off the mean of all tokens, cls too.
      channels: colour channels of the input.
      dropout: share of features dropped in attention outputs and feed-forward blocks.
      emb_dropout: share of features dropped after the position embedding.
      qkv_bias: whether queries, keys and values have a bias.
      norm_eps: added to the variance in the layers' norms and the last.
      gelu: 'erf', exact, or the 'tanh' approximation.
      attention: 'xla', or 'cudnn' for the fused kernel of NVIDIA GPUs, which takes bfloat16.
      dtype: of the computation, 'float32' or 'bfloat16'; parameters, softmax, norms and logits
        stay float32.
      remat: what the backward pass computes again instead of reading it from memory: 'none',
        'dots' (all but the matrix products with parameters) or 'full' (whole layers).
      unroll: layers compiled one after the other within an iteration of the scan over them.

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
    qkv_bias: bool = False
    norm_eps: float = 1e-5
    gelu: str = 'erf'
    attention: str = 'xla'
    dtype: str = 'float32'
    remat: str = 'dots'
    unroll: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_arguments(self)

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
            self.qkv_bias,
            self.norm_eps,
            self.gelu,
            self.attention,
            self.dtype,
            self.remat,
            self.unroll,
        )
        head_norm = LayerNorm(epsilon=self.norm_eps)
        self.mlp_head = nn.Sequential([head_norm, Linear(self.dim, self.num_classes)])

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
