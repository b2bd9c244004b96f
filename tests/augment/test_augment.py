import colorsys
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from PIL import Image, ImageEnhance
from test_crop import is_middle, torchvision_crop
from test_operations import by_pillow, picture, pillow, pixels
from test_policies import FACTORS, randaugment_values, table_7, trivialaugment_values

import vit_jax.augment
from vit_jax.augment.augment import augment
from vit_jax.errors import InputError
from vit_jax.parallel.parallel import create_parallel

LEAST_P = 1e-5  # of a statistical test; the draws are fixed
OFF = dict(
    num_classes=4,
    random_resized_crop=0.0,
    pad_and_crop=0,
    horizontal_flip=False,
    color_jitter=(0.0, 0.0, 0.0, 0.0),
    policy='none',
    num_ops=2,
    magnitude=10.0,
    erasing_prob=0.0,
    mixup_alpha=0.0,
    cutmix_alpha=0.0,
    mix_prob=1.0,
    mix_switch_prob=0.5,
    label_smoothing=0.0,
)
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


@functools.cache
def compiled(**options):
    return jax.jit(functools.partial(augment, **OFF | options))


def run(images, labels=None, seed=0, **options):
    labels = jnp.zeros(len(images), int) if labels is None else jnp.asarray(labels)
    keys = jax.random.split(jax.random.key(seed), len(images))
    images, targets = compiled(**options)(jnp.asarray(images), labels, keys)
    return np.asarray(images), np.asarray(targets)


def copies(image, count):
    return np.broadcast_to(image, (count, *image.shape))


def pictures(count, size=5, channels=2):
    return np.random.default_rng(0).integers(1, 256, (count, size, size, channels), np.uint8)


def assert_uniform(values, low, high):
    distribution = scipy.stats.uniform(low, high - low)
    assert scipy.stats.kstest(values, distribution.cdf).pvalue > LEAST_P
    edge = 12 / len(values) * (high - low)  # where none is once in e ** 12
    assert values.min() < low + edge and values.max() > high - edge


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
        got, _ = compiled(**options)(jnp.asarray(share), labels, share_keys)
        np.testing.assert_array_equal(got, expected)


# Random-resized-crop; which part is chosen is shown in tests/test_crop.py.

BOXES = [(0, 0, 48, 64), (0, 0, 1, 1), (47, 63, 1, 1), (10, 20, 7, 33), (24, 32, 24, 32)]
BOXES += [(0, 5, 48, 20), (30, 0, 3, 64), (13, 17, 31, 41), (1, 1, 46, 62), (40, 0, 8, 5)]


@pytest.fixture
def crop_boxes(monkeypatch):
    """(image, boxes) → the image's parts, resized."""

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(None, 0))
    def crop(image, box):
        monkeypatch.setattr(vit_jax.augment, 'choose_crop', lambda *_: box)
        keys = jax.random.split(jax.random.key(0), 1)
        options = OFF | dict(random_resized_crop=0.5)
        return augment(image[None], jnp.zeros(1, int), keys, **options)[0][0]

    return crop


@pytest.mark.parametrize('name', ['photo', 'noise'])
def test_crops_are_resized_as_pillow_does(crop_boxes, name):
    """To a level: Pillow rounds between rows and columns."""
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
    """In float64, by its definition: between the middles of pixels, and the last one beyond."""
    height, width, _ = image.shape
    y = top + (np.arange(height) + 0.5) * h / height - 0.5
    x = left + (np.arange(width) + 0.5) * w / width - 0.5
    hats = [
        np.maximum(1 - abs(np.clip(at, 0, side - 1)[:, None] - np.arange(side)), 0)
        for at, side in ((y, height), (x, width))
    ]
    return np.einsum('ij,kl,jlc->ikc', *hats, image.astype(float))


