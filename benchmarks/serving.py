"""A server under load, overloaded, told to end, and given malformed uploads.

python benchmarks/serving.py [--model S/16] [--seconds 60] [--malformed 10000]

Load: 64 clients, each with its next photograph as soon as it has its answer. Throughput is compared
with that of the Predictor itself, in a process alone, which gets the same files in lists as long as
the server's batches were on average. Overload: 512 clients. End: SIGTERM while 64 clients send.
"""

import argparse
import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.malformed import form, request, send_malformed
from benchmarks.report import describe_machine, write_result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--model', default='S/16', help='of random weights, 224 pixels')
    parser.add_argument('--seconds', type=float, default=60.0, help='of each load')
    parser.add_argument('--malformed', type=int, default=10_000, help='uploads')
    output = ROOT / 'benchmarks' / 'results' / 'serving.json'
    parser.add_argument('--output', type=Path, default=output)
    parser.add_argument('--toy', action='store_true', help='takes seconds, as a quick check')
    parser.add_argument('--child', nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        weights, folder, size = arguments.child
        print(measure_predictor(weights, folder, int(size), arguments.seconds))
        return
    if arguments.toy:
        arguments.model, arguments.seconds, arguments.malformed = 'Ti/16', 3.0, 200
    with tempfile.TemporaryDirectory() as folder:
        result = measure(arguments, Path(folder))
    markdown = tabulate(result)
    print(markdown, *result['failures'][:50], sep='\n')
    write_result({'machine': describe_machine(), **result}, markdown, arguments.output)
    sys.exit(bool(result['failures']))


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    weights, photographs = write_weights(folder, arguments.model), write_photographs(folder)
    requests = [request(form(path.read_bytes(), path.name)) for path in photographs]
    failures: list[str] = []
    result: dict[str, Any] = {'model': arguments.model, 'seconds': arguments.seconds}

    server = Server(weights)
    load = asyncio.run(send_requests(server.port, 64, arguments.seconds, requests))
    batch = server.metric('vit_jax_batch_pictures_sum') / server.metric(
        'vit_jax_batch_pictures_count'
    )
    result['load'] = {**load, 'mean_batch': batch, 'peak_mib': server.peak_mib()}
    overload = asyncio.run(send_requests(server.port, 512, arguments.seconds, requests))
    result['overload'] = {**overload, 'peak_mib': server.peak_mib()}
    result['end'] = asyncio.run(end_under_load(server, min(arguments.seconds, 10), requests))
    failures += server.faults()
    result['predictor'] = own_throughput(weights, photographs[0].parent, batch, arguments.seconds)
    result['ratio'] = result['load']['ends'].get('200', 0) / load['took'] / result['predictor']

    server = Server(weights)
    before = server.peak_mib()
    ends, wrong = asyncio.run(send_malformed(server.port, arguments.malformed))
    asyncio.run(send_requests(server.port, 1, 1.0, requests))  # it still answers
    result['malformed'] = {'ends': dict(sorted(ends.items()))}
    result['malformed'] |= {'peak_mib': server.peak_mib(), 'before_mib': before}
    server.process.send_signal(signal.SIGTERM)
    failures += [f'malformed: {x}' for x in wrong] + server.faults()
    expected = {'load': {'200'}, 'overload': {'200', '503'}, 'end': {'200', '503', 'refused'}}
    for name, allowed in expected.items():
        others = {end: n for end, n in result[name]['ends'].items() if end not in allowed}
        failures += [f'{name}: {n} x {end}' for end, n in others.items()]
    return result | {'failures': failures}


def write_weights(folder: Path, variant: str) -> Path:
    """Random weights of a variant."""
    import jax
    import numpy as np

    import vit_jax

    model = vit_jax.create_model(variant, num_classes=1000, image_size=224)
    variables = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 224, 224, 3), np.float32))
    vit_jax.save_weights(folder / 'weights.npz', model, variables, 'google')
    return folder / 'weights.npz'


def write_photographs(folder: Path, count: int = 64) -> list[Path]:
    """JPEGs of 500 x 375 pixels, as in ImageNet."""
    from PIL import Image
    from sklearn.datasets import load_sample_image

    (folder / 'photographs').mkdir()
    paths = []
    for number in range(count):
        photo = Image.fromarray(load_sample_image(('china.jpg', 'flower.jpg')[number % 2]))
        part = photo.crop((number, number, 500 + number, 375 + number))
        paths.append(folder / 'photographs' / f'{number:02}.jpg')
        part.save(paths[-1], quality=90)
    return paths


class Server:
    """`vit_jax serve` as a process."""

    def __init__(self, weights: Path, *options: str) -> None:
        command = [sys.executable, '-m', 'vit_jax', 'serve', str(weights), '--port', '0', *options]
        self._errors = tempfile.TemporaryFile('w+')  # noqa: SIM115
        self.process = subprocess.Popen(
            command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=self._errors
        )
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not (found := re.match(r'http://127.0.0.1:(\d+)', line)):
            self._errors.seek(0)
            raise RuntimeError(self._errors.read())
        self.port = int(found[1])

    def metric(self, name: str) -> float:
        with urllib.request.urlopen(f'http://127.0.0.1:{self.port}/metrics') as answer:
            text = answer.read().decode()
        return float(re.search(rf'^{name} (\S+)', text, re.MULTILINE)[1])  # type: ignore[index]

    def peak_mib(self) -> float:
        status = Path(f'/proc/{self.process.pid}/status').read_text()
        return int(re.search(r'VmHWM:\s+(\d+)', status)[1]) / 1024  # type: ignore[index]

    def faults(self) -> list[str]:
        """What is wrong with the end of a server that was told to end."""
        status = self.process.wait(120)
        self._errors.seek(0)
        lines = [
            line for line in self._errors.read().splitlines() if line != 'compiling the model …'
        ]
        return lines[:20] + ([f'exit status {status}'] if status else [])


