"""Pictures that several tests write, and a config small enough to train on them."""

import io
import struct
import zlib

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

from configs import default

NUM_EXAMPLES = 21


def write_photographs(root):
    """Parts of two photographs in three classes, in several formats and sizes."""
    rng = np.random.default_rng(0)
    photographs = [load_sample_image(name) for name in ('china.jpg', 'flower.jpg')]
    for i in range(NUM_EXAMPLES + 6):
        height, width = rng.integers(60, 200, 2)
        top, left = rng.integers(0, 200, 2)
        part = photographs[i % 2][top : top + height, left : left + width]
        split = 'train' if i < NUM_EXAMPLES else 'test'
        path = root / split / 'abc'[i % 3] / f'{i:02}.{("jpg", "png", "jpg", "webp")[i % 4]}'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(part).convert('L' if i == 5 else 'RGB').save(path)


def encode(image, format='jpeg', **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def png_header(width, height):
    """The start of a PNG that claims this size."""
    header = b'IHDR' + struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack('>I', 13) + header + struct.pack('>I', zlib.crc32(header))
    return b'\x89PNG\r\n\x1a\n' + chunk


def small_config(folder, **settings):
    """The default config for a streamed folder, small enough to train in a test."""
    config = default.get_config()
    config.data.source = f'folder:{folder}'
    config.data.memory_gib = 0.0
    config.data.image_size = 16
    config.batch_size = 8
    config.num_steps = 6
    config.log_every_steps = 2
    config.eval_every_steps = config.checkpoint_every_steps = 3
    config.optim.warmup_steps = 2
    config.model.dim, config.model.depth, config.model.heads, config.model.mlp_dim = 16, 1, 2, 16
    config.model.dim_head, config.model.patch_size = 8, 8
    config.augment.random_resized_crop = 0.3
    config.update_from_flattened_dict(settings)
    return config
