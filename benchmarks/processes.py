"""Small runs of train.py on CPU devices, in one process or several, to be killed."""

import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vit_jax.run.signals import STATUS

ROOT = Path(__file__).resolve().parents[1]
SMALL: dict[str, Any] = {
    'num_steps': 400,
    'checkpoint_every_steps': 20,
    'eval_every_steps': 50,
    'log_every_steps': 5,
    'batch_size': 16,
    'data.train_split': 'train[:500]',
    'data.test_split': 'test[:48]',
    'model.dim': 16,
    'model.depth': 2,
    'optim.warmup_steps': 5,
    'optim.name': 'sgd',
    'optim.learning_rate': 0.01,
}
HEARTBEAT = 10  # seconds
CONNECT = 30


class Layout(NamedTuple):
    """What one start of a run runs on.

    Args:
      devices: in all its processes.
      processes: that share them.
      settings: of the config.
    """

    devices: int
    processes: int
    settings: dict[str, Any]


MODES = ({}, {'parallel.data': 1, 'parallel.fsdp': -1}, {'parallel.mode': 'pmap'})
LAYOUTS = [
    Layout(devices, processes, mode | {'data.memory_gib': memory_gib})
    for devices, memory_gib in ((8, 4.0), (4, 0.0), (2, 4.0), (1, 0.0), (2, 0.0), (4, 4.0))
    for mode in MODES
    for processes in (1, 2)[:devices]
]


class Started(subprocess.Popen[str]):
    """The first process of a run.

    Args:
      command, environment: its own.
      others: the other processes.
    """

    def __init__(
        self,
        command: list[str],
        environment: dict[str, str],
        others: 'Sequence[Started]' = (),
    ) -> None:
        pipe = subprocess.PIPE
        super().__init__(command, env=environment, stdout=pipe, stderr=pipe, text=True)
        self.others = others

    def kill_one(self, rng: random.Random) -> list[str]:
        """Kills one of the processes; what is wrong with how the others end.

        If there are others, it may be stopped instead, which they must notice too.
        """
        victim, *others = rng.sample([self, *self.others], 1 + len(self.others))
        if others and rng.random() < 0.5:
            victim.send_signal(signal.SIGSTOP)
        else:
            victim.kill()
        wrong = []
        for other in others:
            try:
                _, errors = other.communicate(timeout=6 * HEARTBEAT)
            except subprocess.TimeoutExpired:
                other.kill()
                other.communicate()
                wrong.append('a process did not notice that another one was killed')
                continue
            if other.returncode not in (0, STATUS) or len(errors.splitlines()) > 1:
                wrong.append(f'status {other.returncode}: {errors[-800:]}')
        victim.kill()
        victim.communicate()
        return wrong


def start(folder: Path, name: str, layout: Layout) -> Started:
    """Starts train.py on a number of CPU devices."""
    command, environment = train_command(folder / name, layout)
    if layout.processes == 1:
        return Started(command, environment)
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        address = f'127.0.0.1:{free.getsockname()[1]}'
    flags = [
        f'--config.distributed.coordinator_address={address}',
        f'--config.distributed.num_processes={layout.processes}',
        f'--config.distributed.connect_seconds={CONNECT}',
        f'--config.distributed.heartbeat_seconds={HEARTBEAT}',
    ]
    first, *others = (
        [*command, *flags, f'--config.distributed.process_id={i}'] for i in range(layout.processes)
    )
    return Started(first, environment, [Started(other, environment) for other in others])


def train_command(workdir: str | Path, layout: Layout) -> tuple[list[str], dict[str, str]]:
    """The command that trains on a number of CPU devices, and its environment."""
    flags = [f'--config.{k}={v}' for k, v in (SMALL | layout.settings).items()]
    command = [sys.executable, str(ROOT / 'train.py'), f'--config={ROOT}/configs/digits.py', *flags]
    own = layout.devices // layout.processes
    environment = {'XLA_FLAGS': f'--xla_force_host_platform_device_count={own}'}
    return [*command, f'--workdir={workdir}'], os.environ | environment
