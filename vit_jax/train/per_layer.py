"""Transformations of gradients that take an array as a whole, applied to each layer by itself."""

from collections.abc import Callable
from typing import Any

import jax
import optax


def per_layer(transform: optax.GradientTransformation) -> optax.GradientTransformation:
    """A transformation that sees each layer's parameters, which are stacked over depth, alone.

    Norms, factors and means over a whole array would otherwise mix the layers.

    Args:
      transform: of a tree of parameters, as if nothing were stacked.

    Returns:
      The same, of a ViT's parameters. Its state has a leading axis of layers for theirs.
    """

    def over_layers(f: Callable[..., Any]) -> Callable[..., Any]:
        def mapped(layers: Any, *others: Any) -> Any:
            # Where all layers are frozen, there is nothing to map over.
            return (jax.vmap(f) if jax.tree.leaves(layers) else f)(layers, *others)

        return mapped

    def groups(params: Any) -> dict[str, str]:
        return {name: 'layers' if name == 'transformer' else 'rest' for name in params}

    stacked = optax.GradientTransformation(
        over_layers(transform.init), over_layers(transform.update)
    )
    return optax.partition({'layers': stacked, 'rest': transform}, groups)
