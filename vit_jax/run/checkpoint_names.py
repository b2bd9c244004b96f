"""The names in `checkpoints/`: which are complete checkpoints, and which folder may hold them."""

from vit_jax.errors import InputError
from vit_jax.run.storage import AnyPath, absolute, is_remote, list_folder

MAX_PATH = 3500  # bytes of a run directory's name; systems allow 4,096 for a file's
UNFINISHED, DELETED = '.orbax-checkpoint-tmp', '.deleted'  # left over when a process was killed
COMMITTED = 'commit_success.txt'  # what Orbax writes last; all that counts in a bucket


def list_steps(run_directory: AnyPath) -> list[int]:
    """Steps of all complete checkpoints of a run, in order."""
    paths = list_folder(run_directory / 'checkpoints')
    return sorted(int(p.name) for p in paths if _is_step(p.name) and not is_left_over(p))


def check_name(path: AnyPath) -> None:
    """Raises InputError if checkpoints in a folder of this name would be lost."""
    name = str(absolute(path))
    if wrong := set('[]\\') & set(name):
        raise InputError(
            f'{path}: expected a path without [, ] and \\, in which Orbax loses checkpoints, '
            f'got {min(wrong)} in {name}'
        )
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        raise InputError(f'{path!r}: expected a path in UTF-8') from None
    if length > MAX_PATH:
        raise InputError(
            f'{name[:99]}…: expected a path of at most {MAX_PATH:,} bytes, got {length:,}'
        )


def _is_step(name: str) -> bool:
    """Whether a checkpoint may have this name: a whole number of int32, as it is printed."""
    return name.isdecimal() and len(name) <= 10 and name == str(int(name)) and int(name) < 2**31


def is_left_over(path: AnyPath) -> bool:
    """Whether this was left behind when a checkpoint was written or deleted."""
    if is_remote(path):
        return _is_step(path.name) and not (path / COMMITTED).exists()
    return UNFINISHED in path.name or path.suffix == DELETED
