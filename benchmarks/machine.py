"""What a measurement was made on."""

import datetime
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any


def describe_machine() -> dict[str, Any]:
    """Processor, cores, versions, date."""
    processor = platform.processor()
    if Path('/proc/cpuinfo').exists():
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        processor = next((x.split(':')[1].strip() for x in lines if 'model name' in x), processor)
    versions = {'python': platform.python_version()}
    for package in (
        'jax',
        'jaxlib',
        'flax',
        'optax',
        'torch',
        'vit-pytorch',
        'timm',
        'transformers',
    ):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        'processor': processor,
        'cores': len(os.sched_getaffinity(0)),
        'versions': versions,
        'date': datetime.date.today().isoformat(),
    }
