import functools

import numpy as np
import scipy.stats
from augmenting import MIN_P, assert_uniform, copies, run
from references.pillow import picture


@functools.cache
def erased():
    """Which pixels were erased [count, h, w], and the augmented images."""
    image = picture('photo')[16:40, :32]
    augmented, _ = run(copies(image, 5000), erasing_prob=0.9)
    opposite, _ = run(copies(255 - image, 5000), erasing_prob=0.9)
    same = augmented == opposite  # the noise: both runs use the same keys
    assert (same.all(axis=-1) == same.any(axis=-1)).all()
    return same[..., 0], augmented


def test_images_are_erased_with_their_probability_and_unchanged_outside():
    area, augmented = erased()
    hits = area.any(axis=(1, 2))
    assert scipy.stats.binomtest(int(hits.sum()), len(hits), 0.9).pvalue > MIN_P
    outside = ~area[..., None]
    np.testing.assert_array_equal(augmented * outside, picture('photo')[16:40, :32] * outside)


def test_erased_rectangles_have_the_papers_sizes_and_uniform_positions():
    """2 % to a third of the area; the log aspect ratio is uniform between 1/3.3 and 3.3."""
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
        assert scipy.stats.ks_2samp(ours, theirs).pvalue > MIN_P
    small = h * w < 0.2 * 24 * 32  # these fit into the image at any aspect ratio
    assert scipy.stats.spearmanr((h * w)[small], (h / w)[small]).pvalue > MIN_P
    spread = rng.uniform(size=(2, len(top)))  # spreads a pixel's probability over the pixel
    assert_uniform((top + spread[0]) / (24 - h + 1), 0, 1)
    assert_uniform((left + spread[1]) / (32 - w + 1), 0, 1)


def test_noise_is_uniform_and_independent_across_channels():
    area, augmented = erased()
    noise = augmented[area].astype(int)
    for channel in noise.T:
        assert scipy.stats.chisquare(np.bincount(channel, minlength=256)).pvalue > MIN_P
    for one, other in ((0, 1), (0, 2), (1, 2)):
        pairs = np.bincount(noise[:, one] // 16 * 16 + noise[:, other] // 16, minlength=256)
        assert scipy.stats.chisquare(pairs).pvalue > MIN_P
