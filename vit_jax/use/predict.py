"""A trained model as a function from pictures to class probabilities."""

import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32
from PIL import Image

from vit_jax.data.picture import MAX_PIXELS, read_picture
from vit_jax.errors import InputError
from vit_jax.weights.reading import read_weights

# Each call is split and padded to these sizes, so a predictor compiles at most three times.
BATCH_SIZES = (1, 16, 128)

Picture = np.ndarray | Image.Image | str | os.PathLike[str]


class Predictor:
    """Classifies pictures of any size with the model of a run directory or a weight file.

    Args:
      path: a run directory with a saved checkpoint (the run may still be in progress), or weights
        as for `vit_jax.load_weights`.
      step: of a run's checkpoint: 'newest', 'best' (on the test split), or a number.
      mean, std: that the model was trained with, for pixels in [0, 1], per channel or one for all;
        for weight files that lack them. Google's imply 0.5 and 0.5.
      max_pixels: of a picture file; a larger one is refused before it takes memory.
      **overrides: as for `vit_jax.load_weights`.

    Attributes:
      class_names: in the order of the probabilities; numbers if the file has none.
      notes: messages on what was resized, dropped or newly initialised.

    Raises:
      InputError: if `path` is neither a run nor a weight file, has no such checkpoint, or lacks
        mean and std.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        step: str | int = 'newest',
        *,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        max_pixels: int = MAX_PIXELS,
        **overrides: Any,
    ) -> None:
        weights = read_weights(path, step=step, **overrides)
        model = weights.model
        self.notes = weights.notes
        self._max_pixels = max_pixels
        self.class_names = weights.description['class_names'] or [
            str(label) for label in range(model.num_classes)
        ]
        self._preprocessing = weights.preprocessing(mean, std)
        self._variables = jax.device_put(weights.variables)

        def predict(variables: dict, images: jax.Array) -> jax.Array:
            logits: Any = model.apply(variables, self._preprocessing.normalize(images))
            return jax.nn.softmax(logits)

        self._predict = jax.jit(predict)

    def __call__(self, images: np.ndarray | Sequence[Picture]) -> Float32[np.ndarray, 'b k']:
        """Class probabilities.

        Args:
          images: uint8 array [b, h, w, c], or a sequence of paths, PIL images and uint8 arrays
            [h, w] or [h, w, c]; b, h and w are free, and colours are converted to the model's.

        Returns:
          Probabilities [b, num_classes], float32.

        Raises:
          InputError: if something is not a picture.
        """
        pictures = self._load(images)
        probabilities = np.empty((len(pictures), len(self.class_names)), np.float32)
        for start in range(0, len(pictures), BATCH_SIZES[-1]):
            chunk = pictures[start : start + BATCH_SIZES[-1]]
            size = next(size for size in BATCH_SIZES if size >= len(chunk))
            padded = np.zeros((size, *chunk.shape[1:]), np.uint8)
            padded[: len(chunk)] = chunk
            result = self._predict(self._variables, jnp.asarray(padded))
            probabilities[start : start + len(chunk)] = result[: len(chunk)]
        return probabilities

    def top_k(
        self, images: np.ndarray | Sequence[Picture], k: int = 5
    ) -> list[list[tuple[str, float]]]:
        """The k likeliest classes of each picture as (name, probability), likeliest first."""
        if k < 1:
            raise InputError(f'k: expected at least 1, got {k}')
        probabilities = self(images)
        order = np.argsort(-probabilities, axis=-1, kind='stable')[:, :k]
        return [
            [(self.class_names[index], float(row[index])) for index in indices]
            for row, indices in zip(probabilities, order, strict=True)
        ]

    def _load(self, images: np.ndarray | Sequence[Picture]) -> np.ndarray:
        if isinstance(images, (str, os.PathLike, Image.Image)):
            raise InputError('expected a sequence of pictures, got one; put it in a list')
        if isinstance(images, np.ndarray | jax.Array) and images.ndim != 4:
            raise InputError(
                f'expected an array [b, h, w, c], got {list(images.shape)}; '
                f'put a single picture in a list'
            )
        pictures = [self._preprocessing.resize(self._open(image)) for image in images]
        shape = (len(pictures), *self._preprocessing.image_size, self._preprocessing.channels)
        return np.array(pictures, np.uint8).reshape(shape)

    def _open(self, image: Picture) -> np.ndarray | Image.Image:
        if isinstance(image, (str, os.PathLike)):
            return read_picture(image, self._max_pixels)
        return image if isinstance(image, Image.Image) else np.asarray(image)
