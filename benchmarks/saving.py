"""How long a save blocks training, ours and Orbax's own, in turns.

python benchmarks/saving.py [--variant S/16] [--rounds 7]

The state is that of AdamW. Ours verifies that it is finite, computes the checksums and deletes old
checkpoints; Orbax's does nothing of that. The next save begins when the last one is on the disk.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import jax
import orbax.checkpoint as ocp

from benchmarks.report import describe_machine, write_result
from benchmarks.training import create_training
from vit_jax.model.variants import create_model
from vit_jax.run.checkpoint import Checkpoints


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--variant', default='S/16')
    parser.add_argument('--rounds', type=int, default=7, help='of each; the first is left out')
    output = ROOT / 'benchmarks' / 'results' / 'saving.json'
    parser.add_argument('--output', type=Path, default=output)
    arguments = parser.parse_args()
    _, (state, *_) = create_training(create_model(arguments.variant), 224, 1000, 1)
    jax.block_until_ready(state)
    num_bytes = sum(x.nbytes for x in jax.tree.leaves(state))
    with tempfile.TemporaryDirectory() as folder:
        rows = race(Path(folder), state, arguments.rounds)
    result: dict[str, Any] = {
        'machine': describe_machine(),
        'variant': arguments.variant,
        'bytes': num_bytes,
        'rows': rows,
    }
    lines = [f'| {arguments.variant}, {num_bytes / 2**20:,.0f} MiB | blocked | of a minute |']
    lines.append('|--|--:|--:|')
    for racer, seconds in rows.items():
        median = statistics.median(seconds)
        lines.append(f'| {racer} | {median:.3f} s | {median / 60:.2%} |')
    markdown = '\n'.join([*lines, ''])
    print(markdown)
    write_result(result, markdown, arguments.output)


def race(folder: Path, state: Any, rounds: int) -> dict[str, list[float]]:
    """Seconds that each save took to return."""
    seconds: dict[str, list[float]] = {'vit_jax': [], 'Orbax': []}
    plain = ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler())
    with Checkpoints(folder / 'run') as ours:
        for step in range(1, rounds + 1):
            begun = time.perf_counter()
            ours.save(step, state, {'loss': 1.0, 'accuracy': 0.5})
            seconds['vit_jax'].append(time.perf_counter() - begun)
            ours.wait()
            begun = time.perf_counter()
            plain.save(folder / str(step), args=ocp.args.StandardSave(state))
            seconds['Orbax'].append(time.perf_counter() - begun)
            plain.wait_until_finished()
            shutil.rmtree(folder / str(step))
    plain.close()
    return {racer: times[1:] for racer, times in seconds.items()}


if __name__ == '__main__':
    main()