def test_parts_are_those_of_torchvisions_random_resized_crop():
    """Read off a picture of which one channel tells the column and the other the row."""
    y, x = np.mgrid[:48, :64]
    ramps = np.stack([5 * y, 4 * x], axis=-1).astype(np.uint8)
    augmented, _ = run(copies(ramps, 1500), random_resized_crop=0.2)
    rows, columns = augmented[:, 4:44, 32, 0] / 5, augmented[:, 24, 4:60, 1] / 4
    got = []
    for values, side in ((rows, 48), (columns, 64)):
        middles = (np.arange(4, side - 4) + 0.5) / side
        slope, start = np.polyfit(middles, values.T, 1)
        assert abs(slope - np.round(slope)).max() < 0.3
        got += [start + 0.5, slope]
    top, h, left, w = np.round(got)
    rng = np.random.default_rng(0)
    expected = np.array([torchvision_crop(rng, 48, 64, 0.2) for _ in range(5000)]).T

    def features(top, left, h, w):
        drawn = ~is_middle(h, w, 48, 64)
        return h, w, h * w, h / w, top[drawn], left[drawn], (top + left)[drawn]

    for ours, theirs in zip(features(top, left, h, w), features(*expected), strict=True):
        assert scipy.stats.ks_2samp(ours, theirs).pvalue > LEAST_P


# Colour jitter. What a key draws does not depend on which of the four are on.

JITTER = (0.4, 0.7, 0.9, 0.2)
ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


def jittered(image, count, *on):
    """By one or more of the four."""
    options = tuple(amount if i in on else 0.0 for i, amount in enumerate(JITTER))
    return run(copies(image, count), color_jitter=options)[0]


@functools.cache
def factors(i, count=600):
    """What each example was multiplied by, where there is a factor that Pillow makes it of."""
    image = picture('noise')[:24, :32]
    other = pixels(ENHANCERS[i](pillow(image)).degenerate).astype(float)
    distance = image - other
    pixel = distance != 0
    found = []
    for got in jittered(image, count, i).astype(float):
        # Cut off to a whole number: other + factor * distance is from `got` to less than 1 more.
        low = np.where(got > 0, got, -np.inf)[pixel] - other[pixel]
        high = np.where(got < 255, got + 1, np.inf)[pixel] - other[pixel]
        bounds = np.sort([low / distance[pixel], high / distance[pixel]], axis=0)
        low, high = bounds[0].max(), bounds[1].min()
        assert low < high + 1e-6 and high - low < 1e-2
        found.append((low + high) / 2)
    return np.array(found)


def hues(colours):
    return np.array([colorsys.rgb_to_hsv(*colour)[0] for colour in colours / 255])


@functools.cache
def turns(count=600):
    """How far each example's hues were turned."""
    image = picture('noise')[:24, :32]
    saturated = (image.max(axis=-1) > 220) & (image.min(axis=-1) < 30)
    assert saturated.sum() > 30
    before = hues(image[saturated])
    after = np.array([hues(x[saturated]) for x in jittered(image, count, 3)])
    difference = (after - before + 0.5) % 1 - 0.5
    assert difference.std(axis=1).max() < 2e-3
    return difference.mean(axis=1)


def turned(image, turn):
    """In float64, pixel by pixel."""
    return 255 * np.array(
        [
            colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)
            for hue, saturation, value in (
                colorsys.rgb_to_hsv(*colour) for colour in image.reshape(-1, 3) / 255
            )
        ]
    ).reshape(image.shape)


@pytest.mark.parametrize('i', range(3))
def test_brightness_contrast_and_saturation_are_pillows_by_uniform_factors(i):
    assert_uniform(factors(i), 1 - JITTER[i], 1 + JITTER[i])


def test_hues_are_turned_by_uniform_angles():
    assert_uniform(turns(), -JITTER[3], JITTER[3])


def test_the_hue_alone_changes():
    image = picture('photo')[16:40, :32]
    for got, turn in zip(jittered(image, 600, 3)[:8], turns(), strict=False):
        exact = turned(image, turn)
        assert abs(got - exact).max() < 0.5 + 0.1  # rounded, and the turn is not known exactly


def test_the_four_are_drawn_independently():
    draws = [*map(factors, range(3)), turns()]
    for one, other in itertools.combinations(draws, 2):
        assert scipy.stats.spearmanr(one, other).pvalue > LEAST_P


def test_all_of_the_jitter_is_one_after_the_other():
    image = picture('photo')[16:40, :32]
    for got, *amounts, turn in zip(
        jittered(image, 600, 0, 1, 2, 3)[:20], *map(factors, range(3)), turns(), strict=False
    ):
        expected = pillow(image)
        for enhancer, factor in zip(ENHANCERS, amounts, strict=True):
            expected = enhancer(expected).enhance(factor)
        difference = abs(got - turned(pixels(expected), turn))
        # Rounded to a level, and the factors are not known exactly.
        assert difference.max() < 2.5 and difference.mean() < 0.15


