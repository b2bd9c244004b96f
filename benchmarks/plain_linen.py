"""A straightforward ViT in linen: Dense over [b, n, d], softmax, a Python loop over the layers.

A peer in the race. It computes the same as vit-pytorch, and so as `vit_jax.ViT` with its defaults.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange


class PlainViT(nn.Module):
    patch_size: int
    num_classes: int
    dim: int
    depth: int
    heads: int
    mlp_dim: int
    dim_head: int = 64

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
        p = self.patch_size
        x = rearrange(images, 'b (h p1) (w p2) c -> b (h w) (p1 p2 c)', p1=p, p2=p)
        x = nn.Dense(self.dim)(x)
        b, n, d = x.shape
        randn = nn.initializers.normal(1.0)
        cls_token = self.param('cls_token', randn, (1, 1, d))
        x = jnp.concatenate([jnp.broadcast_to(cls_token, (b, 1, d)), x], axis=1)
        x += self.param('pos_embedding', randn, (1, n + 1, d))
        for _ in range(self.depth):
            y = nn.LayerNorm(epsilon=1e-5)(x)
            y = nn.Dense(3 * self.heads * self.dim_head, use_bias=False)(y)
            q, k, v = rearrange(y, 'b n (qkv h d) -> qkv b h n d', qkv=3, h=self.heads)
            y = nn.softmax(q @ k.mT * self.dim_head**-0.5) @ v
            x += nn.Dense(d)(rearrange(y, 'b h n d -> b n (h d)'))
            y = nn.LayerNorm(epsilon=1e-5)(x)
            y = nn.gelu(nn.Dense(self.mlp_dim)(y), approximate=False)
            x += nn.Dense(d)(y)
        return nn.Dense(self.num_classes)(nn.LayerNorm(epsilon=1e-5)(x[:, 0]))
