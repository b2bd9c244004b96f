"""The training loop: resume → step → log → evaluate → save."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vit_jax.augment import augment
from vit_jax.checkpoint import Checkpoints
from vit_jax.config import check_config
from vit_jax.data import Examples, open_source, train_batch
from vit_jax.errors import InputError
from vit_jax.evaluate import evaluate
from vit_jax.initial import describe, find_start
from vit_jax.metrics import Reporter, is_due
from vit_jax.model import ViT
from vit_jax.optim import (
    create_optimizer,
    learning_rate_factors,
    learning_rate_schedule,
    stop_frozen,
)
from vit_jax.parallel import Jit, Pmap, create_parallel
from vit_jax.run_directory import has_checkpoint, open_run_directory, write_json
from vit_jax.step import TrainState, eval_step, start_state, train_step


def train(config: Any, workdir: str) -> dict[str, Any]:
    """Trains what a config describes, or goes on where an earlier call in `workdir` was stopped.

    Args:
      config: a ConfigDict with the keys of `configs/default.py`.
      workdir: run directory; made where it is missing.

    Returns:
      The last line of `metrics.jsonl`: 'step', 'split' ('test'), 'loss', 'accuracy'.

    Raises:
      InputError: where the config cannot work.
      FloatingPointError: where a step's loss or gradient is not finite; names the step.
    """
    check_config(config)
    parallel = create_parallel(config.parallel.mode, config.batch_size)
    source = open_source(config.data.source, config.data.dir)
    resumed = Path(workdir) if has_checkpoint(Path(workdir)) else None
    start = find_start(config, source.class_names, source.channels, resumed)
    model, preprocessing = start.model, start.preprocessing

    with (
        open_run_directory(workdir, config) as run_directory,
        Checkpoints(run_directory) as checkpoints,
    ):
        examples = source.read(config.data.train_split, preprocessing.resize)
        test_examples = source.read(config.data.test_split, preprocessing.resize)
        num_steps = count_steps(config, len(examples.labels))
        schedule = learning_rate_schedule(config.optim, num_steps)
        init_key, train_key = jax.random.split(jax.random.key(config.seed))
        image = preprocessing.normalize(jnp.asarray(examples.images[:1]))
        draw = jax.jit(partial(model.init, init_key, image))
        shapes = jax.eval_shape(draw)['params']
        factors = learning_rate_factors(shapes, config.optim.layer_decay, config.optim.freeze)
        optimizer = create_optimizer(config.optim, schedule, factors)
        create = jax.jit(partial(start_state, optimizer=optimizer))

        first_step = checkpoints.newest or 0
        if first_step:
            done = 'all' if first_step >= num_steps else f'{first_step} of'
            print(f'{run_directory}: {done} {num_steps} steps are done')
            state = from_items(
                checkpoints.restore(first_step, to_items(jax.eval_shape(create, shapes)))
            )
        else:
            for note in start.notes:
                print(f'{config.init.weights}: {note}')
            state = create(start.params or draw()['params'])
        if first_step < num_steps:
            write_json(run_directory / 'config.json', config.to_dict())
            write_json(run_directory / 'description.json', describe(start, source.class_names))
        with Reporter(
            run_directory,
            first_step=first_step,
            num_steps=num_steps,
            batch_size=config.batch_size,
            log_every_steps=config.log_every_steps,
            learning_rate=schedule,
        ) as reporter:
            run_train_step, run_test = create_steps(
                config,
                parallel,
                model,
                optimizer,
                preprocessing.normalize,
                partial(stop_frozen, factors=factors),
                test_examples,
            )
            state = parallel.spread(state)
            pending = None  # the last step's metrics are fetched while the next one runs
            for step in range(first_step + 1, num_steps + 1):
                batch = train_batch(
                    examples, step - 1, batch_size=config.batch_size, seed=config.seed
                )
                state, metrics = run_train_step(state, parallel.put_batch(batch), train_key)
                if pending:
                    reporter.train(*check_finite(*pending))
                pending = step, metrics
                saves = is_due(step, config.checkpoint_every_steps, num_steps)
                if saves or is_due(step, config.eval_every_steps, num_steps):
                    reporter.train(*check_finite(*pending))
                    pending = None
                    _, test_metrics = check_finite(step, run_test(state))
                    reporter.test(step, test_metrics)
                    if saves:
                        checkpoints.save(step, to_items(parallel.collect(state)), test_metrics)
                    reporter.restart_clock()
            if first_step >= num_steps and not reporter.was_tested(first_step):
                reporter.test(first_step, run_test(state))
            return reporter.lines[-1]


def create_steps(
    config: Any,
    parallel: Jit | Pmap,
    model: ViT,
    optimizer: optax.GradientTransformation,
    normalize: Callable[[jax.Array], jax.Array],
    freeze: Callable[[Any], Any],
    test_examples: Examples,
) -> tuple[Callable[..., Any], Callable[[Any], dict[str, float]]]:
    """The training step over the devices, and the evaluation of a state on the test split."""
    run_augment = partial(augment, num_classes=model.num_classes, **config.augment)
    run_train_step = parallel.train_step(
        partial(
            train_step,
            model=model,
            optimizer=optimizer,
            augment=run_augment,
            normalize=normalize,
            freeze=freeze,
        )
    )
    run_eval_step = parallel.eval_step(partial(eval_step, model=model, normalize=normalize))

    def run_test(state: TrainState) -> dict[str, float]:
        return evaluate(partial(run_eval_step, state), parallel, test_examples, config.batch_size)

    return run_train_step, run_test


def check_finite(step: int, metrics: Any) -> tuple[int, dict[str, float]]:
    """Brings a step's metrics to the host.

    Raises:
      FloatingPointError: where one is not finite.
    """
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    for name, value in values.items():
        if not math.isfinite(value):
            raise FloatingPointError(
                f'step {step}: {name} is {value}, and nothing of it was saved; '
                f'try a lower optim.learning_rate, a longer warm-up or optim.clip_norm'
            )
    return step, values


def to_items(state: TrainState) -> dict[str, Any]:
    """A state as the checkpoint holds it: parameters can be restored alone."""
    return {
        'params': state.params,
        'training': {'step': state.step, 'opt_state': state.opt_state},
    }


def from_items(items: dict[str, Any]) -> TrainState:
    """The state that `to_items` took apart."""
    return TrainState(params=items['params'], **items['training'])


def count_steps(config: Any, num_examples: int) -> int:
    """Length of the run: `num_steps`, or as many as it takes for `num_epochs`.

    Raises:
      InputError: where that is not at least one.
    """
    if config.num_steps is not None:
        num_steps = config.num_steps
    else:
        num_steps = math.ceil(config.num_epochs * num_examples / config.batch_size)
    if num_steps < 1:
        raise InputError(f'num_steps or num_epochs: expected at least one step, got {num_steps}')
    return num_steps
