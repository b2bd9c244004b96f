"""The training loop: resume → step → log → evaluate → save."""

from typing import Any

import jax
import jax.numpy as jnp

from vit_jax.data.batches import train_batches
from vit_jax.data.sources import open_source
from vit_jax.errors import InputError
from vit_jax.parallel.distributed import Wishes, agreed, check_same, join
from vit_jax.parallel.parallel import Jit, Pmap, create_parallel, init, put
from vit_jax.run import signals
from vit_jax.run.checkpoint import Checkpoints
from vit_jax.run.directory import add_skipped, open_run_directory, record_run
from vit_jax.run.profile import profiled
from vit_jax.train.build import create_reporter
from vit_jax.train.checks import check_config, shared_options
from vit_jax.train.dry_run import plan_step
from vit_jax.train.evaluate import evaluate
from vit_jax.train.prepare import Run, prepare
from vit_jax.train.step import TrainState


def train(config: Any, workdir: str) -> dict[str, Any]:
    """Trains what a config describes, or resumes the run in `workdir`.

    Args:
      config: a ConfigDict with the keys of `configs/default.py`.
      workdir: the run directory; created if it is missing.

    Returns:
      The last line of `metrics.jsonl`: 'step', 'split' ('test'), 'loss', 'accuracy', see
      `evaluate`. With `dry_run`, see `plan_step`.

    Raises:
      InputError: if an option is wrong, or an example is unusable.
      Diverged: if the loss or gradient of a step is not finite, or the loss above `max_loss`.
      Interrupted: if a signal has asked the run to stop; what was learned so far is saved.
      OSError: if a file cannot be written.
    """
    check_config(config)
    join(**config.distributed)
    parallel = create_parallel(batch_size=config.batch_size, **config.parallel)
    source = open_source(config.data.source, config.data.dir)

    check_same(shared_options(config) | {'--workdir': workdir})
    with open_run_directory(workdir) as run_directory:
        run = prepare(config, source, parallel, run_directory)
        splits, length, learner = run.splits, run.length, run.learner
        train_step = parallel.train_step(learner.train_step)
        eval_step = parallel.eval_step(learner.eval_step)
        if config.dry_run:
            return plan_step(learner, train_step, parallel, run.start.model, run.teacher)

        def save(tested: dict[str, float] | None) -> None:
            report.flush()  # raises if the last step has diverged
            add_skipped(run_directory, splits.skipped)
            with report.saving():
                checkpoints.save(done, parallel.collect(state), tested)

        # All options have been checked by now: from here on, only an example, a full disk or a
        # loss that is not finite can stop the run.
        name = run.description['run']
        with signals.until_saved(), Checkpoints(run_directory, name) as checkpoints:
            init_key, train_key = jax.random.split(jax.random.key(config.seed))
            resumes = agreed(bool(checkpoints.steps))
            done, state = first_state(run, parallel, init_key, checkpoints if resumes else None)
            if resumes:
                print(f'{run_directory}: {done} of {length.num_steps} steps are done')
            if done < length.num_steps:
                examples = splits.num_examples
                record_run(run_directory, config.to_dict(), run.description, examples)
            state, teacher = parallel.spread(state), parallel.spread(run.teacher)
            steps = range(done, length.num_steps)
            with (
                Wishes(2) as wishes,
                create_reporter(
                    config, run_directory, length, done, run.schedule, run.order, learner
                ) as report,
                train_batches(splits.train, run.order, steps, parallel.put_batch) as batches,
            ):
                try:
                    if not resumes:  # from here on, metrics have a checkpoint
                        save(None)
                        checkpoints.wait()
                    elif length.tests_at(done):
                        tested = agreed(checkpoints.metrics(done))
                        if tested is None:  # the evaluation was interrupted
                            tested = evaluate(eval_step, state, splits.test, parallel)
                            checkpoints.add_metrics(done, tested)
                        report.test(done, tested)
                    traced = profiled(batches, run_directory / 'profile', done, config.profile)
                    for batch in report.timed(traced):
                        state, metrics = train_step(state, batch, train_key, teacher=teacher)
                        done += 1
                        signals.defer()  # there is something to save now
                        report.train(done, metrics)  # raises if the step before has diverged
                        tested = None
                        if length.tests_at(done):
                            report.flush()  # the time of evaluating is not this step's
                            tested = evaluate(eval_step, state, splits.test, parallel)
                            report.test(done, tested)
                        is_due = checkpoints.is_due(config.checkpoint_every_minutes)
                        is_due, stops = wishes(is_due, signals.has_come())
                        if length.saves_at(done) or is_due or report.ends_early:
                            save(tested)
                        checkpoints.check()
                        if stops:
                            signals.stop()
                except (InputError, signals.Interrupted) as error:
                    # Keep what was learned so far, unless only this process has ended.
                    is_alone = isinstance(error, InputError) and jax.process_count() > 1
                    if done != checkpoints.last and not is_alone:
                        save(None)
                    checkpoints.wait()  # raises if the checkpoint cannot be written
                    raise
            if count := add_skipped(run_directory, splits.skipped):
                print(f'{run_directory}: examples skipped: {count}, see skipped.json')
            return report.lines[-1]


def first_state(
    run: Run, parallel: Jit | Pmap, key: jax.Array, checkpoints: Checkpoints | None
) -> tuple[int, TrainState]:
    """The number of steps that a run has done, and the state after them.

    Args:
      key: of new parameters.
      checkpoints: to resume from; None for a new run.
    """
    params = put(parallel, {'params': run.start.params})['params']
    arguments = key, jnp.zeros((1, *run.start.preprocessing.shape)), params
    new_state = jax.jit(run.learner.init)  # traced once, for its shapes and its values
    shapes = jax.eval_shape(new_state, *arguments)
    if checkpoints is None:
        return 0, init(parallel, new_state, *arguments)
    done, state = checkpoints.restore_newest(parallel.placed(shapes))
    run.length.check_resumes(done)
    return done, state
