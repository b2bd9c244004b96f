"""What the machine has room for, and what its devices can do."""

import os

import jax

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


# FLOPs a second in bfloat16 without sparsity, by the start of jax's name for a device. Sources: the
# pages of https://cloud.google.com/tpu/docs/system-architecture-tpu-vm, and NVIDIA's data sheets.
PEAKS = {
    'TPU v4': 275e12,
    'TPU v5 lite': 197e12,
    'TPU v5p': 459e12,
    'TPU v5': 459e12,
    'TPU v6 lite': 918e12,
    'NVIDIA A100': 312e12,
    'NVIDIA L4': 121e12,
    'NVIDIA H100 PCIe': 756e12,
    'NVIDIA H100': 989e12,
    'NVIDIA H200': 989e12,
}


def peak_flops(device_kind: str) -> float:
    """FLOPs a second that a device is sold with; 0 if unknown."""
    return next((peak for kind, peak in PEAKS.items() if device_kind.startswith(kind)), 0.0)


def device_memory() -> int | None:
    """The most bytes that one of this process's devices has held so far; None if unknown."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    held = [x['peak_bytes_in_use'] for x in stats if 'peak_bytes_in_use' in x]
    return max(held, default=None)
