"""What the policies choose, read off a tape.

`apply_operation` is replaced by a function that writes the operation and its value into the image.
What the operations do is tested in tests/augment/test_operations.py.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from PIL import Image, ImageOps
from references.policies import FACTORS, randaugment_values, table_7, trivialaugment_values

from vit_jax.augment import policies
from vit_jax.augment.operations import OPERATIONS

MIN_P = 1e-5  # for a statistical test to pass; the draws are fixed


HEIGHT, WIDTH = 8, 5  # of the tape


RANDAUGMENT = randaugment_values(HEIGHT, WIDTH)


TRIVIALAUGMENT = trivialaugment_values(HEIGHT, WIDTH)


def write_on_tape(image, operation, value):
    number = jax.lax.bitcast_convert_type(value, jnp.uint8)  # float32 as four bytes
    row = jnp.concatenate([operation.astype(jnp.uint8)[None], number])
    return jnp.concatenate([row[None, :, None], image[:-1]])


@pytest.fixture
def chosen(monkeypatch):
    """(policy, count, steps) → operations and values of `count` draws, [count, steps]."""
    monkeypatch.setattr(policies, 'apply_operation', write_on_tape)

    def chosen(policy, count, steps, seed=0):
        keys = jax.random.split(jax.random.key(seed), count)
        tape = jnp.full((HEIGHT, WIDTH, 1), 255, jnp.uint8)
        tapes = np.asarray(jax.jit(jax.vmap(partial(policy, tape)))(keys))
        assert (tapes[:, :steps, 0] < len(OPERATIONS)).all() and (tapes[:, steps:] == 255).all()
        rows = np.ascontiguousarray(tapes[:, :steps, :, 0][:, ::-1])
        values = np.ascontiguousarray(rows[..., 1:]).view(np.float32)[..., 0]
        return np.array(OPERATIONS)[rows[..., 0]], values

    return chosen


def assert_equally_often(*choices, of):
    """The choices take `of` combinations, all equally often."""
    _, counts = np.unique(np.stack(choices, axis=-1), axis=0, return_counts=True)
    assert len(counts) == of
    assert scipy.stats.chisquare(counts).pvalue > MIN_P


def changes(operations, values):
    """The values, those of factors as their difference from 1."""
    return values - np.isin(operations, FACTORS)


@pytest.mark.parametrize('magnitude', [10.0, 9.0, 3.5])
def test_randaugment_draws_14_operations_equally_often_at_its_magnitude(chosen, magnitude):
    randaugment = partial(policies.randaugment, num_ops=2, magnitude=magnitude)
    operations, values = chosen(randaugment, 20_000, 2)
    assert set(operations.ravel()) == set(RANDAUGMENT)
    assert_equally_often(*operations.T, of=14 * 14)  # and independently of each other
    for operation, (signed, value) in RANDAUGMENT.items():
        got = changes(operation, values[operations == operation])
        np.testing.assert_allclose(abs(got), value(magnitude / 10), rtol=1e-5, atol=1e-5)
        if signed:
            assert_equally_often(got > 0, of=2)


@pytest.mark.parametrize('num_ops', [0, 1, 3, 5])
def test_randaugment_applies_num_ops_operations(chosen, num_ops):
    operations, _ = chosen(
        partial(policies.randaugment, num_ops=num_ops, magnitude=5.0), 50, num_ops
    )
    assert operations.shape == (50, num_ops)


def test_signs_are_independent(chosen):
    randaugment = partial(policies.randaugment, num_ops=2, magnitude=10.0)
    operations, values = chosen(randaugment, 20_000, 2, seed=1)
    signed = np.isin(operations, [x for x, (signed, _) in RANDAUGMENT.items() if signed])
    positive = changes(operations, values)[signed.all(axis=1)] > 0
    assert_equally_often(*positive.T, of=4)


def test_trivialaugment_draws_operations_and_31_levels_equally_often(chosen):
    operations, values = (x[:, 0] for x in chosen(policies.trivialaugment, 40_000, 1))
    assert set(operations) == set(TRIVIALAUGMENT)
    assert_equally_often(operations, of=14)
    with_values = ~np.isin(operations, ['identity', 'autocontrast', 'equalize'])
    levels = np.zeros(len(operations), int)
    for operation, (signed, value) in TRIVIALAUGMENT.items():
        of_operation = operations == operation
        got = changes(operation, values[of_operation])
        grid = np.array([value(level / 30) for level in range(31)], float)
        level = abs(abs(got)[:, None] - grid).argmin(axis=1)
        np.testing.assert_allclose(abs(got), grid[level], rtol=1e-5, atol=2e-5)
        levels[of_operation] = level
        if signed:
            assert_equally_often(got[level > 0] > 0, of=2)
    assert_equally_often(levels[with_values], of=31)
    assert_equally_often(operations[with_values], levels[with_values], of=11 * 31)


def test_autoaugment_follows_table_7(chosen):
    """Each pair equally often, each operation with its own probability and value."""
    probabilities = {}
    for pair in table_7():
        for uses in np.ndindex(2, 2):
            outcome, probability = [], 1 / 25
            for (name, share, level), use in zip(pair, uses, strict=True):
                probability *= share if use else 1 - share
                value = RANDAUGMENT.get(name, RANDAUGMENT['identity'])[1](level / 9)
                outcome += [name, round(value, 3)] if use else ['identity', 0]
            probabilities[tuple(outcome)] = probabilities.get(tuple(outcome), 0) + probability
    probabilities = {outcome: p for outcome, p in probabilities.items() if p}
    assert sum(probabilities.values()) == pytest.approx(1)

    operations, values = chosen(policies.autoaugment, 400_000, 2)
    places = np.searchsorted(sorted(OPERATIONS), operations)
    strengths = np.round(1000 * abs(changes(operations, values).astype(float))).astype(int)
    drawn = np.stack([places, strengths], axis=-1).reshape(-1, 4)
    drawn, counts = np.unique(drawn, axis=0, return_counts=True)
    got = {
        (sorted(OPERATIONS)[i], a / 1000, sorted(OPERATIONS)[j], b / 1000): count
        for (i, a, j, b), count in zip(drawn.tolist(), counts, strict=True)
    }
    assert got.keys() == probabilities.keys()
    expected = [400_000 * probabilities[outcome] for outcome in got]
    assert min(expected) > 5
    assert scipy.stats.chisquare(list(got.values()), expected).pvalue > MIN_P


def test_autoaugment_values_have_random_signs(chosen):
    operations, values = chosen(policies.autoaugment, 20_000, 2)
    for operation in set(operations.ravel()) - {'identity'}:
        got = changes(operation, values[operations == operation])
        if RANDAUGMENT.get(operation, [False])[0]:
            assert_equally_often(got[got != 0] > 0, of=2)
        else:
            assert (got >= 0).all()


def test_at_magnitude_0_only_autocontrast_and_equalize_change_an_image():
    # Autocontrast stretches these to 0 … 255 by a whole number, so no rounding matters.
    image = np.random.default_rng(0).integers(60, 60 + 51 + 1, (40, 50, 3), np.uint8)
    keys = jax.random.split(jax.random.key(0), 1400)
    randaugment = partial(policies.randaugment, jnp.asarray(image), num_ops=1, magnitude=0.0)
    results = [x.tobytes() for x in np.asarray(jax.jit(jax.vmap(randaugment))(keys))]
    picture = Image.fromarray(image)
    versions = picture, ImageOps.autocontrast(picture), ImageOps.equalize(picture)
    counts = [results.count(version.tobytes()) for version in versions]
    assert scipy.stats.chisquare(counts, [1200, 100, 100]).pvalue > MIN_P


def test_threeaugment_is_grey_solarised_or_blurred_equally_often(monkeypatch):
    def write_on_tape(image, sigma):
        return image.at[0, :, 0].set(jax.lax.bitcast_convert_type(sigma, jnp.uint8))

    monkeypatch.setattr(policies, 'gaussian_blur', write_on_tape)
    image = np.random.default_rng(0).integers(0, 256, (2, 4, 1), np.uint8)
    keys = jax.random.split(jax.random.key(0), 9000)
    drawn = np.asarray(jax.jit(jax.vmap(partial(policies.threeaugment, jnp.asarray(image))))(keys))
    solarized = np.asarray(ImageOps.solarize(Image.fromarray(image[..., 0])))[..., None]
    is_grey = (drawn == image).all(axis=(1, 2, 3))
    is_solarized = (drawn == solarized).all(axis=(1, 2, 3))
    blurred = drawn[~is_grey & ~is_solarized]
    assert scipy.stats.chisquare([is_grey.sum(), is_solarized.sum(), len(blurred)]).pvalue > MIN_P
    sigmas = np.ascontiguousarray(blurred[:, 0, :, 0]).view(np.float32)[:, 0]
    assert scipy.stats.kstest(sigmas, scipy.stats.uniform(0.1, 1.9).cdf).pvalue > MIN_P


def test_threeaugment_takes_the_colours_away_as_pillow_does():
    image = np.random.default_rng(0).integers(0, 256, (6, 7, 3), np.uint8)
    keys = jax.random.split(jax.random.key(0), 50)
    drawn = jax.jit(jax.vmap(partial(policies.threeaugment, jnp.asarray(image))))(keys)
    results = {x.tobytes() for x in np.asarray(drawn)}
    picture = Image.fromarray(image)
    assert picture.convert('L').convert('RGB').tobytes() in results
    assert ImageOps.solarize(picture).tobytes() in results
