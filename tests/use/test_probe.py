import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import processes
import pytest
from conftest import random_variables
from exporting import unchecked
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

import vit_jax
from vit_jax.__main__ import main
from vit_jax.data.order import epoch_order
from vit_jax.errors import InputError
from vit_jax.use import probe
from vit_jax.use.features import read_features
from vit_jax.use.predict import Predictor
from vit_jax.use.probe import accuracy, fit_linear, knn_votes, with_head
from vit_jax.weights import choose_format

SIZES = {'image_size': 8, 'patch_size': 4, 'dim': 8, 'depth': 1, 'heads': 2, 'mlp_dim': 8}


@pytest.fixture(scope='module')
def clusters():
    """Features and labels of 700 training and 150 test examples of 7 classes that overlap."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 7, 850)
    centres = rng.normal(size=(7, 12))
    features = 3 + (centres[labels] + rng.normal(size=(850, 12))) * np.linspace(0.1, 9, 12)
    features = features.astype(np.float32)
    return features[:700], labels[:700], features[700:], labels[700:]


@pytest.mark.parametrize('neighbours, temperature, chunk', [(20, 0.07, 2**26), (5, 0.5, 700 * 64)])
def test_votes_are_scikit_learns(clusters, neighbours, temperature, chunk, monkeypatch):
    monkeypatch.setattr(probe, 'CHUNK', chunk)
    features, labels, queries, truth = clusters
    peer = KNeighborsClassifier(
        neighbours,
        metric='cosine',
        algorithm='brute',
        weights=lambda distance: np.exp((1 - distance) / temperature),
    ).fit(np.float64(features), labels)
    votes = knn_votes(features, labels, queries, 7, neighbours, temperature)
    expected = peer.predict_proba(np.float64(queries))
    np.testing.assert_allclose(votes / votes.sum(-1, keepdims=True), expected, atol=1e-5)
    found = accuracy(votes, truth)
    assert found['accuracy'] == peer.score(np.float64(queries), truth)
    assert 0.3 < found['accuracy'] < found['top_5_accuracy']


def test_fewer_examples_than_neighbours_all_vote():
    features = np.array([[1, 0], [0, 1], [3, 0]], np.float32)
    votes = knn_votes(features, np.array([0, 1, 2]), np.array([[0, 2]], np.float32), 3)
    np.testing.assert_allclose(votes, [[1, np.exp(1 / 0.07), 1]], rtol=1e-5)
    assert knn_votes(features, np.array([0, 1, 2]), features[:0], 3).shape == (0, 3)
    with pytest.raises(InputError, match='expected training examples, neighbours from 1'):
        knn_votes(features, np.array([0, 1, 2]), features, 3, 0)


def scikit_learns(features, labels, l2):
    """The same classifier in float64, and the standardisation that it reads."""
    mean, std = features.mean(0, np.float64), features.std(0, dtype=np.float64)
    classifier = LogisticRegression(C=1 / (len(labels) * l2), max_iter=10_000, tol=1e-9)
    return classifier.fit((features - mean) / std, labels), mean, std


@pytest.mark.parametrize('l2', [1e-1, 1e-4])
def test_linear_probe_is_scikit_learns(clusters, l2):
    features, labels, queries, truth = clusters
    fitted = fit_linear(features, labels, 7, (l2,))
    peer, mean, std = scikit_learns(features, labels, l2)
    np.testing.assert_allclose(fitted.kernel * std[:, None], peer.coef_.T, atol=2e-3)
    logits = fitted.logits(queries)
    expected = peer.predict_proba((queries - mean) / std)
    np.testing.assert_allclose(jax.nn.softmax(logits), expected, atol=2e-3)
    assert accuracy(logits, truth)['accuracy'] == pytest.approx(
        (expected.argmax(-1) == truth).mean(), abs=1 / 150
    )


def test_strength_is_the_best_on_the_held_out_tenth(clusters):
    features, labels, _, _ = clusters
    strengths = (1e-3, 1.0, 1e-2)
    fitted = fit_linear(features, labels, 7, strengths)
    order = epoch_order(0, 0, 700)
    aside, rest = order[:70], order[70:]
    # As here, the standardisation is that of all 700.
    mean, std = features.mean(0, np.float64), features.std(0, dtype=np.float64)
    scaled = (features - mean) / std
    for l2 in strengths:
        peer = LogisticRegression(C=1 / (630 * l2), max_iter=10_000, tol=1e-9)
        expected = peer.fit(scaled[rest], labels[rest]).score(scaled[aside], labels[aside])
        assert fitted.held_out[l2] == pytest.approx(expected, abs=1.01 / 70)
    assert fitted.held_out[fitted.l2] == max(fitted.held_out.values())
    again, alone = fit_linear(features, labels, 7, strengths), (fitted.l2,)
    np.testing.assert_array_equal(fitted.kernel, again.kernel)
    np.testing.assert_array_equal(fitted.kernel, fit_linear(features, labels, 7, alone).kernel)
    with pytest.raises(InputError, match='expected two training examples or more'):
        fit_linear(features[:1], labels[:1], 7)


def test_a_constant_feature_changes_nothing(clusters):
    features, labels, queries, _ = clusters
    fitted = fit_linear(features, labels, 7, (1e-2,))
    wider = [np.hstack([x, np.full((len(x), 1), 5, np.float32)]) for x in (features, queries)]
    logits = fit_linear(wider[0], labels, 7, (1e-2,)).logits(wider[1])
    np.testing.assert_allclose(logits, fitted.logits(queries), atol=5e-3)


@pytest.mark.parametrize('arguments', [{'pool': 'map', 'num_classes': 0}, {'distilled': True}])
def test_model_with_the_head_gives_the_logits_of_the_features(arguments):
    model = vit_jax.ViT(**{**SIZES, 'num_classes': 3, **arguments})
    variables = jax.tree.map(jnp.asarray, random_variables(model))
    images = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)
    features = np.asarray(model.clone(num_classes=0).apply(variables, images))
    rng = np.random.default_rng(1)
    fitted = probe.LinearProbe(
        rng.normal(size=(8, 5)).astype(np.float32), rng.normal(size=5).astype(np.float32), 1.0, {}
    )
    model, variables = with_head(model, variables, fitted)
    expected = np.float64(features) @ fitted.kernel + fitted.bias
    np.testing.assert_allclose(model.apply(variables, images), expected, atol=1e-4)


def test_format_is_one_that_can_express_the_model():
    seed = vit_jax.ViT(num_classes=3, **SIZES)
    assert choose_format('a.safetensors', seed) == 'seed'
    timm = {'norm_eps': 1e-6, 'qkv_bias': True, 'dim_head': 4}
    assert choose_format('a.safetensors', seed.clone(**timm)) == 'timm'
    google = seed.clone(**timm, gelu='tanh')
    assert choose_format('a.npz', google) == 'google'
    assert choose_format('a', google) == 'huggingface'
    with pytest.raises(InputError) as error:
        choose_format('a.safetensors', google)
    assert str(error.value).endswith('; expected a .npz file (google) or a folder (huggingface)')
    assert "format 'timm': expected a model with gelu='erf' (got 'tanh')" in str(error.value)
    with pytest.raises(InputError, match='nor can any other format'):
        choose_format('a.npz', seed.clone(pool='cls_gap'))


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """Random ones, of a backbone without a classifier."""
    model = vit_jax.ViT(num_classes=0, channels=1, **SIZES)
    path = tmp_path_factory.mktemp('weights') / 'vit.safetensors'
    description = {'preprocessing': {'mean': (0.5,), 'std': (0.5,)}}
    vit_jax.save_weights(path, model, random_variables(model), 'seed', description)
    return str(path)


def test_probe_writes_a_model_of_the_accuracy_that_it_prints(
    weights, data_dir, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    data = ['--data', 'tfds:digits', '--data-dir', data_dir, '--split', 'test[:100]']
    command = ['probe', weights, *data, '--train-split', 'train[:400]', '--features', 'kept']
    assert main(command) == 0
    knn = json.loads(capsys.readouterr().out)
    train, test = (read_features(f'kept/{name}.npz') for name in ('train', 'test'))
    votes = knn_votes(train.features, train.labels, test.features, 10)
    assert knn == {
        'data': 'tfds:digits',
        'method': 'knn',
        'split': 'test[:100]',
        'num_train_examples': 400,
        'num_examples': 100,
        **accuracy(votes, test.labels),
        'neighbours': 20,
        'temperature': 0.07,
    }
    assert knn['accuracy'] > 0.3
    with monkeypatch.context() as patch:  # the features are not computed again
        patch.setattr(Predictor, 'extract', None)
        assert main([*command, '--method', 'linear', '-o', 'probe.safetensors']) == 0
    linear = json.loads(capsys.readouterr().out)
    assert linear['method'] == 'linear' and linear['accuracy'] > 0.3
    assert linear['l2'] in probe.STRENGTHS and 0 < linear['held_out_accuracy'] <= 1
    assert sorted(os.listdir()) == ['kept', 'probe.safetensors']

    assert main(['evaluate', 'probe.safetensors', *data]) == 0
    evaluated = json.loads(capsys.readouterr().out)
    assert evaluated['accuracy'] == linear['accuracy']
    assert evaluated['top_5_accuracy'] == linear['top_5_accuracy']
    seven = str(processes.ROOT / 'docs' / 'seven.png')
    assert main(['predict', 'probe.safetensors', seven, '--format', 'json']) == 0
    assert {row['class'] for row in json.loads(capsys.readouterr().out)} <= set('0123456789')
    assert main(['convert', 'probe.safetensors', 'again.safetensors', '--to', 'seed']) == 0
    with unchecked():
        assert main(['export', 'probe.safetensors', '-o', 'probe.stablehlo']) == 0


def test_probe_of_a_run_takes_its_data_and_its_splits(shared_digits_run, capsys):
    assert main(['probe', str(shared_digits_run)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found['data'], found['split']) == ('tfds:digits', 'test[:48]')
    assert (found['num_train_examples'], found['num_examples']) == (96, 48)


@pytest.mark.parametrize(
    'arguments, message',
    [
        ('nowhere DATA', 'nowhere: no such file or run directory'),
        ('RUN -o a.safetensors', '--output: expected --method linear'),
        ('RUN DATA --method linear -o a.npz', 'a.npz: no such file can express the model'),
        ('RUN DATA --method linear -o no/a.safetensors', 'expected a file in an existing folder'),
        ('RUN DATA --split tset', 'expected one of the splits'),
        ('RUN --data folder:no', 'folder:no: no such folder'),
        ('RUN', 'is not a run: expected --data SOURCE'),
        ('RUN --method best', "'best' is not one of 'knn', 'linear'"),
    ],
)
def test_wrong_input_ends_in_one_line(
    weights, data_dir, tmp_path, monkeypatch, arguments, message, capsys
):
    monkeypatch.chdir(tmp_path)
    arguments = arguments.replace('DATA', f'--data tfds:digits --data-dir {data_dir}')
    assert main(['probe', *arguments.replace('RUN', weights).split(' ')]) == 2
    output, errors = capsys.readouterr()
    assert output == '' and message in errors and errors.count('\n') == 1
    assert not os.listdir()
