"""All that the seed's ViT does not have: options for published weights and modern recipes.

Every default leaves the model as vit-pytorch has it, so a first reader may skip this file.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vit_jax.model.layers import LayerNorm, Linear, sincos2d


@dataclasses.dataclass(kw_only=True, unsafe_hash=True)
class Extras:
    """Options of `vit_jax.ViT` beyond the seed's, inherited by it and handed to its modules whole.

    Args:
      posemb: position embedding: 'learned' for all tokens, 'learned_patches' for the patches only,
        or 'sincos2d', fixed, for the patches only.
      class_token: whether there is a cls token.
      distilled: a distillation token (https://arxiv.org/abs/2012.12877) after the cls token, with
        its own classifier; the logits are the mean of the two.
      num_registers: register tokens (https://arxiv.org/abs/2309.16588) after those two.
      qkv_bias: whether queries, keys and values have a bias.
      qk_norm: whether each head's queries and keys are normed (https://arxiv.org/abs/2302.05442).
      layer_scale: initial factor of each block's output (https://arxiv.org/abs/2103.17239); None
        for no LayerScale.
      norm_eps: added to the variance in every norm, [0, 1).
      gelu: 'erf', exact, or the 'tanh' approximation.
      fc_norm: with pool='gap', norm the mean of the patches instead of the patches.
      representation_size: features of a tanh layer before the classifier; 0 for none.
      dtype: of the computation, 'float32' or 'bfloat16'. Parameters, softmax, norms and logits are
        float32 in either.
      attention: 'xla', or 'cudnn' for the fused kernel of NVIDIA GPUs, which needs bfloat16.
      remat: what the backward pass recomputes instead of reading it from memory: 'none', 'dots'
        (all but the matrix products with parameters) or 'full' (whole layers).
      unroll: layers compiled into one iteration of the scan over layers.
    """

    # Tokens
    posemb: str = 'learned'
    class_token: bool = True
    distilled: bool = False
    num_registers: int = 0
    # Blocks
    qkv_bias: bool = False
    qk_norm: bool = False
    layer_scale: float | None = None
    norm_eps: float = 1e-5
    gelu: str = 'erf'
    # Head
    fc_norm: bool = False
    representation_size: int = 0
    # Execution
    dtype: str = 'float32'
    attention: str = 'xla'
    remat: str = 'dots'
    unroll: int = 1

    @property
    def extras(self) -> 'Extras':
        """These options alone, without the arguments of a ViT that inherits them."""
        return Extras(**{f.name: getattr(self, f.name) for f in dataclasses.fields(Extras)})

    @property
    def prefix(self) -> dict[str, int]:
        """The tokens before the patches: parameter names and numbers, in order."""
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
        """The position embedding of all tokens: zero for the prefix unless that is learned too.

        Args:
          learned: the parameter, [1, num_positions, d]; None if there is none.
          grid: rows and columns of patches in the images at hand.
          dim: features of a token.
        """
        if self.posemb == 'learned':
            return learned
        patches = sincos2d(*grid, dim) if self.posemb == 'sincos2d' else learned
        return jnp.pad(patches, ((0, 0), (self.num_prefix, 0), (0, 0)))

    def linear(self, inputs: int, outputs: int, bias: bool = True) -> nn.Module:
        return Linear(inputs, outputs, bias, self.dtype)

    def norm(self) -> nn.Module:
        return LayerNorm(epsilon=self.norm_eps, dtype=self.dtype)
