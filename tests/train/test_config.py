import math

import numpy as np
import pytest

import vit_jax
from vit_jax.errors import InputError
from vit_jax.train.build import find_start
from vit_jax.train.checks import RANGES
from vit_jax.train.config import list_recipes
from vit_jax.train.length import Length, run_length
from vit_jax.train.trainer import train


def test_num_steps_overrides_num_epochs(digits_config):
    assert run_length(digits_config, 1437).num_steps == 6
    digits_config.num_steps = None
    digits_config.num_epochs = 2.5
    assert run_length(digits_config, 100).num_steps == 16  # 2.5 * 100 / 16, rounded up
    digits_config.num_epochs = 0.0
    with pytest.raises(InputError, match='expected from 1 to 2,147,483,647 steps, got 0'):
        run_length(digits_config, 100)


def test_a_config_is_not_the_name_of_one(tmp_path):
    with pytest.raises(InputError, match=r"such as vit_jax.load_config\('digits'\), got 'digits'"):
        train('digits', str(tmp_path))


def test_a_file_without_its_ending_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'pets.py').write_text('')
    with pytest.raises(InputError, match=r'did you mean pets.py\?'):
        vit_jax.load_config('pets')


@pytest.mark.parametrize('num_examples', [1, 40, 1071, 50_000])
def test_every_recipe_fits_data_of_any_size(num_examples):
    for name in list_recipes():
        unset = 'optim.warmup_steps', 'optim.warmup_epochs', 'num_steps'
        config = vit_jax.load_config(name, dict.fromkeys(unset))
        length = run_length(config, num_examples)
        steps_per_epoch = num_examples * config.data.repeats / config.batch_size
        assert length.num_steps == math.ceil(config.num_epochs * steps_per_epoch)
        assert length.warmup == length.num_steps // 20
        assert length.log_every == min(100, -(-length.num_steps // 20))


def test_durations_are_given_in_steps_or_epochs():
    """Here an epoch has 25 steps."""
    config = vit_jax.default_config()
    config.batch_size, config.num_epochs, num_examples = 40, 10.0, 1000
    assert run_length(config, num_examples) == Length(250, 12, 13, 13, 13)
    config.optim.warmup_epochs, config.eval_every_epochs = 2.0, 0.5
    config.checkpoint_every_epochs = 4.0
    length = run_length(config, num_examples)
    assert length == Length(250, 50, 13, 13, 100)
    assert [step for step in range(1, 251) if length.saves_at(step)] == [100, 200, 250]
    assert {13, 26, 100, 247, 250} <= {step for step in range(1, 251) if length.tests_at(step)}
    config.optim.warmup_steps = config.eval_every_steps = config.checkpoint_every_steps = 0
    config.log_every_steps = 7
    length = run_length(config, num_examples)
    assert length == Length(250, 0, 7, 0, 0)
    assert [step for step in range(1, 251) if length.tests_at(step)] == [250]
    config.optim.warmup_steps = 250
    with pytest.raises(InputError, match='warmup_epochs: expected fewer than the 250 steps'):
        run_length(config, num_examples)
    config.optim.warmup_steps, config.optim.warmup_epochs = None, 1e308  # times 125 is infinite
    with pytest.raises(InputError, match='warmup_epochs: expected fewer than the 250 steps'):
        run_length(config, num_examples)


@pytest.mark.parametrize('name', RANGES)
def test_numbers_out_of_range_raise_before_anything_is_written(digits_config, tmp_path, name):
    low, high = map(float, RANGES[name][1:-1].split(', '))
    if RANGES[name].endswith(']'):
        high = np.nextafter(high, np.inf)
    *path, last = name.split('.')
    section = digits_config[path[0]] if path else digits_config
    kind = section.get_type(last)
    lowest = low if RANGES[name].startswith('(') else low - 1  # of those that are too low
    bad = [lowest] + ([high] if high < float('inf') else [])
    for value in [*bad, *([float('nan'), float('inf')] if kind is float else [])]:
        config = digits_config.copy_and_resolve_references()
        config.update_from_flattened_dict({name: kind(value)})
        with pytest.raises(InputError, match=f'^{name}: expected'):
            train(config, str(tmp_path / 'run'))
    assert not (tmp_path / 'run').exists()


def start_model(config):
    return find_start(config, list('0123456789'), 3).model


def test_set_options_override_the_variant():
    config = vit_jax.default_config()
    config.model.variant, config.model.depth, config.model.pool = 'S/16', 6, 'gap'
    config.model.gelu = 'erf'
    model = start_model(config)
    assert (model.dim, model.heads, model.mlp_dim, model.patch_size) == (384, 6, 1536, 16)
    assert (model.depth, model.pool, model.gelu, model.qkv_bias) == (6, 'gap', 'erf', True)


def test_overridden_sizes_of_a_variant_are_noted():
    """So that `--config.model.variant` on a recipe with sizes of its own is not silent."""
    config = vit_jax.default_config()
    config.model.variant, config.model.depth, config.model.dim = 'S/16', 6, 384
    start = find_start(config, ['a', 'b'], 3)
    assert start.notes == ['model.variant=S/16, with depth=6']
    config.model.depth = None
    assert find_start(config, ['a', 'b'], 3).notes == []


def test_unset_options_take_the_models_defaults():
    """So a config without a variant is the seed's model, with sizes for small images."""
    config = vit_jax.default_config()
    assert all(value is None for value in config.model.values())
    sizes = dict(patch_size=4, dim=192, depth=9, heads=3, mlp_dim=768)
    assert start_model(config) == vit_jax.ViT(image_size=(32, 32), num_classes=10, **sizes)
    config.model.dim, config.model.dropout = 96, 0.1
    sizes |= dict(dim=96, dropout=0.1)
    assert start_model(config) == vit_jax.ViT(image_size=(32, 32), num_classes=10, **sizes)
