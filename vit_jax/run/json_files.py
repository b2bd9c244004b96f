"""JSON files: written whole or not at all, read with one-line errors."""

import json
from pathlib import Path
from typing import Any

from vit_jax.errors import InputError


def write_json(path: Path, content: Any) -> None:
    """Writes a file whole or not at all."""
    temporary = path.with_name(path.name + '.tmp')
    temporary.write_text(json.dumps(content, indent=2) + '\n')
    temporary.replace(path)


def read_json(path: Path) -> Any:
    """Reads a JSON file of a run directory or a Hugging Face folder, see `parse_json`.

    Raises:
      InputError: if it is missing or not JSON.
    """
    try:
        return parse_json(path.read_text())
    except FileNotFoundError:
        raise InputError(
            f'{path.parent}: expected a run directory, but it has no {path.name}'
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f'{path}: expected JSON, but it cannot be read: {error}') from None


def parse_json(text: str) -> Any:
    """Parses JSON; lists inside objects become tuples, so that options compare equal."""

    def as_tuples(fields: dict[str, Any]) -> dict[str, Any]:
        return {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}

    return json.loads(text, object_hook=as_tuples)
