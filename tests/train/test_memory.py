"""The memory of training on accelerators that are not there."""

import json
from pathlib import Path

import pytest

from vit_jax.__main__ import main
from vit_jax.model.variants import create_model
from vit_jax.train.memory import CHIPS, counted_memory, largest_batch

RESULTS = Path(__file__).parents[2] / 'benchmarks' / 'results' / 'compile_ahead.json'
ROWS = {
    ' '.join(map(str, list(row.values())[:5])): row
    for row in json.loads(RESULTS.read_text())['rows']
    if row['variant'] in ('B/16', 'L/16') and row['attention'] != 'xla'
}


@pytest.mark.parametrize('row', ROWS.values(), ids=ROWS)
def test_our_count_is_within_15_percent_of_the_compilers_plan(row):
    options = {name: row[name] for name in ('remat', 'attention')}
    model = create_model(row['variant'], dtype='bfloat16', **options)
    counted = sum(counted_memory(model, row['batch'], CHIPS[row['chip']]))
    assert abs(counted / row['bytes'] - 1) < 0.15


def test_the_largest_batch_is_the_last_that_fits():
    model, chip = create_model('S/16', dtype='bfloat16'), CHIPS['h100']
    plan = largest_batch(model, chip)
    assert not plan.compiled and plan.batch_size > 100
    fits = [sum(counted_memory(model, plan.batch_size + i, chip)) <= chip.size for i in (0, 1)]
    assert fits == [True, False]


def test_summary_says_the_largest_batch_or_that_none_fits(capsys):
    assert main(['summary', 'Ti/16', '--device', 'h100']) == 0
    assert 'on one h100 with AdamW: at most 3,172 images, by our own count: ' in capsys.readouterr().out
    assert main(['summary', 'G/14', '--device', 'v5e']) == 0
    assert 'not even one image, by our own count: 28.44 of 15.75 GiB' in capsys.readouterr().out
    assert main(['summary', 'S/16', '--device', 'abacus']) == 2
    assert "'abacus' is not one of" in capsys.readouterr().err
