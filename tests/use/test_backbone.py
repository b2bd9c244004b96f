"""Features for the classifier of a model, and models without one."""

import jax
import numpy as np
import pytest
from PIL import Image

import vit_jax
from vit_jax.__main__ import main
from vit_jax.errors import InputError


@pytest.fixture(scope='module')
def predictor(shared_digits_run):
    return vit_jax.Predictor(shared_digits_run)


@pytest.fixture(scope='module')
def images():
    return np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), np.uint8)


def test_features_are_what_the_classifier_reads(predictor, images):
    head = predictor.variables['params']['mlp_head']['layers_1']
    logits = predictor.features(images) @ head['kernel'] + head['bias']
    np.testing.assert_allclose(jax.nn.softmax(logits), predictor(images), atol=1e-5)


def test_a_backbone_has_features_but_classifies_nothing(
    predictor, images, shared_digits_run, tmp_path, capsys
):
    backbone = vit_jax.Predictor(shared_digits_run, num_classes=0)
    np.testing.assert_array_equal(backbone.features(images), predictor.features(images))
    assert backbone.class_names == [] and backbone.notes == ['head for 10 classes dropped']
    with pytest.raises(InputError, match='expected a classifier, but the weights are a backbone'):
        backbone(images)
    Image.fromarray(images[0, ..., 0]).save(tmp_path / 'digit.png')
    for command, *arguments in (
        ['predict', str(tmp_path / 'digit.png')],
        ['evaluate'],
        ['export', '-o', str(tmp_path / 'backbone.stablehlo')],
        ['serve', '--port', '0'],
    ):
        assert main([command, str(shared_digits_run), *arguments, '--num-classes', '0']) == 2
        assert 'expected a classifier' in capsys.readouterr().err.splitlines()[-1]
