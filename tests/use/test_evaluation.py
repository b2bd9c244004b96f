import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import random_variables
from PIL import Image
from sklearn import metrics

import vit_jax
from vit_jax.__main__ import main
from vit_jax.data.preprocess import Preprocessing
from vit_jax.data.sources import open_source, open_split
from vit_jax.errors import InputError
from vit_jax.parallel.parallel import create_parallel
from vit_jax.train import evaluate as train_evaluate
from vit_jax.train.step import Learner, TrainState
from vit_jax.use.evaluate import MISTAKES, evaluate, predictions
from vit_jax.weights.reading import Weights

DIGITS = Preprocessing((8, 8), 1, (0.5,), (0.5,))
MEMORY = pytest.mark.parametrize('memory_gib', [0.0, 1.0], ids=['stream', 'memory'])


def random_weights(class_names):
    model = vit_jax.ViT(
        image_size=8, patch_size=4, num_classes=len(class_names), dim=8, depth=1, heads=1,
        mlp_dim=8, channels=1,
    )  # fmt: skip
    described = {'mean': (0.5,), 'std': (0.5,)}
    description = {'class_names': class_names, 'preprocessing': described}
    return Weights(model, random_variables(model), description, [], 'a.safetensors')


def softmax(weights, images):
    """Probabilities in float64."""
    inputs = (images / np.float32(255) - np.float32(0.5)) / np.float32(0.5)
    logits = np.float64(jax.jit(weights.model.apply)(weights.variables, inputs))
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


@MEMORY
def test_numbers_are_scikit_learns(data_dir, memory_gib):
    weights = random_weights(list('0123456789'))
    evaluation = evaluate(weights, 'tfds:digits', 'test', data_dir=data_dir, memory_gib=memory_gib)
    examples = open_split(open_source('tfds:digits', data_dir), 'test', DIGITS)
    labels, probabilities = examples.labels, softmax(weights, examples.images)
    predicted = probabilities.argmax(-1)
    summary = json.loads(json.dumps(evaluation.summary()))
    confusion = metrics.confusion_matrix(labels, predicted)
    assert summary == {
        'split': 'test',
        'num_examples': 360,
        'num_skipped': 0,
        'loss': pytest.approx(metrics.log_loss(labels, probabilities), rel=1e-5),
        'accuracy': metrics.accuracy_score(labels, predicted),
        'top_5_accuracy': metrics.top_k_accuracy_score(labels, probabilities, k=5),
        'expected_calibration_error': pytest.approx(
            calibration_error(labels, probabilities), abs=1e-5
        ),
        'per_class': {
            str(i): {'accuracy': row[i] / row.sum(), 'num_examples': row.sum()}
            for i, row in enumerate(confusion)
        },
    }
    assert 0.02 < summary['accuracy'] < 0.3 < summary['top_5_accuracy'] < 0.7
    np.testing.assert_array_equal(evaluation.confusion, confusion)
    np.testing.assert_array_equal(evaluation.labels, labels)
    np.testing.assert_array_equal(evaluation.predicted, predicted)
    np.testing.assert_allclose(evaluation.confidence, probabilities.max(-1), atol=1e-5)
    of_label = probabilities[np.arange(360), labels]
    np.testing.assert_allclose(evaluation.true_probability, of_label, atol=1e-5)
    assert evaluation.names[7] == 'tfds:digits, test, example 7'


def calibration_error(labels, probabilities):
    """Guo et al. 2017, equations 2, 3 and 5, with M = 15."""
    confidence, error = probabilities.max(-1), 0
    correct = probabilities.argmax(-1) == labels
    for m in range(1, 16):
        bin_ = (confidence > (m - 1) / 15) & (confidence <= m / 15)
        if bin_.any():
            gap = abs(correct[bin_].mean() - confidence[bin_].mean())
            error += bin_.sum() / len(labels) * gap
    return error


