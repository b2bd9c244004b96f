"""The second part of the one-hour recipe for CIFAR-10 at a tenth of its length, one thing changed.

python benchmarks/ablation.py --data cifar10_jpeg.tar.xz --small RUN [--seeds 0 1 2] [--minutes 60]

RUN is what the first command of configs/cifar10_1h.py made, so all runs begin where the recipe's
second part does. Each also averages the parameters (ema.decay=0.99), which changes nothing in
training and shows what that does. Runs whose metrics are in benchmarks/results/ablation already are
not repeated: stopped by --minutes, the same command goes on. Accuracies are those of the last step.
The data are CIFAR-10's pictures as train/CLASS/* and test/CLASS/*, in a folder or a tar file.
"""

import argparse
import gzip
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.finetune import spread, unpack
from benchmarks.report import describe_machine, write_result

BASE: dict[str, Any] = {
    'num_steps': 320,
    'optim.warmup_steps': 20,
    'log_every_steps': 20,
    'eval_every_steps': 0,
    'ema.decay': 0.99,
}
CHANGES: dict[str, dict[str, Any]] = {
    'the recipe': {},
    'AdamW at 1e-3': {'optim.name': 'adamw', 'optim.b1': 0.9, 'optim.learning_rate': 1e-3},
    'drop path 0.1': {'model.drop_path': 0.1},
    'without CutMix': {'augment.mix_prob': 0},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data', type=Path, required=True, help='folder, or a tar file of one')
    parser.add_argument('--small', type=Path, required=True, help="the first part's run")
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--minutes', type=float, default=60, help='begin no run after so long')
    output = ROOT / 'benchmarks' / 'results' / 'ablation.json'
    parser.add_argument('--output', type=Path, default=output)
    arguments = parser.parse_args()
    deadline = time.monotonic() + 60 * arguments.minutes
    metrics = arguments.output.with_suffix('')
    metrics.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        data = unpack(arguments.data, Path(folder))
        base = BASE | {'data.source': f'folder:{data}', 'init.weights': arguments.small.resolve()}
        for seed in arguments.seeds:
            for name, change in CHANGES.items():
                file = metrics_file(metrics, name, seed)
                if not file.exists() and time.monotonic() < deadline:
                    lines = train(Path(folder) / file.stem, base | {'seed': seed} | change)
                    file.write_bytes(gzip.compress(lines, mtime=0))
    rows = {name: collect(metrics, name, arguments.seeds) for name in CHANGES}
    result = {'machine': describe_machine(), 'rows': rows}
    write_result(result, markdown := to_markdown(rows), arguments.output)
    print(markdown)


def train(run: Path, options: dict[str, Any]) -> bytes:
    """Trains the second part; returns metrics.jsonl."""
    flags = [f'--config.{name}={value}' for name, value in options.items()]
    command = [sys.executable, '-m', 'vit_jax', 'train', 'cifar10_1h', f'--workdir={run}', *flags]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return (run / 'metrics.jsonl').read_bytes()


def metrics_file(folder: Path, name: str, seed: int) -> Path:
    return folder / f'{name} {seed}.jsonl.gz'.replace(' ', '-')


def collect(metrics: Path, name: str, seeds: list[int]) -> dict[str, list[float]]:
    """The last test accuracies of a change's runs, of the parameters and of their average."""
    accuracies: dict[str, list[float]] = {'accuracy': [], 'ema_accuracy': []}
    for seed in seeds:
        file = metrics_file(metrics, name, seed)
        if file.exists():
            last = json.loads(gzip.decompress(file.read_bytes()).splitlines()[-1])
            for metric, values in accuracies.items():
                values.append(last[metric])
    return accuracies


def to_markdown(rows: dict[str, dict[str, list[float]]]) -> str:
    lines = ['| what | seeds | test accuracy | of the average |', '|--|--:|--:|--:|']
    for name, row in rows.items():
        cells = [summary(values) for values in row.values()]
        lines.append(f'| {name} | {len(row["accuracy"])} | {cells[0]} | {cells[1]} |')
    return '\n'.join([*lines, ''])


def summary(values: list[float]) -> str:
    """Mean and sample standard deviation."""
    return f'{statistics.mean(values):.2%} {spread(values)}' if values else 'not run'


if __name__ == '__main__':
    main()
