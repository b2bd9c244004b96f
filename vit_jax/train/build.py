"""From a config to objects. Besides this file, only the loop and its preparation read options."""

import math
from functools import partial
from typing import Any

import jax
import optax

from vit_jax.augment.augment import augment
from vit_jax.data.balanced import create_order
from vit_jax.data.batches import train_batches
from vit_jax.data.memory import InMemory
from vit_jax.data.order import TrainOrder
from vit_jax.data.preprocess import Preprocessing
from vit_jax.data.sources import Source, open_source, open_split
from vit_jax.data.splits import Splits
from vit_jax.data.stream import HELD, Stream
from vit_jax.errors import InputError
from vit_jax.model.shapes import abstract_variables, pair
from vit_jax.model.variants import DEFAULT_SIZES, variant_arguments
from vit_jax.model.vit import ViT
from vit_jax.parallel.distributed import is_first
from vit_jax.parallel.parallel import Jit, Pmap
from vit_jax.run.description import read_description
from vit_jax.run.directory import has_checkpoint
from vit_jax.run.machine import check_memory
from vit_jax.run.report import Reporter
from vit_jax.run.storage import AnyPath
from vit_jax.run.wandb_run import WandbRun
from vit_jax.train.checks import check_split
from vit_jax.train.distill import Distillation
from vit_jax.train.early_stopping import stop_reason
from vit_jax.train.length import Length
from vit_jax.train.losses import create_loss
from vit_jax.train.optim import create_optimizer, learning_rate_factors, stop_frozen
from vit_jax.train.schedule import learning_rate_schedule
from vit_jax.train.start import Start, start_from_run, start_from_weights, with_adapters
from vit_jax.train.step import Learner, step_keys


def find_start(
    config: Any, class_names: list[str], channels: int, run_directory: AnyPath | None = None
) -> Start:
    """The model that a run starts from, and its preprocessing.

    Args:
      config: every option.
      class_names: of the data.
      channels: of the data's pictures.
      run_directory: if it holds a checkpoint, init.weights is not read again.

    Raises:
      InputError: if an option is wrong, or the weights do not fit.
    """
    init, data, arguments = config.init, config.data, model_arguments(config.model)
    if init.weights and data.image_size is not None:
        arguments['image_size'] = pair(data.image_size)
    if init.weights and run_directory and has_checkpoint(run_directory):
        asked = dict(data) | {'image_size': arguments.get('image_size')}
        names = 'image_size', 'mean', 'std', 'crop_fraction'
        given = {name: asked[name] for name in names if asked[name] is not None}
        return start_from_run(run_directory, arguments, given)
    if init.weights:
        start = start_from_weights(
            init.weights,
            class_names,
            step=init.step,
            head=init.head,
            resize=init.resize,
            arguments=arguments,
            mean=data.mean,
            std=data.std,
            crop_fraction=data.crop_fraction,
        )
        optim = config.optim
        if not optim.lora_rank:
            return start
        return with_adapters(start, optim.lora_rank, optim.lora_kernels, config.seed)
    if config.optim.lora_rank:
        raise InputError('optim.lora_rank: expected init.weights, which adapters adapt; set both')
    for name in ('image_size', 'mean', 'std', 'crop_fraction'):
        if data[name] is None:
            raise InputError(
                f'init.weights: expected a run directory or a weight file that brings data.{name}, '
                f'got none; set either'
            )
    size = pair(data.image_size)
    preprocessing = Preprocessing(size, channels, data.mean, data.std, data.crop_fraction)
    sizes = {'image_size': size, 'channels': channels, 'num_classes': len(class_names)}
    try:
        model = ViT(**DEFAULT_SIZES | arguments | sizes)
    except InputError as error:
        raise InputError(f'config.model: {error}') from None
    return Start(model, None, preprocessing, _overridden(config.model))


def model_arguments(model: Any) -> dict[str, Any]:
    """The arguments of `ViT` that a config sets: the variant's, and whatever else is not None.

    Args:
      model: `config.model`.

    Raises:
      InputError: if there is no such variant.
    """
    arguments = {name: value for name, value in model.items() if value is not None}
    variant = arguments.pop('variant', None)
    return (variant_arguments(variant) if variant else {}) | arguments


def _overridden(model: Any) -> list[str]:
    """A note on what a config sets differently from its variant."""
    published = variant_arguments(model.variant) if model.variant else {}
    changed = [f'{n}={model[n]}' for n, x in published.items() if model[n] not in (None, x)]
    return [f'model.variant={model.variant}, with {", ".join(changed)}'] if changed else []


def open_splits(config: Any, source: Source, preprocessing: Preprocessing) -> Splits:
    """The training and the test split, see `open_examples`."""
    check_memory(
        f'batch_size: {config.batch_size:,} pictures of {preprocessing.shape} ahead of the devices',
        HELD * config.batch_size * math.prod(preprocessing.shape),
    )
    names = config.data.train_split, config.data.test_split
    return Splits(*(open_examples(config, source, name, preprocessing) for name in names))


