"""Mutated pictures and weight files: nothing but InputError, no code run, bounded time and memory.

python benchmarks/fuzz.py [--pictures 24000] [--weights 3200] [--seed 0]

Bytes of valid files are flipped, cut, zeroed, repeated and inserted. Each picture is decoded, whole
and cropped, and each weight file is loaded. Files that carry our checksums must load as they were
or not at all.
"""

import argparse
import io
import os
import pickle
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import numpy as np

from benchmarks.damage import equal
from benchmarks.report import describe_machine, write_result
from vit_jax.errors import InputError

SECONDS, GIB = 5.0, 1.0  # the most that one picture may take
CHECKED = ('timm.safetensors', 'seed.safetensors', 'huggingface')  # carry our checksums


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--pictures', type=int, default=24_000)
    parser.add_argument('--weights', type=int, default=3_200)
    parser.add_argument('--seed', type=int, default=0)
    output = ROOT / 'benchmarks' / 'results' / 'fuzz.json'
    parser.add_argument('--output', type=Path, default=output)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    pictures, failures = fuzz_pictures(arguments.pictures, rng)
    with tempfile.TemporaryDirectory() as folder:
        weights, wrong = fuzz_weights(Path(folder), arguments.weights, rng)
    failures += wrong
    rows = {f'pictures: {end}': n for end, n in pictures.items()}
    rows |= {f'weights: {end}': n for end, n in weights.items()}
    markdown = ''.join(f'| {end} | {count} |\n' for end, count in rows.items())
    markdown = f'| Mutated files | cases |\n|--|--|\n{markdown}'
    print(markdown, *failures[:50], sep='\n')
    result = {'machine': describe_machine(), **rows, 'failures': failures}
    write_result(result, markdown, arguments.output)
    sys.exit(bool(failures))


def fuzz_pictures(num_cases: int, rng: random.Random) -> tuple[Counter[str], list[str]]:
    """Decodes mutated pictures; returns how that ended, and what was wrong."""
    from vit_jax.data.picture import decode_crop, decode_picture

    def upper_half(height: int, width: int) -> tuple[int, int, int, int]:
        return 0, 0, (height + 1) // 2, width

    def decode(data: bytes, name: str) -> None:
        decode_picture(data, name)
        for to_end in (False, True):
            decode_crop(data, name, upper_half, (8, 8), to_end=to_end)

    files = list(encode_pictures().items())
    ends: Counter[str] = Counter()
    failures = []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    for case in range(num_cases):
        name, data = files[case % len(files)]
        data = mutate(data, rng)
        begun = time.monotonic()
        end, wrong = attempt(lambda data=data, name=name: decode(data, name))
        ends[end] += 1
        taken = time.monotonic() - begun
        if taken > SECONDS:
            wrong = f'took {taken:.1f} s'
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        if peak > before + GIB:
            wrong, before = f'took {peak - before:.1f} GiB', peak
        if wrong:
            failures.append(f'picture {case}, {name}: {wrong}')
    return ends, failures


def fuzz_weights(
    folder: Path, num_cases: int, rng: random.Random
) -> tuple[Counter[str], list[str]]:
    """Loads mutated weight files; see `fuzz_pictures`."""
    from vit_jax.weights import load_weights

    sentinel = folder / 'code was run'
    originals = write_weights(folder, sentinel)
    intact = {
        path.name: load_weights(path, heads=2)[1] for path in originals if path.stem != 'evil'
    }
    ends: Counter[str] = Counter()
    failures = []
    for case in range(num_cases):
        original = originals[case % len(originals)]
        copy = folder / 'copies' / original.name
        if original.is_dir():
            shutil.copytree(original, copy)
            victim = rng.choice(sorted(copy.iterdir()))
        else:
            copy.parent.mkdir(exist_ok=True)
            shutil.copy(original, copy)
            victim = copy
        victim.write_bytes(mutate(victim.read_bytes(), rng))
        loaded: list[Any] = []
        end, wrong = attempt(
            lambda loaded=loaded, copy=copy: loaded.append(load_weights(copy, heads=2)[1])
        )
        ends[end] += 1
        if loaded and original.name in CHECKED and not equal(loaded[0], intact[original.name]):
            wrong = 'other numbers'
        if sentinel.exists():
            wrong = 'code was run'
            sentinel.unlink()
        if wrong:
            failures.append(f'weights {case}, {original.name}, {victim.name}: {wrong}')
        shutil.rmtree(copy.parent)
    return ends, failures


