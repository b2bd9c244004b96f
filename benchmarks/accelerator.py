"""Training speed on an accelerator: attention, scan, rematerialisation, batch, XLA's flags.

python benchmarks/accelerator.py [--minutes 8] [--output benchmarks/results/accelerator.json]

Needs only jax, flax, optax, einops and numpy; vit_jax need not be installed. If PyTorch and timm or
transformers are installed, their ViT runs under torch.compile too. The results are written after
each row, best first, as JSON and as a Markdown table next to it. A row that was not run gives the
reason: out of memory, an attention kernel that the device lacks, no time left.

Uses one device. Model FLOPs are 3 times those of the forward pass's matrix products, whatever is
rematerialised. Peak memory is what XLA plans for the step; for PyTorch, its allocator's peak.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.report import describe_machine, write_result

# Dense bfloat16 FLOP/s from the vendors' data sheets, by prefix of the device's name.
PEAKS = {
    'NVIDIA A100': 312e12,
    'NVIDIA H100 PCIe': 756e12,
    'NVIDIA H100': 989e12,
    'NVIDIA H100 NVL': 835e12,
    'NVIDIA H200': 989e12,
    'NVIDIA H200 NVL': 835e12,
    'NVIDIA B200': 2250e12,
    'TPU v4': 275e12,
    'TPU v5 lite': 197e12,
    'TPU v5': 459e12,
    'TPU v6 lite': 918e12,
}
# XLA reads its flags once, so each set needs its own process.
FLAGS = {
    'default': '',
    'latency hiding': '--xla_gpu_enable_latency_hiding_scheduler=true',
    'no command buffers': '--xla_gpu_enable_command_buffer=',
    'no Triton products': '--xla_gpu_enable_triton_gemm=false',
}
BASE = dict(variant='B/16', batch=256, dtype='bfloat16', attention='auto', unroll=1, remat='none')
LARGE = BASE | dict(variant='L/16', batch=128, remat='dots')
# Processes, run in sequence: a set of flags or 'torch', and the rows; the most informative first.
PLAN = [
    (
        'default',
        [
            BASE | dict(unroll=12),
            LARGE | dict(unroll=24),
            BASE | dict(remat='dots'),
            LARGE,
            BASE | dict(attention='xla', remat='dots'),
            LARGE | dict(attention='xla'),
            BASE | dict(variant='S/16', batch=512, unroll=12),
            BASE | dict(variant='Ti/16', batch=1024, unroll=12),
        ],
    ),
    ('torch', [dict(variant='B/16', batch=256), dict(variant='L/16', batch=128)]),
    ('latency hiding', [BASE]),
    ('no command buffers', [BASE]),
    ('no Triton products', [BASE]),
    (
        'default',
        [
            BASE,
            BASE | dict(batch=512, remat='dots'),
            BASE | dict(attention='xla'),
            LARGE | dict(batch=256, remat='full'),
            LARGE | dict(remat='none'),
        ],
    ),
]
SMALL = dict(variant='toy', batch=4, dtype='float32', attention='xla', unroll=1, remat='dots')
TOY_PLAN = [
    (
        'default',
        [
            SMALL,
            SMALL | dict(unroll=2),
            SMALL | dict(remat='full', dtype='bfloat16'),
            SMALL | dict(attention='cudnn', dtype='bfloat16'),  # needs an NVIDIA GPU
        ],
    ),
    ('torch', [dict(variant='toy', batch=4)]),
    ('latency hiding', [SMALL]),
]


def run_child(number: int, flags: str, rows: list[dict[str, Any]], toy: bool) -> None:
    """Runs the rows of one process and prints each as JSON; process 0 also names the device."""
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)

    def answer(value: dict[str, Any]) -> None:
        print(json.dumps(value), file=answers, flush=True)

    if importlib.util.find_spec('jaxtyping') is None:  # stub it: shapes are not checked here
        shapes: Any = types.ModuleType('jaxtyping')
        shapes.Array = Any
        shapes.Float = shapes.Num = type('Shape', (), {'__class_getitem__': lambda *_: Any})
        sys.modules['jaxtyping'] = shapes
    from benchmarks.accelerator_rows import create, measure_gemm, run_jax, run_torch
    from vit_jax.model.flops import flops_per_image

    if number == 0:
        import jax

        device = jax.devices()[0]
        answer(
            {
                'device': device.device_kind,
                'gemm_flops_per_second': measure_gemm(toy),
            }
        )
    for row in rows:
        result = describe_row(flags, row)
        try:
            result |= (run_torch if flags == 'torch' else run_jax)(row, toy)
            result['images_per_second'] = row['batch'] / result['step_seconds']
            flops = 3 * flops_per_image(create(row['variant']))
            result['flops_per_second'] = flops * result['images_per_second']
        except Exception as error:  # out of memory, or a missing kernel: reported in the row
            result['error'] = (str(error).strip() or repr(error)).splitlines()[0][:200]
        answer(result)


def to_markdown(result: dict[str, Any]) -> str:
    """The rows as a table: the best first, the failed ones last."""
    versions = ', '.join(
        f'{name} {number}' for name, number in result['machine']['versions'].items()
    )
    lines = [
        f'{result["device"]}; {versions}; {result["machine"]["date"]}. `{result["command"]}`',
        '',
        f'MFU: model FLOPs over {result["peak_flops_per_second"] / 1e12:,.2f} TFLOP/s, '
        f'{result["peak_source"]}; a matrix product in bfloat16 ran at '
        f'{result["gemm_flops_per_second"] / 1e12:,.2f} TFLOP/s.',
        '',
        '| what | batch | dtype | attention | unroll | remat | XLA flags | step | images/s | MFU | '
        'peak memory | compiled in |',
        '|--|--:|--|--|--:|--|--|--:|--:|--:|--:|--:|',
    ]
    for row in result['rows']:
        cells = [
            f'{row["variant"]}: {row["racer"]}',
            *(str(row.get(name, '–')) for name in ('batch', 'dtype', 'attention', 'unroll')),
            *(str(row.get(name, '–')) for name in ('remat', 'flags')),
        ]
        if 'error' in row:
            cells += [f'not run: {row["error"].replace("|", "/")}', '', '', '', '']
        else:
            peak = row['peak_bytes']
            cells += [
                f'{row["step_seconds"] * 1e3:.1f} ms',
                f'{row["images_per_second"]:,.0f}',
                f'{row["mfu"]:.1%}',
                f'{peak / 2**20:,.0f} MiB' if peak else '–',
                f'{row["compile_seconds"]:.1f} s',
            ]
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join([*lines, ''])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--minutes', type=float, default=8, help='time limit (default: 8)')
    parser.add_argument('--toy', action='store_true', help='a tiny model, as a quick check')
    parser.add_argument(
        '--output',
        type=Path,
        help='JSON file, with a .md file beside it (default: in benchmarks/results; --toy: none)',
    )
    parser.add_argument('--child', type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    plan = TOY_PLAN if arguments.toy else PLAN
    if arguments.child is not None:
        return run_child(arguments.child, *plan[arguments.child], arguments.toy)

    output = arguments.output
    if not (output or arguments.toy):
        output = ROOT / 'benchmarks/results/accelerator.json'
    deadline = time.time() + 60 * arguments.minutes
    machine = describe_machine()
    versions = machine['versions']
    options = ' --toy' if arguments.toy else ''
    result: dict[str, Any] = {
        'command': f'python benchmarks/accelerator.py{options}',
        'machine': machine,
        'rows': [],
    }
    has_torch = 'torch' in versions and {'timm', 'transformers'} & versions.keys()
    if not has_torch:
        print('accelerator: no PyTorch rows: they need torch, and timm or transformers')

    def add(row: dict[str, Any]) -> None:
        if 'error' not in row:
            row['mfu'] = row['flops_per_second'] / result['peak_flops_per_second']
        result['rows'].append(row)
        result['rows'].sort(key=lambda row: -row.get('mfu', 0))
        if output:
            write_result(result, to_markdown(result), output)
        print(json.dumps(row), file=sys.stderr)

    for number, (flags, rows) in enumerate(plan):
        if flags == 'torch' and not has_torch:
            continue
        unanswered = [describe_row(flags, row) for row in rows]
        reason = 'no time left'
        if time.time() < deadline:
            xla_flags = f'{os.environ.get("XLA_FLAGS", "")} {FLAGS.get(flags, "")}'.strip()
            child = subprocess.Popen(
                [sys.executable, __file__, '--child', str(number), *options.split()],
                env=os.environ | {'XLA_FLAGS': xla_flags, 'JAX_ENABLE_COMPILATION_CACHE': 'false'},
                stdout=subprocess.PIPE,
                text=True,
            )
            timer = threading.Timer(deadline - time.time(), child.kill)
            timer.start()
            for line in child.stdout or ():
                answer = json.loads(line)
                if 'device' in answer:
                    result |= answer | find_peak(answer)
                else:
                    add(answer)
                    del unanswered[0]
            timer.cancel()
            if child.wait() and time.time() < deadline:
                reason = f'the process exited with status {child.returncode}'
        if 'device' not in result:
            sys.exit(f'accelerator: no device could be measured: {reason}')
        for row in unanswered:
            add(row | {'error': reason})
    print(to_markdown(result))


def describe_row(flags: str, row: dict[str, Any]) -> dict[str, Any]:
    """A row with the racer that runs it and, for ours, its set of XLA flags."""
    return (
        {'racer': 'PyTorch', **row}
        if flags == 'torch'
        else row | dict(racer='vit_jax', flags=flags)
    )


def find_peak(measured: dict[str, Any]) -> dict[str, Any]:
    """The peak FLOP/s that MFU refers to: from the data sheet, or else of the measured product."""
    known = [name for name in PEAKS if measured['device'].startswith(name)]
    return {
        'peak_flops_per_second': PEAKS[max(known, key=len)]
        if known
        else measured['gemm_flops_per_second'],
        'peak_source': "the data sheet's" if known else 'as measured here',
    }


if __name__ == '__main__':
    main()
