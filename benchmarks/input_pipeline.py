"""Speed and memory of the input pipeline, and whether training waits for it.

python benchmarks/input_pipeline.py --photographs imagenet_sample_200.tar

Photographs (a folder of class folders, or a tar file of one) are read from files, decoded,
random-resized-cropped to 224 pixels and batched, by vit_jax's stream and by tf.data with its fused
decode_and_crop_jpeg. Both run on one core and on all, and again on photographs enlarged to four
times the height and width, about what cameras produce. Each measurement is a process of its own.
The two take turns, and the ratio is the median over the turns.

Also measures gathering batches from memory, the share of training time spent waiting for data, and
resident memory after each epoch.
"""

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.report import describe_machine, write_result

SIZE, BATCH_SIZE = 224, 50
AREA = (0.08, 1.0)
RACERS = ('vit_jax', 'tf.data')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--photographs', type=Path, required=True)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--seconds', type=float, default=5.0, help='per measurement')
    output = ROOT / 'benchmarks' / 'results' / 'input_pipeline.json'
    parser.add_argument('--output', type=Path, default=output)
    parser.add_argument('--toy', action='store_true', help='takes seconds, as a quick check')
    parser.add_argument('--child', nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.toy:
        arguments.rounds, arguments.seconds = 1, 0.1
    if arguments.child:
        what, cores = arguments.child
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(cores)])
        print(json.dumps(CHILDREN[what](arguments.photographs, arguments.seconds)))
        return
    with tempfile.TemporaryDirectory() as folder:
        photographs = arguments.photographs
        if photographs.is_file():
            with tarfile.open(photographs) as archive:
                archive.extractall(Path(folder) / 'packed', filter='data')
            (photographs,) = (Path(folder) / 'packed').iterdir()
        sizes = {'as they are': photographs}
        if not arguments.toy:
            sizes['enlarged'] = enlarge(photographs, Path(folder) / 'enlarged')

        def run(what: str, cores: int, source: Path = photographs) -> Any:
            options = ['--photographs', source, '--seconds', str(arguments.seconds)]
            command = [sys.executable, __file__, *options, '--child', what, str(cores)]
            return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)

        all_cores = len(os.sched_getaffinity(0))
        result: dict[str, Any] = {'machine': describe_machine(), 'photographs': {}}
        for size, source in sizes.items():
            for cores in {all_cores} if arguments.toy else sorted({1, all_cores}):
                turns = [
                    {racer: run(racer, cores, source) for racer in RACERS}
                    for _ in range(arguments.rounds)
                ]
                result['photographs'][f'{size}, {cores} core{"s" * (cores > 1)}'] = {
                    'images_per_second': {name: [turn[name] for turn in turns] for name in RACERS},
                    'ratio': statistics.median(turn['vit_jax'] / turn['tf.data'] for turn in turns),
                }
        result['entropy_decoding'] = run('entropy', 1)
        result['gather'] = run('gather', 1)
        result['data_wait'] = run('toy training' if arguments.toy else 'training', all_cores)
        result['resident_mib_by_epoch'] = run('memory', all_cores)
    markdown = tabulate(result)
    print(markdown, end='')
    write_result(result, markdown, arguments.output)


def enlarge(photographs: Path, folder: Path) -> Path:
    """Writes copies at four times the height and width; returns their folder."""
    from PIL import Image

    for path in photographs.glob('*/*'):
        with Image.open(path) as picture:
            larger = picture.convert('RGB').resize((4 * picture.width, 4 * picture.height))
        copy = folder / path.relative_to(photographs)
        copy.parent.mkdir(parents=True, exist_ok=True)
        larger.save(copy.with_suffix('.jpg'), quality=90)
    return folder


def tabulate(result: dict[str, Any]) -> str:
    lines = ['| photographs | vit_jax, images/s | tf.data, images/s | ratio |', '|--|--:|--:|--:|']
    for what, race in result['photographs'].items():
        speeds = race['images_per_second']
        ours, theirs = (statistics.median(speeds[racer]) for racer in RACERS)
        lines.append(f'| {what} | {ours:,.0f} | {theirs:,.0f} | {race["ratio"]:.2f} |')
    lines.append('')
    entropy = result['entropy_decoding']
    lines.append(f'- photographs decoded at an eighth of their resolution: {entropy:,.0f} images/s')
    for what, speed in result['gather'].items():
        lines.append(f'- gather from memory, one core, {what}: {speed:,.0f} images/s')
    for what, share in result['data_wait'].items():
        lines.append(f'- share of training time spent waiting for data, {what}: {share:.2%}')
    epochs = ', '.join(f'{mib:,.0f}' for mib in result['resident_mib_by_epoch'])
    lines.append(f'- resident memory of a streaming process after each epoch, MiB: {epochs}')
    return '\n'.join(lines) + '\n'


def throughput(batches: Iterator[Any], seconds: float) -> float:
    """Images per second, after four warm-up batches."""
    for _ in range(4):
        next(batches)
    count, begun = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - begun) < seconds:
        count += len(next(batches)['image'])
    return count / elapsed


def open_stream(photographs: Path) -> tuple[Any, Any]:
    """The photographs as training reads them, and their order."""
    from vit_jax.data.order import TrainOrder
    from vit_jax.data.preprocess import Preprocessing
    from vit_jax.data.sources import open_source, open_split

    preprocessing = Preprocessing((SIZE, SIZE), 3, (0.5,), (0.5,))
    source = open_source(f'folder:{photographs}')
    stream = open_split(source, 'train+test', preprocessing, memory_gib=0, min_area=AREA[0])
    return stream, TrainOrder(stream.num_examples, BATCH_SIZE, range(BATCH_SIZE), seed=0)


