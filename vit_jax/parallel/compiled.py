"""Reads the text of a compiled program: what runs, how often, and what it sends."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

ARRAY = r'\b(pred|[a-z]+\d+)\[([\d,]*)\](\{[^}]*\})?'
COLLECTIVES = ('all-gather', 'all-reduce', 'reduce-scatter', 'all-to-all', 'collective-permute')


class Operation(NamedTuple):
    """One instruction of a compiled program.

    Args:
      name: of the instruction.
      type: of its result.
      text: its HLO, from the operation's name on.
      cycles: the compiler's estimate; None without one.
      reads: the types of its operands.
    """

    name: str
    type: str
    text: str
    cycles: int | None
    reads: tuple[str, ...]


Computations = dict[str, list[Operation]]


def parse(hlo: str) -> tuple[Computations, str]:
    """The computations of a compiled program, by name, and the name of the first to run."""
    computations: Computations = {}
    entry = name = ''
    types: dict[str, str] = {}
    for line in hlo.splitlines():
        if found := re.match(r'(ENTRY )?%?([\w.-]+) \(.*\{$', line):
            name = found[2]
            computations[name], types = [], {}
            entry = name if found[1] else entry
        elif found := re.match(r'\s+(?:ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([\w-]+\(.*)', line):
            types[found[1]] = found[2]
            cycles = _name(r'"estimated_cycles":"(\d+)"', found[3])
            operands = re.findall(r'%([\w.-]+)', found[3].split('), ')[0])
            reads = tuple(types[operand] for operand in operands if operand in types)
            operation = Operation(
                found[1], found[2], found[3], int(cycles) if cycles else None, reads
            )
            computations[name].append(operation)
    return computations, entry


def executed(
    computations: Computations, name: str, times: int = 1
) -> Iterator[tuple[Operation, int]]:
    """The operations that run, and how often each does; a fusion is one operation."""
    for operation in computations[name]:
        called = _name(r'to_apply=%?([\w.-]+)', operation.text)
        if operation.text.startswith('while('):
            trips = _name(r'"known_trip_count":\{"n":"(\d+)"', operation.text)
            condition = _name(r'condition=%?([\w.-]+)', operation.text)
            # A scan counts up to the one constant that its condition compares with.
            texts = (x.text for x in computations.get(condition, ()))
            limits = (x[1] for t in texts if (x := re.match(r'constant\((\d+)\)', t)))
            trips = trips or next(limits, '1')  # a loop that ends by what it computes: once
            body = _name(r'body=%?([\w.-]+)', operation.text)
            yield from executed(computations, body, times * int(trips))
        elif operation.text.startswith('call(') and called in computations:
            yield from executed(computations, called, times)
        else:
            yield operation, times


def _name(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    return found[1] if found else ''


def size_of(type: str) -> int:
    """The bytes of an array, or of a tuple of them."""
    total = 0
    for dtype, shape, _ in re.findall(ARRAY, type):
        bits = int((re.search(r'\d+', dtype) or ['8'])[0])
        total += math.prod(int(x) for x in shape.split(',') if x) * bits // 8
    return total


def collectives(hlo: str) -> dict[str, tuple[int, int]]:
    """The collectives that a device takes part in when a program runs once.

    Args:
      hlo: text of a compiled program.

    Returns:
      By kind: how many, and the bytes of their results.
    """
    computations, entry = parse(hlo)
    sent: dict[str, tuple[str, int, int]] = {}  # a TPU's start, steps and end of one have one name
    for operation, times in executed(computations, entry):
        for part in _parts(computations, operation):
            if kind := re.match(rf'({"|".join(COLLECTIVES)})(-start)?\(', part.text):
                channel = _name(r'channel_id=(\d+)', part.text) or part.name
                sent[channel] = kind[1], times, times * size_of(part.type)
    found: dict[str, tuple[int, int]] = {}
    for name, times, size in sent.values():
        count, total = found.get(name, (0, 0))
        found[name] = count + times, total + size
    return found


def _parts(computations: Computations, operation: Operation) -> Iterator[Operation]:
    """An operation, and what is fused into it."""
    yield operation
    for part in computations.get(_name(r'calls=%?([\w.-]+)', operation.text), ()):
        yield from _parts(computations, part)
