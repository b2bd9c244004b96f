"""Describes the machine of a measurement, and writes the result."""

import datetime
import importlib.metadata
import json
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
        'tensorflow-cpu',
        'grain',
        'simplejpeg',
        'opencv-python-headless',
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


def write_result(result: dict[str, Any], markdown: str, output: Path) -> None:
    """Writes a result as JSON, and its table as Markdown next to it."""
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=2) + '\n')
    output.with_suffix('.md').write_text(markdown)
