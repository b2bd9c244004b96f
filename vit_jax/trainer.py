"""The training loop: resume → step → log → evaluate → save."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vit_jax.augment import check_augmentation
from vit_jax.checkpoint import Checkpoints
from vit_jax.config import check_config
from vit_jax.data import Examples, Stream, open_source, train_batches
from vit_jax.errors import InputError
from vit_jax.evaluate import evaluate
from vit_jax.initial import describe, find_start
from vit_jax.inputs import augmentation, open_examples, train_order
from vit_jax.metrics import Reporter, is_due
from vit_jax.model import ViT
from vit_jax.optim import (
    create_optimizer,
    learning_rate_factors,
    learning_rate_schedule,
    stop_frozen,
)
from vit_jax.parallel import Jit, Pmap, create_parallel
from vit_jax.run_directory import (
    add_skipped,
    has_checkpoint,
    note_examples,
    open_run_directory,
    write_json,
)
from vit_jax.step import TrainState, eval_step, start_state, train_step


def train(config: Any, workdir: str) -> dict[str, Any]:
    """Trains what a config describes, or goes on where an earlier call in `workdir` was stopped.

    Args:
      config: a ConfigDict with the keys of `configs/default.py`.
      workdir: run directory; made where it is missing.

    Returns:
      The last line of `metrics.jsonl`: 'step', 'split' ('test'), 'loss', 'accuracy'.

    Raises:
      InputError: where the config cannot work, or an example cannot be used.
      FloatingPointError: where a step's loss or gradient is not finite; names the step.
    """
    check_config(config)
    check_augmentation(config.augment.policy, config.augment.color_jitter)
    parallel = create_parallel(config.parallel.mode, config.batch_size)
    source = open_source(config.data.source, config.data.dir)
    resumed = Path(workdir) if has_checkpoint(Path(workdir)) else None
    start = find_start(config, source.class_names, source.channels, resumed)
    model, preprocessing = start.model, start.preprocessing

    with open_run_directory(workdir, config) as run_directory:
        examples, test_examples = (
            open_examples(config, source, split, preprocessing)
            for split in (config.data.train_split, config.data.test_split)
        )
        order = train_order(config, examples.num_examples, parallel.rows)
        num_steps = count_steps(config, examples.num_examples)
        schedule = learning_rate_schedule(config.optim, num_steps)
        init_key, train_key = jax.random.split(jax.random.key(config.seed))
        image = jnp.zeros((1, *preprocessing.shape))
        draw = jax.jit(partial(model.init, init_key, image))
        shapes = jax.eval_shape(draw)['params']
        factors = learning_rate_factors(shapes, config.optim.layer_decay, config.optim.freeze)
        optimizer = create_optimizer(config.optim, schedule, factors)
        create = jax.jit(partial(start_state, optimizer=optimizer))
        # Nothing that a user can have got wrong is left; Orbax starts threads.
        print(
            f'{source.name}: {examples} to train on, {test_examples} to test, '
            f'{len(source.class_names)} classes'
        )
        with Checkpoints(run_directory) as checkpoints:
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
                counts = {'train': examples.num_examples, 'test': test_examples.num_examples}
                note_examples(run_directory, counts)
                write_json(run_directory / 'config.json', config.to_dict())
                write_json(run_directory / 'description.json', describe(start, source.class_names))
            run_train_step, run_test = create_steps(
                parallel,
                model,
                optimizer,
                preprocessing.normalize,
                partial(stop_frozen, factors=factors),
                augmentation(config, examples, model.num_classes, parallel.axis_name),
                test_examples,
            )
            skipped = {'train': examples.skipped, 'test': test_examples.skipped}

            def save(step: int, state: TrainState, metrics: dict[str, float]) -> None:
                add_skipped(run_directory, skipped)
                checkpoints.save(step, to_items(parallel.collect(state)), metrics)

            with (
                Reporter(
                    run_directory,
                    first_step=first_step,
                    num_steps=num_steps,
                    batch_size=config.batch_size,
                    log_every_steps=config.log_every_steps,
                    learning_rate=schedule,
                ) as reporter,
                train_batches(
                    examples, order, range(first_step, num_steps), parallel.put_batch
                ) as batches,
            ):
                run_steps(
                    config,
                    range(first_step + 1, num_steps + 1),
                    parallel.spread(state),
                    batches,
                    lambda state, batch: run_train_step(state, batch, train_key),
                    run_test,
                    save,
                    reporter,
                )
            if count := add_skipped(run_directory, skipped):
                print(f'{run_directory}: {count} examples could not be used, see skipped.json')
            return reporter.lines[-1]


def run_steps(
    config: Any,
    steps: range,
    state: TrainState,
    batches: Iterator[Any],
    run_train_step: Callable[..., Any],
    run_test: Callable[[Any], dict[str, float]],
    save: Callable[[int, Any, dict[str, float]], None],
    reporter: Reporter,
) -> None:
    """Step, log, evaluate, save.

    Args:
      steps: to do, their numbers from 1.
      state: before the first of them, on the devices.
      batches: theirs, on the devices.
      run_train_step: (state, batch) → the next state, metrics.
      run_test: state → metrics on the test split.
      save: keeps (step, state, metrics on the test split).

    Raises:
      InputError: where an example cannot be used; the steps that were done are saved.
      FloatingPointError: see `train`.
    """
    pending = None  # the last step's metrics are fetched while the next one runs
    done = saved = steps.start - 1
    try:
        for step in steps:
            with reporter.waiting():
                batch = next(batches)
            state, metrics = run_train_step(state, batch)
            done = step
            if pending:
                reporter.train(*check_finite(*pending))
            pending = step, metrics
            saves = is_due(step, config.checkpoint_every_steps, steps.stop - 1)
            if saves or is_due(step, config.eval_every_steps, steps.stop - 1):
                reporter.train(*check_finite(*pending))
                pending = None
                _, test_metrics = check_finite(step, run_test(state))
                reporter.test(step, test_metrics)
                if saves:
                    save(step, state, test_metrics)
                    saved = step
                reporter.restart_clock()
    except InputError:
        if pending:
            reporter.train(*check_finite(*pending))
        if done > saved:  # its accuracy is not known, so it is the last to be the best
            save(done, state, {'accuracy': 0.0})
        raise
    if not steps and not reporter.was_tested(steps.start - 1):
        reporter.test(steps.start - 1, run_test(state))


def create_steps(
    parallel: Jit | Pmap,
    model: ViT,
    optimizer: optax.GradientTransformation,
    normalize: Callable[[jax.Array], jax.Array],
    freeze: Callable[[Any], Any],
    augment: Callable[..., Any],
    test_examples: Examples | Stream,
) -> tuple[Callable[..., Any], Callable[[Any], dict[str, float]]]:
    """The training step over the devices, and the evaluation of a state on the test split."""
    run_train_step = parallel.train_step(
        partial(
            train_step,
            model=model,
            optimizer=optimizer,
            augment=augment,
            normalize=normalize,
            freeze=freeze,
        )
    )
    run_eval_step = parallel.eval_step(partial(eval_step, model=model, normalize=normalize))

    def run_test(state: TrainState) -> dict[str, float]:
        return evaluate(partial(run_eval_step, state), parallel, test_examples)

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
        num_steps = math.ceil(
            config.num_epochs * num_examples * config.data.repeats / config.batch_size
        )
    if num_steps < 1:
        raise InputError(f'num_steps or num_epochs: expected at least one step, got {num_steps}')
    return num_steps
