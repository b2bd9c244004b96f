"""A contact sheet of what the network sees in training: look at your data before you train."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from PIL import Image

from vit_jax.errors import InputError
from vit_jax.train.build import training_batch
from vit_jax.use.contact_sheet import contact_sheet


def preview(config: Any, step: int = 1, rows: int = 4, columns: int = 8) -> Image.Image:
    """The first images of a training batch as the model sees them, except for mean and std.

    Below each are its classes, with their weights if several were mixed (without label smoothing).

    Args:
      config: a ConfigDict with the keys of `configs/default.py`.
      step: whose batch, counted from 1.
      rows, columns: of the sheet; a small batch fills less.

    Raises:
      InputError: if the config is invalid, or the sheet is empty.
    """
    if min(step, rows, columns) < 1 or step > 2**31:
        raise InputError(
            f'expected step, rows and columns of at least 1, got {step}, {rows}, {columns}'
        )
    images, targets, class_names, name = jax.device_get(training_batch(config, step))
    shown = min(rows * columns, len(images))
    title = f'{name}: step {step}, {shown} of {len(images)} images'
    captions = [describe_target(target, class_names) for target in targets[:shown]]
    return contact_sheet(images[:shown], captions, columns, title)


def describe_target(target: Float[np.ndarray, 'num_classes'], class_names: list[str]) -> list[str]:
    """The classes of a target, likeliest first; with their weights if they are mixed."""
    likeliest = [int(x) for x in np.argsort(-target, kind='stable') if target[x] >= 0.005]
    return [
        class_names[label] if target[label] > 0.995 else f'{target[label]:.0%} {class_names[label]}'
        for label in likeliest
    ]
