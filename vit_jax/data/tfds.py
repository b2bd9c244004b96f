"""`tfds:NAME`: any TFDS data set of labelled images; prepared once, read without TensorFlow."""

import contextlib
import difflib
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core.utils import file_utils

from vit_jax.data.records import Record, unknown_split
from vit_jax.data.tfrecord import TfRecords, convert
from vit_jax.errors import InputError

ARRAY_RECORD = tfds.core.FileFormat.ARRAY_RECORD


class TfdsSplit:
    """The records of a split, see `vit_jax.data.records.Split`.

    Args:
      examples: a sequence of dictionaries, keyed by TFDS feature; images are not decoded.
      image_key, label_key: of an example.
      name: of data set and split.
      num_classes: of the data set.
    """

    multi_label = False
    labels = None

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
        name = self.name(index)
        try:
            example = self._examples[index]
        except Exception as error:  # whatever array_record and protobuf raise on damaged files
            raise InputError(f'{name} cannot be read: {error}') from None
        return Record(example[self._image_key], int(example[self._label_key]), name)

    def name(self, index: int) -> str:
        """See `vit_jax.data.records.Split`."""
        return f'{self._name}, example {index}'


class TfdsSource:
    """A TFDS data set with one image and one class label per example.

    Args:
      name: 'NAME', 'NAME/CONFIG' or 'NAME:VERSION', as in TFDS.
      data_dir: where TFDS keeps its data sets; None for TFDS's default, $TFDS_DATA_DIR or
        ~/tensorflow_datasets.

    Attributes:
      name: the SOURCE, 'tfds:NAME'.
      class_names: in label order.
      channels: that its images are converted to, 1 or 3.
      multi_label: False: each image has exactly one class.
      notes: none.

    Raises:
      InputError: if there is no such data set, or it has no labelled images.
    """

    multi_label = False
    notes: Sequence[str] = ()

    def __init__(self, name: str, data_dir: str | None = None) -> None:
        from vit_jax.data import digits  # noqa: F401  (registers its builder with TFDS)

        self.name = f'tfds:{name}'
        try:
            _refuse_foreign_code(name, data_dir)
            self._builder = tfds.builder(name, data_dir=data_dir)
            if not self._builder.is_prepared():
                self._builder = tfds.builder(name, data_dir=data_dir, file_format=ARRAY_RECORD)
        except tfds.core.DatasetNotFoundError:
            known = tfds.list_builders(with_community_datasets=False)
            near = difflib.get_close_matches(name.split('/')[0].split(':')[0], known, n=1)
            hint = f'; did you mean tfds:{near[0]}?' if near else ', see tensorflow.org/datasets'
            raise InputError(f'{self.name}: no such data set{hint}') from None
        except InputError as error:
            raise InputError(f'{self.name}: {error}') from None
        # No such version or config; or TFDS looks into a path that cannot exist.
        except (ValueError, AssertionError, TypeError, OSError) as error:
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
        """The records of a split; prepares the data set first if necessary.

        Args:
          split: a TFDS split, a slice such as 'train[:99%]', or 'all'.

        Raises:
          InputError: if there is no such split, it is empty, or it cannot be prepared.
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
            num_examples = len(examples)  # negative for 'train[5:2]', which is a ValueError
        except (ValueError, KeyError, NotImplementedError) as error:
            raise unknown_split(self.name, self._builder.info.splits, split) from error
        except Exception as error:  # whatever array_record raises on damaged files
            raise InputError(f'{self.name}: {split!r} cannot be read: {error}') from None
        if num_examples == 0:
            raise InputError(f'{self.name}: split {split!r} has no examples')
        name = f'{self.name}, {split}'
        return TfdsSplit(examples, self._image_key, self._label_key, name, len(self.class_names))

    def prepare(self, manual_dir: str | None = None) -> str:
        """Prepares the data set as array_record, which has random access.

        Downloads and writes it, or converts existing TFRecord files. Finished work is not repeated;
        an interrupted preparation is resumed.

        Args:
          manual_dir: folder with files downloaded by hand.

        Returns:
          A message that says where it is.

        Raises:
          InputError: if TFDS cannot get the data, or the folder is not writable.
        """
        self._download(manual_dir)
        if self._is_tfrecord():
            convert(self._builder)
        return f'prepared in {self._builder.data_path}'

    def _is_tfrecord(self) -> bool:
        return self._builder.info.available_file_formats() == {tfds.core.FileFormat.TFRECORD}

    def _download(self, manual_dir: str | None = None) -> None:
        """The only place that imports TensorFlow, and only if there is something to prepare."""
        if self._builder.is_prepared():
            return
        os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
        os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')  # silences oneDNN's start-up log
        import tensorflow as tf

        logging.getLogger('urllib3').setLevel(logging.ERROR)  # otherwise a warning per retry
        tf.config.set_visible_devices([], 'GPU')  # otherwise it takes the memory that JAX needs
        if not sys.stderr.isatty():
            tfds.disable_progress_bar()
        config = tfds.download.DownloadConfig(manual_dir=manual_dir)
        try:
            self._builder.download_and_prepare(file_format=ARRAY_RECORD, download_config=config)
        except Exception as error:  # whatever the builder's own code or the network raises
            reason = ' '.join(str(error).split()) or type(error).__name__
            raise InputError(
                f'{self.name} cannot be prepared: {reason[:500]}; if you have downloaded its files '
                f'by hand, run vit_jax prepare {self.name} --manual-dir FOLDER'
            ) from error


def _refuse_foreign_code(name: str, data_dir: str | None) -> None:
    """Validates that opening a data set runs no code but that of TFDS and of registered builders.

    `features.json` of a prepared data set names classes, whose modules TFDS imports.

    Raises:
      InputError: if the name has a namespace, or a prepared data set a feature of another package.
    """
    dataset, _ = tfds.core.naming.parse_builder_name_kwargs(name)
    if dataset.namespace:
        raise InputError(
            f'expected NAME/CONFIG:VERSION, got the namespace {dataset.namespace!r}, which would '
            f'download; prepare the data set with TFDS and name it alone'
        )

    def foreign(content: Any) -> list[str]:
        if isinstance(content, dict):
            own = content.get('pythonClassName', 'tensorflow_datasets.')
            found = [] if str(own).startswith('tensorflow_datasets.') else [str(own)]
            return found + foreign(list(content.values()))
        return [x for part in content for x in foreign(part)] if isinstance(content, list) else []

    for folder in file_utils.list_data_dirs(data_dir):
        for path in Path(os.path.expanduser(folder)).glob(f'{dataset.name}/**/features.json'):
            names: list[str] = []
            with contextlib.suppress(ValueError, OSError):  # TFDS says what is wrong with it
                names = foreign(json.loads(path.read_text()))
            if names:
                raise InputError(f'{path} would import {names[0]}; expected features of TFDS')