def attempt(use: Callable[[], None]) -> tuple[str, str]:
    """How a use ended, and what was wrong with that; '' if nothing."""
    try:
        use()
    except InputError as error:
        lines = len(str(error).splitlines())
        return 'one line of error', '' if lines == 1 else f'{lines} lines: {error}'
    except Exception as error:
        return type(error).__name__, traceback.format_exc(limit=-3)
    return 'read', ''


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Some bytes of a file changed, removed, repeated or inserted; its head more often."""
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5, 25))):
        reach = rng.choice((64, 1024, len(content) + 1))
        at = rng.randrange(min(reach, len(content) + 1))
        length = rng.choice((1, 2, 4, 64))
        match rng.randrange(6):
            case 0 if at < len(content):
                content[at] ^= 1 << rng.randrange(8)
            case 1:
                content[at : at + length] = rng.randbytes(length)
            case 2:
                content[at : at + length] = bytes(length)
            case 3:
                content[at:at] = content[at : at + length]
            case 4:
                content[at : at + length] = rng.choice((b'\xff', b'\x7f')) * length
            case _ if rng.random() < 0.2:
                del content[at:]
    return bytes(content)


def encode_pictures() -> dict[str, bytes]:
    """A photograph in every format, colour mode and kind of compression that is read."""
    from PIL import Image
    from sklearn.datasets import load_sample_image

    photo = Image.fromarray(load_sample_image('china.jpg')).resize((96, 64))
    kinds: list[tuple[str, str, dict[str, Any]]] = [
        ('JPEG', 'RGB', {}),
        ('JPEG', 'RGB', {'progressive': True}),
        ('JPEG', 'RGB', {'subsampling': '4:4:4', 'restart_marker_rows': 1}),
        ('JPEG', 'L', {}),
        ('JPEG', 'CMYK', {}),
        ('PNG', 'RGB', {}),
        ('PNG', 'P', {}),
        ('PNG', 'LA', {}),
        ('WEBP', 'RGB', {}),
        ('WEBP', 'RGBA', {'lossless': True}),
        ('GIF', 'P', {}),
        ('BMP', 'RGB', {}),
        ('TIFF', 'RGB', {'compression': 'tiff_lzw'}),
        ('TIFF', 'L', {}),
        ('PPM', 'RGB', {}),
        ('JPEG2000', 'RGB', {}),
    ]
    pictures = {}
    for format, mode, options in kinds:
        exif = Image.Exif()
        exif[0x0112] = 6
        stream = io.BytesIO()
        extra = {'exif': exif} if format in ('JPEG', 'PNG', 'WEBP', 'TIFF') else {}
        photo.convert(mode).save(stream, format, **options, **extra)
        pictures[f'{format} {mode} {options or ""}'] = stream.getvalue()
    return pictures


def write_weights(folder: Path, sentinel: Path) -> list[Path]:
    """A small model in every format, and pickles that would create the sentinel."""
    import jax

    import vit_jax

    sizes = dict(image_size=8, patch_size=4, num_classes=3, dim=16, depth=1, heads=2, mlp_dim=8)
    model = vit_jax.create_model('Ti/4', **(sizes | {'image_size': 8, 'dim_head': 8}))
    variables = model.init(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))
    seeds = model.clone(qkv_bias=False, norm_eps=1e-5, gelu='erf')
    own = seeds.init(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))
    paths = []
    for format, name, one, its in (
        ('timm', 'timm.safetensors', model.clone(gelu='erf'), variables),
        ('seed', 'seed.safetensors', seeds, own),
        ('google', 'google.npz', model, variables),
        ('seed', 'seed.pt', seeds, own),
        ('huggingface', 'huggingface', model, variables),
    ):
        vit_jax.save_weights(folder / name, one, its, format)
        paths.append(folder / name)

    class Evil:
        def __reduce__(self) -> Any:
            return open, (str(sentinel), 'w')

    (folder / 'evil.pt').write_bytes(pickle.dumps({'cls_token': Evil()}))
    return [*paths, folder / 'evil.pt']


if __name__ == '__main__':
    main()
