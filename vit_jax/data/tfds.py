"""`tfds:NAME`: any TFDS data set of labelled images; prepared once, read without TensorFlow."""

import difflib
import os
import sys
from collections.abc import Callable

import numpy as np
import tensorflow_datasets as tfds

from vit_jax.data.batches import Examples
from vit_jax.errors import InputError


class TfdsSource:
    """A TFDS data set with one image and one class label an example.

    Args:
      name: 'NAME', 'NAME/CONFIG', 'NAME:VERSION' as TFDS understands them.
      data_dir: where TFDS keeps its data sets; None is TFDS's own default,
        $TFDS_DATA_DIR or ~/tensorflow_datasets.

    Attributes:
      class_names: in the order of the labels.
      channels: of the images as they are read, 1 or 3.

    Raises:
      InputError: where there is no such data set, or it has no labelled images.
    """

    class_names: list[str]
    channels: int

    def __init__(self, name: str, data_dir: str | None = None) -> None:
        from vit_jax.data import digits  # noqa: F401  (registers its builder with TFDS)

        try:
            self._builder = tfds.builder(name, data_dir=data_dir, file_format='array_record')
        except tfds.core.DatasetNotFoundError:
            known = tfds.list_builders(with_community_datasets=False)
            near = difflib.get_close_matches(name.split('/')[0].split(':')[0], known, n=1)
            hint = f'; did you mean tfds:{near[0]}?' if near else ', see tensorflow.org/datasets'
            raise InputError(f'tfds:{name}: no such data set{hint}') from None
        except (ValueError, AssertionError) as error:  # no such version or configuration
            reason = ' '.join(str(error).split()) or type(error).__name__
            if 'file format' in reason.lower():
                reason += '; it is there as TFRecord, so give another data.dir'
            raise InputError(f'tfds:{name} cannot be opened: {reason}') from None
        self._name = name
        self._image_key, self._label_key = self._supervised_keys()
        features = self._builder.info.features
        self.class_names = list(features[self._label_key].names)
        self.channels = features[self._image_key].shape[-1] or 3

    def _supervised_keys(self) -> tuple[str, str]:
        features = self._builder.info.features
        image_key, label_key = self._builder.info.supervised_keys or ('image', 'label')
        image, label = dict(features).get(image_key), dict(features).get(label_key)
        if not (
            isinstance(image, tfds.features.Image) and isinstance(label, tfds.features.ClassLabel)
        ):
            raise InputError(
                f'tfds:{self._name}: expected an image and a class label, '
                f'got {", ".join(sorted(features))}'
            )
        return image_key, label_key

    def prepare(self) -> None:
        """Downloads and converts the data set to array_record, unless that is done already.

        The only place that imports TensorFlow.

        Raises:
          InputError: where TFDS cannot get at the data, or the folder cannot be written.
        """
        if self._builder.is_prepared():
            return
        os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
        os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')  # or it talks about them
        import tensorflow as tf

        tf.config.set_visible_devices([], 'GPU')  # or it would take the memory that JAX needs
        if not sys.stderr.isatty():
            tfds.disable_progress_bar()
        try:
            self._builder.download_and_prepare(file_format='array_record')
        except Exception as error:  # whatever a builder's own code or the network raised
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise InputError(f'tfds:{self._name} cannot be prepared: {reason[0]}') from error

    def read(self, split: str, resize: Callable[[np.ndarray], np.ndarray]) -> Examples:
        """A whole split, decoded and resized, in memory.

        Args:
          split: a TFDS split, slices such as 'train[:99%]' too.
          resize: uint8 [any, any, channels] → uint8 [h, w, c].

        Raises:
          InputError: where there is no such split, or it is empty.
        """
        self.prepare()
        try:
            examples = self._builder.as_data_source(split=split)
        except (ValueError, KeyError) as error:
            raise InputError(
                f'tfds:{self._name}: expected a split out of '
                f'{", ".join(sorted(self._builder.info.splits))} or a slice of one, got {split!r}'
            ) from error
        if len(examples) == 0:
            raise InputError(f'tfds:{self._name}: split {split!r} has no examples')
        first = resize(examples[0][self._image_key])
        images = np.empty((len(examples), *first.shape), np.uint8)
        labels = np.empty(len(examples), np.int32)
        for i, example in enumerate(examples):
            images[i] = resize(example[self._image_key])
            labels[i] = example[self._label_key]
        if labels.min() < 0:
            raise InputError(f'tfds:{self._name}: split {split!r} has examples without a label')
        return Examples(images, labels)
