"""What the machine has room for."""

import os

from vit_jax.errors import InputError


def check_memory(what: str, num_bytes: int) -> None:
    """Validates that something fits into the machine's memory, before memory is taken.

    Args:
      what: for the error: "what needs …".
      num_bytes: that it needs.

    Raises:
      InputError: if it does not fit.
    """
    if num_bytes > (limit := memory()):
        raise InputError(
            f'{what} need {num_bytes / 2**30:,.1f} GiB, but this machine has '
            f'{limit / 2**30:,.1f} GiB'
        )


def memory() -> int:
    """Memory of this machine in bytes; 64 GiB if unknown."""
    if hasattr(os, 'sysconf') and 'SC_PHYS_PAGES' in os.sysconf_names:
        return os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    return 64 * 2**30
