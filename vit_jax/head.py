"""From tokens to logits: the last norm, the pooling and the classifier.

The norm comes after the pooling where vit-pytorch has it (pool 'cls' and 'mean') and with
`fc_norm`; before it in big_vision's 'gap' and 'map' (https://github.com/google-research/big_vision,
`models/vit.py`). For 'cls' both are the same.
"""

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from vit_jax.layers import LayerNorm, Linear, attend, gelu


class AttentionPool(nn.Module):
    """A learned query attends to the tokens, and a feed-forward block follows.

    Reference: "MAP" in https://arxiv.org/abs/2106.04560, after https://arxiv.org/abs/1810.00825.
    """

    dim: int
    heads: int
    dim_head: int
    mlp_dim: int
    norm_eps: float
    gelu: str
    dtype: str

    def setup(self) -> None:
        inner_dim = self.heads * self.dim_head
        self.probe = self.param('probe', nn.initializers.xavier_uniform(), (1, 1, self.dim))
        self.to_q = Linear(self.dim, inner_dim, dtype=self.dtype)
        self.to_kv = Linear(self.dim, inner_dim * 2, dtype=self.dtype)
        self.to_out = Linear(inner_dim, self.dim, dtype=self.dtype)
        self.norm = LayerNorm(epsilon=self.norm_eps, dtype=self.dtype)
        self.net = [
            Linear(self.dim, self.mlp_dim, dtype=self.dtype),
            Linear(self.mlp_dim, self.dim, dtype=self.dtype),
        ]

    def __call__(self, x: Float[Array, 'b n d']) -> Float[Array, 'b d']:
        q = rearrange(self.to_q(self.probe), '1 1 (h d) -> 1 1 h d', h=self.heads)
        kv = self.to_kv(x)
        k, v = rearrange(kv, 'b n (kv h d) -> kv b n h d', kv=2, h=self.heads)
        x = self.to_out(rearrange(attend(q, k, v, 'xla'), 'b 1 h d -> b (h d)'))
        return x + self.net[1](gelu(self.net[0](self.norm(x)), self.gelu))


class Head(nn.Module):
    """Reads the logits off a Transformer's tokens; the arguments are those of `vit_jax.ViT`."""

    dim: int
    num_classes: int
    pool: str
    num_prefix: int
    fc_norm: bool
    representation_size: int
    distilled: bool
    heads: int
    dim_head: int
    mlp_dim: int
    norm_eps: float
    gelu: str
    dtype: str

    def setup(self) -> None:
        features = self.representation_size or self.dim
        self.layers = [LayerNorm(epsilon=self.norm_eps), Linear(features, self.num_classes)]
        if self.pool == 'map':
            self.attention_pool = AttentionPool(
                self.dim,
                self.heads,
                self.dim_head,
                self.mlp_dim,
                self.norm_eps,
                self.gelu,
                self.dtype,
            )
        if self.representation_size:
            self.pre_logits = Linear(self.dim, self.representation_size)
        if self.distilled:
            self.dist = Linear(features, self.num_classes)

    def __call__(self, x: Float[Array, 'b n d']) -> Float[Array, 'b num_classes']:
        norm, classifier = self.layers
        if self.pool == 'map':
            x = self.attention_pool(norm(x[:, self.num_prefix :]))
        elif self.pool == 'gap' and not self.fc_norm:
            x = norm(x[:, self.num_prefix :]).mean(axis=1)
        else:
            x = norm(self._pooled(x).astype(jnp.float32))
        x = x.astype(jnp.float32)
        if self.representation_size:
            x = jnp.tanh(self.pre_logits(x))
        if self.distilled:
            return (classifier(x[:, 0]) + self.dist(x[:, 1])) / 2
        return classifier(x)

    def _pooled(self, x: Float[Array, 'b n d']) -> Float[Array, 'b *tokens d']:
        if self.distilled:
            return x[:, :2]
        if self.pool == 'cls':
            return x[:, 0]
        return x[:, self.num_prefix :].mean(axis=1) if self.pool == 'gap' else x.mean(axis=1)
