"""Learning rates against closed forms and optax, and the lengths of warm-up and cool-down."""

import math

import jax
import jax.numpy as jnp
import optax
import pytest

from vit_jax.errors import InputError
from vit_jax.train.config import default_config
from vit_jax.train.length import run_length
from vit_jax.train.schedule import learning_rate_schedule

DECAYS = {
    'cosine': lambda t: 0.5 * (1 + math.cos(math.pi * (t - 10) / 40)),
    'linear': lambda t: (50 - t) / 40,
    'rsqrt': lambda t: math.sqrt(10 / t),
    'constant': lambda t: 1.0,
}


@pytest.mark.parametrize('name', DECAYS)
def test_schedule_is_linear_then_decays(name):
    schedule = learning_rate_schedule(name, 0.1, warmup_steps=10, num_steps=50)
    for step in range(51):
        expected = 0.1 * (step / 10 if step < 10 else DECAYS[name](step))
        assert float(schedule(step)) == pytest.approx(expected, abs=1e-8)


def test_cosine_is_the_program_that_optax_makes():
    ours = learning_rate_schedule('cosine', 0.1, warmup_steps=10, num_steps=50)
    theirs = optax.warmup_cosine_decay_schedule(0.0, 0.1, warmup_steps=10, decay_steps=50)
    one, other = (str(jax.make_jaxpr(schedule)(jnp.int32(3))) for schedule in (ours, theirs))
    assert one == other


@pytest.mark.parametrize('name', ['rsqrt', 'constant'])
def test_cooldown_is_linear_to_zero(name):
    schedule, without = (
        learning_rate_schedule(name, 0.1, warmup_steps=10, num_steps=50, cooldown_steps=steps)
        for steps in (20, 0)
    )
    for step in range(51):
        expected = min(1, (50 - step) / 20) * float(without(step))
        assert float(schedule(step)) == pytest.approx(expected, abs=1e-8)


def test_rsqrt_without_warmup_decays_over_ten_thousand_steps():
    schedule = learning_rate_schedule('rsqrt', 0.1, warmup_steps=0, num_steps=50_000)
    assert float(schedule(0)) == pytest.approx(0.1)
    assert float(schedule(30_000)) == pytest.approx(0.05)


def test_unknown_schedules_raise():
    with pytest.raises(InputError, match="one of cosine, linear, rsqrt, constant, got 'step'"):
        learning_rate_schedule('step', 0.1, warmup_steps=1, num_steps=2)


def length_of(**options):
    config = default_config()
    config.num_steps = 100
    config.optim.update(options)
    return run_length(config, 1280)  # ten steps an epoch


def test_cooldown_is_a_fifth_of_the_run_in_steps_or_in_epochs():
    assert length_of(schedule='cosine').cooldown == 0
    assert length_of(schedule='constant').cooldown == 20
    assert length_of(schedule='rsqrt', warmup_steps=90).cooldown == 10
    assert length_of(schedule='rsqrt', cooldown_epochs=1.5).cooldown == 15
    assert length_of(schedule='rsqrt', cooldown_steps=0, cooldown_epochs=1.5).cooldown == 0


def test_impossible_cooldowns_raise():
    with pytest.raises(InputError, match='at most the 70 steps after the warm-up, got 80'):
        length_of(schedule='constant', warmup_steps=30, cooldown_epochs=8.0)
    with pytest.raises(InputError, match="None with optim.schedule='cosine'; or choose rsqrt"):
        length_of(cooldown_steps=0)
