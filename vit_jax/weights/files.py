"""Files of named arrays: `.safetensors`, `.npz`, PyTorch's `.pt`. Reading one never runs its code.

Shapes are known before the arrays are read, so a mismatch is reported before it takes memory.
"""

import contextlib
import functools
import hashlib
import json
import math
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from vit_jax.errors import InputError
from vit_jax.model.arguments import argument_names, stored_arguments
from vit_jax.model.vit import ViT
from vit_jax.run.json_files import CHECKSUM, checksum, parse_json
from vit_jax.run.machine import check_memory

TORCH = ('.pt', '.pth', '.bin')
MAX_INFLATION = 20  # of an archive of more than 256 MiB


class Stored(NamedTuple):
    """An array in a file, read on demand."""

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]


Tensors = dict[str, Stored]
Arrays = dict[str, np.ndarray]


def read_tensors(path: Path) -> tuple[Tensors, dict[str, Any]]:
    """Opens a file and validates what it says of its arrays.

    Returns:
      The arrays by name, and the metadata that `write_tensors` stored with them, else {}.

    Raises:
      InputError: if the file is missing or damaged, holds anything but arrays of floats, or more
        than fits into memory.
    """
    if not path.is_file():
        raise InputError(f'{path}: no such file or run directory')
    metadata: dict[str, Any] = {}
    with as_input_error(path):
        if path.suffix == '.safetensors':
            tensors, metadata = _open_safetensors(path)
        elif path.suffix == '.npz':
            tensors = _open_npz(path)
        elif path.suffix in TORCH:
            tensors = _open_torch(path)
        else:
            raise InputError(f'{path}: expected a file ending in .npz, .safetensors, .pt or .pth')
    size = sum(4 * math.prod(stored.shape) for stored in tensors.values())
    check_memory(f'{path}: its arrays', size)
    return tensors, metadata


@contextlib.contextmanager
def as_input_error(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns any library's exception on a damaged or hostile file into an InputError."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        kind = f'a {Path(path).suffix} file' if Path(path).suffix else 'weights'
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f'{path}: expected {kind}, but it cannot be read: {reason}') from None


def write_tensors(
    path: Path, arrays: Arrays, model: ViT, description: dict[str, Any], **metadata: str
) -> None:
    """Writes arrays to a file, atomically.

    Args:
      path: `.safetensors`, which also stores the metadata, or `.npz`, `.pt`, `.pth` or `.bin`.
      arrays: by name.
      model: whose arguments are stored.
      description: see `vit_jax.weights.Weights`.
      **metadata: further entries of the metadata.

    Raises:
      InputError: if the file ending is unknown, or the file cannot be written.
    """
    if path.suffix not in ('.safetensors', '.npz', *TORCH):
        raise InputError(f'{path}: expected a file ending in .npz, .safetensors, .pt or .pth')
    if not path.parent.is_dir():
        raise InputError(f'{path}: expected a file in an existing folder')
    temporary = path.with_name(f'{path.name}.{os.getpid()}.tmp')
    try:
        if path.suffix == '.safetensors':
            ours = {
                'arguments': stored_arguments(model),
                'description': description,
                'arrays': {name: _hash(array) for name, array in arrays.items()},
            }
            text = json.dumps(ours | {CHECKSUM: checksum(ours)})
            temporary.touch()
            mode = temporary.stat().st_mode  # safetensors' own would be 0600
            safetensors.numpy.save_file(arrays, temporary, {'vit_jax': text, **metadata})
            temporary.chmod(mode)
        elif path.suffix == '.npz':
            with temporary.open('wb') as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
        else:
            torch = _import_torch(path)
            torch.save({k: torch.from_numpy(v.copy()) for k, v in arrays.items()}, temporary)
        temporary.replace(path)
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f'{path}: cannot be written: {error}') from None


