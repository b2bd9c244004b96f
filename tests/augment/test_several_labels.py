import numpy as np
from augmenting import run

LABELS = np.uint8([[1, 1, 0, 0], [0, 0, 0, 0], [0, 1, 1, 0], [1, 0, 1, 1]])
# Bright where the first class is present.
IMAGES = 200 * LABELS[:, :1, None, None] * np.ones((8, 8, 1), np.uint8)


def test_unmixed_targets_are_the_labels():
    np.testing.assert_array_equal(run(IMAGES, LABELS)[1], LABELS)


def test_targets_are_the_shares_of_the_image_that_have_each_class():
    mixed, targets = run(IMAGES, LABELS, cutmix_alpha=1.0)
    bright = mixed.mean((1, 2, 3)) / 200
    np.testing.assert_allclose(targets[:, 0], bright, atol=1e-6)
    assert ((bright > 0) & (bright < 1)).sum() >= 2
    own = bright[0]  # the second picture has no class
    np.testing.assert_allclose(targets[0], own * LABELS[0], atol=1e-6)


def test_smoothing_has_the_formula_of_single_labels():
    targets = run(IMAGES, LABELS, label_smoothing=0.2)[1]
    np.testing.assert_allclose(targets, 0.8 * LABELS + 0.2 / 4, atol=1e-6)