def open_examples(
    config: Any, source: Source, split: str, preprocessing: Preprocessing
) -> InMemory | Stream:
    """The examples of a split, see `vit_jax.data.sources.open_split`."""
    return open_split(
        source,
        split,
        preprocessing,
        memory_gib=config.data.memory_gib,
        on_error=config.data.on_error,
        max_pixels=config.data.max_pixels,
        min_area=config.augment.random_resized_crop,
    )


def train_order(config: Any, examples: InMemory | Stream, rows: range) -> TrainOrder:
    """The order in which a run visits its examples.

    Args:
      examples: of the training split.
      rows: the rows of each batch that this process reads.

    Raises:
      InputError: see `create_order`.
    """
    data = config.data
    return create_order(data.sampling, examples, config.batch_size, rows, config.seed, data.repeats)


def training_batch(config: Any, step: int) -> tuple[jax.Array, jax.Array, list[str], str]:
    """The augmented batch of one step, as it goes into the model but for mean and std.

    Args:
      config: every option.
      step: its number, from 1.

    Returns:
      Images uint8 [b, h, w, c]; targets [b, num_classes], without label smoothing; class names; and
      the name of the data.
    """
    source = open_source(config.data.source, config.data.dir)
    start = find_start(config, source.class_names, source.channels)
    examples = open_examples(config, source, config.data.train_split, start.preprocessing)
    order = train_order(config, examples, range(config.batch_size))
    with train_batches(examples, order, range(step - 1, step), lambda batch: batch) as batches:
        batch = next(batches)
    augment = create_augment(config, examples, len(source.class_names), None)
    _, train_key = jax.random.split(jax.random.key(config.seed))

    @jax.jit
    def augmented(batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        keys, _ = step_keys(train_key, step - 1, batch['position'])
        return augment(batch['image'], batch['label'], keys, label_smoothing=0.0)

    images, targets = augmented(batch)
    return images, targets, source.class_names, f'{source.name}, {config.data.train_split}'


def create_augment(
    config: Any, examples: InMemory | Stream, num_classes: int, axis_name: str | None
) -> Any:
    """`augment` with a config's options.

    Args:
      examples: of the training split.
      num_classes: of the data.
      axis_name: see `augment`.
    """
    options = dict(config.augment)
    if isinstance(examples, Stream):
        options['random_resized_crop'] = 0.0  # a stream has cropped the original pictures
    return partial(augment, num_classes=num_classes, axis_name=axis_name, **options)


def create_reporter(
    config: Any,
    run_directory: AnyPath,
    length: Length,
    done: int,
    schedule: optax.Schedule,
    order: TrainOrder,
    learner: Learner,
) -> Reporter:
    """A reporter for the steps of a run.

    Args:
      length: of the run.
      done: steps already done.
      schedule: steps done → learning rate.
      order: of the examples.
      learner: from `create_learner`.
    """
    wandb_run = None
    if config.wandb_project and done < length.num_steps and is_first():
        run = read_description(run_directory)['run']
        wandb_run = WandbRun(config.wandb_project, run, run_directory, config.to_dict())
    return Reporter(
        run_directory,
        first_step=done,
        num_steps=length.num_steps,
        batch_size=config.batch_size,
        log_every_steps=length.log_every,
        max_loss=config.max_loss,
        examples=order.examples,
        epochs=order.epochs,
        learning_rate=jax.jit(schedule),
        flops=learner.flops,
        stop_reason=partial(stop_reason, **config.early_stopping),
        wandb_run=wandb_run,
    )


def create_learner(
    config: Any,
    start: Start,
    examples: InMemory | Stream,
    length: Length,
    parallel: Jit | Pmap,
    distillation: Distillation | None,
) -> tuple[Learner, optax.Schedule]:
    """The learner that a config describes, and its learning-rate schedule.

    Args:
      start: from `find_start`.
      examples: of the training split.
      length: of the run.
      parallel: how the steps run over the devices.
      distillation: from a teacher, if there is one.

    Raises:
      InputError: if an option of the optimizer or the loss is wrong, or the model does not fit the
        mesh.
    """
    optim = config.optim
    schedule = learning_rate_schedule(
        optim.schedule,
        optim.learning_rate,
        warmup_steps=length.warmup,
        num_steps=length.num_steps,
        cooldown_steps=length.cooldown,
    )
    params = abstract_variables(start.model)['params']
    num_parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    check_memory(f'model: {num_parameters:,} parameters', 4 * num_parameters)
    check_split(start.model, parallel, optim.accumulate_steps)
    factors = learning_rate_factors(params, optim.layer_decay, optim.freeze)
    learner = Learner(
        model=start.model,
        normalize=start.preprocessing.normalize,
        augment=create_augment(config, examples, start.model.num_classes, parallel.axis_name),
        optimizer=create_optimizer(
            optim.name,
            schedule,
            weight_decay=optim.weight_decay,
            b1=optim.b1,
            b2=optim.b2,
            clip_norm=optim.clip_norm,
            factors=factors,
            moments_dtype=optim.moments_dtype,
            gated=start.model.gated,
        ),
        freeze=partial(stop_frozen, factors=factors),
        accumulate_steps=optim.accumulate_steps,
        ema_decay=config.ema.decay,
        distillation=distillation,
        place_gradients=parallel.place_gradients,
        loss=create_loss(**config.loss, examples=examples, num_classes=start.model.num_classes),
    )
    return learner, schedule