def race_vit_jax(photographs: Path, seconds: float) -> float:
    from vit_jax.data.batches import train_batches

    stream, order = open_stream(photographs)
    with train_batches(stream, order, range(10**6), lambda batch: batch) as batches:
        return throughput(batches, seconds)


def race_tf_data(photographs: Path, seconds: float) -> float:
    os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'
    import tensorflow as tf

    def load(path: Any) -> dict[str, Any]:
        content = tf.io.read_file(path)
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            tf.io.extract_jpeg_shape(content),
            tf.zeros([1, 0, 4]),
            min_object_covered=0,
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=AREA,
            max_attempts=10,
            use_image_if_no_bounding_boxes=True,
        )
        window = tf.concat([begin[:2], size[:2]], 0)
        image = tf.image.decode_and_crop_jpeg(content, window, channels=3)
        image = tf.image.resize(image, (SIZE, SIZE))
        return {'image': tf.cast(tf.round(image), tf.uint8)}

    paths = sorted(str(path) for path in photographs.glob('*/*'))
    cores = len(os.sched_getaffinity(0))
    options = tf.data.Options()
    options.threading.private_threadpool_size = cores
    pictures = tf.data.Dataset.from_tensor_slices(paths).shuffle(len(paths)).repeat()
    batches = pictures.map(load, num_parallel_calls=cores).batch(BATCH_SIZE).prefetch(2)
    return throughput(iter(batches.with_options(options)), seconds)


def measure_gather(_: Path, seconds: float) -> dict[str, float]:
    import numpy as np

    from vit_jax.data.batches import train_batches
    from vit_jax.data.memory import InMemory
    from vit_jax.data.order import TrainOrder

    images = np.random.default_rng(0).integers(0, 256, (50_000, 32, 32, 3), np.uint8)
    examples = InMemory(images, np.zeros(50_000, np.int32))
    speeds = {}
    for batch_size in (128, 1024):
        order = TrainOrder(50_000, batch_size, range(batch_size), seed=0)
        gathered = (examples.gather(order.examples(step)) for step in range(10**9))
        speeds[f'batches of {batch_size}'] = throughput(gathered, seconds)
        with train_batches(examples, order, range(10**6), lambda batch: batch) as batches:
            what = f'batches of {batch_size}, read ahead by a thread'
            speeds[what] = throughput(batches, seconds)
    return speeds


def measure_training(photographs: Path, _: float, toy: bool = False) -> dict[str, float]:
    """The mean 'data_wait' that a run logs after its first ten steps."""
    import contextlib

    from configs import default
    from vit_jax.train.trainer import train

    waits = {}
    for what, source, settings in (
        (
            'Ti/16 on the photographs, streamed',
            f'folder:{photographs}',
            {
                'num_steps': 12 if toy else 30,
                'batch_size': 8,
                'data.memory_gib': 0.0,
                'data.image_size': 64 if toy else SIZE,
                'model.variant': 'Ti/16',
                'model.depth': 1 if toy else 12,
                'augment.random_resized_crop': AREA[0],
            },
        ),
        (
            'a ViT of 4 layers on digits, in memory',
            'tfds:digits',
            {
                'num_steps': 60,
                'batch_size': 128,
                'model.depth': 4,
                'model.dim': 96,
            },
        ),
    )[: 1 if toy else 2]:
        config = default.get_config()
        config.data.source = source
        config.log_every_steps = 10
        config.optim.warmup_steps = 5
        config.eval_every_steps = config.checkpoint_every_steps = 0
        config.update_from_flattened_dict(settings)
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
            config.data.dir = folder
            train(config, f'{folder}/run')
            lines = map(json.loads, Path(f'{folder}/run/metrics.jsonl').read_text().splitlines())
            shares = [x['data_wait'] for x in lines if x['split'] == 'train' and x['step'] > 10]
        waits[what] = statistics.mean(shares)
    return waits


def measure_memory(photographs: Path, _: float) -> list[float]:
    """Resident MiB of a streaming process, after each of twelve epochs of the photographs."""
    from vit_jax.data.batches import train_batches

    stream, order = open_stream(photographs)
    resident = []
    steps = -(-stream.num_examples // BATCH_SIZE)
    with train_batches(stream, order, range(12 * steps), lambda batch: batch) as batches:
        for i, _batch in enumerate(batches):
            if (i + 1) % steps == 0:
                pages = int(Path('/proc/self/statm').read_text().split()[1])
                resident.append(pages * os.sysconf('SC_PAGE_SIZE') / 2**20)
    return resident


def measure_entropy_decoding(photographs: Path, seconds: float) -> float:
    """Whole photographs per second at an eighth of the resolution: mostly Huffman decoding."""
    import itertools

    import simplejpeg

    contents = [path.read_bytes() for path in photographs.glob('*/*')]
    decode = functools.partial(simplejpeg.decode_jpeg, min_height=1, min_width=1, min_factor=8)
    return throughput(({'image': [decode(x)]} for x in itertools.cycle(contents)), seconds)


CHILDREN = {
    'vit_jax': race_vit_jax,
    'tf.data': race_tf_data,
    'entropy': measure_entropy_decoding,
    'gather': measure_gather,
    'training': measure_training,
    'toy training': functools.partial(measure_training, toy=True),
    'memory': measure_memory,
}

if __name__ == '__main__':
    main()
