"""Start-up times: imports, compilation by depth, and train.py with and without a warm cache.

python benchmarks/start.py [--output benchmarks/results/start.json]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.report import describe_machine, write_result


def measure_imports() -> dict[str, float]:
    """Median seconds of a process that imports: seven of each, taking turns."""
    seconds: dict[str, list[float]] = {'import jax, flax': [], 'import vit_jax': []}
    for _ in range(7):
        for code, values in seconds.items():
            begun = time.perf_counter()
            subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT)
            values.append(time.perf_counter() - begun)
    return {code: statistics.median(values) for code, values in seconds.items()}


def measure_compilation() -> dict[str, float]:
    """Median seconds to trace and compile a training step: three of each variant, taking turns."""
    import jax
    import numpy as np

    from benchmarks.training import abstract_training
    from vit_jax import create_model

    seconds: dict[str, list[float]] = {'Ti/16': [], 'L/16': []}
    for _ in range(3):
        for name, values in seconds.items():
            jax.clear_caches()
            step, arguments = abstract_training(create_model(name), batch_size=8)
            begun = time.perf_counter()
            step.lower(*arguments).compile()
            values.append(time.perf_counter() - begun)
    return {name: float(np.median(values)) for name, values in seconds.items()}


def measure_starts() -> dict[str, float]:
    """Seconds from the command to the first step's metrics: with an empty cache, then again."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, 'train.py', '--config=configs/digits.py']
        command += [f'--config.data.dir={folder}/data', '--config.log_every_steps=1']
        seconds = []
        for number in range(3):
            workdir = Path(folder) / f'run{number}'
            begun = time.perf_counter()
            process = subprocess.Popen(
                [*command, f'--workdir={workdir}'],
                cwd=ROOT,
                env=os.environ | {'XDG_CACHE_HOME': f'{folder}/cache{min(number, 1)}'},
                stderr=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
            metrics = workdir / 'metrics.jsonl'
            while process.poll() is None and not (metrics.exists() and metrics.read_text()):
                time.sleep(0.01)
            seconds.append(time.perf_counter() - begun)
            if process.poll():
                sys.exit(f'start: train.py exited with status {process.returncode}')
            process.kill()
            process.wait()
    # Start 0 also prepares the data set; it has a cache of its own and is not counted.
    return {'first start': seconds[1], 'second start': seconds[2]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--output', type=Path, help='JSON file; a .md file is written next to it')
    arguments = parser.parse_args()
    result: dict[str, Any] = {
        'machine': describe_machine(),
        'imports': measure_imports(),
        'compilation': measure_compilation(),
        'starts': measure_starts(),
    }
    lines = []
    for name in ('imports', 'compilation', 'starts'):
        (one, first), (other, second) = result[name].items()
        lines.append(
            f'- {name}: {one} {first:.2f} s, {other} {second:.2f} s, ratio {second / first:.2f}\n'
        )
    if arguments.output:
        write_result(result, ''.join(lines), arguments.output)
    print(''.join(lines), end='')


if __name__ == '__main__':
    main()
