"""Where examples come from, and the batch at step t."""

from vit_jax.data.batches import Examples, eval_batches, train_batch
from vit_jax.data.tfds import TfdsSource, open_source

__all__ = ['Examples', 'TfdsSource', 'eval_batches', 'open_source', 'train_batch']
