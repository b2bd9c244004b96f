"""Where the time of a training step goes: ours next to eager vit-pytorch's, on one core.

python benchmarks/step_profile.py [--config S/16]

On one core, the times of the operations add up to the step's. Ours come from XLA's trace, grouped
by the module that an instruction was traced from; vit-pytorch's come from PyTorch's profiler,
grouped by operator.
"""

import argparse
import collections
import gzip
import json
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

WARM_UP, STEPS = 3, 5
# An instruction belongs to the first class whose pattern matches its name and origin.
OURS = (
    ('scan over layers: activations and weights stored and read', r'dynamic_|broadcast_in_dim$| $'),
    (
        'matrix products with parameters',
        r'(to_qkv|to_out|net_\d|to_patch_embedding|layers_1)/(.*/)?(dot_general|transpose)',
    ),
    ('copies around attention', r'^(copy|slice|transpose).* .*attn/fn'),
    ('attention', r'attn/fn'),
    ('GELU, biases', r'ff/fn|to_patch_embedding'),
    ('norms and residual sums', r'norm|transformer\.layer/add|add_any'),
)
THEIRS = (
    ('matrix products with parameters', r'^aten::(mm|addmm)$'),
    ('attention', r'^aten::(bmm|_softmax|_softmax_backward_data)$'),
    ('copies around attention', r'^aten::copy_$'),
    ('GELU, biases', r'gelu'),
    ('norms and residual sums', r'layer_norm|^aten::add_?$'),
)
REST = 'loss, optimizer and the rest'


def classify(name: str, classes: tuple[tuple[str, str], ...]) -> str:
    return next((title for title, pattern in classes if re.search(pattern, name)), REST)


def profile_ours(arguments: dict[str, Any], batch_size: int) -> collections.Counter[str]:
    """Milliseconds per step, by class of operation."""
    import jax

    from benchmarks.training import create_training
    from vit_jax import ViT

    step, (state, batch, key) = create_training(
        ViT(**arguments), arguments['image_size'], arguments['num_classes'], batch_size
    )
    compiled = step.lower(state, batch, key).compile()
    for _ in range(WARM_UP):
        state, _ = jax.block_until_ready(compiled(state, batch, key))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(STEPS):
                state, _ = jax.block_until_ready(compiled(state, batch, key))
        trace = next(Path(folder).rglob('*.trace.json.gz'))
        events = json.loads(gzip.decompress(trace.read_bytes()))['traceEvents']
    origins = {}
    for name, rest in re.findall(r'^\s*(?:ROOT )?%?([\w.\-]+) = (.*)', compiled.as_text(), re.M):
        origin = re.search(r'op_name="([^"]*)"', rest)
        origins[name] = f'{name} {origin[1] if origin else ""}'
    milliseconds: collections.Counter[str] = collections.Counter()
    for event in events:
        name = event.get('name', '')
        if event.get('ph') == 'X' and name in origins and not name.startswith(('while', 'call')):
            milliseconds[classify(origins[name], OURS)] += event['dur'] / 1e3 / STEPS
    return milliseconds


def profile_theirs(arguments: dict[str, Any], batch_size: int) -> collections.Counter[str]:
    """Milliseconds per step, by class of operation."""
    import torch

    from benchmarks.peers import vit_pytorch

    torch.set_num_threads(1)
    peer = vit_pytorch(arguments, batch_size)
    for _ in range(WARM_UP):
        peer.train()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for _ in range(STEPS):
            peer.train()
    milliseconds: collections.Counter[str] = collections.Counter()
    for event in profile.key_averages():
        milliseconds[classify(event.key, THEIRS)] += event.self_cpu_time_total / 1e3 / STEPS
    return milliseconds


def measure_products(arguments: dict[str, Any], batch_size: int) -> list[str]:
    """GFLOP/s of matrix products alone: three of a feed-forward block, one of attention."""
    import jax
    import jax.numpy as jnp
    import torch

    tokens = (arguments['image_size'] // arguments['patch_size']) ** 2 + 1
    rows, dim, mlp_dim = batch_size * tokens, arguments['dim'], arguments['mlp_dim']
    x, w, y = torch.rand(rows, dim), torch.rand(dim, mlp_dim), torch.rand(rows, mlp_dim)
    q, k = torch.rand(2, batch_size * arguments['heads'], tokens, 64)
    flops = {'feed-forward': 2 * rows * dim * mlp_dim, 'attention': 2 * len(q) * tokens**2 * 64}
    lines = []
    for block, title, product, operands in (
        ('feed-forward', 'y = x w', lambda x, w: x @ w, (x, w)),
        ('feed-forward', 'dx = y wᵀ', lambda y, w: y @ w.T, (y, w)),
        ('feed-forward', 'dw = xᵀ y', lambda x, y: x.T @ y, (x, y)),
        ('attention', 'q kᵀ', lambda q, k: q @ k.mT, (q, k)),
    ):
        jitted, arrays = jax.jit(product), [jnp.asarray(t.numpy()) for t in operands]
        rates = [
            flops[block] / seconds / 1e9
            for seconds in (
                median_seconds(lambda: jitted(*arrays).block_until_ready()),  # noqa: B023
                median_seconds(lambda: product(*operands)),  # noqa: B023
            )
        ]
        lines.append(f'| {block}: {title} | {rates[0]:.0f} | {rates[1]:.0f} |')
    return lines


def median_seconds(call: Callable[[], Any]) -> float:
    call()
    seconds = []
    for _ in range(15):
        begun = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--config', default='S/16', help="a variant, or 'the seed's example'")
    config = parser.parse_args().config
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # before any library starts threads
    from benchmarks.race import sizes

    arguments, batch_size = sizes(config)
    ours, theirs = profile_ours(arguments, batch_size), profile_theirs(arguments, batch_size)
    print(f'| {config}, batch {batch_size}, one core, ms per step | vit_jax | vit-pytorch, eager |')
    print('|--|--:|--:|')
    for title in [title for title, _ in OURS] + [REST]:
        print(f'| {title} | {ours[title]:,.0f} | {theirs[title]:,.0f} |')
    print(f'| total | {ours.total():,.0f} | {theirs.total():,.0f} |')
    print('\n| GFLOP/s of a matrix product alone, one core | jax | torch |\n|--|--:|--:|')
    print('\n'.join(measure_products(arguments, batch_size)))


if __name__ == '__main__':
    main()
