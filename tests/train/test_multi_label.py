"""Multi-label data from a list to a trained model's answers."""

import csv
import json

import jax
import numpy as np
import pytest
from conftest import peer, small_digits_config
from PIL import Image

import vit_jax
from vit_jax.data.memory import InMemory
from vit_jax.data.sources import open_source
from vit_jax.errors import InputError
from vit_jax.parallel.parallel import create_parallel
from vit_jax.run.checkpoint import Checkpoints
from vit_jax.train.evaluate import evaluate as evaluate_split
from vit_jax.train.losses import sigmoid_cross_entropy
from vit_jax.train.step import Learner
from vit_jax.train.trainer import train
from vit_jax.use.evaluate import evaluate
from vit_jax.use.report import write_report
from vit_jax.weights import save_weights
from vit_jax.weights.reading import read_weights

COLOURS = ['blue', 'green', 'red']


@pytest.fixture(scope='module')
def colours(tmp_path_factory):
    """A list of pictures, and a run trained on it: any of the three channels is bright."""
    folder = tmp_path_factory.mktemp('colours')
    rng = np.random.default_rng(0)
    rows = []
    for i in range(64):
        red, green, blue = present = rng.random(3) < [0.5, 0.3, 0.2]
        pixels = rng.integers(0, 60, (8, 8, 3)) + 180 * present
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f'{i}.png')
        labels = [x for x, has in zip(COLOURS, (blue, green, red), strict=True) if has]
        rows.append({'file': f'{i}.png', 'labels': labels, 'split': 'test' if i < 24 else 'train'})
    (folder / 'list.jsonl').write_text('\n'.join(map(json.dumps, rows)))
    source = f'jsonl:{folder / "list.jsonl"}'
    config = small_digits_config(None)
    config.data.source, config.data.train_split, config.data.test_split = source, 'train', 'test'
    config.data.memory_gib = 0.0
    config.augment.mixup_alpha = 0.2
    config.loss.class_weights = ('balanced',)
    config.optim.learning_rate = 3e-3
    config.num_steps = 30
    config.checkpoint_every_steps = 15
    last = train(config, str(folder / 'run'))
    return source, folder / 'run', last


def test_a_run_chooses_its_best_checkpoint_by_mean_average_precision(colours):
    _, run, last = colours
    assert last['mean_average_precision'] > 0.6  # about 0.35 by chance
    with Checkpoints(run, read_only=True) as checkpoints:
        tested = {step: checkpoints.metrics(step) for step in checkpoints.steps}
        known = {step: x['mean_average_precision'] for step, x in tested.items() if x}
        assert len(known) > 1 and known[checkpoints.best()] == max(known.values())


def test_its_answers_are_sigmoids_and_its_numbers_scikit_learns(colours, tmp_path):
    peer('sklearn')
    from sklearn.metrics import accuracy_score, average_precision_score

    source, run, last = colours
    evaluation = evaluate(run, source, 'test')
    summary = json.loads(json.dumps(evaluation.summary()))
    predictor = vit_jax.Predictor(run)
    probabilities = predictor(evaluation.names)
    assert predictor.multi_label and predictor.class_names == COLOURS
    np.testing.assert_allclose(evaluation.probabilities, probabilities, atol=1e-5)
    labels = open_source(source).open('test').labels
    np.testing.assert_array_equal(evaluation.labels, labels)
    of_classes = average_precision_score(labels, evaluation.logits, average=None)
    assert summary['mean_average_precision'] == pytest.approx(of_classes.mean(), rel=1e-12)
    for name, expected in zip(COLOURS, of_classes, strict=True):
        assert summary['per_class'][name]['average_precision'] == pytest.approx(expected)
    exact = accuracy_score(labels, probabilities > 0.5)
    assert summary['accuracy'] == last['accuracy'] == pytest.approx(exact)
    assert last['mean_average_precision'] == pytest.approx(of_classes.mean(), abs=1e-3)
    present, absent = np.log(probabilities), np.log1p(-probabilities)
    loss = -np.where(labels > 0, present, absent).mean()
    assert summary['loss'] == pytest.approx(loss, rel=1e-4)

    write_report(evaluation, tmp_path)
    text = (tmp_path / 'report.md').read_text()
    assert f'| mean average precision | {of_classes.mean():.2%} |' in text
    with (tmp_path / 'predictions.csv').open(newline='') as lines:
        rows = list(csv.DictReader(lines))
    assert [row['example'] for row in rows] == evaluation.names
    for row, has, probability in zip(rows, labels > 0, probabilities, strict=True):
        assert row['true'] == '|'.join(np.array(COLOURS)[has])
        assert row['predicted'] == '|'.join(np.array(COLOURS)[probability > 0.5])
        assert float(row['p(red)']) == pytest.approx(probability[2], abs=1e-5)


def test_weights_say_that_they_are_multi_label(colours, tmp_path):
    _, run, _ = colours
    assert json.loads((run / 'description.json').read_text())['multi_label'] is True
    read = read_weights(run)
    path = tmp_path / 'weights.safetensors'
    save_weights(path, read.model, read.variables, 'seed', read.description)
    assert read_weights(path).multi_label
    single = run.with_name('single.csv')
    single.write_text('file,label\n' + ''.join(f'{i}.png,{COLOURS[i % 3]}\n' for i in range(9)))
    with pytest.raises(InputError, match='expected multi-label data, which the weights are for'):
        evaluate(run, f'csv:{single}', 'all')


@pytest.mark.parametrize('mode', ['jit', 'pmap'])
def test_evaluation_gathers_the_scores_of_each_example_once(mode):
    """From eight devices, with a padded last batch."""
    peer('sklearn')
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (35, 8, 8, 3), np.uint8)
    labels = rng.integers(0, 2, (35, 4)).astype(np.uint8)
    model = vit_jax.ViT(
        image_size=8, patch_size=4, num_classes=4, dim=8, depth=1, heads=1, mlp_dim=8
    )
    learner = Learner(model, lambda x: x / np.float32(255), loss=sigmoid_cross_entropy)
    state = jax.jit(learner.init)(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))
    logits = model.apply({'params': state.params}, images / np.float32(255))
    parallel = create_parallel(mode, 16)
    step, spread = parallel.eval_step(learner.eval_step), parallel.spread(state)
    found = evaluate_split(step, spread, InMemory(images, labels), parallel)
    assert found == {
        'loss': pytest.approx(sigmoid_cross_entropy(logits, jax.numpy.asarray(labels)).mean()),
        'accuracy': pytest.approx(((logits > 0) == labels).all(1).mean()),
        'mean_average_precision': pytest.approx(average_precision_score(labels, logits)),
    }
