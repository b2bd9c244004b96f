"""Reads the text of compiled programs: what runs, how often, and what the compiler expects of it.

Two estimates of a TPU's cycles. One is the compiler's own, `estimated_cycles`, pessimistic for what
only moves data. The other takes for each operation the larger of the instructions that its schedule
issues and the time that its bytes take between core and memory, as if nothing else stood in its
way: optimistic. A kernel of ours has no estimate of the compiler's; its schedule stands in.
"""

import collections
import re
from pathlib import Path

from vit_jax.parallel.compiled import ARRAY, Operation, executed, parse

# Groups of operations, in order: name, and a pattern of their HLO, their JAX name or both.
GROUPS = [
    ('attention kernel', r'tpu_custom_call'),
    ('copies', r'^(copy|reshape|transpose)\('),
    ('attention', r'attn/fn/(?!to_qkv|to_out)'),
    ('norms', r'/norm'),
    ('products', r'to_qkv|to_out|/net_\d|to_patch_embedding|mlp_head'),
    ('scan and residuals', r'transformer'),
]
# What takes no time, and what the compiler overlaps with other operations.
FREE = (
    r'^(parameter|constant|get-tuple-element|tuple|bitcast|after-all|iota|[\w-]+-(start|done))\('
    r'|AllocateBuffer|ConcatBitcast'
)


def issued(schedule: Path) -> int:
    """The instructions that a program issues: those of its schedule, loops as often as they run.

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


def moved(operation: Operation, trips: int) -> float:
    """The bytes that an operation reads from memory and writes there.

    Args:
      trips: of the loop that it is in: of an array stacked over the iterations, one slice counts.
    """

    def size(array: tuple[str, str, str]) -> float:
        dtype, shape, layout = array
        if re.search(r'S\([1-9]\)', layout):  # in the core's own memory
            return 0
        sizes = [int(x) for x in shape.split(',') if x]
        width = int((re.search(r'\d+', dtype) or '8')[0]) / 8
        elements = 1
        for x in sizes[1:] if stacked(array) else sizes:
            elements *= x
        return elements * width

    def stacked(array: tuple[str, str, str]) -> bool:
        return trips > 1 and bool(re.match(rf'{trips},', array[1]))

    written = re.findall(ARRAY, operation.type)
    read = [array for type in operation.reads for array in re.findall(ARRAY, type)]
    for array in written:  # updated where it lies
        if stacked(array) and array in read:
            read.remove(array)
    return sum(map(size, read + written))


def estimate(hlo: str, schedules: Path, bytes_per_cycle: float) -> dict[str, dict[str, float]]:
    """Estimated cycles of a compiled program, pessimistic and optimistic, by group.

    Args:
      hlo: the program.
      schedules: a folder of the schedules of its operations.
      bytes_per_cycle: between core and memory.
    """
    files = {}
    for file in schedules.glob('*-final_bundles.txt'):
        if found := re.match(r'\d+-(.*)-\d+-final_bundles', file.name):
            files[found[1]] = file
    counts: dict[str, float] = {}
    pessimistic: collections.Counter[str] = collections.Counter()
    optimistic: collections.Counter[str] = collections.Counter()
    for operation, times in executed(*parse(hlo)):
        if re.search(FREE, operation.text):
            continue
        name, is_kernel = operation.name, 'tpu_custom_call' in operation.text
        if is_kernel:  # compiled once, however often it occurs
            name = next(x for x in files if x.split('.')[0] == name.split('.')[0])
        if name not in counts:
            counts[name] = issued(files[name]) if name in files else 0
        groups = (group for group, pattern in GROUPS if re.search(pattern, operation.text))
        group = next(groups, 'the rest')
        optimistic[group] += times * max(counts[name], moved(operation, times) / bytes_per_cycle)
        pessimistic[group] += times * (counts[name] if is_kernel else operation.cycles or 0)
    return {'pessimistic': dict(pessimistic.most_common()), 'optimistic': dict(optimistic)}
