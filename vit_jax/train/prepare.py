"""What a run needs before its first step: all that its config describes, checked."""

from typing import Any, NamedTuple

import optax

from vit_jax.data.order import TrainOrder
from vit_jax.data.sources import Source
from vit_jax.data.splits import Splits
from vit_jax.parallel.distributed import agreed, check_same
from vit_jax.parallel.parallel import Jit, Pmap
from vit_jax.run.directory import check_run, run_name
from vit_jax.run.storage import AnyPath
from vit_jax.train.build import create_learner, find_start, open_splits, train_order
from vit_jax.train.early_stopping import check_metric
from vit_jax.train.length import Length, run_length, run_summary
from vit_jax.train.start import Start, describe
from vit_jax.train.step import Learner
from vit_jax.train.teacher import read_teacher


class Run(NamedTuple):
    """What a run starts from, learns from, and how.

    Args:
      start: the model, its initial parameters, and the preprocessing.
      description: of these and of the data, see `vit_jax.train.start.describe`; with the run's
        name.
      splits: the examples to train and to test on.
      length: of the run, and its periods.
      order: of the training examples.
      learner: what learns.
      schedule: steps done → learning rate.
      teacher: the variables of the teacher; None without one.
    """

    start: Start
    description: dict[str, Any]
    splits: Splits
    length: Length
    order: TrainOrder
    learner: Learner
    schedule: optax.Schedule
    teacher: Any


def prepare(config: Any, source: Source, parallel: Jit | Pmap, run_directory: AnyPath) -> Run:
    """Builds a run, and says what it found.

    Args:
      config: every option.
      source: of the data.
      parallel: how the steps run over the devices.
      run_directory: what it holds already must fit.

    Raises:
      InputError: if an option is wrong, does not fit the data, or may not change on resume.
    """
    start = find_start(config, source.class_names, source.channels, run_directory)
    description = describe(start, source.class_names, source.multi_label)
    description['run'] = agreed(run_name(run_directory))
    check_run(run_directory, config.to_dict(), description)
    metric, has_average = config.early_stopping.metric, config.ema.decay > 0
    check_metric(metric, multi_label=source.multi_label, has_average=has_average)
    splits = open_splits(config, source, start.preprocessing)
    check_same({'number of examples': splits.num_examples})
    length = run_length(config, splits.train.num_examples)
    order = train_order(config, splits.train, parallel.rows)
    distill, teacher = read_teacher(start, source, **config.distill)
    learner, schedule = create_learner(config, start, splits.train, length, parallel, distill)
    found = f'{source.name}: {splits}, {len(source.class_names)} classes'
    print(*start.notes, found, *source.notes, *splits.notes, sep='\n')
    print(run_summary(start.model, order, length, run_directory, config.optim))
    return Run(start, description, splits, length, order, learner, schedule, teacher)
