"""The memory of training on accelerators that are not there."""

import json
from pathlib import Path

import pytest

from vit_jax.__main__ import main
from vit_jax.model.variants import create_model
from vit_jax.train.memory import CHIPS, counted_memory, largest_batch

RESULTS = Path(__file__).parents[2] / 'benchmarks' / 'results' / 'compile_ahead.json'
ROWS = [row for row in json.loads(RESULTS.read_text())['rows'] if row['variant'] in ('B/16', 'L/16')]
ROWS = [row for row in ROWS if 'bytes' in row and row['attention'] != 'xla']


@pytest.mark.parametrize(
    'row', ROWS, ids=['-'.join(map(str, list(row.values())[:5])) for row in ROWS]
)
def test_our_count_is_within_15_percent_of_the_compilers_plan(row):
    options = {name: row[name] for name in ('remat', 'attention')}
    model = create_model(row['variant'], dtype='bfloat16', **options)
    counted = sum(counted_memory(model, row['batch'], CHIPS[row['chip']]))
    assert abs(counted / row['bytes'] - 1) < 0.15


@pytest.mark.parametrize('chip', CHIPS.values(), ids=CHIPS)
def test_the_largest_batch_is_the_last_that_fits(chip):
    model = create_model('S/16', dtype='bfloat16')
    plan = largest_batch(model, chip)
    assert not plan.compiled and plan.batch_size > 100  # libtpu is not installed here
    fits = [sum(counted_memory(model, plan.batch_size + i, chip)) <= chip.size for i in (0, 1)]
    assert fits == [True, False]


def test_summary_says_the_largest_batch_or_that_none_fits(capsys):
    assert main(['summary', 'S/16', '--device', 'v5e', '--dtype', 'bfloat16']) == 0
    batch_size = largest_batch(create_model('S/16', dtype='bfloat16'), CHIPS['v5e']).batch_size
    line = f'training on one v5e with AdamW: at most {batch_size:,} images, by our own count: '
    assert line in capsys.readouterr().out
    assert main(['summary', 'G/14', '--device', 'v5e']) == 0
    assert 'not even one image, by our own count: 28.44 of 15.75 GiB' in capsys.readouterr().out
    assert main(['summary', 'S/16', '--device', 'abacus']) == 2
    assert "'abacus' is not one of" in capsys.readouterr().err
