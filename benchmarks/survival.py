"""Kills and interrupts runs, fills their disks, and compares their ends with undisturbed ones.

python benchmarks/survival.py [--kills 50] [--signals 40] [--disks 4] [--seed 0]

Kills: a run is ended by SIGKILL again and again, at any moment from its start on, and resumes on
other numbers of devices (8, 4, 2, 1 and back), in one process or two, replicated, split over fsdp
or under pmap, from memory and streamed. Of two processes one is killed, and the other ends by
itself, in one line and in time. The end equals an undisturbed run's to 1e-5, and bit for bit if it
keeps its layout. As the batch at a step is a function of seed and step alone, equal parameters mean
that each example was seen once.

Signals: SIGTERM, SIGINT and SIGHUP at random moments, each to a fresh run or to one that resumes.
Each time the process ends within 10 s, without a traceback, and the next start loses no step. A
signal before the first line of train.py ends the interpreter in its own way.

Disks: a run on a disk that is too small ends with one line and status 1. On a larger disk, it
resumes from its last checkpoint. Each disk is a tmpfs in a mount namespace of its own (Linux).
"""

import argparse
import functools
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault('JAX_PLATFORMS', 'cpu')

from benchmarks.processes import LAYOUTS, SMALL, Layout, start, train_command
from benchmarks.report import describe_machine, write_result
from vit_jax.run.signals import SIGNALS, STATUS