async def send_requests(
    port: int, num_clients: int, seconds: float, requests: list[bytes]
) -> dict[str, Any]:
    """Clients that send a request after the other; how these ended, by status."""
    ends: Counter[str] = Counter()
    times: list[float] = []
    begun = time.perf_counter()

    async def client(number: int) -> None:
        connection = None
        while time.perf_counter() < begun + seconds:
            number += 1
            sent = time.perf_counter()
            try:
                connection = connection or await asyncio.open_connection('127.0.0.1', port)
            except ConnectionRefusedError:
                ends['refused'] += 1
                return
            end, closes = await exchange(*connection, requests[number % len(requests)])
            ends[end] += 1
            if end == '200':
                times.append(time.perf_counter() - sent)
            if end == '503':
                await asyncio.sleep(0.2)
            if closes:
                connection[1].close()
                connection = None
        if connection:
            connection[1].close()

    await asyncio.gather(*(client(number) for number in range(num_clients)))
    times.sort()
    quantiles = {f'p{q}': times[len(times) * q // 100] for q in (50, 95, 99)} if times else {}
    return {'ends': dict(ends), 'took': time.perf_counter() - begun, **quantiles}


async def exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, content: bytes
) -> tuple[str, bool]:
    """Sends a request; returns the status of the whole answer, and whether the connection ends."""
    try:
        writer.write(content)
        await writer.drain()
        head = (await reader.readuntil(b'\r\n\r\n')).lower()
        length = re.search(rb'content-length: (\d+)', head)
        await reader.readexactly(int(length[1]) if length else 0)
    except (ConnectionError, asyncio.IncompleteReadError):
        return 'unanswered', True
    return head.split()[1].decode(), b'connection: close' in head


async def end_under_load(server: Server, seconds: float, requests: list[bytes]) -> dict[str, Any]:
    """SIGTERM to a server while 64 clients send; they go on until they are refused."""
    clients = asyncio.create_task(send_requests(server.port, 64, 120.0, requests))
    await asyncio.sleep(seconds)
    server.process.send_signal(signal.SIGTERM)
    told = time.perf_counter()
    result = await clients
    return {'ends': result['ends'], 'ended_after': time.perf_counter() - told}


def own_throughput(weights: Path, folder: Path, batch: float, seconds: float) -> float:
    """Images/s of a Predictor in a process of its own; see `measure_predictor`."""
    child = ['--child', str(weights), str(folder), str(max(round(batch), 1))]
    command = [sys.executable, __file__, '--seconds', str(min(seconds, 20)), *child]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def measure_predictor(weights: str, folder: str, size: int, seconds: float) -> float:
    """Images/s of a Predictor that gets lists of so many files."""
    import vit_jax

    predictor = vit_jax.Predictor(weights)
    paths = sorted(Path(folder).iterdir()) * (1 + size // 64)
    predictor(paths[:size])
    count, begun = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - begun) < seconds:
        predictor(paths[:size])
        count += size
    return count / elapsed


def tabulate(result: dict[str, Any]) -> str:
    load, overload, end = result['load'], result['overload'], result['end']
    malformed = result['malformed']
    rows = {
        f'64 clients for {result["seconds"]:g} s: answers, others': _ends(load),
        'images/s of the server': f'{load["ends"].get("200", 0) / load["took"]:.1f}',
        'pictures in a batch, mean': f'{load["mean_batch"]:.1f}',
        'images/s of the Predictor with lists of that length': f'{result["predictor"]:.1f}',
        'ratio': f'{result["ratio"]:.2f}',
        'time of an answer, median, 99 %': f'{load["p50"]:.2f} s, {load["p99"]:.2f} s',
        '512 clients': _ends(overload),
        'peak memory with 64, with 512 clients': (
            f'{load["peak_mib"]:.0f} MiB, {overload["peak_mib"]:.0f} MiB'
        ),
        'SIGTERM under load': f'{_ends(end)}; ended after {end["ended_after"]:.1f} s',
        'malformed uploads': f'{sum(malformed["ends"].values()):,}',
        'peak memory before and after them': (
            f'{malformed["before_mib"]:.0f} MiB, {malformed["peak_mib"]:.0f} MiB'
        ),
        'failures': str(len(result['failures'])),
    }
    lines = ''.join(f'| {name} | {value} |\n' for name, value in rows.items())
    return f'| {result["model"]}, {len(os.sched_getaffinity(0))} cores | |\n|--|--|\n{lines}'


def _ends(result: dict[str, Any]) -> str:
    return ', '.join(f'{end}: {n:,}' for end, n in sorted(result['ends'].items()))


if __name__ == '__main__':
    main()
