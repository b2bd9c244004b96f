"""The training step compiled for absent TPUs and GPUs: memory, estimated time, fused kernels.

python benchmarks/compile_ahead.py [--output benchmarks/results/compile_ahead.json]

**Nothing is measured.** For a TPU, libtpu compiles for a described chip, and its program gives two
estimates of time, see `benchmarks/compiled.py`. They rank formulations; the truth lies between them
or beside. For an H100, nothing can be timed without the card; the table counts cuDNN's fused
attention instead. Memory is the compiler's plan.

Creates environments with libtpu and with jax's CUDA packages (5 GB) on its first run.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.compiled import estimate
from benchmarks.report import describe_machine, write_result
from vit_jax.parallel.compiled import collectives, executed, parse

ENVIRONMENTS = ROOT / 'benchmarks' / '.compile_ahead'
PACKAGES = {
    'tpu': ('jax==0.10.2', 'jaxlib==0.10.2', 'libtpu==0.0.42.1'),
    'cuda': ('jax[cuda12]>=0.10.2',),  # 0.12 and newer take Python 3.12
}
OTHERS = ('flax', 'optax', 'einops', 'jaxtyping', 'numpy')


class Speed(NamedTuple):
    """A TPU's cycles, bytes and bfloat16 FLOPs a second, from its data sheet."""

    clock: float
    bandwidth: float
    peak: float


TPUS = {
    'v5e': Speed(1.5e9, 819e9, 197e12),
    'v6e': Speed(1.75e9, 1640e9, 918e12),
    'v5p': Speed(1.75e9, 2765e9, 459e12),
}
BASE = dict(chip='v5e', variant='B/16', batch=128, remat='dots')
ROWS: list[dict[str, Any]] = [
    row | dict(attention=attention)
    for row in (BASE, BASE | dict(variant='L/16', batch=64), BASE | dict(chip='v6e'))
    for attention in ('pallas', 'xla')
]
ROWS += [BASE | dict(chip='v5p', attention='pallas')]
ROWS += [
    dict(chip='h100', variant=variant, batch=batch, remat=remat, attention='cudnn')
    for variant, batch, remat in (
        ('B/16', 256, 'dots'),
        ('B/16', 256, 'none'),
        ('B/16', 256, 'full'),
        ('Ti/16', 256, 'dots'),
        ('S/16', 256, 'dots'),
        ('M/16', 256, 'dots'),
        ('L/16', 128, 'dots'),
        ('So400m/14', 64, 'dots'),
        ('H/14', 64, 'dots'),
        ('g/14', 32, 'dots'),
        ('G/14', 16, 'dots'),
    )
]
PODS = (  # topology, variant, batch, mesh
    ('v5e:16x16', 'B/16', 128 * 256, {}),
    ('v5e:16x16', 'L/16', 32 * 256, {}),
    ('v5e:16x16', 'L/16', 32 * 256, {'fsdp': 16}),
    ('v5e:16x16', 'L/16', 32 * 256, {'fsdp': 16, 'zero_stage': 1}),
    ('v5e:16x16', 'G/14', 8 * 256, {'fsdp': 16}),
    ('v6e:16x16', 'G/14', 16 * 256, {'fsdp': 16}),
    ('v5p:4x4x4', 'G/14', 32 * 64, {'fsdp': 16}),
    ('1x1x8', 'B/16', 256 * 8, {}),
    ('1x1x8', 'L/16', 128 * 8, {'fsdp': 8, 'data': 1}),
    ('1x1x8', 'G/14', 32 * 8, {'fsdp': 8, 'data': 1}),
)
ROWS += [
    dict(
        chip='h100' if topology == '1x1x8' else topology.partition(':')[0],
        topology=topology,
        variant=variant,
        batch=batch,
        mesh=mesh,
        remat='dots',
        attention='cudnn' if topology == '1x1x8' else 'pallas',
    )
    for topology, variant, batch, mesh in PODS
]
# On CPU devices that are there.
TOY: list[dict[str, Any]] = [
    dict(
        chip='cpu',
        topology='8',
        variant='Ti/16',
        batch=16,
        mesh=mesh,
        remat='dots',
        attention='xla',
        model=dict(depth=2, image_size=32),
    )
    for mesh in ({}, {'fsdp': 8, 'data': 1})
]
COUNTS = ('forward_calls', 'backward_calls', 'score_arrays')


