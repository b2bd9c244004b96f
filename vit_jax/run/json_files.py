"""JSON files: written whole or not at all, with a checksum; read with one-line errors."""

import hashlib
import json
from typing import Any

from vit_jax.errors import InputError
from vit_jax.run.storage import AnyPath, write_text

CHECKSUM = 'checksum'  # the key that `write_json` adds


def write_json(path: AnyPath, content: dict[str, Any]) -> None:
    """Writes an object with its checksum, see `vit_jax.run.storage.write_text`."""
    write_text(path, json.dumps(content | {CHECKSUM: checksum(content)}, indent=2) + '\n')


def read_json(path: AnyPath) -> dict[str, Any]:
    """Reads an object of a run directory or a Hugging Face folder, see `parse_json`.

    A checksum, which `write_json` adds, is verified and removed.

    Raises:
      InputError: if it is missing, damaged or not an object.
    """
    try:
        content = parse_json(path.read_text('utf-8'))
    except FileNotFoundError:
        raise InputError(
            f'{path.parent}: expected a run directory, but it has no {path.name}'
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f'{path}: expected JSON, but it cannot be read: {error}') from None
    if not isinstance(content, dict):
        raise InputError(f'{path}: expected a JSON object, got {type(content).__name__}')
    if CHECKSUM in content and content.pop(CHECKSUM) != checksum(content):
        raise InputError(
            f'{path}: the file was damaged or edited, its checksum differs; restore it, or delete '
            f'the line {CHECKSUM!r} to use it as it is'
        )
    return content


def parse_json(text: str) -> Any:
    """Parses JSON; lists inside objects become tuples, so that options compare equal."""

    def as_tuples(fields: dict[str, Any]) -> dict[str, Any]:
        return {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}

    return json.loads(text, object_hook=as_tuples)


def checksum(content: dict[str, Any]) -> str:
    """A hash of an object that survives writing and reading it."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
