"""Trains a Vision Transformer: `vit_jax.train(config, workdir)`.

    config = vit_jax.load_config('digits', {'optim.learning_rate': 3e-4})
    last = vit_jax.train(config, 'runs/digits')  # {'step': …, 'loss': …, 'accuracy': …}

`config` is a ConfigDict with every option of `vit_jax.default_config()`; `workdir` is the run
directory. Calling it again with the same arguments resumes the run. `vit_jax.train.trainer.train`
says what it returns and raises; this package is callable because both have one name.
"""

import sys
from types import ModuleType
from typing import Any


class _Train(ModuleType):
    def __call__(self, config: Any, workdir: str) -> dict[str, Any]:
        """Trains, or resumes; see `vit_jax.train.trainer.train`."""
        from vit_jax.train.trainer import train  # on first use: it imports Orbax and TFDS

        return train(config, workdir)


sys.modules[__name__].__class__ = _Train
