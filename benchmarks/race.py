"""Races vit_jax against its peers: one machine, interleaved rounds, medians and ratios.

python benchmarks/race.py [--quick] [--before FOLDER] [--output benchmarks/results/race.json]

Each racer runs in its own process, so that peak memory and the time to a first result are its own.
The racers take turns in every round, so that all of them see the same machine. With --output,
writes JSON, and the tables as Markdown next to it. Peers that are not installed are named and left
out. With --before, another checkout takes part, such as one made by `git worktree add`.
"""

import argparse
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.peers import PEERS
from benchmarks.report import describe_machine, write_result

EXAMPLE = "the seed's example"
EAGER = 'vit-pytorch, eager'
BEFORE = 'vit_jax, before'
ALL = tuple(PEERS)
UNCOMPILED = tuple(name for name in PEERS if 'compile' not in name)
SAME_MATHEMATICS = tuple(name for name in PEERS if 'Hugging' not in name)
# Config, racers, rounds of training, rounds of inference.
FULL = (
    (EXAMPLE, SAME_MATHEMATICS, 7, 7),  # Hugging Face's heads cannot be wider than dim / heads
    ('Ti/16', ALL, 7, 7),
    ('S/16', ALL, 7, 7),
    ('B/16', ALL, 3, 5),
)
QUICK = (
    (EXAMPLE, tuple(name for name in UNCOMPILED if name in SAME_MATHEMATICS), 5, 5),
    ('S/16', UNCOMPILED, 5, 5),
    ('B/16', ('vit_jax', 'vit_jax, a device a core', EAGER), 0, 5),
)
TOY = (('toy', ('vit_jax', 'plain linen'), 2, 2),)


def sizes(config: str) -> tuple[dict[str, Any], int]:
    """A config's arguments of ViT (the rest keep vit-pytorch's defaults), and its batch size."""
    from vit_jax.model.variants import variant_arguments

    if config == EXAMPLE:
        shape = dict(dim=128, depth=12, heads=8, mlp_dim=256)
        return dict(image_size=100, patch_size=10, num_classes=10) | shape, 32
    if config == 'toy':
        shape = dict(dim=64, depth=2, heads=2, mlp_dim=128)
        return dict(image_size=16, patch_size=4, num_classes=10) | shape, 4
    arguments = variant_arguments(config)
    shape = {name: arguments[name] for name in ('patch_size', 'dim', 'depth', 'heads', 'mlp_dim')}
    return dict(image_size=224, num_classes=1000) | shape, 8


class Racer:
    """A process that builds a peer and runs it on request."""

    def __init__(self, name: str, config: str, before: Path | None) -> None:
        script = Path(__file__)
        environment = os.environ | {'JAX_ENABLE_COMPILATION_CACHE': 'false'}
        if name.endswith('a device a core'):
            environment['JAX_NUM_CPU_DEVICES'] = str(len(os.sched_getaffinity(0)))
        if 'torch.compile' in name:
            environment['TORCHINDUCTOR_FORCE_DISABLE_CACHES'] = '1'
        if name == BEFORE and before:
            name, script = 'vit_jax', before / 'benchmarks' / 'race.py'
        self.process = subprocess.Popen(
            [sys.executable, script, '--racer', name, config, str(time.time())],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, what: str) -> Any:
        """'infer' or 'train': the seconds of one call; 'report': the other measurements."""
        assert self.process.stdin and self.process.stdout
        try:
            print(what, file=self.process.stdin, flush=True)
            return json.loads(self.process.stdout.readline())
        except (BrokenPipeError, ValueError):
            sys.exit(f'race: a racer exited with status {self.process.wait()}; its error is above')

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()


def run_racer(name: str, config: str, started: float) -> None:
    """The racer's process: builds the peer, then answers each request with a line of JSON."""
    answers = os.fdopen(os.dup(1), 'w')  # what the peer prints goes to stderr
    os.dup2(2, 1)
    peer = PEERS[name][0](*sizes(config))
    first: dict[str, float] = {}
    spent = 0.0
    for line in sys.stdin:
        what = line.strip()
        if what == 'report':
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            answer: Any = {
                'first_seconds': first,
                'compile_seconds': peer.compile_seconds(),
                'peak_bytes': peak,
            }
        else:
            begun = time.perf_counter()
            (peer.infer if what == 'infer' else peer.train)()
            answer = time.perf_counter() - begun
            # Since the process started, without the time of the other call.
            first.setdefault(what, time.time() - started - spent)
            spent += answer
        print(json.dumps(answer), file=answers, flush=True)


