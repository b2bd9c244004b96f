"""Where runs live: in a folder, or under gs://BUCKET/FOLDER in Google Cloud Storage.

`etils.epath` gives both pathlib's interface. A bucket writes an object whole or not at all; it
cannot append to one, rename a folder in one step, or lock.
"""

import contextlib
import importlib.util
import os
from pathlib import Path
from typing import IO, TypeAlias

os.environ.setdefault('EPATH_USE_TF', 'false')  # otherwise a bucket would import TensorFlow

from etils import epath

from vit_jax.errors import InputError

# On a disk or in a bucket.
AnyPath: TypeAlias = Path | epath.Path


def open_path(path: str | os.PathLike[str]) -> AnyPath:
    """A path with pathlib's interface.

    Raises:
      InputError: if it has another scheme than gs://, or its bucket cannot be reached.
    """
    text = os.fspath(path)
    if not text:
        raise InputError('expected a path, got an empty one')
    scheme, separator, _ = text.partition('://')
    if not separator:
        return epath.Path(text)
    if scheme != 'gs':
        raise InputError(f'{text}: expected a path or gs://BUCKET/FOLDER, got {scheme}://')
    if not importlib.util.find_spec('gcsfs'):
        raise InputError(f'{text}: gs:// takes the package gcsfs; install it: pip install gcsfs')
    import fsspec

    # A cached listing would lack what Orbax writes.
    fsspec.config.conf.setdefault('gcs', {})['use_listings_cache'] = False
    remote = epath.Path(text)
    try:
        remote.exists()
    except Exception as error:  # of the network, of credentials, of gcsfs
        reason = str(error).strip().split('\n')[0] or type(error).__name__
        raise InputError(f'{text}: cannot be reached: {reason[:200]}') from None
    return remote


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether a path is in a bucket."""
    return '://' in os.fspath(path)


def absolute(path: AnyPath) -> AnyPath:
    """The same path, from the root or from its bucket."""
    return path if is_remote(path) else path.resolve()


class WholeFile:
    """A file in a bucket, which cannot be appended to: each flush writes it whole, close nothing.

    Args:
      path: of the file.
      content: that it begins with.
    """

    def __init__(self, path: str | os.PathLike[str], content: bytes = b'') -> None:
        self._path = epath.Path(path)
        self._content = bytearray(content)

    def write(self, more: bytes) -> None:
        self._content += more

    def flush(self) -> None:
        self._path.write_bytes(bytes(self._content))

    def close(self) -> None:
        pass


def open_to_append(path: AnyPath) -> IO[bytes] | WholeFile:
    """Opens an existing file, wherever it is, to append to it."""
    return WholeFile(path, path.read_bytes()) if is_remote(path) else open(path, 'ab')


def list_folder(path: AnyPath) -> list[AnyPath]:
    """What a folder holds; nothing if it does not exist, as an empty one in a bucket."""
    return list(path.iterdir()) if path.is_dir() else []


def remove(path: AnyPath) -> None:
    """Deletes a file, or a folder with all that can be deleted in it; it may be missing."""
    with contextlib.suppress(OSError):
        if path.is_dir():
            epath.Path(path).rmtree()
        else:
            path.unlink(missing_ok=True)


def write_text(path: AnyPath, text: str) -> None:
    """Writes a file whole or not at all; a link in its place is replaced, never followed."""
    if is_remote(path):
        path.write_text(text)
        return
    temporary = path.with_name(path.name + '.tmp')
    temporary.unlink(missing_ok=True)
    with open(temporary, 'x', encoding='utf-8') as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
