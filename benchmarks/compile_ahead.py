"""The training step compiled for absent TPUs: memory, and the compiler's estimate of time.

python benchmarks/compile_ahead.py [--output benchmarks/results/compile_ahead.json]

**Nothing is measured.** libtpu compiles for a described chip and annotates the operations of the
program with `estimated_cycles`; their sum, loops as often as they run, is what the table calls
time. For a Pallas kernel, it is the number of instructions that its schedule issues. Operations
without an estimate (asynchronous copies, collectives) count as nothing. The estimate is pessimistic
for what only moves data; it ranks formulations. Memory is the compiler's plan, which a real chip
refuses to exceed.

Creates an environment with libtpu on its first run (Python 3.11 or newer).
"""

import argparse
import collections
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.report import describe_machine, write_result

ENVIRONMENT = ROOT / 'benchmarks' / '.compile_ahead'
PACKAGES = ('jax==0.10.2', 'jaxlib==0.10.2', 'libtpu==0.0.42.1')
PACKAGES += ('flax', 'optax', 'einops', 'jaxtyping', 'numpy')


class Chip(NamedTuple):
    """A TPU: its topology, and cycles and bfloat16 FLOPs a second from its data sheet."""

    topology: str
    clock: float
    peak: float


CHIPS = {
    'v5e': Chip('v5e:1x1', 1.5e9, 197e12),
    'v6e': Chip('v6e:1x1', 1.75e9, 918e12),
}
BASE = dict(chip='v5e', variant='B/16', batch=128, remat='dots')
ROWS = [
    row | dict(attention=attention)
    for row in (BASE, BASE | dict(variant='L/16', batch=64), BASE | dict(chip='v6e'))
    for attention in ('pallas', 'xla')
]
# Groups of operations, in order: name, and a pattern of their HLO, their JAX name or both.
GROUPS = [
    ('attention kernel', r'tpu_custom_call'),
    ('copies', r'^(copy|reshape|transpose)\('),
    ('attention', r'attn/fn/(?!to_qkv|to_out)'),
    ('norms', r'/norm'),
    ('products', r'to_qkv|to_out|/net_\d|to_patch_embedding|mlp_head'),
    ('scan and residuals', r'transformer'),
]


class Operation(NamedTuple):
    """One instruction of a compiled program.

    Args:
      name: of the instruction.
      text: its HLO, from the operation's name on.
      cycles: the compiler's estimate; None without one.
      body, condition: the computations of a loop; None for others.
    """

    name: str
    text: str
    cycles: int | None
    body: str | None
    condition: str | None


def parse(hlo: str) -> tuple[dict[str, list[Operation]], str]:
    """The computations of a compiled program, by name, and the name of the first to run."""
    computations: dict[str, list[Operation]] = {}
    entry = name = ''
    for line in hlo.splitlines():
        if found := re.match(r'(ENTRY )?%?([\w.-]+) \(.*\{$', line):
            name = found[2]
            computations[name] = []
            entry = name if found[1] else entry
        elif found := re.match(r'\s+(?:ROOT )?%?([\w.-]+) = (.*)', line):

            def group(pattern: str, text: str = found[2]) -> str | None:
                inner = re.search(pattern, text)
                return inner[1] if inner else None

            cycles = group(r'"estimated_cycles":"(\d+)"')
            operation = Operation(
                found[1],
                re.sub(r'^(\(.*?\)|\S+) (?=[\w-]+\()', '', found[2]),
                int(cycles) if cycles else None,
                group(r'\bbody=%?([\w.-]+)'),
                group(r'\bcondition=%?([\w.-]+)'),
            )
            computations[name].append(operation)
    return computations, entry


def executed(
    computations: dict[str, list[Operation]], name: str, times: int = 1
) -> Iterator[tuple[Operation, int]]:
    """The operations that run, and how often each does; fusions are one operation."""
    for operation in computations[name]:
        if operation.body and operation.condition:
            # A scan counts up to the one constant that its condition compares with.
            texts = [x.text for x in computations[operation.condition]]
            (trips,) = (int(x[1]) for t in texts if (x := re.match(r'constant\((\d+)\)', t)))
            yield from executed(computations, operation.body, times * trips)
        else:
            yield operation, times


def issued(schedule: Path) -> int:
    """The instructions that a kernel issues: those of its schedule, loops as often as they run.

    A line is an instruction; the '>' before it are the loops around it, and the test that ends a
    loop names the number of its iterations.
    """
    lines = [0]  # in each loop
    trips = [1]
    around = [0]  # the loop around each
    stack = [0]
    for line in schedule.read_text().splitlines():
        if not (
            found := re.match(r'\s*(?:0x[0-9a-f]+|\d+)\s+(LB)?\w*\s*:\s*((?:> ?)*)\s*\{', line)
        ):
            continue
        depth = found[2].count('>')
        if found[1] or depth >= len(stack):
            lines.append(0)
            trips.append(1)
            around.append(stack[depth - 1])
            stack[depth:] = [len(lines) - 1]
        lines[stack[depth]] += 1
        if end := re.search(r'scmp\.\w+\.s32\.totalorder %\S+ (\d+) /\* loop exit test', line):
            trips[stack[depth]] = int(end[1])
    total = 0
    for loop, count in enumerate(lines):
        while loop:
            count *= trips[loop]
            loop = around[loop]
        total += count
    return total


