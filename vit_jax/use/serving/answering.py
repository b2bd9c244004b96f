"""A picture's way to its answer: decoded in a thread, classified in a batch, put as JSON."""

import asyncio
import base64
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8

from vit_jax.data.memory import num_cores
from vit_jax.errors import InputError
from vit_jax.model.shapes import num_tokens
from vit_jax.use.predict import ATTENTION_BATCH_SIZES, BATCH_SIZES, Predictor
from vit_jax.use.serving.batching import Batcher, Work, measure_work
from vit_jax.use.serving.uploads import Limits, Upload, decode_upload

ATTENTION_BYTES = 2**29  # of the weights of a batch, which are on the device for a moment


class Found(NamedTuple):
    """What the model found in one picture; without maps if they were not asked for."""

    probabilities: Float32[np.ndarray, 'k']
    attention: Float32[np.ndarray, 'l h rows columns'] | None = None
    rollout: Float32[np.ndarray, 'rows columns'] | None = None


class Answering:
    """Answers pictures with the model of a Predictor, which is compiled here.

    Args:
      predictor: of the model.
      limits: of pictures and of the queue.
      on_batch: see `vit_jax.use.serving.batching.Batcher`.

    Raises:
      InputError: if the model's answer to a black picture is not a number.
    """

    def __init__(
        self, predictor: Predictor, limits: Limits, on_batch: Callable[[int, float], None]
    ) -> None:
        self._predictor, self._limits = predictor, limits
        self._works = warm_up(predictor)
        self._decoders = ThreadPoolExecutor(num_cores(), 'decode')
        self._batcher = Batcher(limits.waiting, limits.waiting_seconds, on_batch)

    @property
    def num_admitted(self) -> int:
        """Pictures that are not answered yet."""
        return self._batcher.num_admitted

    def admit(self, count: int, with_attention: bool) -> AbstractContextManager[None]:
        """Room for pictures; raises Busy if there is none."""
        return self._batcher.admit(self._works[with_attention], count)

    def check_room(self, with_attention: bool) -> None:
        """Raises Busy if there is no room for a picture."""
        self._batcher.check_room(self._works[with_attention])

    async def answer(self, upload: Upload, top_k: int, with_attention: bool) -> dict[str, Any]:
        """The answer to an admitted picture, or what is wrong with it, as JSON."""
        size = self._predictor.preprocessing.image_size

        def decode() -> np.ndarray:
            return self._predictor.preprocess(decode_upload(upload, size, self._limits))

        try:
            pixels = await asyncio.get_running_loop().run_in_executor(self._decoders, decode)
        except InputError as error:
            return {'name': upload.name, 'error': str(error)}
        upload.data.clear()
        work = self._works[with_attention]
        found = await asyncio.wrap_future(self._batcher.submit(work, pixels))
        likeliest = self._predictor.likeliest(found.probabilities, top_k)
        predictions = [{'class': name, 'probability': p} for name, p in likeliest]
        answer: dict[str, Any] = {'name': upload.name, 'predictions': predictions}
        if with_attention:
            answer['attention'] = encode_attention(found)
        return answer

    def close(self) -> None:
        """Ends the threads after all that was submitted."""
        self._decoders.shutdown()
        self._batcher.close()


def warm_up(predictor: Predictor) -> dict[bool, Work]:
    """Compiles and measures classification, without (False) and with attention (True)."""
    model = predictor.model
    black = np.zeros(predictor.preprocessing.shape, np.uint8)
    if not np.isfinite(predictor.classify([black])).all():
        raise InputError('expected probabilities, got NaN; the weights are not finite')

    def classify(images: list[np.ndarray]) -> Sequence[Found]:
        return [Found(row) for row in predictor.classify(images)]

    def classify_with_attention(images: list[np.ndarray]) -> Sequence[Found]:
        return [Found(*x) for x in zip(*predictor.classify_with_attention(images), strict=True)]

    weights = 4 * model.depth * model.heads * num_tokens(model) ** 2
    sizes = [n for n in ATTENTION_BATCH_SIZES if n == 1 or n * weights <= ATTENTION_BYTES]
    return {
        False: measure_work(classify, black, BATCH_SIZES),
        True: measure_work(classify_with_attention, black, sizes),
    }


def encode_attention(found: Found) -> dict[str, Any]:
    """Maps in a byte for each patch: base64 of uint8, where 255 is the peak of the map."""
    assert found.attention is not None and found.rollout is not None
    layers, heads, rows, columns = found.attention.shape
    weights, peaks = _quantize(found.attention)
    rollout, peak = _quantize(found.rollout)
    return {
        'layers': layers,
        'heads': heads,
        'rows': rows,
        'columns': columns,
        'weights': base64.b64encode(weights.tobytes()).decode(),
        'peaks': peaks.tolist(),
        'rollout': base64.b64encode(rollout.tobytes()).decode(),
        'rollout_peak': float(peak),
    }


def _quantize(
    maps: Float32[np.ndarray, '*n rows columns'],
) -> tuple[UInt8[np.ndarray, '*n rows columns'], Float32[np.ndarray, '*n']]:
    maps = np.nan_to_num(maps)  # of a token that attends to no patch at all
    peaks = np.asarray(maps.max(axis=(-2, -1)))
    scale = 255 / np.maximum(peaks, np.finfo(np.float32).tiny)
    return np.rint(maps * scale[..., None, None]).astype(np.uint8), peaks