def race(
    config: str, names: list[str], rounds: dict[str, int], before: Path | None, progress: Any
) -> dict[str, Any]:
    """Races all racers of a config: the seconds of each round, and the racers' reports."""
    from vit_jax import ViT
    from vit_jax.model.flops import flops_per_image

    racers = {}
    for name in names:
        progress(f'{config}: starting {name}')
        racers[name] = Racer(name, config, before)
        for what in rounds:  # the first call compiles; the second is as fast as the rest
            racers[name].ask(what)
            racers[name].ask(what)
    seconds: dict[str, Any] = {name: {what: [] for what in rounds} for name in names}
    for what, number in rounds.items():
        for _ in range(number):
            progress(f'{config}: {what}')
            for name, racer in racers.items():
                seconds[name][what].append(racer.ask(what))
    reports = {name: racer.ask('report') for name, racer in racers.items()}
    for racer in racers.values():
        racer.stop()
    arguments, batch_size = sizes(config)
    return {
        'arguments': arguments,
        'batch_size': batch_size,
        'flops_per_image': flops_per_image(ViT(**arguments)),
        'racers': {name: {'seconds': seconds[name], **reports[name]} for name in names},
    }


def measure_gemm() -> float:
    """FLOP/s of this machine in a float32 matrix product of 2048³: the best of jax and torch."""
    import jax
    import jax.numpy as jnp

    x = jnp.ones((2048, 2048))
    multiply = jax.jit(jnp.matmul)
    products = [lambda: multiply(x, x).block_until_ready()]
    if importlib.util.find_spec('torch'):
        import torch

        y = torch.ones(2048, 2048)
        products.append(lambda: y @ y)
    best = []
    for product in products:
        product()
        for _ in range(10):
            begun = time.perf_counter()
            product()
            best.append(time.perf_counter() - begun)
    return 2 * 2048**3 / min(best)


def to_markdown(result: dict[str, Any]) -> str:
    """The result as tables, each with the ratio to eager vit-pytorch."""
    machine = result['machine']
    versions = ', '.join(f'{name} {number}' for name, number in machine['versions'].items())
    lines = [
        f'{machine["cores"]} cores of {machine["processor"]}; {versions}; {machine["date"]}. '
        f'`{result["command"]}`, float32.',
        '',
        f'Matrix products of 2048³ ran at {result["gemm_flops_per_second"] / 1e9:.0f} GFLOP/s, the '
        f'best of jax and torch; "of GEMM" is the share of that rate that the model FLOPs reach.',
    ]
    for what, title in (('train', 'Training step'), ('infer', 'Inference')):
        first = 'step' if what == 'train' else 'prediction'
        lines += [
            '',
            f'| {title} | batch | images/s | ratio to eager | of GEMM | compiled in | '
            f'start to first {first} | peak memory of the process |',
            '|--|--:|--:|--:|--:|--:|--:|--:|',
        ]
        for config, race in result['races'].items():
            flops = race['flops_per_image'] * (3 if what == 'train' else 1)
            rates = {
                name: race['batch_size'] / statistics.median(racer['seconds'][what])
                for name, racer in race['racers'].items()
                if what in racer['seconds']
            }
            for name, rate in rates.items():
                racer = race['racers'][name]
                ratio = f'{rate / rates[EAGER]:.2f}' if EAGER in rates else '–'
                lines.append(
                    f'| {config}: {name} | {race["batch_size"]} | {rate:.1f} | {ratio} | '
                    f'{rate * flops / result["gemm_flops_per_second"]:.0%} | '
                    f'{racer["compile_seconds"][what]:.1f} s | '
                    f'{racer["first_seconds"][what]:.1f} s | '
                    f'{racer["peak_bytes"] / 2**20:,.0f} MiB |'
                )
    return '\n'.join([*lines, ''])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--quick', action='store_true', help='fewer racers, under 5 minutes')
    parser.add_argument('--toy', action='store_true', help='takes seconds, as a quick check')
    parser.add_argument('--before', type=Path, help='another checkout, to race as well')
    parser.add_argument('--output', type=Path, help='JSON file; a .md file is written next to it')
    parser.add_argument('--racer', nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.racer:
        name, config, started = arguments.racer
        return run_racer(name, config, float(started))

    plan = TOY if arguments.toy else QUICK if arguments.quick else FULL
    option = ' --toy' if arguments.toy else ' --quick' if arguments.quick else ''
    option += ' --before FOLDER' if arguments.before else ''
    wanted = dict.fromkeys(name for _, names, *_ in plan for name in names)
    missing = [
        name
        for name in wanted
        if not all(importlib.util.find_spec(package) for package in PEERS[name][1])
    ]
    for name in missing:
        print(f'race: {name} is left out: it needs {" and ".join(PEERS[name][1])}')

    begun = time.monotonic()

    def progress(text: str) -> None:
        print(f'{time.monotonic() - begun:5.0f} s  {text}', file=sys.stderr)

    progress('matrix products')
    result: dict[str, Any] = {
        'command': f'python benchmarks/race.py{option}',
        'machine': describe_machine(),
        'gemm_flops_per_second': measure_gemm(),
        'races': {},
    }
    for config, names, training, inference in plan:
        rounds = {what: n for what, n in (('infer', inference), ('train', training)) if n}
        racers = [BEFORE] if arguments.before else []
        racers += [name for name in names if name not in missing]
        result['races'][config] = race(config, racers, rounds, arguments.before, progress)
    markdown = to_markdown(result)
    if arguments.output:
        write_result(result, markdown, arguments.output)
    print(markdown)


if __name__ == '__main__':
    main()
