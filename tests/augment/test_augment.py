import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from augmenting import compiled, copies, pictures, run
from references.pillow import by_pillow, picture
from references.policies import FACTORS, randaugment_values, table_7, trivialaugment_values

from vit_jax.augment.augment import augment
from vit_jax.errors import InputError
from vit_jax.parallel.parallel import create_parallel

ALL = dict(
    num_classes=10,
    random_resized_crop=0.3,
    pad_and_crop=2,
    horizontal_flip=True,
    color_jitter=(0.4, 0.4, 0.4, 0.1),
    policy='trivialaugment',
    num_ops=2,
    magnitude=9.0,
    erasing_prob=0.4,
    mixup_alpha=0.8,
    cutmix_alpha=1.0,
    mix_prob=0.9,
    mix_switch_prob=0.5,
    label_smoothing=0.1,
)


def test_images_are_unchanged_if_everything_is_off():
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


def test_crops_are_equally_likely_windows_of_the_padded_image():
    image = pictures(1)
    padded = np.pad(image[0], ((1, 1), (1, 1), (0, 0)))
    windows = [padded[y : y + 5, x : x + 5].tobytes() for y in range(3) for x in range(3)]
    augmented, _ = run(np.repeat(image, 900, axis=0), pad_and_crop=1)
    counts = np.bincount([windows.index(image.tobytes()) for image in augmented], minlength=9)
    assert counts.sum() == 900 and counts.min() > 50 and counts.max() < 150  # 5 standard deviations


def test_label_smoothing_follows_its_formula():
    _, targets = run(pictures(2), np.array([0, 3]), label_smoothing=0.1)
    np.testing.assert_allclose(targets, 0.9 * np.eye(4)[[0, 3]] + 0.1 / 4, rtol=1e-6)


@pytest.mark.parametrize('devices', [1, 2, 4])
def test_examples_are_augmented_the_same_in_any_shard_of_the_batch(devices):
    images, options = pictures(8), dict(horizontal_flip=True, pad_and_crop=1)
    whole, _ = run(images, **options)
    keys = jax.random.split(jax.random.key(0), 8)
    for shard, shard_keys, expected in zip(
        np.split(images, devices), np.split(keys, devices), np.split(whole, devices), strict=True
    ):
        labels = jnp.zeros(len(shard), int)
        got, _ = compiled(**options)(jnp.asarray(shard), labels, shard_keys)
        np.testing.assert_array_equal(got, expected)


def outcomes(policy, image):
    """Every result that a policy may give, computed by Pillow."""

    def outcome(image, name, strength, sign, values):
        value = values.get(name, [False, lambda s: 0])[1](strength)
        value = round(value) if name == 'posterize' else value
        return by_pillow(image, name, sign * value + (name in FACTORS))

    height, width, _ = image.shape
    values = randaugment_values(height, width)
    signs = lambda name: (-1, 1) if values.get(name, [False])[0] else (1,)  # noqa: E731
    if policy == 'randaugment':
        for name in values:
            for sign in signs(name):
                yield outcome(image, name, 0.9, sign, values)
    if policy == 'trivialaugment':
        values = trivialaugment_values(height, width)
        for name in values:
            for sign, level in itertools.product(signs(name), range(31)):
                yield outcome(image, name, level / 30, sign, values)
    if policy == 'autoaugment':
        for pair in table_7():
            steps = [
                [('identity', 0, 1), *((name, level / 9, sign) for sign in signs(name))]
                for name, _, level in pair
            ]
            for first, second in itertools.product(*steps):
                yield outcome(outcome(image, *first, values), *second, values)


@pytest.mark.parametrize('policy', ['randaugment', 'trivialaugment', 'autoaugment'])
def test_policies_equal_pillow(policy):
    image = 40 + picture('noise')[:24, :32] // 2
    augmented, _ = run(copies(image, 500), policy=policy, num_ops=1, magnitude=9.0)
    known = np.unique(np.stack(list(outcomes(policy, image))), axis=0).astype(np.int16)
    seen = set()
    for got in augmented if policy == 'randaugment' else augmented[:100]:
        # Pixels may differ by a level, where a rounding is a tie, or by a shift, on pixel borders.
        differs = (abs(known - got) > 1).any(axis=-1).mean(axis=(1, 2))
        assert differs.min() < 0.02
        seen.add(differs.argmin())
    if policy == 'randaugment':
        assert len(seen) == len(known) == 14 + 9
    else:
        assert len(seen) > 30