def estimate(hlo: str, schedules: Path) -> dict[str, int]:
    """Estimated cycles of a compiled program, by group.

    Args:
      hlo: the program.
      schedules: a folder of the schedules of its kernels.
    """
    cycles: collections.Counter[str] = collections.Counter()
    for operation, times in executed(*parse(hlo)):
        spent = operation.cycles or 0
        if 'tpu_custom_call' in operation.text:
            kernel = operation.name.split('.')[0]  # compiled once, however often it occurs
            file = next(schedules.glob(f'*-{kernel}.*-final_bundles.txt'))
            spent = issued(file)
        names = (name for name, pattern in GROUPS if re.search(pattern, operation.text))
        cycles[next(names, 'the rest')] += times * spent
    return dict(cycles.most_common())


def run_row(row: dict[str, Any], folder: str) -> dict[str, Any]:
    """Compiles one row, in the environment with libtpu.

    Args:
      folder: an empty one, for the schedules.
    """
    os.environ['LIBTPU_INIT_ARGS'] = (
        f'--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true '
        f'--xla_jf_dump_llo_pass_label_regex=.*final_bundles.*'
    )
    import jax
    from jax.experimental import topologies

    from benchmarks.training import abstract_training
    from vit_jax.model.flops import flops_per_image
    from vit_jax.model.variants import create_model
    from vit_jax.parallel.parallel import create_parallel

    chip = CHIPS[row['chip']]
    devices = topologies.get_topology_desc(
        platform='tpu', topology_name=chip.topology, chips_per_host_bounds=(1, 1, 1)
    ).devices
    options = {name: row[name] for name in ('attention', 'remat')}
    model = create_model(row['variant'], dtype='bfloat16', **options)
    parallel = create_parallel('jit', row['batch'], devices)
    step, (state, batch, key) = abstract_training(model, row['batch'])

    def put(tree: Any, sharding: Any) -> Any:
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
        )

    arguments = put((state, key), parallel.replicated)
    begun = time.perf_counter()
    compiled = (
        parallel.train_step(step.__wrapped__)
        .lower(arguments[0], put(batch, parallel.sharded), arguments[1])
        .compile()
    )
    memory = compiled.memory_analysis()
    groups = estimate(compiled.as_text(), Path(folder))
    seconds = sum(groups.values()) / chip.clock
    return {
        'compile_seconds': time.perf_counter() - begun,
        'bytes': memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes,
        'estimated_seconds': seconds,
        'estimated_mfu': 3 * flops_per_image(model) * row['batch'] / seconds / chip.peak,
        'groups': groups,
    }


def to_markdown(result: dict[str, Any]) -> str:
    """The rows as a table."""
    machine = result['machine']
    lines = [
        f'**Estimates of the compiler, not measurements.** {", ".join(PACKAGES[:3])}; '
        f'{machine["date"]}. `{result["command"]}`',
        '',
        'Training steps with AdamW in bfloat16 on one chip, 224 pixels. MFU: model FLOPs over the '
        "data sheet's peak.",
        '',
        '| chip | variant | batch | attention | estimated time | estimated MFU | memory | where |',
        '|--|--|--:|--|--:|--:|--:|--|',
    ]
    for row in result['rows']:
        cells = [row['chip'], row['variant'], str(row['batch']), row['attention']]
        if 'error' in row:
            cells += [f'not compiled: {row["error"]}', '', '', '']
        else:
            total = sum(row['groups'].values())
            shares = [f'{name} {cycles / total:.0%}' for name, cycles in row['groups'].items()]
            cells += [
                f'{row["estimated_seconds"] * 1e3:.0f} ms',
                f'{row["estimated_mfu"]:.3f}',
                f'{row["bytes"] / 2**30:.2f} GiB',
                ', '.join(shares[:5]),
            ]
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join([*lines, ''])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--output', type=Path, default=ROOT / 'benchmarks/results/compile_ahead.json'
    )
    parser.add_argument('--rows', type=int, default=len(ROWS), help='how many (default: all)')
    parser.add_argument('--child', help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(run_row(json.loads(arguments.child), folder)))
        return

    python = ENVIRONMENT / 'bin' / 'python'
    if not (ENVIRONMENT / 'complete').exists():
        venv.create(ENVIRONMENT, clear=True, with_pip=True)
        subprocess.run([python, '-m', 'pip', 'install', '--quiet', *PACKAGES], check=True)
        (ENVIRONMENT / 'complete').touch()
    # libtpu looks for chips and for its peers unless it is told that there are none.
    environment = os.environ | {
        'JAX_PLATFORMS': 'cpu',
        'TPU_SKIP_MDS_QUERY': '1',
        'TPU_ACCELERATOR_TYPE': 'v5litepod-1',
        'TPU_WORKER_HOSTNAMES': 'localhost',
        'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
    }
    result: dict[str, Any] = {
        'command': 'python benchmarks/compile_ahead.py',
        'machine': describe_machine(),
        'rows': [],
    }
    for row in ROWS[: arguments.rows]:
        command = [python, __file__, '--child', json.dumps(row)]
        child = subprocess.run(command, env=environment, capture_output=True, text=True)
        if child.returncode:
            answer = {'error': child.stderr.strip().splitlines()[-1][:200]}
        else:
            answer = json.loads(child.stdout.splitlines()[-1])
        result['rows'].append(row | answer)
        write_result(result, to_markdown(result), arguments.output)
        print(json.dumps(row | answer), file=sys.stderr)


if __name__ == '__main__':
    main()
