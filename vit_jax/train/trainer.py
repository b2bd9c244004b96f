"""The training loop: resume → step → log → evaluate → save."""

from typing import Any

import jax
import jax.numpy as jnp

from vit_jax.data.batches import train_batches
from vit_jax.data.sources import open_source
from vit_jax.errors import InputError
from vit_jax.parallel.distributed import Wishes, agreed, check_same, join
from vit_jax.parallel.parallel import create_parallel, init, put
from vit_jax.run import signals
from vit_jax.run.checkpoint import Checkpoints
from vit_jax.run.directory import (
    add_skipped,
    check_run,
    open_run_directory,
    record_run,
    run_name,
)
from vit_jax.run.profile import profiled
from vit_jax.train.build import (
    create_learner,
    create_reporter,
    find_start,
    open_splits,
    train_order,
)
from vit_jax.train.checks import check_config, shared_options
from vit_jax.train.dry_run import plan_step
from vit_jax.train.evaluate import evaluate
from vit_jax.train.length import run_length, run_summary
from vit_jax.train.start import describe
from vit_jax.train.teacher import read_teacher


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
        start = find_start(config, source.class_names, source.channels, run_directory)
        description = describe(start, source.class_names, source.multi_label)
        description['run'] = agreed(run_name(run_directory))
        check_run(run_directory, config.to_dict(), description)
        splits = open_splits(config, source, start.preprocessing)
        check_same({'number of examples': splits.num_examples})
        length = run_length(config, splits.train.num_examples)
        order = train_order(config, splits.train, parallel.rows)
        distill, teacher = read_teacher(start, source, **config.distill)
        learner, schedule = create_learner(config, start, splits.train, length, parallel, distill)
        train_step = parallel.train_step(learner.train_step)
        eval_step = parallel.eval_step(learner.eval_step)
        found = f'{source.name}: {splits}, {len(source.class_names)} classes'
        print(*start.notes, found, *source.notes, *splits.notes, sep='\n')
        print(run_summary(start.model, order, length, run_directory, config.optim))
        if config.dry_run:
            return plan_step(learner, train_step, parallel, start.model, teacher)

        def save(tested: dict[str, float] | None) -> None:
            report.flush()  # raises if the last step has diverged
            add_skipped(run_directory, splits.skipped)
            with report.saving():
                checkpoints.save(done, parallel.collect(state), tested)

        # All options have been checked by now: from here on, only an example, a full disk or a
        # loss that is not finite can stop the run.
        with signals.until_saved(), Checkpoints(run_directory, description['run']) as checkpoints:
            init_key, train_key = jax.random.split(jax.random.key(config.seed))
            params = put(parallel, {'params': start.params})['params']
            init_args = init_key, jnp.zeros((1, *start.preprocessing.shape)), params
            new_state = jax.jit(learner.init)  # traced once, for its shapes and its values
            shapes = jax.eval_shape(new_state, *init_args)
            resumes = agreed(bool(checkpoints.steps))
            if resumes:
                done, state = checkpoints.restore_newest(parallel.placed(shapes))
                length.check_resumes(done)
                print(f'{run_directory}: {done} of {length.num_steps} steps are done')
            else:
                done, state = 0, init(parallel, new_state, *init_args)
            if done < length.num_steps:
                record_run(run_directory, config.to_dict(), description, splits.num_examples)
            state, teacher = parallel.spread(state), parallel.spread(teacher)
            steps = range(done, length.num_steps)
            with (
                Wishes(2) as wishes,
                create_reporter(
                    config, run_directory, length, done, schedule, order, learner
                ) as report,
                train_batches(splits.train, order, steps, parallel.put_batch) as batches,
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
