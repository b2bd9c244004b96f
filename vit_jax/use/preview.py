"""A contact sheet of what the network sees in training: look at your data before you train."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from vit_jax.errors import InputError
from vit_jax.train.build import training_batch

CELL = 112  # pixels; pictures with a shorter side are enlarged to at least this
MARGIN, LINE = 8, 15


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
    return contact_sheet(images[:shown], targets, class_names, columns, title)


def contact_sheet(
    images: UInt8[np.ndarray, 'n h w c'],
    targets: Float[np.ndarray, 'b num_classes'],
    class_names: list[str],
    columns: int,
    title: str,
) -> Image.Image:
    """Images in rows, with their targets below them."""
    _, height, width, _ = images.shape
    scale = -(-CELL // min(height, width)) if min(height, width) < CELL else 1
    cell = scale * width + MARGIN, scale * height + 2 * LINE + MARGIN
    rows = -(-len(images) // columns)
    columns = min(columns, len(images))
    size = columns * cell[0] + MARGIN, rows * cell[1] + MARGIN + 2 * LINE
    sheet = Image.new('RGB', size, 'white')
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(12)
    draw.text((MARGIN, MARGIN), title, 'black', font)
    for i, (image, target) in enumerate(zip(images, targets, strict=False)):
        left, top = i % columns * cell[0] + MARGIN, i // columns * cell[1] + MARGIN + 2 * LINE
        pixels = np.repeat(np.repeat(image, scale, 0), scale, 1)
        picture = Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
        sheet.paste(picture, (left, top))
        for line, text in enumerate(describe_target(target, class_names)):
            while draw.textlength(text, font) > cell[0] - MARGIN:
                text = text.removesuffix('…')[:-1] + '…'
            draw.text((left, top + scale * height + line * LINE), text, 'black', font)
    return sheet


def describe_target(target: Float[np.ndarray, 'num_classes'], class_names: list[str]) -> list[str]:
    """The top one or two classes of a target; with their weights if there are two."""
    likeliest = [
        int(label) for label in np.argsort(-target, kind='stable')[:2] if target[label] >= 0.005
    ]
    if len(likeliest) == 1:
        return [class_names[likeliest[0]]]
    return [f'{target[label]:.0%} {class_names[label]}' for label in likeliest]
