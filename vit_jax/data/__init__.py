"""Where examples come from, and the batch at step t."""

from vit_jax.data.batches import Examples, eval_batches, train_batch
from vit_jax.data.folder import FolderSource
from vit_jax.data.tfds import TfdsSource
from vit_jax.errors import InputError

__all__ = ['Examples', 'eval_batches', 'open_source', 'train_batch']


def open_source(source: str, data_dir: str | None = None) -> TfdsSource | FolderSource:
    """The data set that a SOURCE names; reads and prepares no examples yet.

    Args:
      source: 'tfds:NAME', any data set of TFDS, or 'folder:PATH', pictures in folders of classes.
      data_dir: where TFDS keeps its data sets; None is TFDS's own default.

    Raises:
      InputError: where there is no such data set, or it has no labelled pictures.
    """
    kind, _, name = source.partition(':')
    if kind == 'tfds' and name:
        return TfdsSource(name, data_dir)
    if kind == 'folder' and name:
        return FolderSource(name)
    raise InputError(
        f"data.source: expected 'tfds:NAME', as tfds:mnist, or 'folder:PATH', got {source!r}"
    )
