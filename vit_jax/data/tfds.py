"""`tfds:NAME`: any TFDS data set of labelled images; prepared once, read without TensorFlow."""

import difflib
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

import tensorflow_datasets as tfds

from vit_jax.data.records import Record
from vit_jax.data.tfrecord import TfRecords, convert
from vit_jax.errors import InputError

ARRAY_RECORD = tfds.core.FileFormat.ARRAY_RECORD


class TfdsSplit:
    """The records of a split, see `vit_jax.data.records.Split`.

    Args:
      examples: a sequence of dictionaries by TFDS's features, the image not decoded.
      image_key, label_key: of an example.
      name: of data set and split.
      num_classes: of the data set.
    """

    def __init__(
        self,
        examples: Any,
        image_key: str,
        label_key: str,
        name: str,
        num_classes: int,
    ) -> None:
        self._examples = examples
        self._image_key = image_key
        self._label_key = label_key
        self._name = name
        self.num_classes = num_classes
        self.random_access = not isinstance(examples, TfRecords)

    def load(self) -> None:
        """See `vit_jax.data.records.Split`."""
        if not self.random_access:
            self._examples.load()

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Record:
        name = f'{self._name}, example {index}'
        try:
            example = self._examples[index]
        except Exception as error:  # whatever array_record and protobuf say of damaged files
            raise InputError(f'{name}: it cannot be read: {error}') from None
        return Record(example[self._image_key], int(example[self._label_key]), name)


class TfdsSource:
    """A TFDS data set with one image and one class label an example.

    Args:
      name: 'NAME', 'NAME/CONFIG', 'NAME:VERSION' as TFDS understands them.
      data_dir: where TFDS keeps its data sets; None is TFDS's own default,
        $TFDS_DATA_DIR or ~/tensorflow_datasets.

    Attributes:
      name: as a SOURCE.
      class_names: in the order of the labels.
      channels: that its images are to have, 1 or 3.

    Raises:
      InputError: where there is no such data set, or it has no labelled images.
    """

    def __init__(self, name: str, data_dir: str | None = None) -> None:
        from vit_jax.data import digits  # noqa: F401  (registers its builder with TFDS)

        self.name = f'tfds:{name}'
        try:
            self._builder = tfds.builder(name, data_dir=data_dir)
            if not self._builder.is_prepared():
                self._builder = tfds.builder(name, data_dir=data_dir, file_format=ARRAY_RECORD)
        except tfds.core.DatasetNotFoundError:
            known = tfds.list_builders(with_community_datasets=False)
            near = difflib.get_close_matches(name.split('/')[0].split(':')[0], known, n=1)
            hint = f'; did you mean tfds:{near[0]}?' if near else ', see tensorflow.org/datasets'
            raise InputError(f'{self.name}: no such data set{hint}') from None
        except (ValueError, AssertionError, TypeError) as error:  # no such version, configuration
            reason = ' '.join(str(error).split()) or type(error).__name__
            raise InputError(f'{self.name} cannot be opened: {reason}') from None
        self._image_key, self._label_key = self._supervised_keys()
        features = self._builder.info.features
        self.class_names: list[str] = list(features[self._label_key].names)
        self.channels: int = 1 if features[self._image_key].shape[-1] == 1 else 3

    def _supervised_keys(self) -> tuple[str, str]:
        features = self._builder.info.features
        image_key, label_key = self._builder.info.supervised_keys or ('image', 'label')
        image, label = dict(features).get(image_key), dict(features).get(label_key)
        if not (
            isinstance(image, tfds.features.Image) and isinstance(label, tfds.features.ClassLabel)
        ):
            raise InputError(
                f'{self.name}: expected an image and a class label, '
                f'got {", ".join(sorted(features))}'
            )
        return image_key, label_key

    def open(self, split: str) -> TfdsSplit:
        """The records of a split; prepares the data set where that was not done.

        Args:
          split: a TFDS split, slices such as 'train[:99%]' too.

        Raises:
          InputError: where there is no such split, it is empty, or it cannot be prepared.
        """
        self._download()
        decoders = {self._image_key: tfds.decode.SkipDecoding()}
        try:
            examples: Sequence[Any]
            if self._is_tfrecord():
                info = self._builder.info
                examples = TfRecords(info.splits[split], info.features, decoders)
            else:
                examples = self._builder.as_data_source(split=split, decoders=decoders)
        except (ValueError, KeyError, NotImplementedError) as error:
            raise InputError(
                f'{self.name}: expected a split out of '
                f'{", ".join(sorted(self._builder.info.splits))} or a slice of one '
                f'(data.train_split, data.test_split), got {split!r}'
            ) from error
        except Exception as error:  # array_record's, of damaged files
            raise InputError(f'{self.name}: {split!r} cannot be read: {error}') from None
        if len(examples) == 0:
            raise InputError(f'{self.name}: split {split!r} has no examples')
        name = f'{self.name}, {split}'
        return TfdsSplit(examples, self._image_key, self._label_key, name, len(self.class_names))

    def prepare(self, manual_dir: str | None = None) -> str:
        """Brings the data set into the form that is read in random order, array_record.

        Downloads and writes it, or converts what is there as TFRecord; what is done is not done
        again, and what was interrupted is gone on with.

        Args:
          manual_dir: folder with files that were downloaded by hand.

        Returns:
          Where it is, in words.

        Raises:
          InputError: where TFDS cannot get at the data, or the folder cannot be written.
        """
        self._download(manual_dir)
        if self._is_tfrecord():
            convert(self._builder)
        return f'prepared in {self._builder.data_path}'

    def _is_tfrecord(self) -> bool:
        return self._builder.info.available_file_formats() == {tfds.core.FileFormat.TFRECORD}

    def _download(self, manual_dir: str | None = None) -> None:
        """The only place that imports TensorFlow, and only where there is something to prepare."""
        if self._builder.is_prepared():
            return
        os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
        os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')  # or it talks about them
        import tensorflow as tf

        logging.getLogger('urllib3').setLevel(logging.ERROR)  # or it tells each of its attempts
        tf.config.set_visible_devices([], 'GPU')  # or it would take the memory that JAX needs
        if not sys.stderr.isatty():
            tfds.disable_progress_bar()
        config = tfds.download.DownloadConfig(manual_dir=manual_dir)
        try:
            self._builder.download_and_prepare(file_format=ARRAY_RECORD, download_config=config)
        except Exception as error:  # whatever a builder's own code or the network raised
            reason = ' '.join(str(error).split()) or type(error).__name__
            raise InputError(
                f'{self.name} cannot be prepared: {reason[:500]}; files that you have are taken by '
                f'python -m vit_jax prepare {self.name} --manual-dir FOLDER'
            ) from error