FILL_DISK = """
mount -t tmpfs -o size=$0 tmpfs disk
cd disk
status=0
"$@" >../output 2>../errors || status=$?
echo $status >../status
ls run/checkpoints >../checkpoints || true
mount -o remount,size=1g "$PWD"
"$@" >../resumed && cp -r run ../run
"""
ENDS = {STATUS: 'saved, or with nothing to save', 0: 'finished'}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--kills', type=int, default=50)
    parser.add_argument('--signals', type=int, default=40)
    parser.add_argument('--disks', type=int, default=4)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--steps', type=int, default=400, help='of each run')
    parser.add_argument('--data-dir', help='with tfds:digits')
    output = ROOT / 'benchmarks' / 'results' / 'survival.json'
    parser.add_argument('--output', type=Path, default=output)
    arguments = parser.parse_args()
    # A shell in the background ignores SIGINT, and so would what is started from here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        SMALL['data.dir'] = arguments.data_dir or folder / 'data'
        SMALL['num_steps'] = arguments.steps
        whole, seconds = finish(folder, 'whole', LAYOUTS[0])
        result, failures = {}, []
        in_turns = functools.partial(survive_kills, layouts=LAYOUTS, tolerance=1e-5)
        for survive, times in (
            (survive_kills, arguments.kills // 2),
            (in_turns, arguments.kills - arguments.kills // 2),
            (survive_signals, arguments.signals),
            (survive_full_disks, arguments.disks),
        ):
            if times:
                happened, wrong = survive(folder, times, seconds, whole, rng)
                result |= happened
                failures += wrong
    markdown = ''.join(f'| {name} | {value} |\n' for name, value in result.items())
    markdown = f'| Survival | |\n|--|--|\n{markdown}'
    print(markdown, *failures, sep='\n')
    result = {'machine': describe_machine(), **result, 'failures': failures}
    write_result(result, markdown, arguments.output)
    sys.exit(bool(failures))


def survive_kills(
    folder: Path,
    num_kills: int,
    seconds: float,
    whole: Any,
    rng: random.Random,
    layouts: list[Layout] = LAYOUTS[:1],
    tolerance: float = 0.0,
) -> tuple[dict[str, Any], list[str]]:
    """Kills runs at random moments, and starts them again until they end.

    Args:
      folder: to work in.
      num_kills: of all runs together.
      seconds: that an undisturbed run takes.
      whole: its parameters.
      rng: chooses the moments.
      layouts: of the starts, in turns.
      tolerance: of the final parameters.

    Returns:
      What happened, and what was wrong.
    """
    failures = []
    name = 'one layout' if len(layouts) == 1 else 'layouts'
    turns, kills, begun = itertools.cycle(layouts), 0, 0
    longest = {1: seconds, 2: 2 * seconds}  # that a start takes, by its processes
    while kills < num_kills:
        layout = next(turns)
        started = time.monotonic()
        process = start(folder, name, layout)
        try:
            _, errors = process.communicate(timeout=rng.uniform(0, longest[layout.processes]))
        except subprocess.TimeoutExpired:
            failures += process.kill_one(rng)
            kills += 1
            continue
        took = time.monotonic() - started  # less than the first, which compiled the step
        longest[layout.processes] = (longest[layout.processes] + took) / 2
        if process.returncode:
            failures.append(f'{name}: {errors[-500:]}')
            break
        failures += compare(folder / name, whole, tolerance)
        (folder / name).rename(folder / f'{name}-{begun}')  # finished: begin another
        begun += 1
    finish(folder, name, LAYOUTS[0])
    failures += compare(folder / name, whole, tolerance)
    return {f'{name}: kills': kills, f'{name}: runs finished': begun + 1}, failures


def survive_signals(
    folder: Path, num_signals: int, seconds: float, whole: Any, rng: random.Random
) -> tuple[dict[str, Any], list[str]]:
    """Interrupts runs at random moments, and starts them again; see `survive_kills`."""
    failures, ends, slowest = [], Counter[str](), 0.0
    name, begun = 'interrupted', 0
    for i in range(num_signals):
        number = SIGNALS[i % len(SIGNALS)]
        before = last_step(folder / name)
        process = start(folder, name, LAYOUTS[0])
        time.sleep(rng.uniform(0, seconds))
        asked = time.monotonic()
        process.send_signal(number)
        output, errors = process.communicate()
        waited = time.monotonic() - asked
        slowest = max(slowest, waited)
        had_begun = bool(output) or process.returncode != -number
        end = 'before train.py began'
        if had_begun:
            end = ENDS.get(process.returncode, f'with status {process.returncode}')
        ends[end] += 1
        wrong = []
        if had_begun and process.returncode not in ENDS:
            wrong.append(f'status {process.returncode}, {output[-100:]}')
        is_long = process.returncode == STATUS and len(errors.splitlines()) > 2
        if had_begun and (is_long or 'Traceback' in errors):
            wrong.append(errors[-800:])
        if waited > 10:
            wrong.append(f'took {waited:.1f} s')
        resumed = re.search(r'(\d+) of \d+ steps are done', output)
        if resumed and int(resumed[1]) < before:
            wrong.append(f'resumed at step {resumed[1]}, though {before} steps were done')
        if wrong:
            failures.append(f'{number.name}, number {i}: {"; ".join(wrong)}')
        if process.returncode == 0:
            failures += compare(folder / name, whole, 0)
            (folder / name).rename(folder / f'{name}-{begun}')
            begun += 1
    finish(folder, name, LAYOUTS[0])
    failures += compare(folder / name, whole, 0)
    result = {f'signals, ended {end}': count for end, count in sorted(ends.items())}
    return {**result, 'slowest end after a signal, s': round(slowest, 1)}, failures


def survive_full_disks(
    folder: Path, num_disks: int, seconds: float, whole: Any, rng: random.Random
) -> tuple[dict[str, Any], list[str]]:
    """Fills disks of some sizes, all too small for an undisturbed run; see `survive_kills`."""
    failures = []
    needed = sum(path.stat().st_blocks * 512 for path in (folder / 'whole').rglob('*'))
    for i in range(num_disks):
        place, size = folder / f'disk-{i}', (i + 1) * needed // (num_disks + 1)
        (place / 'disk').mkdir(parents=True)
        namespace = ['unshare', '--map-root-user', '--mount', 'sh', '-ec', FILL_DISK, str(size)]
        command, environment = train_command('run', LAYOUTS[0])
        subprocess.run(
            [*namespace, *command], cwd=place, env=environment, stderr=subprocess.PIPE, check=True
        )
        errors, status = (place / 'errors').read_text(), (place / 'status').read_text().strip()
        if status != '1' or len(errors.splitlines()) != 1:
            failures.append(f'disk of {size} bytes: status {status}, {errors[-800:]}')
        names = (place / 'checkpoints').read_text().split()
        last = max((int(name) for name in names if name.isdecimal()), default=None)
        resumed = re.search(r'run: (\d+) of \d+ steps are done', (place / 'resumed').read_text())
        if (resumed and int(resumed[1])) != last:
            failures.append(f'disk of {size} bytes: not resumed from checkpoint {last}')
        failures += compare(place / 'run', whole, 0)
    return {'disks filled': num_disks}, failures


def compare(run: Path, whole: Any, tolerance: float) -> list[str]:
    """What is wrong with a finished run: parameters, or lines of metrics.jsonl."""
    wrong = []
    largest = difference(load(run), whole)
    if not largest <= tolerance:
        wrong.append(f'{run.name}: parameters differ by {largest}')
    steps = [line['step'] for line in read_lines(run) if line['split'] == 'train']
    every = SMALL['log_every_steps']
    expected = list(range(every, SMALL['num_steps'] + 1, every))
    if steps != expected:
        wrong.append(f'{run.name}: lines of steps {steps}')
    return wrong


def finish(folder: Path, name: str, layout: Layout) -> tuple[Any, float]:
    """Runs to the end; returns the parameters and the seconds that it took."""
    begun = time.monotonic()
    process = start(folder, name, layout)
    output, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(f'{name}: {output[-500:]}{errors[-2000:]}')
    return load(folder / name), time.monotonic() - begun


def load(run: Path) -> Any:
    from vit_jax.weights import load_weights

    return load_weights(run)[1]


def read_lines(run: Path) -> list[dict[str, Any]]:
    path = run / 'metrics.jsonl'
    return [json.loads(x) for x in path.read_text().splitlines()] if path.exists() else []


def last_step(run: Path) -> int:
    """The last step in metrics.jsonl, which a signal must not lose; 0 if there is none."""
    return max((line['step'] for line in read_lines(run)), default=0)


def difference(one: Any, other: Any) -> float:
    """The largest difference between two trees of parameters."""
    import jax
    import numpy as np

    return max(jax.tree.leaves(jax.tree.map(lambda x, y: float(np.abs(x - y).max()), one, other)))


if __name__ == '__main__':
    main()