def test_grey_has_no_saturation_and_no_hue():
    image = picture('photo, grey')[:6, :8]
    augmented, _ = run(copies(image, 20), color_jitter=(0.0, 0.0, 1.0, 0.5))
    np.testing.assert_array_equal(augmented, copies(image, 20))


# The policies; what they draw is shown in tests/test_policies.py.


def outcomes(policy, image):
    """All that may become of an image, by Pillow."""

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
def test_policies_make_of_an_image_what_pillow_makes_of_it(policy):
    image = 40 + picture('noise')[:24, :32] // 2
    augmented, _ = run(copies(image, 500), policy=policy, num_ops=1, magnitude=9.0)
    known = np.unique(np.stack(list(outcomes(policy, image))), axis=0).astype(np.int16)
    seen = set()
    for got in augmented if policy == 'randaugment' else augmented[:100]:
        # Another level where a rounding is open, and another pixel on the border of two.
        differs = (abs(known - got) > 1).any(axis=-1).mean(axis=(1, 2))
        assert differs.min() < 0.02
        seen.add(differs.argmin())
    if policy == 'randaugment':
        assert len(seen) == len(known) == 14 + 9
    else:
        assert len(seen) > 30


# Random erasing.


@functools.cache
def erased():
    """Which pixels were replaced [count, h, w], and what is there now."""
    image = picture('photo')[16:40, :32]
    augmented, _ = run(copies(image, 5000), erasing_prob=0.9)
    opposite, _ = run(copies(255 - image, 5000), erasing_prob=0.9)
    same = augmented == opposite  # noise, which is drawn by the same keys
    assert (same.all(axis=-1) == same.any(axis=-1)).all()
    return same[..., 0], augmented


def test_images_are_erased_by_their_probability_and_untouched_outside():
    area, augmented = erased()
    hits = area.any(axis=(1, 2))
    assert scipy.stats.binomtest(int(hits.sum()), len(hits), 0.9).pvalue > LEAST_P
    outside = ~area[..., None]
    np.testing.assert_array_equal(augmented * outside, picture('photo')[16:40, :32] * outside)


def test_what_is_erased_is_a_rectangle_of_the_papers_size_anywhere():
    """2 % to a third of the area, the logarithm of the aspect uniform from 1/3.3 to 3.3."""
    area, _ = erased()
    area = area[area.any(axis=(1, 2))]
    (top, h), (left, w) = ((x.argmax(axis=1), x.sum(axis=1)) for x in (area.any(2), area.any(1)))
    np.testing.assert_array_equal(area.sum(axis=(1, 2)), h * w)
    rng = np.random.default_rng(0)
    sizes, aspects = rng.uniform(0.02, 1 / 3, 20_000) * 24 * 32, 3.3 ** rng.uniform(-1, 1, 20_000)
    expected_h = np.minimum(np.round(np.sqrt(sizes * aspects)), 24)
    expected_w = np.minimum(np.round(np.sqrt(sizes / aspects)), 32)

    def features(h, w):
        return h, w, h * w, h / w

    for ours, theirs in zip(features(h, w), features(expected_h, expected_w), strict=True):
        assert scipy.stats.ks_2samp(ours, theirs).pvalue > LEAST_P
    small = h * w < 0.2 * 24 * 32  # of no aspect do these reach beyond the image
    assert scipy.stats.spearmanr((h * w)[small], (h / w)[small]).pvalue > LEAST_P
    spread = rng.uniform(size=(2, len(top)))  # a pixel's probability, over the pixel
    assert_uniform((top + spread[0]) / (24 - h + 1), 0, 1)
    assert_uniform((left + spread[1]) / (32 - w + 1), 0, 1)


