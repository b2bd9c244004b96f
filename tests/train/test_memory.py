"""The memory of training on accelerators that are not there."""

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from conftest import random_variables

import vit_jax
from vit_jax.__main__ import main
from vit_jax.model.variants import create_model
from vit_jax.train.memory import CHIPS, counted_memory, largest_batch, planned_optimizer
from vit_jax.train.optim import create_optimizer
from vit_jax.train.schedule import learning_rate_schedule
from vit_jax.train.step import Learner

RESULTS = Path(__file__).parents[2] / 'benchmarks' / 'results' / 'compile_ahead.json'
ROWS = {
    ' '.join(map(str, [*list(row.values())[:5], row.get('mesh', '')])): row
    for row in json.loads(RESULTS.read_text())['rows']
    if row['attention'] != 'xla' and (row['variant'] == 'B/16' or 'mesh' in row)
}


def test_every_chip_has_a_plan_to_compare_with():
    assert {row['chip'] for row in ROWS.values()} == set(CHIPS)


MARKED = [
    pytest.param(row, id=name, marks=[pytest.mark.slow] if 'mesh' in row else [])
    for name, row in ROWS.items()
]


@pytest.mark.parametrize('row', MARKED)
def test_our_count_is_within_15_percent_of_the_compilers_plan(row):
    options = {name: row[name] for name in ('remat', 'attention')}
    model = create_model(row['variant'], dtype='bfloat16', **options)
    zero = row.get('mesh', {}).get('zero_stage', 3)
    sizes = tuple(row.get('sizes', (1, 1, 1)))
    counted = sum(counted_memory(model, row['batch'], CHIPS[row['chip']], sizes, zero))
    assert abs(counted / row['bytes'] - 1) < 0.15


@pytest.mark.parametrize('name', ['adamw', 'sgd', 'lamb', 'lion', 'adafactor', 'muon'])
@pytest.mark.parametrize('moments_dtype', ['float32', 'bfloat16'])
def test_the_state_of_every_optimizer_is_counted_exactly(name, moments_dtype):
    model = vit_jax.ViT(
        image_size=8, patch_size=4, num_classes=3, dim=32, depth=2, heads=2, mlp_dim=40
    )
    optimizer = create_optimizer(
        name,
        learning_rate_schedule('cosine', 1e-3, warmup_steps=2, num_steps=9),
        weight_decay=0.1,
        b1=0.95,
        b2=0.99,
        clip_norm=0.0,
        moments_dtype=moments_dtype,
    )
    learner = Learner(model, lambda images: images, optimizer=optimizer)
    params = random_variables(model)['params']
    state = learner.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), params)
    planned = planned_optimizer(name, moments_dtype)
    counted = counted_memory(model, 1, CHIPS['h100'], optimizer=planned)
    assert counted.state == sum(x.nbytes for x in jax.tree.leaves(state))


def test_the_largest_batch_is_the_last_that_fits():
    model, chip = create_model('S/16', dtype='bfloat16'), CHIPS['h100']
    plan = largest_batch(model, chip)
    assert not plan.compiled and plan.batch_size > 100
    fits = [sum(counted_memory(model, plan.batch_size + i, chip)) <= chip.size for i in (0, 1)]
    assert fits == [True, False]


def test_attention_is_the_one_that_auto_picks_there():
    """The scores of 4,097 tokens do not fit into the kernel."""
    options = dict(image_size=1024, depth=2, dtype='bfloat16')
    automatic, xla = (
        counted_memory(create_model('S/16', **options, attention=attention), 8, CHIPS['v5e'])
        for attention in ('auto', 'xla')
    )
    assert automatic == xla


def test_summary_says_the_largest_batch_or_that_none_fits(capsys):
    def said():
        return capsys.readouterr().out

    assert main(['summary', 'Ti/16', '--device', 'h100']) == 0
    found = re.search('one h100 with adamw: about ([0-9,]+) images, by our own count: 59.3', said())
    assert found and 2000 < int(found[1].replace(',', '')) < 5000
    assert main(['summary', 'G/14', '--device', 'v5e']) == 0
    assert 'not even one image, by our own count: 2' in said()
    of_a_mesh = ['summary', 'G/14', '--device', 'h100', '--mesh']
    assert main([*of_a_mesh, '1,8,1', '--batch-size', '256', '--dtype', 'bfloat16']) == 0
    assert 'over 8 h100: 17.6' in said()
    assert main([*of_a_mesh, '1,8,1']) == 2 and main([*of_a_mesh, '8', '--batch-size', '8']) == 2
    assert main(['summary', 'S/16', '--device', 'v5e', '--optimizer', 'sgd']) == 0
    assert 'training on one v5e with sgd: about' in said()
    assert main(['summary', 'S/16', '--device', 'v5e', '--optimizer', 'adam']) == 2
    assert 'optim.name: expected one of adamw' in capsys.readouterr().err
    assert main(['summary', 'S/16', '--device', 'abacus']) == 2
    assert "'abacus' is not one of" in capsys.readouterr().err