def run_row(row: dict[str, Any], folder: str) -> dict[str, Any]:
    """Compiles one row, in the environment of its platform.

    Args:
      folder: an empty one, for the schedules.
    """
    os.environ['LIBTPU_INIT_ARGS'] = (
        f'--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true '
        f'--xla_jf_dump_llo_pass_label_regex=.*final_bundles.*'
    )
    import jax
    from jax.experimental.topologies import get_topology_desc

    from benchmarks.training import abstract_training
    from vit_jax.model.flops import flops_per_image
    from vit_jax.model.shapes import num_tokens
    from vit_jax.model.variants import create_model
    from vit_jax.parallel.parallel import create_parallel
    from vit_jax.train import memory

    chip = memory.CHIPS[row['chip'] if row['chip'] in memory.CHIPS else 'v5e']
    if row['chip'] == 'cpu':
        speed, devices = None, jax.devices()
    elif speed := TPUS.get(row['chip']):
        devices = memory.absent_devices(chip, row.get('topology'))
    else:
        # Tracing attention with cuDNN asks the local card for its version.
        from jax._src.cudnn import fused_attention_stablehlo as fused

        fused.check_cudnn_version = lambda: 92800
        fused.check_compute_capability = lambda capability: float(capability) <= 9
        fused.is_cuda_compute_capability_equal = lambda capability: capability == '9.0'
        target = Path(__file__).with_name('h100.txtpb').read_text()
        devices = get_topology_desc(
            platform='cuda',
            topology_name='h100',
            topology=row.get('topology', '1x1x1'),
            target_config=target,
        ).devices
    options = {name: row[name] for name in ('attention', 'remat')}
    options |= row.get('model', {})
    model = create_model(row['variant'], dtype='bfloat16', **options)
    mesh = row.get('mesh', {})
    parallel = create_parallel('jit', row['batch'], devices, **mesh)
    sizes, zero = tuple(parallel.mesh.shape.values()), mesh.get('zero_stage', 3)
    step, arguments = abstract_training(model, row['batch'], parallel)
    begun = time.perf_counter()
    compiled = step.lower(*arguments).compile()
    hlo = compiled.as_text()
    result = {
        'jax': jax.__version__,
        'compile_seconds': time.perf_counter() - begun,
        'bytes': memory.planned_bytes(compiled),
        'counted_bytes': sum(memory.counted_memory(model, row['batch'], chip, sizes, zero)),
    }
    if len(devices) > 1:
        held = memory.held_bytes(arguments[0])
        return result | {'sizes': sizes, 'state_bytes': held, 'collectives': collectives(hlo)}
    if not speed:
        return result | fused_attention(hlo, num_tokens(model), model.depth)
    flops = 3 * flops_per_image(model) * row['batch']
    result['groups'] = estimate(hlo, Path(folder), speed.bandwidth / speed.clock)
    result['seconds'] = {k: sum(x.values()) / speed.clock for k, x in result['groups'].items()}
    result['mfu'] = {k: flops / x / speed.peak for k, x in result['seconds'].items()}
    return result


def fused_attention(hlo: str, num_tokens: int, depth: int) -> dict[str, float]:
    """How often each layer calls cuDNN, and the number of arrays of scores in memory."""
    operations = list(executed(*parse(hlo)))

    def calls(target: str) -> float:
        return sum(times for x, times in operations if f'"__cudnn$fmha{target}"' in x.text) / depth

    n = '|'.join(str(num_tokens + even) for even in range(2))
    scores = re.compile(rf'\b[a-z]*f\d+\[[\d,]*\b({n}),({n})\]')
    return {
        'forward_calls': calls('Softmax'),
        'backward_calls': calls('SoftmaxBackward'),
        'score_arrays': sum(bool(scores.search(x.type)) for x, _ in operations),
    }


