import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.augment import augment

OFF = dict(num_classes=4, horizontal_flip=False, pad_and_crop=0, label_smoothing=0.0)


def run(images, labels=None, seed=0, **options):
    labels = jnp.zeros(len(images), int) if labels is None else jnp.asarray(labels)
    keys = jax.random.split(jax.random.key(seed), len(images))
    images, targets = augment(jnp.asarray(images), labels, keys, **OFF | options)
    return np.asarray(images), np.asarray(targets)


def pictures(count, size=5, channels=2):
    return np.random.default_rng(0).integers(1, 256, (count, size, size, channels), np.uint8)


def test_nothing_is_done_unless_asked_for():
    images = pictures(3)
    augmented, targets = run(images, np.array([0, 3, 1]))
    np.testing.assert_array_equal(augmented, images)
    np.testing.assert_array_equal(targets, np.eye(4)[[0, 3, 1]])


def test_half_of_the_images_are_mirrored():
    image = pictures(1)
    augmented, _ = run(np.repeat(image, 400, axis=0), horizontal_flip=True)
    mirrored = (augmented == image[:, :, ::-1]).all(axis=(1, 2, 3))
    plain = (augmented == image).all(axis=(1, 2, 3))
    assert (mirrored ^ plain).all()
    assert 150 < mirrored.sum() < 250  # 5 standard deviations


def test_crops_are_windows_of_the_padded_image_and_each_as_likely():
    image = pictures(1)
    padded = np.pad(image[0], ((1, 1), (1, 1), (0, 0)))
    windows = [padded[y : y + 5, x : x + 5].tobytes() for y in range(3) for x in range(3)]
    augmented, _ = run(np.repeat(image, 900, axis=0), pad_and_crop=1)
    counts = np.bincount([windows.index(image.tobytes()) for image in augmented], minlength=9)
    assert counts.sum() == 900 and counts.min() > 50 and counts.max() < 150  # 5 standard deviations


def test_label_smoothing_is_the_formula():
    _, targets = run(pictures(2), np.array([0, 3]), label_smoothing=0.1)
    np.testing.assert_allclose(targets, 0.9 * np.eye(4)[[0, 3]] + 0.1 / 4, rtol=1e-6)


@pytest.mark.parametrize('devices', [1, 2, 4])
def test_an_example_is_augmented_the_same_in_any_share_of_the_batch(devices):
    images, options = pictures(8), dict(horizontal_flip=True, pad_and_crop=1)
    whole, _ = run(images, **options)
    keys = jax.random.split(jax.random.key(0), 8)
    for share, share_keys, expected in zip(
        np.split(images, devices), np.split(keys, devices), np.split(whole, devices), strict=True
    ):
        labels = jnp.zeros(len(share), int)
        got, _ = augment(jnp.asarray(share), labels, share_keys, **OFF | options)
        np.testing.assert_array_equal(got, expected)