def _open_safetensors(path: Path) -> tuple[Tensors, dict[str, Any]]:
    names = {'F16': 'float16', 'BF16': 'bfloat16', 'F32': 'float32', 'F64': 'float64'}
    file = safetensors.safe_open(path, 'numpy')
    entries = file.metadata() or {}
    # Ours is known by its name or, if that is damaged, by its beginning.
    ours = [text for text in entries.values() if text.startswith('{"arguments": ')]
    metadata = parse_json(entries.get('vit_jax', ours[0] if ours else '{}'))
    if isinstance(metadata, dict) and metadata.pop(CHECKSUM, None) not in (
        None,
        checksum(metadata),
    ):
        raise InputError(f'{path}: the file is damaged: the checksum of its metadata differs')
    parts = metadata.values() if isinstance(metadata, dict) else [metadata]
    if not all(isinstance(part, dict) for part in parts) or metadata.keys() - {
        'arguments',
        'description',
        'arrays',
    }:
        raise InputError(f"{path}: its metadata 'vit_jax' is not in this package's format")
    hashes = metadata.pop('arrays', {})

    def read(name: str) -> np.ndarray:
        array = file.get_tensor(name)
        if hashes and hashes.get(name) != _hash(array):
            raise InputError(f'{path}: the file is damaged: the checksum of {name} differs')
        return array

    tensors = {}
    for name in file.keys():  # noqa: SIM118
        part = file.get_slice(name)
        tensors[name] = Stored(
            tuple(part.get_shape()),
            names.get(part.get_dtype(), part.get_dtype()),
            functools.partial(read, name),
        )
    unknown = metadata.get('arguments', {}).keys() - set(argument_names(ViT))
    if unknown:
        raise InputError(
            f'{path}: its metadata has unknown arguments: {", ".join(sorted(unknown))}'
        )
    return tensors, metadata


def _hash(array: np.ndarray) -> str:
    return hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=8).hexdigest()


def _open_npz(path: Path) -> Tensors:
    """Reads the arrays' headers and validates them against the sizes in the archive's directory."""
    tensors = {}
    archive = zipfile.ZipFile(path)
    inflated = sum(info.file_size for info in archive.infolist())
    if inflated > MAX_INFLATION * path.stat().st_size + 2**28:
        raise ValueError(f'it inflates to {inflated / 2**30:,.1f} GiB, which weights do not')
    for info in archive.infolist():
        name = info.filename.removesuffix('.npy')
        with archive.open(info) as file:
            version = np.lib.format.read_magic(file)
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }
            if version not in read_header:
                raise ValueError(f'{name} has an unknown format version, {version}')
            shape, _, dtype = read_header[version](file)
            start = file.tell()
        if dtype.hasobject:
            raise ValueError(f'{name} holds Python objects, which could run code')
        # NumPy reads bfloat16 back as two raw bytes.
        kind = 'bfloat16' if dtype == np.dtype('V2') else dtype.name
        if start + math.prod(shape) * dtype.itemsize != info.file_size or name in tensors:
            raise ValueError(f'{name} is not as large as its header says, or appears twice')

        def read(info: zipfile.ZipInfo = info, kind: str = kind) -> np.ndarray:
            with archive.open(info) as file:
                array = np.lib.format.read_array(file, allow_pickle=False)
            return array.view(ml_dtypes.bfloat16) if kind == 'bfloat16' else array

        tensors[name] = Stored(shape, kind, read)
    return tensors


def _open_torch(path: Path) -> Tensors:
    torch = _import_torch(path)
    mapped = False  # files from before PyTorch 1.6, and compressed ones, cannot be
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            mapped = all(x.compress_type == zipfile.ZIP_STORED for x in archive.infolist())
    content = torch.load(path, map_location='cpu', weights_only=True, mmap=mapped)
    if isinstance(content, dict) and len(content) == 1 and {'model', 'state_dict'} & content.keys():
        content = next(iter(content.values()))
    if not (isinstance(content, dict) and all(map(torch.is_tensor, content.values()))):
        got = ', '.join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise InputError(f'{path}: expected a state dict of tensors, got {got}')

    def read(tensor: Any) -> np.ndarray:
        return tensor.detach().resolve_neg().float().numpy()

    tensors = {}
    for name, tensor in content.items():
        if tensor.layout != torch.strided:
            raise InputError(f'{path}: {name}: expected a dense array, got {tensor.layout}')
        tensors[str(name)] = Stored(
            tuple(tensor.shape),
            str(tensor.dtype).removeprefix('torch.'),
            functools.partial(read, tensor),
        )
    return tensors


def _import_torch(path: Path) -> Any:
    try:
        import torch
    except ModuleNotFoundError:
        raise InputError(
            f'{path}: {path.suffix} needs PyTorch; install torch, or convert to .safetensors'
        ) from None
    return torch