def to_markdown(result: dict[str, Any]) -> str:
    """The rows as two tables."""
    lines = [
        f'**Estimates of the compiler, not measurements.** {", ".join(PACKAGES["tpu"])}; for H100, '
        f"jax's CUDA packages; {result['machine']['date']}. `{result['command']}`",
        '',
        'Training steps with AdamW in bfloat16 on one chip, 224 pixels. MFU: model FLOPs over the '
        "data sheet's peak. Each estimate twice, pessimistic and optimistic, see "
        '`benchmarks/compiled.py`. Memory as the compiler plans it, and by the count of '
        '`vit_jax summary`.',
        '',
        '| chip | variant | batch | attention | estimated ms | estimated MFU | GiB planned | '
        'GiB counted | where (pessimistic) | jax |',
        '|--|--|--:|--|--:|--:|--:|--:|--|--|',
    ]
    for row in result['rows']:
        if 'mfu' not in row:
            continue
        groups = row['groups']['pessimistic']
        shares = [f'{name} {x / sum(groups.values()):.0%}' for name, x in groups.items()]
        cells = [row['chip'], row['variant'], str(row['batch']), row['attention']]
        cells.append(' / '.join(f'{x * 1e3:.0f}' for x in row['seconds'].values()))
        cells.append(' / '.join(f'{x:.3f}' for x in row['mfu'].values()))
        cells += [*memory_cells(row), ', '.join(shares[:5]), row['jax']]
        lines.append(f'| {" | ".join(cells)} |')
    lines += [
        '',
        "Calls of cuDNN's fused attention for each layer; arrays of n x n scores in memory.",
        '',
        '| chip | variant | batch | remat | forward | backward | arrays of scores | GiB planned | '
        'GiB counted | jax |',
        '|--|--|--:|--|--:|--:|--:|--:|--:|--|',
    ]
    for row in result['rows']:
        if 'forward_calls' in row:
            names = ('chip', 'variant', 'batch', 'remat', *COUNTS)
            cells = [str(row[name]) for name in names]
            lines.append(f'| {" | ".join([*cells, *memory_cells(row), row["jax"]])} |')
    lines += [
        '',
        'On several chips, by `config.parallel`: memory of each, and the collectives that it takes '
        'part in during a step, with the size of their results. Without estimates of time: the '
        'compiler has none for collectives.',
        '',
        '| chips | variant | batch | mesh | GiB planned | GiB counted | GiB of state | sent a step '
        '| jax |',
        '|--|--|--:|--|--:|--:|--:|--|--|',
    ]
    for row in result['rows']:
        if 'collectives' in row:
            cells = [f'{row["chip"]} {row["topology"].split(":")[-1]}', row['variant']]
            cells += [f'{row["batch"]:,}']
            cells += [', '.join(f'{k}={x}' for k, x in row['mesh'].items()) or 'data alone']
            cells += [*memory_cells(row), f'{row["state_bytes"] / 2**30:.2f}']
            sent = row['collectives'].items()
            cells += [', '.join(f'{n} x {k} {x / 2**30:.2f} GiB' for k, (n, x) in sent), row['jax']]
            lines.append(f'| {" | ".join(cells)} |')
    lines += [
        f'\nNot compiled: {row["chip"]}, {row["variant"]}: {row["error"]}'
        for row in result['rows']
        if 'error' in row
    ]
    return '\n'.join([*lines, ''])


def memory_cells(row: dict[str, Any]) -> list[str]:
    return [f'{row[name] / 2**30:.2f}' for name in ('bytes', 'counted_bytes')]


def python_of(platform: str) -> Path:
    """The interpreter of an environment with the compiler for a platform."""
    folder = ENVIRONMENTS / platform
    python = folder / 'bin' / 'python'
    if not (folder / 'complete').exists():
        venv.create(folder, clear=True, with_pip=True)
        pip = [python, '-m', 'pip', 'install', '--quiet']
        subprocess.run([*pip, *PACKAGES[platform], *OTHERS], check=True)
        (folder / 'complete').touch()
    return python


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--output',
        type=Path,
        help='JSON file, with a .md file beside it (default: in benchmarks/results; --only: none)',
    )
    parser.add_argument('--only', default='', help='rows whose JSON contains this text')
    parser.add_argument('--toy', action='store_true', help='compile for 8 CPU devices only')
    parser.add_argument('--child', help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(run_row(json.loads(arguments.child), folder)))
        return

    output = arguments.output
    if not (output or arguments.only or arguments.toy):
        output = ROOT / 'benchmarks/results/compile_ahead.json'
    environment = os.environ | {'JAX_PLATFORMS': 'cpu'}
    if arguments.toy:
        environment['XLA_FLAGS'] = '--xla_force_host_platform_device_count=8'
    result: dict[str, Any] = {
        'command': 'python benchmarks/compile_ahead.py',
        'machine': describe_machine(),
        'rows': [],
    }
    for row in TOY if arguments.toy else ROWS:
        if arguments.only not in json.dumps(row):
            continue
        python = (
            Path(sys.executable)
            if arguments.toy
            else python_of('tpu' if row['chip'] in TPUS else 'cuda')
        )
        command = [python, __file__, '--child', json.dumps(row)]
        child = subprocess.run(command, env=environment, capture_output=True, text=True)
        if child.returncode:
            answer = {'error': child.stderr.strip().splitlines()[-1][:200]}
        else:
            answer = json.loads(child.stdout.splitlines()[-1])
        result['rows'].append(row | answer)
        if output:
            write_result(result, to_markdown(result), output)
        print(json.dumps(row | answer), file=sys.stderr)


if __name__ == '__main__':
    main()
