import json
import math
import re
import shutil

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from PIL import Image
from references.timm import random_timm
from safetensors.numpy import save_file

import vit_jax
from vit_jax.__main__ import main
from vit_jax.errors import InputError
from vit_jax.run.json_files import read_json
from vit_jax.run.report import Reporter
from vit_jax.train.trainer import train
from vit_jax.weights.reading import read_weights


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    """Three classes of coloured noise, 20 pictures each."""
    folder = tmp_path_factory.mktemp('pictures')
    rng = np.random.default_rng(0)
    for label, name in enumerate(('apple', 'brick', 'cloud')):
        for split, number in (('train', 16), ('test', 4)):
            (folder / split / name).mkdir(parents=True)
            for i in range(number):
                noise = rng.integers(0, 100, (8, 8, 3)) + 50 * label
                Image.fromarray(noise.astype(np.uint8)).save(folder / split / name / f'{i}.png')
    return folder


@pytest.fixture
def finetune_config(pictures):
    from configs import finetune

    config = finetune.get_config()
    config.data.source = f'folder:{pictures}'
    config.num_steps = 4
    config.batch_size = 16
    config.log_every_steps = 1
    config.eval_every_steps = 0
    config.checkpoint_every_steps = 2
    config.optim.warmup_steps = 1
    config.augment.pad_and_crop = 1
    return config


def metrics(run):
    return [json.loads(line) for line in (run / 'metrics.jsonl').read_text().splitlines()]


def test_finetuned_run_works_with_every_command(
    shared_digits_run, finetune_config, pictures, tmp_path, capsys
):
    finetune_config.init.weights = str(shared_digits_run)
    finetune_config.model.remat = 'none'
    run = tmp_path / 'finetuned'
    last = train(finetune_config, str(run))
    assert (
        f'{shared_digits_run}: new head of zeros for 3 classes in place of one for 10'
        in capsys.readouterr().out
    )
    # A head of zeros gives every class the same probability.
    assert metrics(run)[0]['loss'] == pytest.approx(math.log(3), abs=1e-6)
    description = read_json(run / 'description.json')
    assert description['class_names'] == ('apple', 'brick', 'cloud')
    assert description['model']['dim'] == 16 and description['model']['num_classes'] == 3
    assert (
        description['preprocessing']
        == read_json(shared_digits_run / 'description.json')['preprocessing']
    )

    picture = str(pictures / 'test' / 'brick' / '0.png')
    assert main(['predict', str(run), picture, '--format', 'json']) == 0
    rows = json.loads(capsys.readouterr().out)
    assert sorted(row['class'] for row in rows) == ['apple', 'brick', 'cloud']
    assert main(['evaluate', str(run)]) == 0
    evaluated = json.loads(capsys.readouterr().out)
    assert evaluated['num_examples'] == 12
    assert evaluated['accuracy'] == last['accuracy']
    assert evaluated['loss'] == pytest.approx(last['loss'], rel=1e-6)
    assert main(['summary', str(run)]) == 0
    printed = capsys.readouterr().out
    assert 'classes: apple, brick, cloud' in printed
    assert ['remat', 'none'] in [line.split() for line in printed.splitlines()]  # as it trained
    # Converted to another format, it keeps its class names and its predictions.
    assert main(['convert', str(run), str(tmp_path / 'x.safetensors'), '--to', 'seed']) == 0
    assert capsys.readouterr().out.endswith(' parameters in the format seed\n')
    (tmp_path / 'plain').touch()
    assert (tmp_path / 'x.safetensors').stat().st_mode == (tmp_path / 'plain').stat().st_mode
    weights = read_weights(tmp_path / 'x.safetensors')
    assert weights.description['class_names'] == ['apple', 'brick', 'cloud']
    ours, theirs = (vit_jax.Predictor(path) for path in (run, tmp_path / 'x.safetensors'))
    np.testing.assert_array_equal(ours([picture]), theirs([picture]))


