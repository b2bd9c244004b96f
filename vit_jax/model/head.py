"""From tokens to logits: the pooling, the last norm and the classifier.

With pool 'cls' or 'mean', as in vit-pytorch, or with `fc_norm`, the norm follows the pooling. With
'gap', 'cls_gap' or 'map' it precedes it, as in big_vision (https://github.com/google-research/big_vision,
`models/vit.py`). For 'cls' the order makes no difference.
"""

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from vit_jax.model.extras import Extras
from vit_jax.model.layers import Dropout, Linear, Train, attend, gelu, layer_norm


class AttentionPool(nn.Module):
    """A learned query attends to the tokens; a feed-forward block follows.

    Reference: "MAP" in https://arxiv.org/abs/2106.04560, after https://arxiv.org/abs/1810.00825.
    """

    dim: int
    heads: int
    dim_head: int
    mlp_dim: int
    extras: Extras

    def setup(self) -> None:
        linear, inner_dim = self.extras.linear, self.heads * self.dim_head
        self.probe = self.param('probe', nn.initializers.xavier_uniform(), (1, 1, self.dim))
        # One query for all images: its gradient is summed over them, in float32.
        self.to_q = Linear(self.dim, inner_dim)
        self.to_kv = linear(self.dim, inner_dim * 2)
        self.to_out = linear(inner_dim, self.dim)
        self.norm = self.extras.norm()
        self.net = [linear(self.dim, self.mlp_dim), linear(self.mlp_dim, self.dim)]

    def __call__(self, x: Float[Array, 'b n d']) -> Float[Array, 'b d']:
        q = rearrange(self.to_q(self.probe), '1 1 (h d) -> 1 1 h d', h=self.heads)
        kv = self.to_kv(x)
        k, v = rearrange(kv, 'b n (kv h d) -> kv b n h d', kv=2, h=self.heads)
        x = self.to_out(rearrange(attend(q, k, v, 'xla'), 'b 1 h d -> b (h d)'))
        return x + self.net[1](gelu(self.net[0](self.norm(x)), self.extras.gelu))


class Head(nn.Module):
    """Pools the tokens and classifies the result; the arguments are those of `vit_jax.ViT`."""

    dim: int
    num_classes: int
    pool: str
    heads: int
    dim_head: int
    mlp_dim: int
    extras: Extras

    def setup(self) -> None:
        pooled = self.dim * (2 if self.pool == 'cls_gap' else 1)
        features = self.extras.representation_size or pooled
        self.norms_first = self.pool in ('gap', 'cls_gap', 'map') and not self.extras.fc_norm
        classifier = [Linear(features, self.num_classes)] if self.num_classes else []
        self.drop = Dropout(self.extras.head_dropout)
        self.layers = [layer_norm(self.extras.norm_eps), *classifier]
        if self.pool == 'map':
            self.attention_pool = AttentionPool(
                self.dim, self.heads, self.dim_head, self.mlp_dim, self.extras
            )
        if self.extras.representation_size:
            self.pre_logits = Linear(pooled, self.extras.representation_size)
        if self.extras.distilled and self.num_classes:
            self.dist = Linear(features, self.num_classes)

    def pool_tokens(self, x: Float[Array, 'b n d']) -> Float[Array, 'b *tokens pooled']:
        """What the classifier reads: [b, d]; [b, 2 d] of 'cls_gap'; [b, 2, d] if distilled."""
        if self.extras.distilled:
            return x[:, :2]
        if self.pool == 'cls':
            return x[:, 0]
        if self.pool == 'mean':
            return x.mean(axis=1)
        patches = x[:, self.extras.num_prefix :]
        if self.norms_first:
            patches = self.layers[0](patches)
        if self.pool == 'cls_gap':
            return jnp.concatenate([self.layers[0](x[:, 0]), patches.mean(axis=1)], axis=-1)
        return patches.mean(axis=1) if self.pool == 'gap' else self.attention_pool(patches)

    def __call__(
        self, x: Float[Array, 'b *tokens d'], train: Train = False
    ) -> Float[Array, 'b features']:
        """Logits of the pooled tokens; without a classifier, what it would read."""
        x = x.astype(jnp.float32)
        if not self.norms_first:
            x = self.layers[0](x)
        if self.extras.representation_size:
            x = jnp.tanh(self.pre_logits(x))
        if not self.num_classes:
            return x.mean(axis=1) if self.extras.distilled else x
        classifier, x = self.layers[1], self.drop(x, train)
        if self.extras.distilled:
            return (classifier(x[:, 0]) + self.dist(x[:, 1])) / 2
        return classifier(x)
