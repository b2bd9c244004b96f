"""An exported model, read again and checked against its description."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32

from vit_jax.data.picture import MAX_PIXELS
from vit_jax.data.preprocess import Preprocessing
from vit_jax.errors import InputError
from vit_jax.run.json_files import read_json
from vit_jax.use.export import description_path
from vit_jax.use.predict import Predictor
from vit_jax.weights.files import as_input_error

Run = Callable[[np.ndarray], np.ndarray]  # uint8 [b, h, w, c] → probabilities [b, k]


class ExportedPredictor(Predictor):
    """A `Predictor` of a file that `vit_jax export` wrote.

    Args:
      path: of a `.stablehlo` or `.onnx` file, with its description beside it.
      max_pixels: see `Predictor`.

    Raises:
      InputError: if a file is missing or damaged, or an `.onnx` file lacks the package onnxruntime.
    """

    def __init__(self, path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> None:
        path = Path(path)
        data, described = read_export(path)
        self.notes: list[str] = []
        self._max_pixels = max_pixels
        with as_input_error(path):
            self.class_names = list(described['class_names'])
            self.preprocessing = Preprocessing(
                described['image_size'],
                described['channels'],
                **described['normalized_inside'],
                crop_fraction=described['crop_fraction'],
            )
            self._run = _run_onnx(data) if path.suffix == '.onnx' else _run_stablehlo(data)

    def _refuse(self, images: Any) -> Any:
        raise InputError('an exported model only classifies; use what it was made of')

    attention = features = tokens = _refuse

    def classify(self, images: list[np.ndarray]) -> Float32[np.ndarray, 'b k']:
        return self._run(self._padded(images))[: len(images)]


def is_export(path: str | os.PathLike[str]) -> bool:
    return Path(path).suffix in ('.stablehlo', '.onnx')


def read_export(path: Path) -> tuple[bytes, dict[str, Any]]:
    """An exported model and its description.

    Raises:
      InputError: if one of the files is missing or damaged.
    """
    beside = description_path(path)
    for file in (path, beside):
        if not file.is_file():
            raise InputError(f'{file}: no such file; vit_jax export writes {path.name} with it')
    data, described = path.read_bytes(), read_json(beside)
    if described.get('sha256') != hashlib.sha256(data).hexdigest():
        raise InputError(
            f'{path}: the file was damaged or replaced, its sha256 is not the one in '
            f'{beside.name}; export the model again'
        )
    return data, described


def _run_stablehlo(data: bytes) -> Run:
    call = jax.jit(jax.export.deserialize(bytearray(data)).call)
    return lambda images: np.asarray(call(images))


def _run_onnx(data: bytes) -> Run:
    try:
        import onnxruntime
    except ImportError:
        raise InputError('an .onnx file takes onnxruntime; pip install onnxruntime') from None
    session = onnxruntime.InferenceSession(data, providers=['CPUExecutionProvider'])
    return lambda images: session.run(['probabilities'], {'images': images})[0]