def test_noise_is_uniform_in_every_channel():
    area, augmented = erased()
    noise = augmented[area].astype(int)
    for channel in noise.T:
        assert scipy.stats.chisquare(np.bincount(channel, minlength=256)).pvalue > LEAST_P
    for one, other in ((0, 1), (0, 2), (1, 2)):
        pairs = np.bincount(noise[:, one] // 16 * 16 + noise[:, other] // 16, minlength=256)
        assert scipy.stats.chisquare(pairs).pvalue > LEAST_P


# Mixing; how is shown in tests/test_mix.py.


def test_images_are_mixed_after_the_rest_and_targets_with_them():
    images, labels = pictures(16, size=9, channels=3), np.arange(16)
    options = dict(num_classes=16, horizontal_flip=True, pad_and_crop=2)
    apart, _ = run(images, labels, **options)
    assert (apart != images).any(axis=(1, 2, 3)).sum() > 10
    mixing = dict(mixup_alpha=1.0, mix_prob=0.8, label_smoothing=0.2)
    mixed, targets = run(images, labels, **options, **mixing)
    np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-6)
    weights = (targets.diagonal() - 0.2 / 16) / 0.8
    mixture = weights * np.eye(16) + (1 - weights) * np.roll(np.eye(16), 1, axis=0)
    np.testing.assert_allclose(targets.T, 0.8 * mixture + 0.2 / 16, atol=1e-6)
    weights = weights[:, None, None, None].astype(float)
    exact = weights * apart + (1 - weights) * np.roll(apart, -1, axis=0)
    assert abs(mixed - exact).max() < 0.5 + 1e-3  # rounded
    assert 0 < (weights > 1 - 1e-6).sum() < 10


# All at once.

BATCH = 16


@functools.cache
def batch():
    photo = picture('photo')
    corners = np.random.default_rng(0).integers(0, (48 - 20, 64 - 24), (BATCH, 2))
    images = np.stack([photo[y : y + 20, x : x + 24] for y, x in corners])
    return images, np.arange(BATCH) % 10, jax.random.split(jax.random.key(3), BATCH)


def everything(images, labels, keys):
    return tuple(np.asarray(x) for x in compiled(**ALL)(images, jnp.asarray(labels), keys))


def test_everything_is_identical_on_eight_devices():
    images, labels, keys = batch()
    expected = everything(images, labels, keys)
    assert (expected[0] != images).any(axis=(1, 2, 3)).all()

    parallel = create_parallel('jit', BATCH)
    step = jax.jit(functools.partial(augment, **ALL), out_shardings=parallel.split)
    arrays = parallel.put_batch((images, labels))
    sharded = step(*arrays, jax.device_put(keys, parallel.split))
    assert len(sharded[0].sharding.device_set) == 8

    parallel = create_parallel('pmap', BATCH)
    step = jax.pmap(functools.partial(augment, **ALL, axis_name='data'), axis_name='data')
    mapped = step(*parallel.put_batch((images, labels)), keys.reshape(8, -1))

    for got in (sharded, mapped):
        for one, other in zip(got, expected, strict=True):
            one = np.asarray(one).reshape(other.shape)
            assert one.dtype == other.dtype and one.tobytes() == other.tobytes()


def test_an_example_depends_on_its_own_key_and_its_neighbours_alone():
    images, labels, keys = batch()
    expected = everything(images, labels, keys)
    moved = everything(*(np.roll(x, 5, axis=0) for x in (images, labels)), jnp.roll(keys, 5))
    for one, other in zip(moved, expected, strict=True):
        np.testing.assert_array_equal(one, np.roll(other, 5, axis=0))
    # The second half is replaced, keys and all: what is mixed within the first half stays.
    half = BATCH // 2
    others = jax.random.split(jax.random.key(4), half)
    replaced = everything(
        np.concatenate([images[:half], 255 - images[half:]]),
        np.concatenate([labels[:half], (labels[half:] + 1) % 10]),
        jnp.concatenate([keys[:half], others]),
    )
    for one, other in zip(replaced, expected, strict=True):
        np.testing.assert_array_equal(one[: half - 1], other[: half - 1])
        assert (one[half:] != other[half:]).any()


def test_another_key_is_another_augmentation():
    images, labels, keys = batch()
    one = everything(images, labels, keys)[0]
    other = everything(images, labels, jax.random.split(jax.random.key(4), BATCH))[0]
    assert (one != other).any(axis=(1, 2, 3)).all()
    equal = everything(copies(images[0], BATCH), labels, keys)[0]
    assert len(np.unique(equal, axis=0)) == BATCH


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(policy='augmix'), "augment.policy: expected one of none, .*, got 'augmix'"),
        (dict(color_jitter=(0.1, 0.1, 1.1, 0.0)), r'expected \(brightness, .*1\.1'),
        (dict(color_jitter=(0.1, 0.1, 0.1, 0.6)), 'the hue to 0.5'),
        (dict(color_jitter=(-0.1, 0.1, 0.1, 0.1)), 'augment.color_jitter'),
    ],
)
def test_options_out_of_range_are_told(options, message):
    with pytest.raises(InputError, match=message):
        run(pictures(1), **options)