def test_interrupted_finetuning_resumes_without_its_weights(
    shared_digits_run, finetune_config, tmp_path, monkeypatch
):
    weights = tmp_path / 'weights'
    shutil.copytree(shared_digits_run, weights)
    finetune_config.init.weights = str(weights)
    finetune_config.optim.freeze = ('to_patch_embedding/*', 'transformer/0/*')
    finetune_config.optim.layer_decay = 0.5
    train(finetune_config, str(tmp_path / 'whole'))

    def interrupt(self, step, metrics):
        if step == 3:
            raise KeyboardInterrupt
        report(self, step, metrics)

    report = Reporter.train
    with monkeypatch.context() as patch:
        patch.setattr(Reporter, 'train', interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(finetune_config, str(tmp_path / 'parts'))
    shutil.rmtree(weights)
    for name, value in {'image_size': 12, 'mean': (0.4,), 'crop_fraction': 0.5}.items():
        with pytest.raises(InputError, match=f'different run .*data.{name}'):
            other = finetune_config.copy_and_resolve_references()
            other.data[name] = value
            train(other, str(tmp_path / 'parts'))
    train(finetune_config, str(tmp_path / 'parts'))
    whole, parts = (read_weights(tmp_path / run).variables for run in ('whole', 'parts'))
    jax.tree.map(np.testing.assert_array_equal, whole, parts)


@pytest.mark.parametrize('name', ['sgd', 'adamw'])
def test_frozen_parameters_stay_and_the_others_change(
    name, shared_digits_run, finetune_config, tmp_path
):
    finetune_config.init.weights = str(shared_digits_run)
    finetune_config.optim.name = name
    finetune_config.optim.weight_decay = 0.1
    finetune_config.optim.freeze = ('*embedding*', 'transformer/0/*', 'transformer/1/attn/norm/*')
    train(finetune_config, str(tmp_path / 'run'))
    before, after = (
        flatten_dict(read_weights(path).variables['params'], sep='/')
        for path in (shared_digits_run, tmp_path / 'run')
    )
    for key in before:
        if key.startswith('mlp_head/layers_1'):
            continue
        changed = np.asarray(before[key] != after[key])
        if 'embedding' in key:
            assert not changed.any(), key
        elif key.startswith('transformer/'):
            assert not changed[0].any(), key
            assert changed[1].any() == (not key.startswith('transformer/attn/norm')), key
        else:
            assert changed.any(), key


def test_finetuning_resizes_positions_and_patches(
    shared_digits_run, finetune_config, tmp_path, capsys
):
    finetune_config.init.weights = str(shared_digits_run)
    finetune_config.data.image_size = (16, 24)
    finetune_config.model.patch_size = 4
    finetune_config.init.resize = 'bicubic'
    train(finetune_config, str(tmp_path / 'run'))
    output = capsys.readouterr().out
    assert 'patch embedding resized: 2 x 2 → 4 x 4 pixels' in output
    assert 'position embedding resized, bicubic: 4 x 4 → 4 x 6 patches' in output
    description = read_json(tmp_path / 'run' / 'description.json')
    assert description['preprocessing']['image_size'] == (16, 24)


def test_finetuning_from_a_foreign_file_asks_for_what_it_lacks(finetune_config, tmp_path):
    save_file(random_timm(np.random.default_rng(0)), tmp_path / 'timm.safetensors')
    finetune_config.init.weights = str(tmp_path / 'timm.safetensors')
    with pytest.raises(InputError, match='init.weights: .*expected heads= dividing 32'):
        train(finetune_config, str(tmp_path / 'run'))
    finetune_config.model.heads = 2
    with pytest.raises(InputError, match='init.weights: expected mean and std'):
        train(finetune_config, str(tmp_path / 'run'))
    finetune_config.data.mean = finetune_config.data.std = (0.5,)
    train(finetune_config, str(tmp_path / 'run'))
    description = read_json(tmp_path / 'run' / 'description.json')
    assert description['model']['gelu'] == 'erf' and description['model']['heads'] == 2
    assert description['preprocessing']['channels'] == 3


def test_finetuning_without_weights_raises(finetune_config, tmp_path):
    with pytest.raises(InputError, match='init.weights: expected a run directory or a weight file'):
        train(finetune_config, str(tmp_path / 'run'))


def test_head_is_kept_only_for_the_same_classes(
    shared_digits_run, finetune_config, digits_config, tmp_path
):
    finetune_config.init.weights = str(shared_digits_run)
    finetune_config.init.head = 'keep'
    with pytest.raises(InputError, match='the data has 3 classes, the weights 10'):
        train(finetune_config, str(tmp_path / 'run'))
    finetune_config.init.head = 'other'
    with pytest.raises(InputError, match="init.head: expected 'new' or 'keep', got 'other'"):
        train(finetune_config, str(tmp_path / 'run'))

    finetune_config.init.head = 'keep'
    finetune_config.data.source = 'tfds:digits'
    finetune_config.data.dir = digits_config.data.dir
    finetune_config.data.test_split = digits_config.data.test_split
    finetune_config.optim.learning_rate = 0.0
    last = train(finetune_config, str(tmp_path / 'kept'))
    before = metrics(shared_digits_run)[-1]
    assert last['accuracy'] == before['accuracy']
    assert last['loss'] == pytest.approx(before['loss'], rel=1e-5)


def test_classes_are_compared_by_name_not_by_number(
    shared_digits_run, finetune_config, pictures, tmp_path
):
    finetune_config.init.weights = str(shared_digits_run)
    train(finetune_config, str(tmp_path / 'first'))
    renamed = tmp_path / 'renamed'
    shutil.copytree(pictures, renamed)
    for split in ('train', 'test'):
        (renamed / split / 'cloud').rename(renamed / split / 'stone')
    finetune_config.init.weights = str(tmp_path / 'first')
    finetune_config.init.head = 'keep'
    finetune_config.data.source = f'folder:{renamed}'
    with pytest.raises(InputError, match="the data has 'stone' where the weights have 'cloud'"):
        train(finetune_config, str(tmp_path / 'second'))
    assert main(['evaluate', str(tmp_path / 'first'), '--data', f'folder:{renamed}']) == 2


def test_run_with_other_frozen_parameters_is_refused(shared_digits_run, finetune_config, tmp_path):
    finetune_config.init.weights = str(shared_digits_run)
    train(finetune_config, str(tmp_path / 'run'))
    finetune_config.optim.freeze = ('transformer/*',)
    with pytest.raises(InputError, match=re.escape('optim.freeze: () there')):
        train(finetune_config, str(tmp_path / 'run'))


def test_damaged_run_directories_exit_with_one_line_and_status_2(
    shared_digits_run, tmp_path, capsys
):
    for number, (name, content) in enumerate(
        [
            ('config.json', '[]'),
            ('description.json', '[]'),
            ('description.json', '{}'),
            ('description.json', '{"model": {"width": 3}}'),
            ('description.json', '{"model": null}'),
        ]
    ):
        run = tmp_path / str(number)
        shutil.copytree(shared_digits_run, run)
        (run / name).write_text(content)
        assert main(['evaluate', str(run)]) == 2
        assert str(run) in (error := capsys.readouterr().err) and error.count('\n') == 1


def test_evaluate_and_predict_accept_weight_files(pictures, tmp_path, capsys):
    save_file(random_timm(np.random.default_rng(0), num_classes=3), tmp_path / 'a.safetensors')
    command = [str(tmp_path / 'a.safetensors'), '--heads', '2']
    normalisation = ['--mean', '0.5', '--std', '0.5']
    data = ['--data', f'folder:{pictures}', '--split', 'test[:6]']
    assert main(['evaluate', *command, *data]) == 2
    assert 'expected mean and std' in capsys.readouterr().err
    assert main(['evaluate', *command, *normalisation]) == 2
    assert 'expected --data SOURCE' in capsys.readouterr().err
    assert main(['evaluate', *command, *normalisation, *data]) == 0
    assert json.loads(capsys.readouterr().out)['num_examples'] == 6
    picture = str(pictures / 'test' / 'brick' / '0.png')
    assert main(['predict', *command, *normalisation, '--format', 'json', picture]) == 0
    assert {row['class'] for row in json.loads(capsys.readouterr().out)} == {'0', '1', '2'}
