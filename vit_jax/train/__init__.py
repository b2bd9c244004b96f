"""Training: `vit_jax.train(config, workdir)`, see `vit_jax.train.trainer.train`.

The package is callable because the function that users call has the name of its room.
"""

import sys
from types import ModuleType
from typing import Any


class _Train(ModuleType):
    def __call__(self, config: Any, workdir: str) -> dict[str, Any]:
        from vit_jax.train.trainer import train  # on first use: it imports Orbax and TFDS

        return train(config, workdir)


sys.modules[__name__].__class__ = _Train
