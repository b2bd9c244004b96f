"""All that vit-pytorch's ViT lacks: options for published weights and modern recipes.

With every default the model is vit-pytorch's, so skip this file on a first reading.
"""

import dataclasses
import math
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vit_jax.model.layers import (
    Dropout,
    Linear,
    Train,
    attend,
    gelu,
    layer_norm,
    rope2d,
    rotate,
    sincos2d,
)


@dataclasses.dataclass(kw_only=True, unsafe_hash=True)
class Extras:
    """The options that `vit_jax.ViT` adds to vit-pytorch's.

    ViT inherits them, and hands them to its modules as one object.

    Args:
      posemb: position embedding: 'learned' for all tokens, 'learned_patches' for the patches only,
        'sincos2d', fixed, for the patches only; or 'rope2d', which turns the patches' queries and
        keys instead (https://arxiv.org/abs/2104.09864).
      rope_theta: base of the wavelengths of 'rope2d'.
      class_token: whether there is a cls token.
      distilled: whether a distillation token (https://arxiv.org/abs/2012.12877) follows the cls
        token. It has its own classifier, and the logits are the mean of both.
      num_registers: number of register tokens (https://arxiv.org/abs/2309.16588), after the cls and
        distillation tokens.
      patch_bias: whether the patch embedding has a bias.
      embed_norm: whether the tokens are normalised before the first layer, as in CLIP
        (https://arxiv.org/abs/2103.00020).
      qkv_bias: whether queries, keys and values have a bias.
      qk_norm: whether each head's queries and keys are normalised (https://arxiv.org/abs/2302.05442).
      layer_scale: initial value of a learned factor for each feature of a block's output
        (https://arxiv.org/abs/2103.17239); None for no LayerScale.
      norm_eps: added to the variance in every norm, [0, 1).
      gelu: the activation: 'erf', exact; its approximations 'tanh' and 'quick', x σ(1.702 x); or
        'silu', x σ(x).
      gated: whether the feed-forward blocks multiply the activations by as many other features
        (https://arxiv.org/abs/2002.05202).
      drop_path: probability that training drops a branch of the last layer for an example; linear
        from 0 in the first layer (https://arxiv.org/abs/1603.09382), [0, 1).
      attn_dropout: rate of dropout of the attention weights, with attention 'xla', [0, 1).
      lora_rank: rank of the adapters beside the kernels of the layers, see
        `vit_jax.model.layers.Linear`; 0 for none.
      lora_kernels: which kernels have one: 'all', or those of the 'attention'.
      fc_norm: with pool='gap', normalise the mean of the patches instead of each patch.
      head_dropout: rate of dropout before the classifier, [0, 1).
      representation_size: features of a tanh layer before the classifier; 0 for none.
      dtype: of the computation, 'float32' or 'bfloat16'. Parameters, softmax, norms and logits are
        float32 in either case.
      attention: 'auto' is the best for the device: 'cudnn', the fused kernel of NVIDIA GPUs, for
        bfloat16; 'pallas', our kernel for short sequences on TPUs; or 'xla'.
      remat: what the backward pass recomputes instead of reading from memory: 'none', 'dots'
        (all but the products with parameters and fused attention) or 'full' (whole layers).
      unroll: layers compiled into one iteration of the scan over layers.
    """

    # Tokens
    posemb: str = 'learned'
    rope_theta: float = 100.0
    class_token: bool = True
    distilled: bool = False
    num_registers: int = 0
    patch_bias: bool = True
    embed_norm: bool = False
    # Blocks
    qkv_bias: bool = False
    qk_norm: bool = False
    layer_scale: float | None = None
    norm_eps: float = 1e-5
    gelu: str = 'erf'
    gated: bool = False
    drop_path: float = 0.0
    attn_dropout: float = 0.0
    lora_rank: int = 0
    lora_kernels: str = 'all'
    # Head
    fc_norm: bool = False
    head_dropout: float = 0.0
    representation_size: int = 0
    # Execution
    dtype: str = 'float32'
    attention: str = 'auto'
    remat: str = 'dots'
    unroll: int = 1

    @property
    def extras(self) -> 'Extras':
        """A copy of these options alone, without a ViT's other arguments."""
        options = {f.name: getattr(self, f.name) for f in dataclasses.fields(Extras)}
        if self.posemb != 'rope2d':
            return Extras(**options)
        return Rotating(**options, grid=self.grid)  # type: ignore[attr-defined]

    @property
    def prefix(self) -> dict[str, int]:
        """The tokens before the patches, in order: parameter name → number of tokens."""
        numbers = {
            'cls_token': int(self.class_token),
            'dist_token': int(self.distilled),
            'register_tokens': self.num_registers,
        }
        return {name: n for name, n in numbers.items() if n}

    @property
    def num_prefix(self) -> int:
        """The number of tokens before the patches."""
        return sum(self.prefix.values())

    def num_positions(self, num_patches: int) -> int:
        """The number of learned position embeddings."""
        learned = {'learned': self.num_prefix + num_patches, 'learned_patches': num_patches}
        return learned.get(self.posemb, 0)

    def positions(
        self, learned: Any, grid: tuple[int, int], dim: int
    ) -> Float[Array | np.ndarray, '1 n d']:
        """The position embedding of all tokens: zero for the prefix unless it is learned too.

        Args:
          learned: the parameter, [1, num_positions, d]; None if there is none.
          grid: rows and columns of patches in the images at hand.
          dim: features of a token.
        """
        if self.posemb == 'learned':
            return learned
        if self.posemb == 'rope2d':
            return np.zeros((1, self.num_prefix + math.prod(grid), dim), np.float32)
        patches = sincos2d(*grid, dim) if self.posemb == 'sincos2d' else learned
        return jnp.pad(patches, ((0, 0), (self.num_prefix, 0), (0, 0)))

    def linear(self, inputs: int, outputs: int, bias: bool = True) -> nn.Module:
        return Linear(inputs, outputs, bias, self.dtype, self.lora_rank, self.lora_kernels)

    def norm(self) -> nn.Module:
        return layer_norm(self.norm_eps, self.dtype)

    def attend(
        self,
        q: Float[Array, 'b n h d'],
        k: Float[Array, 'b n h d'],
        v: Float[Array, 'b n h d'],
        drop: Dropout,
        train: Train,
    ) -> Float[Array, 'b n h d']:
        drops = self.attn_dropout and train is not False
        implementation = 'xla' if drops else self.attention  # fused kernels keep no weights
        return attend(self.placed(q), self.placed(k), v, implementation, partial(drop, train=train))

    def placed(self, x: Float[Array, 'b n h d']) -> Float[Array, 'b n h d']:
        """Queries or keys that know the places of their patches."""
        return x

    def activate(self, x: Float[Array, '*b i']) -> Float[Array, '*b o']:
        """The activation of a feed-forward block; if `gated`, the first half of x is the gate."""
        if not self.gated:
            return gelu(x, self.gelu)
        gate, x = jnp.split(x, 2, axis=-1)
        return gelu(gate, self.gelu) * x

    def drop_rates(self, depth: int) -> Float[np.ndarray, 'depth'] | None:
        """Each layer's rate of drop path; None for none."""
        return np.linspace(0, self.drop_path, depth, dtype=np.float32) if self.drop_path else None

    def hidden(self, mlp_dim: int) -> int:
        """The outputs of the first linear layer of a feed-forward block."""
        return mlp_dim * (1 + self.gated)


@dataclasses.dataclass(kw_only=True, unsafe_hash=True)
class Rotating(Extras):
    """The options of a model with posemb='rope2d', with its grid of patches."""

    grid: tuple[int, int]

    def placed(self, x: Float[Array, 'b n h d']) -> Float[Array, 'b n h d']:
        return rotate(x, rope2d(*self.grid, x.shape[-1], self.rope_theta), self.num_prefix)