def test_images_and_targets_are_mixed_last():
    images, labels = pictures(16, size=9, channels=3), np.arange(16)
    options = dict(num_classes=16, horizontal_flip=True, pad_and_crop=2)
    unmixed, _ = run(images, labels, **options)
    assert (unmixed != images).any(axis=(1, 2, 3)).sum() > 10
    mixing = dict(mixup_alpha=1.0, mix_prob=0.8, label_smoothing=0.2)
    mixed, targets = run(images, labels, **options, **mixing)
    np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-6)
    weights = (targets.diagonal() - 0.2 / 16) / 0.8
    mixture = weights * np.eye(16) + (1 - weights) * np.roll(np.eye(16), 1, axis=0)
    np.testing.assert_allclose(targets.T, 0.8 * mixture + 0.2 / 16, atol=1e-6)
    weights = weights[:, None, None, None].astype(float)
    exact = weights * unmixed + (1 - weights) * np.roll(unmixed, -1, axis=0)
    assert abs(mixed - exact).max() < 0.5 + 1e-3  # rounded
    assert 0 < (weights > 1 - 1e-6).sum() < 10


BATCH = 16


@functools.cache
def batch():
    photo = picture('photo')
    corners = np.random.default_rng(0).integers(0, (48 - 20, 64 - 24), (BATCH, 2))
    images = np.stack([photo[y : y + 20, x : x + 24] for y, x in corners])
    return images, np.arange(BATCH) % 10, jax.random.split(jax.random.key(3), BATCH)


def augment_all(images, labels, keys):
    return tuple(np.asarray(x) for x in compiled(**ALL)(images, jnp.asarray(labels), keys))


def test_all_augmentation_is_identical_on_eight_devices():
    images, labels, keys = batch()
    expected = augment_all(images, labels, keys)
    assert (expected[0] != images).any(axis=(1, 2, 3)).all()

    parallel = create_parallel('jit', BATCH)
    step = jax.jit(functools.partial(augment, **ALL), out_shardings=parallel.sharded)
    arrays = parallel.put_batch((images, labels))
    sharded = step(*arrays, jax.device_put(keys, parallel.sharded))
    assert len(sharded[0].sharding.device_set) == 8

    parallel = create_parallel('pmap', BATCH)
    step = jax.pmap(functools.partial(augment, **ALL, axis_name='data'), axis_name='data')
    mapped = step(*parallel.put_batch((images, labels)), keys.reshape(8, -1))

    for got in (sharded, mapped):
        for one, other in zip(got, expected, strict=True):
            one = np.asarray(one).reshape(other.shape)
            assert one.dtype == other.dtype and one.tobytes() == other.tobytes()


def test_examples_depend_only_on_themselves_and_the_next():
    images, labels, keys = batch()
    expected = augment_all(images, labels, keys)
    moved = augment_all(*(np.roll(x, 5, axis=0) for x in (images, labels)), jnp.roll(keys, 5))
    for one, other in zip(moved, expected, strict=True):
        np.testing.assert_array_equal(one, np.roll(other, 5, axis=0))
    # Replacing the second half, keys included, does not change what is mixed within the first.
    half = BATCH // 2
    others = jax.random.split(jax.random.key(4), half)
    replaced = augment_all(
        np.concatenate([images[:half], 255 - images[half:]]),
        np.concatenate([labels[:half], (labels[half:] + 1) % 10]),
        jnp.concatenate([keys[:half], others]),
    )
    for one, other in zip(replaced, expected, strict=True):
        np.testing.assert_array_equal(one[: half - 1], other[: half - 1])
        assert (one[half:] != other[half:]).any()


def test_different_keys_augment_differently():
    images, labels, keys = batch()
    one = augment_all(images, labels, keys)[0]
    other = augment_all(images, labels, jax.random.split(jax.random.key(4), BATCH))[0]
    assert (one != other).any(axis=(1, 2, 3)).all()
    equal = augment_all(copies(images[0], BATCH), labels, keys)[0]
    assert len(np.unique(equal, axis=0)) == BATCH


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(policy='augmix'), "augment.policy: expected one of none, .*, got 'augmix'"),
        (dict(color_jitter=(0.1, 0.1, 1.1, 0.0)), r'expected \(brightness, .*1\.1'),
        (dict(color_jitter=(0.1, 0.1, 0.1, 0.6)), 'hue at most 0.5'),
        (dict(color_jitter=(-0.1, 0.1, 0.1, 0.1)), 'augment.color_jitter'),
    ],
)
def test_invalid_options_raise(options, message):
    with pytest.raises(InputError, match=message):
        run(pictures(1), **options)
