import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from augmenting import MIN_P, OFF, copies, run
from PIL import Image
from references.pillow import picture, pillow, pixels
from references.torchvision import is_central_crop, torchvision_crop

from vit_jax.augment.augment import augment

BOXES = [(0, 0, 48, 64), (0, 0, 1, 1), (47, 63, 1, 1), (10, 20, 7, 33), (24, 32, 24, 32)]
BOXES += [(0, 5, 48, 20), (30, 0, 3, 64), (13, 17, 31, 41), (1, 1, 46, 62), (40, 0, 8, 5)]


@pytest.fixture
def crop_boxes(monkeypatch):
    """(image, boxes) → the image's crops, resized."""

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(None, 0))
    def crop(image, box):
        monkeypatch.setattr('vit_jax.augment.augment.choose_crop', lambda *_: box)
        keys = jax.random.split(jax.random.key(0), 1)
        options = OFF | dict(random_resized_crop=0.5)
        return augment(image[None], jnp.zeros(1, int), keys, **options)[0][0]

    return crop


@pytest.mark.parametrize('name', ['photo', 'noise'])
def test_crops_are_resized_as_by_pillow(crop_boxes, name):
    """To within one level: Pillow rounds between rows and columns."""
    image = picture(name)
    exact = []
    for got, (top, left, h, w) in zip(crop_boxes(image, np.array(BOXES)), BOXES, strict=True):
        box = left, top, left + w, top + h
        expected = pillow(image).resize((64, 48), Image.Resampling.BILINEAR, box=box)
        difference = abs(np.asarray(got, int) - pixels(expected))
        assert difference.max() <= 1 and difference.mean() < 0.3
        exact.append(abs(np.asarray(got) - bilinear(image, top, left, h, w)).max())
    assert max(exact) < 0.5 + 1e-3


def bilinear(image, top, left, h, w):
    """In float64, by definition: interpolated between pixel centres, clamped at the edges."""
    height, width, _ = image.shape
    y = top + (np.arange(height) + 0.5) * h / height - 0.5
    x = left + (np.arange(width) + 0.5) * w / width - 0.5
    hats = [
        np.maximum(1 - abs(np.clip(at, 0, side - 1)[:, None] - np.arange(side)), 0)
        for at, side in ((y, height), (x, width))
    ]
    return np.einsum('ij,kl,jlc->ikc', *hats, image.astype(float))


def test_crops_are_distributed_as_in_torchvision():
    """Read off a picture with the row in one channel and the column in the other."""
    y, x = np.mgrid[:48, :64]
    ramps = np.stack([5 * y, 4 * x], axis=-1).astype(np.uint8)
    augmented, _ = run(copies(ramps, 1500), random_resized_crop=0.2)
    rows, columns = augmented[:, 4:44, 32, 0] / 5, augmented[:, 24, 4:60, 1] / 4
    got = []
    for values, side in ((rows, 48), (columns, 64)):
        centres = (np.arange(4, side - 4) + 0.5) / side
        slope, start = np.polyfit(centres, values.T, 1)
        assert abs(slope - np.round(slope)).max() < 0.3
        got += [start + 0.5, slope]
    top, h, left, w = np.round(got)
    rng = np.random.default_rng(0)
    expected = np.array([torchvision_crop(rng, 48, 64, 0.2) for _ in range(5000)]).T

    def features(top, left, h, w):
        drawn = ~is_central_crop(h, w, 48, 64)
        return h, w, h * w, h / w, top[drawn], left[drawn], (top + left)[drawn]

    for ours, theirs in zip(features(top, left, h, w), features(*expected), strict=True):
        assert scipy.stats.ks_2samp(ours, theirs).pvalue > MIN_P
