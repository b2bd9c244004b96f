"""A trained model as an ONNX file, by jax2onnx: for ONNX Runtime, browsers and TensorRT."""

import logging
import os
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np

from vit_jax.data.preprocess import Preprocessing
from vit_jax.errors import InputError
from vit_jax.use.answer import attended, probabilities
from vit_jax.use.export import checked, write_export
from vit_jax.use.int8 import dequantize, quantize
from vit_jax.weights.reading import Weights

OPSET = 17  # which ONNX Runtime, onnxruntime-web and TensorRT since 8.6 read
TOLERANCE = 1e-4  # of a probability, by which ONNX Runtime may differ from jax
PACKAGES = 'jax2onnx onnx onnx-ir onnxruntime sympy mpmath'


def write_onnx(
    weights: Weights,
    path: str | os.PathLike[str],
    preprocessing: Preprocessing,
    *,
    int8: bool = False,
    attention: bool = False,
) -> None:
    """Writes a model as ONNX, and its description beside it, see `write_export`.

    The input 'images' is uint8 [b, h, w, c] of the model's size, with any b; the output
    'probabilities' is float32 [b, num_classes]. Everything is computed in float32, whatever the
    model's dtype. The layers are unrolled: ONNX Runtime is slower with a loop over them. The file
    is checked by `onnx.checker`, and ONNX Runtime must answer as jax does.

    Args:
      weights, path, preprocessing: see `vit_jax.use.export.write_stablehlo`.
      int8: whether to store kernels with 8 bits, see `vit_jax.use.int8`.
      attention: whether there are two more outputs, 'attention' [b, depth, heads, rows, columns] to
        each patch, and 'rollout' [b, rows, columns], see `vit_jax.use.attention`.

    Raises:
      InputError: if a package is missing, the model is too large or cannot be converted, ONNX
        Runtime answers otherwise, or the file cannot be written.
    """
    path = checked(path, weights)
    try:
        import onnx
        from jax2onnx import to_onnx
    except ImportError as error:
        raise InputError(
            f'an .onnx file takes jax2onnx, and {error.name} is missing; '
            f'pip install --no-deps {PACKAGES}'
        ) from None
    for name in ('jax2onnx', 'onnx_ir'):  # report what they do without
        logging.getLogger(name).setLevel(logging.ERROR)
    function = _outputs(weights, preprocessing, int8, attention)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of jax2onnx's plugins for other libraries
        try:
            model = to_onnx(
                _traced(function, preprocessing.shape),
                [jax.ShapeDtypeStruct(('b', *preprocessing.shape), jnp.uint8)],
                model_name='vit_jax',
                opset=OPSET,
                input_names=['images'],
                output_names=['probabilities', 'attention', 'rollout'][: 3 if attention else 1],
            )
            onnx.checker.check_model(model, full_check=True)
        except (NotImplementedError, onnx.checker.ValidationError) as error:
            raise InputError(f'{weights.name}: jax2onnx cannot convert it: {error}') from None
    data = model.SerializeToString()
    _check_answers(data, function, preprocessing, weights.name)
    made_by = {'opset': OPSET, 'int8': int8, 'jax': jax.__version__}
    write_export(path, data, weights, preprocessing, made_by)


def _outputs(
    weights: Weights, preprocessing: Preprocessing, int8: bool, attention: bool
) -> Callable[[jax.Array], tuple[jax.Array, ...]]:
    model = weights.model.clone(attention='xla', remat='none', dtype='float32')
    stored = quantize(weights.variables) if int8 else weights.variables

    def outputs(images: jax.Array) -> tuple[jax.Array, ...]:
        arguments = model, preprocessing, dequantize(stored), images
        kind: Any = {'multi_label': weights.multi_label}
        return attended(*arguments, **kind) if attention else (probabilities(*arguments, **kind),)

    return outputs


def _traced(function: Callable[..., Any], shape: tuple[int, ...]) -> Callable[..., Any]:
    """A function as the list of its operations: jax2onnx cannot follow `nn.scan` itself."""
    (batch,) = jax.export.symbolic_shape('b')
    with jax.disable_jit():  # unrolls the scan over layers
        traced = jax.make_jaxpr(function)(jax.ShapeDtypeStruct((batch, *shape), jnp.uint8))
    return jax.extend.core.jaxpr_as_fun(traced)


def _check_answers(
    data: bytes, function: Callable[..., Any], preprocessing: Preprocessing, name: str
) -> None:
    """Raises InputError unless ONNX Runtime computes the same probabilities as jax."""
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=['CPUExecutionProvider'])
    images = np.random.default_rng(0).integers(0, 256, (3, *preprocessing.shape), np.uint8)
    difference = np.abs(session.run(None, {'images': images})[0] - jax.jit(function)(images)[0])
    if not difference.max() <= TOLERANCE:
        raise InputError(
            f'{name}: expected ONNX Runtime to agree with jax to {TOLERANCE}, but a probability '
            f'differs by {difference.max():.2g}; nothing was written'
        )
