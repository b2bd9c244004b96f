import json

import pytest

import vit_jax
from vit_jax.errors import InputError
from vit_jax.run_directory import open_run_directory
from vit_jax.trainer import train


def test_workdir_of_another_model_is_refused_and_left_alone(digits_config, tmp_path):
    train(digits_config, str(tmp_path))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')}
    digits_config.model.dim = 24
    digits_config.data.mean = (0.4,)
    digits_config.optim.name = 'sgd'
    digits_config.model.dropout = 0.1  # which may change
    message = (
        'run: data.mean is .*; model.dim is 16 there and 24 here; optim.name is .* here; choose'
    )
    with pytest.raises(InputError, match=message):
        train(digits_config, str(tmp_path))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')} == before


def test_other_changes_are_allowed_and_told(digits_config, tmp_path, capsys):
    train(digits_config, str(tmp_path))
    digits_config.num_steps = 8
    digits_config.optim.learning_rate = 1e-4
    train(digits_config, str(tmp_path))
    printed = capsys.readouterr().out
    assert 'num_steps is 6 there and 8 here' in printed
    assert 'optim.learning_rate is 0.001 there and 0.0001 here' in printed


def test_finished_run_keeps_the_config_that_it_was_trained_with(digits_config, tmp_path):
    train(digits_config, str(tmp_path))
    before = (tmp_path / 'config.json').read_bytes()
    digits_config.optim.learning_rate = 1.0
    train(digits_config, str(tmp_path))
    assert (tmp_path / 'config.json').read_bytes() == before


def test_two_processes_do_not_share_a_run_directory(digits_config, tmp_path):
    with (
        open_run_directory(str(tmp_path), digits_config),
        pytest.raises(InputError, match='in use by another process'),
    ):
        train(digits_config, str(tmp_path))
    train(digits_config, str(tmp_path))


def test_how_it_was_computed_is_not_kept_with_a_run(digits_config, tmp_path):
    digits_config.model.remat = 'full'
    train(digits_config, str(tmp_path))
    description = json.loads((tmp_path / 'description.json').read_text())
    assert not {'attention', 'remat', 'unroll'} & description['model'].keys()
    model, _ = vit_jax.load_weights(tmp_path)
    assert model.remat == 'dots'
