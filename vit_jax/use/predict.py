"""A trained model as a function from pictures to class probabilities."""

import itertools
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from vit_jax.data.memory import num_cores
from vit_jax.data.picture import MAX_PIXELS, read_picture
from vit_jax.errors import InputError
from vit_jax.parallel.parallel import create_parallel
from vit_jax.use import answer
from vit_jax.use.answer import Attended
from vit_jax.weights.reading import check_classifies, read_weights

# Each call is split and padded to these sizes, so a predictor compiles at most three times.
BATCH_SIZES = (1, 16, 128)
ATTENTION_BATCH_SIZES = BATCH_SIZES[:2]  # the weights of 128 pictures may take gigabytes

Picture = np.ndarray | Image.Image | str | os.PathLike[str]
Item = TypeVar('Item')
Result = TypeVar('Result')


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
      multi_label: whether a picture may have any number of classes; then each has a probability
        of its own, otherwise they sum to 1.
      model, variables: the `vit_jax.ViT` and its parameters.
      preprocessing: what a picture goes through before the model.
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
        self.model = weights.model
        self.notes = weights.notes
        self._max_pixels = max_pixels
        self.class_names = weights.class_names
        self.preprocessing = weights.preprocessing(mean, std)
        self._name = weights.name
        self._parallel = create_parallel('jit', jax.device_count())
        self.variables = jax.device_put(weights.variables, self._parallel.replicated)
        self._first_copy = jax.tree.map(lambda x: x.addressable_data(0), self.variables)
        self.multi_label = weights.multi_label
        kind: Any = {'multi_label': self.multi_label}
        self._probabilities = self._compiled(partial(answer.probabilities, **kind))
        self._features = self._compiled(answer.features)
        self._tokens = self._compiled(answer.tokens)
        self._attention = self._compiled(answer.attention)
        self._attended = self._compiled(partial(answer.attended, **kind))

    def _compiled(self, function: Callable[..., Any]) -> Callable[[list[np.ndarray]], Any]:
        """One of `vit_jax.use.answer` for a list of at most 128 preprocessed images.

        It runs on all devices if they divide the batch.
        """
        function = partial(function, self.model, self.preprocessing)
        on_one_device, on_all_devices = jax.jit(function), self._parallel.eval_step(function)

        def run(images: list[np.ndarray]) -> Any:
            padded = self._padded(images)
            if len(padded) % jax.device_count():
                found = on_one_device(self._first_copy, jnp.asarray(padded))
            else:
                found = on_all_devices(self.variables, self._parallel.put_batch(padded))
            return jax.tree.map(lambda x: np.asarray(x)[: len(images)], found)

        return run

    def __call__(self, images: np.ndarray | Sequence[Picture]) -> Float32[np.ndarray, 'b k']:
        """Class probabilities.

        Args:
          images: uint8 array [b, h, w, c], or a sequence of paths, PIL images and uint8 arrays
            [h, w] or [h, w, c]; b, h and w are free, and colours are converted to the model's.

        Returns:
          Probabilities [b, num_classes], float32.

        Raises:
          InputError: if something is not a picture, or the weights have no classifier.
        """
        return self._in_batches(images, self.classify)

    def top_k(
        self, images: np.ndarray | Sequence[Picture], k: int = 5
    ) -> list[list[tuple[str, float]]]:
        """The k likeliest classes of each picture as (name, probability), likeliest first."""
        _check_k(k)
        return [self.likeliest(row, k) for row in self(images)]

    def attention(self, images: np.ndarray | Sequence[Picture]) -> Float32[np.ndarray, 'b l h n n']:
        """The attention weights of all layers and heads, see `vit_jax.model.record`.

        Args:
          images: see `__call__`.

        Returns:
          Weights [b, depth, heads, n, n], float32; each row, of a token that attends, sums to 1.
          The prefix tokens (cls, registers) come first, then the patches row by row.

        Raises:
          InputError: if something is not a picture.
        """
        return self._in_batches(images, self._attention, ATTENTION_BATCH_SIZES[-1])

    def features(self, images: np.ndarray | Sequence[Picture]) -> Float32[np.ndarray, 'b d']:
        """What the classifier reads, or would read if the weights had one.

        Args:
          images: see `__call__`.

        Raises:
          InputError: if something is not a picture.
        """
        return self._in_batches(images, self.extract)

    def tokens(self, images: np.ndarray | Sequence[Picture]) -> Float32[np.ndarray, 'b n d']:
        """The tokens after the last norm, those of the prefix (cls, registers) first.

        Args:
          images: see `__call__`.

        Raises:
          InputError: if something is not a picture.
        """
        return self._in_batches(images, self._tokens)

    def _in_batches(
        self,
        images: np.ndarray | Sequence[Picture],
        run: Callable[[list[np.ndarray]], np.ndarray],
        largest: int = BATCH_SIZES[-1],
    ) -> np.ndarray:
        """Runs a function of preprocessed images on any number of pictures."""
        _check_several(images)
        pictures = list(images)
        chunks = (pictures[i : i + largest] for i in range(0, len(pictures), largest))
        found = [run([self.preprocess(picture) for picture in chunk]) for chunk in chunks]
        if found:
            return np.concatenate(found)
        return run([np.zeros(self.preprocessing.shape, np.uint8)])[:0]

    def stream(
        self, images: Iterable[Picture], k: int = 5, on_error: str = 'raise'
    ) -> Iterator[tuple[Picture, list[tuple[str, float]] | InputError]]:
        """`top_k` of any number of pictures, one by one, in bounded memory.

        Threads decode up to 128 pictures ahead of those in the model, which takes 128 at once.

        Args:
          images: paths, PIL images and uint8 arrays; asked for as they are needed.
          k: classes per picture.
          on_error: what to do about something that is not a picture: 'raise', after all pictures
            before it; or 'skip', to yield the error in place of its classes.

        Yields:
          Each picture as given, with its classes as from `top_k`, or its error.

        Raises:
          InputError: on the first picture, if k or on_error is wrong; and see on_error.
        """
        _check_several(images)
        _check_k(k)
        if on_error not in ('raise', 'skip'):
            raise InputError(f"on_error: expected 'raise' or 'skip', got {on_error!r}")
        with closing(read_ahead(images, self._read_or_error, BATCH_SIZES[-1])) as read:
            while chunk := list(itertools.islice(read, BATCH_SIZES[-1])):
                pixels = [found for _, found in chunk if not isinstance(found, InputError)]
                rows = iter(self.classify(pixels) if pixels else ())
                for image, found in chunk:
                    if not isinstance(found, InputError):
                        yield image, self.likeliest(next(rows), k)
                    elif on_error == 'skip':
                        yield image, found
                    else:
                        raise InputError(
                            f"{found}; to leave it out: --on-error skip, in Python on_error='skip'"
                        )

    def likeliest(self, row: Float32[np.ndarray, 'k'], k: int) -> list[tuple[str, float]]:
        """The k likeliest classes by one picture's probabilities, likeliest first."""
        order = np.argsort(-row, kind='stable')[:k]
        return [(self.class_names[index], float(row[index])) for index in order]

    def preprocess(self, image: Picture) -> UInt8[np.ndarray, 'h w c']:
        """A picture as the model sees it, before normalisation.

        Raises:
          InputError: if it is not a picture.
        """
        if isinstance(image, (str, os.PathLike)):
            return self.preprocessing.resize(read_picture(image, self._max_pixels))
        picture = image if isinstance(image, Image.Image) else np.asarray(image)
        return self.preprocessing.resize(picture)

    def classify(self, images: list[np.ndarray]) -> Float32[np.ndarray, 'b k']:
        """Probabilities of at most 128 preprocessed images, see `preprocess`.

        Raises:
          InputError: if the weights have no classifier.
        """
        check_classifies(self.model, self._name)
        return self._probabilities(images)

    def extract(self, images: list[np.ndarray]) -> Float32[np.ndarray, 'b d']:
        """Features of at most 128 preprocessed images, see `preprocess` and `features`."""
        return self._features(images)

    def classify_with_attention(self, images: list[np.ndarray]) -> Attended:
        """Probabilities and maps of attention of at most 16 preprocessed images.

        Raises:
          InputError: if the weights have no classifier.
        """
        check_classifies(self.model, self._name)
        return self._attended(images)

    def _padded(self, images: list[np.ndarray]) -> UInt8[np.ndarray, 'b h w c']:
        """A batch of images and, to one of `BATCH_SIZES`, zeros."""
        size = next(size for size in BATCH_SIZES if size >= len(images))
        padded = np.zeros((size, *self.preprocessing.shape), np.uint8)
        for row, image in zip(padded, images, strict=False):
            row[:] = image
        return padded

    def _read_or_error(self, image: Picture) -> np.ndarray | InputError:
        try:
            return self.preprocess(image)
        except InputError as error:
            return error


def _check_several(images: Any) -> None:
    if isinstance(images, (str, os.PathLike, Image.Image)):
        raise InputError('expected a sequence of pictures, got one; put it in a list')
    if isinstance(images, np.ndarray | jax.Array) and images.ndim != 4:
        raise InputError(
            f'expected an array [b, h, w, c], got {list(images.shape)}; '
            f'put a single picture in a list'
        )


def _check_k(k: int) -> None:
    if k < 1:
        raise InputError(f'k: expected at least 1, got {k}')


def read_ahead(
    items: Iterable[Item], read: Callable[[Item], Result], ahead: int
) -> Generator[tuple[Item, Result], None, None]:
    """Each item and what is read of it, in order; one thread per core reads `ahead` items ahead."""
    pool = ThreadPoolExecutor(num_cores())
    try:
        pending: deque[tuple[Item, Future[Result]]] = deque()
        for item in items:
            pending.append((item, pool.submit(read, item)))
            if len(pending) > ahead:
                first, result = pending.popleft()
                yield first, result.result()
        for item, result in pending:
            yield item, result.result()
    finally:
        pool.shutdown(cancel_futures=True)
