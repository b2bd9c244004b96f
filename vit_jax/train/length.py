"""How long a run is, and what it says of itself when it starts."""

import dataclasses
import math
from typing import Any

import jax

from vit_jax.data.order import TrainOrder
from vit_jax.errors import InputError
from vit_jax.model.flops import flops_per_image
from vit_jax.model.shapes import abstract_variables, pair, parameter_shapes
from vit_jax.model.vit import ViT
from vit_jax.run.report import is_due
from vit_jax.train.muon import describe_groups
from vit_jax.train.optim import learning_rate_factors
from vit_jax.train.schedule import WITH_COOLDOWN


@dataclasses.dataclass(frozen=True)
class Length:
    """The steps of a run, and the periods of logging, evaluation and checkpoints.

    Everything is due after the last step; a period of 0 means only then.

    Args:
      num_steps: of the run.
      warmup: steps until the peak of the learning rate.
      log_every, eval_every, checkpoint_every: periods in steps.
      cooldown: last steps, over which the learning rate falls to 0; 0 for none.
    """

    num_steps: int
    warmup: int
    log_every: int
    eval_every: int
    checkpoint_every: int
    cooldown: int = 0

    def check_resumes(self, done: int) -> None:
        """Validates that a run which has done some steps is not longer already.

        Raises:
          InputError: if it is.
        """
        if done > self.num_steps:
            raise InputError(
                f'num_steps or num_epochs: expected at least the {done:,} steps that the run has '
                f'done, got {self.num_steps:,}'
            )

    def saves_at(self, step: int) -> bool:
        """Whether a checkpoint is due after a number of steps, with an evaluation."""
        return is_due(step, self.checkpoint_every, self.num_steps)

    def tests_at(self, step: int) -> bool:
        """Whether an evaluation is due after a number of steps."""
        return self.saves_at(step) or is_due(step, self.eval_every, self.num_steps)


def run_length(config: Any, num_examples: int) -> Length:
    """The length of a run: `num_steps` if set, else enough for `num_epochs`.

    Args:
      config: every option.
      num_examples: in the training split.

    Raises:
      InputError: if the run has no steps or 2³¹ and more, the warm-up is as long as the run, or the
        cool-down is longer than the rest of it, or is not part of the schedule.
    """
    per_epoch = num_examples * config.data.repeats / config.batch_size
    steps = config.num_epochs * per_epoch if config.num_steps is None else config.num_steps
    if not 0 < steps < 2**31:
        raise InputError(
            f'num_steps or num_epochs: expected from 1 to 2,147,483,647 steps, got {steps:g}'
        )
    num_steps = math.ceil(steps)
    period = math.ceil(num_steps / 20)  # rounded up, so that the last one is not a short rest

    def duration(section: Any, name: str, unset: int) -> int:
        steps, epochs = section[f'{name}_steps'], section[f'{name}_epochs']
        if steps is None:
            steps = unset if epochs is None else epochs * per_epoch
        return math.ceil(min(steps, 2**31))  # which may be infinite

    if (warmup := duration(config.optim, 'warmup', num_steps // 20)) >= num_steps:
        raise InputError(
            f'optim.warmup_steps or optim.warmup_epochs: expected fewer than the {num_steps:,} '
            f'steps of the run, got {warmup:,}; None makes it a twentieth'
        )
    optim, cooldown = config.optim, 0
    if optim.schedule in WITH_COOLDOWN:
        # A fifth is enough to do as well as a cosine (https://arxiv.org/abs/2405.18392).
        cooldown = duration(optim, 'cooldown', min(num_steps // 5, num_steps - warmup))
    elif (optim.cooldown_steps, optim.cooldown_epochs) != (None, None):
        raise InputError(
            f'optim.cooldown_steps or optim.cooldown_epochs: expected None with '
            f'optim.schedule={optim.schedule!r}; or choose {" or ".join(WITH_COOLDOWN)}'
        )
    if warmup + cooldown > num_steps:
        raise InputError(
            f'optim.cooldown_steps or optim.cooldown_epochs: expected at most the '
            f'{num_steps - warmup:,} steps after the warm-up, got {cooldown:,}; None makes it a '
            f'fifth of the run'
        )
    return Length(
        num_steps,
        warmup,
        min(100, period) if config.log_every_steps is None else config.log_every_steps,
        duration(config, 'eval_every', period),
        duration(config, 'checkpoint_every', period),
        cooldown,
    )


def run_summary(
    model: ViT, order: TrainOrder, length: Length, run_directory: Any, optim: Any
) -> str:
    """Lines on the length of the run; on its model, its devices and where it writes.

    Args:
      optim: options of the optimizer; if it treats parameters differently, a line says which.
    """
    groups = ''
    if optim.name == 'muon':
        params = abstract_variables(model)['params']
        factors = learning_rate_factors(params, optim.layer_decay, optim.freeze)
        groups = f'{describe_groups(params, factors)}\n'
    cooldown = f', cool-down over {length.cooldown:,}' if length.cooldown else ''
    parameters = sum(map(math.prod, parameter_shapes(model).values()))
    patch = pair(model.patch_size)
    few = '\nfew steps to learn in: raise num_epochs or lower batch_size for more'
    return (
        f'{length.num_steps:,} steps of {order.batch_size:,} pictures: '
        f'{order.epochs(length.num_steps):,.1f} epochs of {1 / order.epochs(1):,.1f} steps; '
        f'warm-up over {length.warmup:,}{cooldown}\n'
        f'{parameters:,} parameters: dim {model.dim}, depth {model.depth}, {model.heads} heads of '
        f'{model.dim_head}, mlp_dim {model.mlp_dim}, patches of {" x ".join(map(str, patch))}; '
        f'{flops_per_image(model) / 1e9:,.3g} GFLOP for a picture\n'
        f'{groups}'
        f'{jax.device_count()} x {jax.devices()[0].device_kind}; writing to {run_directory}'
        f'{few if length.num_steps < 100 else ""}'
    )
