"""Several processes, as on several hosts, each read their rows of the same global batch."""

import json
import socket

import jax
import numpy as np
import processes
import pytest
from PIL import Image

from vit_jax.data.batches import train_batches
from vit_jax.data.order import TrainOrder
from vit_jax.data.preprocess import Preprocessing
from vit_jax.data.sources import open_source, open_split
from vit_jax.parallel.parallel import create_parallel

PROGRAM = """
import hashlib, json, sys
import jax
import numpy as np

process, num_processes, port, source, first = sys.argv[1:]
if int(num_processes) > 1:
    jax.distributed.initialize(f'127.0.0.1:{port}', int(num_processes), int(process))
from vit_jax.data.batches import train_batches
from vit_jax.data.order import TrainOrder
from vit_jax.data.sources import open_source, open_split
from vit_jax.parallel.parallel import create_parallel
from vit_jax.data.preprocess import Preprocessing

preprocessing = Preprocessing((8, 8), 3, (0.5,), (0.5,))
rows, means = {}, []
for mode in 'jit', 'pmap':
    for memory_gib in 0.0, 1.0:
        parallel = create_parallel(mode, 16)
        examples = open_split(
            open_source(source), 'train', preprocessing, memory_gib=memory_gib, min_area=0.3
        )
        order = TrainOrder(examples.num_examples, 16, parallel.rows, seed=5, repeats=2)
        steps = range(int(first), 6)
        with train_batches(examples, order, steps, parallel.put_batch) as batches:
            for step, batch in zip(steps, batches):
                for name, array in batch.items():
                    assert len(array) == (16 if mode == 'jit' else jax.device_count())
                    for shard in array.addressable_shards:
                        content = np.ascontiguousarray(shard.data).tobytes()
                        place = f'{mode} {memory_gib} {name} {shard.index[0].start or 0} {step}'
                        rows[place] = hashlib.sha256(content).hexdigest()
        if mode == 'jit':  # a reduction over all devices, across the network
            mean = jax.jit(lambda x: x.astype('float32').mean(), out_shardings=parallel.replicated)
            means.append(float(mean(batch['image'])))
print(json.dumps([jax.device_count(), len(jax.local_devices()), rows, means]))
"""


def run(num_processes, source, first=0):
    """Hashes of the shards of every batch on 8 devices, and means of the last batches."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    started = [
        processes.start(
            '-c', PROGRAM, i, num_processes, port, source, first, devices=8 // num_processes
        )
        for i in range(num_processes)
    ]
    found, all_means = {}, []
    for process in started:
        output, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
        count, local, rows, means = json.loads(output.splitlines()[-1])
        assert (count, local) == (8, 8 // num_processes)
        assert not found.keys() & rows.keys()  # no row is read twice
        found |= rows
        all_means.append(means)
    assert all(means == all_means[0] for means in all_means)
    return found, all_means[0]


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    root = tmp_path_factory.mktemp('pictures')
    rng = np.random.default_rng(0)
    for i in range(37):
        path = root / 'train' / 'ab'[i % 2] / f'{i}.jpg'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 16, 3), np.uint8)).save(path)
    return f'folder:{root}'


def test_global_batches_are_the_same_on_1_and_2_processes(source):
    """Under jit and pmap, from memory and streamed."""
    expected, means = run(1, source)
    assert len(expected) == 2 * 2 * 3 * 8 * 6
    assert run(2, source) == (expected, means)
    # Also from step 4 on, by two processes that have not seen the earlier steps.
    resumed = {place: x for place, x in expected.items() if int(place.split()[-1]) >= 4}
    assert run(2, source, first=4) == (resumed, means)


@pytest.mark.slow
def test_global_batches_are_the_same_on_4_processes(source):
    assert run(4, source) == run(1, source)


@pytest.mark.parametrize('memory_gib', [0.0, 1.0], ids=['stream', 'memory'])
def test_global_batches_are_the_same_on_1_and_8_devices(source, memory_gib):
    preprocessing = Preprocessing((8, 8), 3, (0.5,), (0.5,))
    examples = open_split(
        open_source(source), 'train', preprocessing, memory_gib=memory_gib, min_area=0.3
    )
    runs = []
    for mode, devices in (('jit', 1), ('jit', 8), ('pmap', 1), ('pmap', 8)):
        parallel = create_parallel(mode, 16, jax.devices()[:devices])
        order = TrainOrder(examples.num_examples, 16, parallel.rows, seed=5)
        with train_batches(examples, order, range(4), parallel.put_batch) as batches:
            runs.append(
                [
                    {n: np.asarray(x).reshape(16, -1).tobytes() for n, x in b.items()}
                    for b in batches
                ]
            )
    assert all(batches == runs[0] for batches in runs)
