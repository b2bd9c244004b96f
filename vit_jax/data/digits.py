"""`tfds:digits`: scikit-learn's handwritten digits as a TFDS data set, for a first run offline."""

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds


class Digits(tfds.core.GeneratorBasedBuilder):
    """1,797 real 8x8 grey images of ten classes, 1,437 for training and 360 for testing.

    The split is stratified by class and fixed: scikit-learn's
    `train_test_split(test_size=0.2, stratify=target, random_state=0)`. Grey values 0 to 16 become
    0 to 255 (x * 255 / 16, rounded down).

    Source: the test set of UCI's "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak,
    1998), as packaged in `sklearn.datasets.load_digits`.
    """

    VERSION = tfds.core.Version('1.0.0')
    RELEASE_NOTES: ClassVar = {'1.0.0': 'Stratified 80/20 split of load_digits.'}

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description=self.__doc__,
            features=tfds.features.FeaturesDict(
                {
                    'image': tfds.features.Image(shape=(8, 8, 1), encoding_format='png'),
                    'label': tfds.features.ClassLabel(names=[str(digit) for digit in range(10)]),
                }
            ),
            supervised_keys=('image', 'label'),
            homepage='https://archive.ics.uci.edu/dataset/80',
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        digits = load_digits()
        indices = np.arange(len(digits.target))
        train, test = train_test_split(
            indices, test_size=0.2, stratify=digits.target, random_state=0
        )
        return {
            'train': self._generate_examples(digits, train),
            'test': self._generate_examples(digits, test),
        }

    def _generate_examples(
        self, digits: Any, indices: np.ndarray
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for index in indices:
            image = (digits.images[index] * 255 / 16).astype(np.uint8)
            yield int(index), {'image': image[..., None], 'label': int(digits.target[index])}
