"""`--config.dry_run`, and what `--config.profile` writes."""

import gzip
import json

import jax
import pytest
from processes import train_py

import vit_jax
from vit_jax.model.flops import flops_per_image
from vit_jax.parallel.compiled import collectives, size_of
from vit_jax.run.machine import peak_flops


def test_dry_run_counts_what_a_step_takes_and_writes_nothing(digits_config, tmp_path, capsys):
    digits_config.dry_run = True
    digits_config.augment.mixup_alpha = 0.2  # drawn in a loop that has no fixed number of rounds
    digits_config.parallel.update({'data': 1, 'fsdp': 8})
    plan = vit_jax.train(digits_config, str(tmp_path / 'run'))
    assert not list(tmp_path.iterdir())
    text = capsys.readouterr().out
    assert ' TFLOP, without what it recomputes; devices: 8\n' in text and 'x all-gather (' in text
    sizes = {name: x for name, x in digits_config.model.items() if x is not None}
    model = vit_jax.ViT(image_size=8, num_classes=10, channels=1, **sizes)
    assert plan['flops'] == 3 * digits_config.batch_size * flops_per_image(model)
    assert 0 < plan['state_bytes'] < plan['step_bytes']


@pytest.mark.slow
def test_profile_writes_a_trace_of_some_steps(digits_config, tmp_path):
    digits_config.profile = (2, 3)
    digits_config.num_steps = 6
    vit_jax.train(digits_config, str(tmp_path / 'run'))
    (trace,) = (tmp_path / 'run' / 'profile').rglob('*.trace.json.gz')
    events = json.loads(gzip.decompress(trace.read_bytes()))['traceEvents']
    calls, end = 0, 0.0
    for event in sorted(events, key=lambda event: event.get('ts', 0)):
        if event.get('name') == 'PjitFunction(train_step)' and event['ts'] > end:  # not nested
            calls, end = calls + 1, event['ts'] + event['dur']
    assert calls == 3  # the trace ends when the step after the last has started
    lines = map(json.loads, (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines())
    assert all(x['step_seconds'] > 0 for x in lines if 'images_per_second' in x)


@pytest.mark.parametrize('steps', ['(3,)', '(3, 2)', '(0, 2)', '(1, 2.5)', '(True, True)'])
def test_a_wrong_range_of_steps_exits_with_status_2(steps, capsys):
    assert train_py('--config=digits', f'--config.profile={steps}') == 2
    assert 'profile: expected the first and the last step' in capsys.readouterr().err


def test_peaks_are_found_by_the_name_of_a_device():
    assert peak_flops('TPU v5 lite') == 197e12
    assert peak_flops('NVIDIA H100 80GB HBM3') == 989e12
    assert peak_flops('cpu') == 0


PROGRAM = """
%body.1 (state: (s32[], f32[8])) -> (s32[], f32[8]) {
  %gather.1 = bf16[64,32]{1,0} all-gather(%x), dimensions={0}
  %sum.1 = (f32[8]{0}, f32[2,4]{1,0}) all-reduce(%a, %b), to_apply=%add
}

ENTRY %main.1 (x: f32[8]) -> f32[8] {
  %while.1 = (s32[], f32[8]) while(%t), body=%body.1, config={"known_trip_count":{"n":"12"}}
  %gather.2 = (bf16[4]{0}, bf16[32]{0}) all-gather-start(%y), dimensions={0}
}
"""


def test_collectives_count_as_often_as_their_loop_runs():
    assert size_of('(f32[8]{0}, bf16[2,4]{1,0}, pred[3])') == 32 + 16 + 3
    assert collectives(PROGRAM) == {
        'all-gather': (13, 12 * 64 * 32 * 2 + 72),
        'all-reduce': (12, 12 * 64),
    }


def test_collectives_of_a_real_program_are_found():
    mesh = jax.make_mesh((8,), ('x',))
    split = jax.NamedSharding(mesh, jax.P('x'))
    x = jax.ShapeDtypeStruct((16, 4), 'float32', sharding=split)
    compiled = jax.jit(lambda x: x.sum(axis=0), out_shardings=jax.NamedSharding(mesh, jax.P()))
    assert collectives(compiled.lower(x).compile().as_text()) == {'all-reduce': (1, 16)}
