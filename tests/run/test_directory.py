import json
import shutil

import jax
import numpy as np
import pytest
from pictures import small_config

import vit_jax
from vit_jax.errors import InputError
from vit_jax.run.directory import open_run_directory, record_run
from vit_jax.run.json_files import read_json
from vit_jax.run.report import Reporter
from vit_jax.run.resume import check_resumable
from vit_jax.train.build import find_start
from vit_jax.train.start import describe
from vit_jax.train.trainer import train


def test_workdir_of_another_model_is_refused_and_left_alone(digits_config, digits_run, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')}
    digits_config.model.dim = 24
    digits_config.data.mean = (0.4,)
    digits_config.optim.name = 'sgd'
    digits_config.model.dropout = 0.1  # may change
    message = (
        r'run \(data.mean: .*; model.dim: 16 there, 24 here; optim.name: .* here\); choose another'
    )
    with pytest.raises(InputError, match=message):
        train(digits_config, str(tmp_path))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')} == before


def test_other_changes_are_allowed_and_reported(digits_config, digits_run, tmp_path, capsys):
    digits_config.num_steps = 8
    digits_config.optim.learning_rate = 1e-4
    train(digits_config, str(tmp_path))
    printed = capsys.readouterr().out
    assert 'num_steps: changed from 6 to 8' in printed
    assert 'optim.learning_rate: changed from 0.001 to 0.0001' in printed


def test_memory_gib_may_change_if_streaming_is_identical(photographs, tmp_path, capsys):
    """A run half streamed and half from memory equals a streamed one; host-side crops forbid it."""
    config = small_config(photographs, **{'augment.random_resized_crop': 0.0, 'num_steps': 4})
    config.eval_every_steps, config.checkpoint_every_steps = 0, 2
    train(config, str(tmp_path / 'whole'))
    report = Reporter.test

    def interrupt(self, step, metrics):
        report(self, step, metrics)
        if step == 4:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Reporter, 'test', interrupt)
        train(config, str(tmp_path / 'both'))
    config.data.memory_gib = 1.0
    train(config, str(tmp_path / 'both'))
    assert 'data.memory_gib: changed from 0.0 to 1.0' in capsys.readouterr().out
    params = [vit_jax.load_weights(tmp_path / name)[1] for name in ('both', 'whole')]
    jax.tree.map(np.testing.assert_array_equal, *params)
    config.augment.random_resized_crop, config.data.memory_gib = 0.5, 0.0
    with pytest.raises(InputError, match='data.memory_gib: 1.0 there, 0.0 here'):
        train(config, str(tmp_path / 'both'))


def test_changed_numbers_of_examples_are_reported(photographs, tmp_path, capsys):
    """The order of examples changes with their number."""
    shutil.copytree(photographs, tmp_path / 'data')
    config = small_config(tmp_path / 'data', num_steps=3)
    train(config, str(tmp_path / 'run'))
    next((tmp_path / 'data' / 'train' / 'a').iterdir()).unlink()
    config.num_steps = 4
    train(config, str(tmp_path / 'run'))
    printed = capsys.readouterr().out
    assert 'train has 20 examples (was 21); the order of examples changes' in printed
    assert 'test has' not in printed


def test_run_older_than_an_option_resumes(digits_config, digits_run, tmp_path, capsys):
    config = json.loads((tmp_path / 'config.json').read_text())
    del config['data']['crop_fraction'], config['data']['repeats'], config['checksum']
    (tmp_path / 'config.json').write_text(json.dumps(config))
    digits_config.num_steps = 7
    assert train(digits_config, str(tmp_path))['step'] == 7
    assert 'data.repeats: changed from None to 1' in capsys.readouterr().out


def test_resolved_options_are_compared(tmp_path, capsys):
    """Spelling out a default, or a variant's sizes, does not make another run."""

    def described(**model):
        config = vit_jax.default_config()
        config.model.update(model)
        return config.to_dict(), describe(find_start(config, ['a', 'b'], 3), ['a', 'b'])

    sizes = dict(patch_size=4, dim=192, depth=12, heads=3, mlp_dim=768)
    published = dict(qkv_bias=True, norm_eps=1e-6, gelu='tanh')
    record_run(tmp_path, *described(**sizes, **published), {'train': 1})
    check_resumable(tmp_path, *described(variant='Ti/4', posemb='learned', dim_head=64))
    assert capsys.readouterr().out == ''
    with pytest.raises(InputError, match='different run .model.num_registers: 0 there, 1 here'):
        check_resumable(tmp_path, *described(variant='Ti/4', num_registers=1))


def test_finished_run_keeps_its_config(digits_config, digits_run, tmp_path):
    before = (tmp_path / 'config.json').read_bytes()
    digits_config.optim.learning_rate = 1.0
    train(digits_config, str(tmp_path))
    assert (tmp_path / 'config.json').read_bytes() == before


def test_run_directory_in_use_is_refused(digits_config, tmp_path):
    with (
        open_run_directory(str(tmp_path)),
        pytest.raises(InputError, match='in use by another process'),
    ):
        train(digits_config, str(tmp_path))
    train(digits_config, str(tmp_path))


def test_lock_is_released_while_an_error_is_kept(tmp_path):
    """As in a notebook, which keeps the last traceback and all that it refers to."""
    with pytest.raises(KeyboardInterrupt) as kept, open_run_directory(str(tmp_path)):
        raise KeyboardInterrupt
    with open_run_directory(str(tmp_path)):
        assert kept


