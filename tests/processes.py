"""Python processes, started the way a user starts them: without torch, which is optional."""

import os
import re
import subprocess
import sys
from pathlib import Path

from vit_jax.__main__ import find_command, main

ROOT = Path(__file__).parents[1]


def xla_flags(devices):
    """This process's flags, with another number of CPU devices."""
    return re.sub(r'(device_count)=\d+', rf'\1={devices}', os.environ['XLA_FLAGS'])


def start(
    *arguments, devices=1, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, torch=False
):
    """Starts `python ARGUMENTS` with a number of CPU devices; its output is text."""
    hiding = '' if torch else str(ROOT / 'tests' / 'without_torch')
    environment = {
        'PYTHONPATH': os.pathsep.join(filter(None, [hiding, os.environ.get('PYTHONPATH')])),
        'XLA_FLAGS': xla_flags(devices),
    }
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=os.environ | environment,
        stdout=stdout,
        stderr=stderr,
        text=True,
    )


def run(*arguments, status=0, **options):
    """Runs `python ARGUMENTS` to completion and checks its exit status.

    Returns:
      Its standard output and standard error.
    """
    process = start(*arguments, **options)
    output, errors = process.communicate()
    assert process.returncode == status, (process.returncode, output, errors)
    return output, errors


def train_py(*flags):
    """Runs train.py in this process; returns its exit status."""
    return main([*map(str, flags)], 'train.py', find_command('train'))