def test_loss_and_accuracy_are_those_of_the_training_loop(data_dir):
    weights = random_weights(list('0123456789'))
    summary = evaluate(weights, 'tfds:digits', 'train', data_dir=data_dir).summary()
    examples = open_split(open_source('tfds:digits', data_dir), 'train', DIGITS)
    parallel = create_parallel('pmap', 64)
    eval_step = parallel.eval_step(Learner(weights.model, DIGITS.normalize).eval_step)
    state = parallel.spread(TrainState(np.int32(0), weights.variables['params'], ()))
    expected = train_evaluate.evaluate(eval_step, state, examples, parallel)
    assert summary['accuracy'] == pytest.approx(expected['accuracy'], abs=1e-12)
    assert summary['loss'] == pytest.approx(expected['loss'], rel=1e-6)


@MEMORY
def test_skipped_examples_shift_no_name_label_or_image(tmp_path, memory_gib):
    rng = np.random.default_rng(0)
    pixels = {}
    for name in ('ape', 'unseen', 'yak'):
        (tmp_path / 'train' / name).mkdir(parents=True)
        Image.new('L', (8, 8)).save(tmp_path / 'train' / name / 'a.png')
    for name in ('ape', 'yak'):
        (tmp_path / 'test' / name).mkdir(parents=True)
        for i in range(40):
            path = tmp_path / 'test' / name / f'{i:02}.png'
            pixels[str(path)] = rng.integers(0, 256, (8, 8), np.uint8)
            Image.fromarray(pixels[str(path)]).save(path)
    bad = [str(tmp_path / 'test' / name) for name in ('ape/00.png', 'ape/33.png', 'yak/05.png')]
    for path in bad:
        open(path, 'w').close()
        del pixels[path]
    weights = random_weights(['ape', 'unseen', 'yak'])
    options = {'on_error': 'skip', 'memory_gib': memory_gib}
    evaluation = evaluate(weights, f'folder:{tmp_path}', 'test', **options)
    assert evaluation.names == list(pixels)
    images = np.stack(list(pixels.values()))[..., None]
    probabilities = softmax(weights, images)
    np.testing.assert_array_equal(evaluation.predicted, probabilities.argmax(-1))
    np.testing.assert_array_equal(evaluation.labels, [0] * 38 + [2] * 39)
    summary = evaluation.summary()
    assert (summary['num_examples'], summary['num_skipped']) == (77, 3)
    assert 'top_5_accuracy' not in summary
    assert summary['per_class']['unseen'] == {'accuracy': None, 'num_examples': 0}
    wrong = [i for i in range(77) if evaluation.predicted[i] != evaluation.labels[i]]
    wrong.sort(key=lambda i: -probabilities[i].max())
    assert len(wrong) > MISTAKES
    np.testing.assert_array_equal(evaluation.mistakes, wrong[:MISTAKES])
    np.testing.assert_array_equal(evaluation.mistake_images, images[wrong[:MISTAKES]])


def test_rank_of_equal_logits_is_that_of_argmax():
    """Otherwise top-5 would count a model that says nothing as always right."""
    found = predictions(jnp.zeros((10, 10)), jnp.arange(10))
    np.testing.assert_array_equal(found['rank'], np.arange(10))


def test_other_classes_are_refused(data_dir):
    message = 'expected the 2 classes of the weights, a, b, with pictures of each, got 0'
    with pytest.raises(InputError, match=message):
        evaluate(random_weights(['a', 'b']), 'tfds:digits', 'test', data_dir=data_dir)


def test_other_data_is_evaluated_on_its_own_test_split(shared_digits_run, data_dir, capsys):
    """The run's was `test[:48]`."""
    run = str(shared_digits_run)
    evaluation = evaluate(run, 'tfds:digits', 'test[:48]', data_dir=data_dir)
    assert main(['evaluate', run]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary['split'], summary['num_examples']) == ('test[:48]', 48)
    assert summary['accuracy'] == evaluation.summary()['accuracy']
    assert main(['evaluate', run, '--data', 'tfds:digits', '--data-dir', data_dir]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary['split'], summary['num_examples']) == ('test', 360)