@pytest.mark.parametrize(
    'damage', ['gone', '[]', '{"train": 1, "checksum": "0"}', '{"train": "96"}']
)
def test_files_that_nothing_depends_on_are_begun_again(
    digits_config, digits_run, tmp_path, damage, capsys
):
    path = tmp_path / 'examples.json'
    path.unlink() if damage == 'gone' else path.write_text(damage)
    digits_config.num_steps = 7
    assert train(digits_config, str(tmp_path))['step'] == 7
    assert read_json(path) == {'train': 96, 'test': 48}
    assert ('kept as examples.json.damaged' in capsys.readouterr().err) == (damage != 'gone')


def test_execution_options_are_not_stored_with_a_run(digits_config, tmp_path):
    digits_config.model.remat = 'full'
    train(digits_config, str(tmp_path))
    description = json.loads((tmp_path / 'description.json').read_text())
    assert not {'attention', 'remat', 'unroll'} & description['model'].keys()
    model, _ = vit_jax.load_weights(tmp_path)
    assert model.remat == 'dots'


def test_renamed_class_is_another_run(photographs, tmp_path):
    """Renaming a class can shift the labels of all."""
    shutil.copytree(photographs, tmp_path / 'data')
    config = small_config(tmp_path / 'data', num_steps=3)
    train(config, str(tmp_path / 'run'))
    before = (tmp_path / 'run' / 'description.json').read_bytes()
    for split in ('train', 'test'):
        min((tmp_path / 'data' / split).iterdir()).rename(tmp_path / 'data' / split / 'zebra')
    config.num_steps = 4
    with pytest.raises(InputError, match=r'different run \(data.class_names: .*zebra'):
        train(config, str(tmp_path / 'run'))
    assert (tmp_path / 'run' / 'description.json').read_bytes() == before


def test_patch_size_may_be_spelled_as_a_pair(tmp_path, capsys):
    config = vit_jax.default_config()

    def described(patch_size):
        config.model.patch_size = patch_size
        return config.to_dict(), describe(find_start(config, ['a', 'b'], 3), ['a', 'b'])

    record_run(tmp_path, *described(4), {'train': 1})
    check_resumable(tmp_path, *described((4, 4)))
    assert capsys.readouterr().out == ''


def test_links_in_a_run_directory_are_not_followed(digits_config, tmp_path):
    """A stranger's run directory must not overwrite files outside it."""
    outside = tmp_path / 'thesis.tex'
    outside.write_text('years of work')
    run = tmp_path / 'run'
    run.mkdir()
    for name in ('config.json', 'description.json', 'examples.json', 'metrics.jsonl'):
        (run / f'{name}.tmp').symlink_to(outside)
        (run / name).symlink_to(outside)
    train(digits_config, str(run))
    assert outside.read_text() == 'years of work'


def test_run_directories_may_have_odd_names(digits_config, tmp_path):
    run = tmp_path / 'a b%41#?*\n日本\'"$HOME{c}' / '-x'
    train(digits_config, str(run))
    digits_config.num_steps = 8
    assert train(digits_config, str(run))['step'] == 8
    vit_jax.load_weights(run)


@pytest.mark.parametrize('name', ['a[0]b', 'a\\b'])
def test_run_directories_that_orbax_would_lose_are_refused(name, digits_config, tmp_path):
    with pytest.raises(InputError, match='expected a path without'):
        train(digits_config, str(tmp_path / name))
    assert not (tmp_path / name).exists()
    (tmp_path / name).mkdir()
    (tmp_path / name / 'description.json').write_text('{}')
    with pytest.raises(InputError, match='expected a path without'):
        vit_jax.load_weights(tmp_path / name)


def test_a_start_that_fails_leaves_no_folder(digits_config, tmp_path):
    digits_config.init.weights = str(tmp_path / 'nothing.npz')
    with pytest.raises(InputError, match=r'nothing\.npz: no such file'):
        train(digits_config, str(tmp_path / 'run'))
    assert not (tmp_path / 'run').exists()


def test_files_behind_a_link_stay(digits_config, tmp_path):
    events = tmp_path / 'elsewhere' / 'events.out.tfevents.1'
    events.parent.mkdir()
    events.write_text('of somebody else')
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run' / 'tensorboard').symlink_to('../elsewhere')
    train(digits_config, str(tmp_path / 'run'))
    assert list(events.parent.iterdir()) == [events] and events.read_text() == 'of somebody else'


def test_checkpoints_of_another_run_are_set_aside(digits_config, tmp_path, capsys):
    train(digits_config, str(tmp_path / 'run'))
    train(digits_config, str(tmp_path / 'other'))
    other = tmp_path / 'other' / 'checkpoints' / '6'
    for step in ('997', '998', '999'):  # more than are kept
        shutil.copytree(other, tmp_path / 'run' / 'checkpoints' / step)
    vit_jax.load_weights(tmp_path / 'run')
    printed = capsys.readouterr().err
    assert '997: the checkpoint is damaged: it belongs to another run; checkpoint 6 is' in printed
    assert (tmp_path / 'run' / 'checkpoints' / '999').is_dir()  # reading changes nothing
    digits_config.num_steps = 8
    assert train(digits_config, str(tmp_path / 'run'))['step'] == 8
    names = {path.name for path in (tmp_path / 'run' / 'checkpoints').iterdir()}
    assert {'6', '8'} <= names and any(name.startswith('999.damaged') for name in names)
