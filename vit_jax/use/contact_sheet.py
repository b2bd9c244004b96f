"""Many images with captions in one picture."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

CELL = 112  # pixels; images with a shorter side are enlarged to at least this
MARGIN, LINE = 8, 15


def contact_sheet(
    images: UInt8[np.ndarray, 'n h w c'],
    captions: Sequence[Sequence[str]],
    columns: int,
    title: str,
) -> Image.Image:
    """Images in rows, each with the lines of its caption below; long lines are cut."""
    _, height, width, _ = images.shape
    scale = -(-CELL // min(height, width)) if min(height, width) < CELL else 1
    lines = max(map(len, captions))
    cell = scale * width + MARGIN, scale * height + lines * LINE + MARGIN
    rows = -(-len(images) // columns)
    columns = min(columns, len(images))
    font = ImageFont.load_default(12)
    width_of_title = math.ceil(font.getlength(title)) + MARGIN
    size = max(columns * cell[0], width_of_title) + MARGIN, rows * cell[1] + MARGIN + 2 * LINE
    sheet = Image.new('RGB', size, 'white')
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN), title, 'black', font)
    for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
        left, top = i % columns * cell[0] + MARGIN, i // columns * cell[1] + MARGIN + 2 * LINE
        pixels = np.repeat(np.repeat(image, scale, 0), scale, 1)
        picture = Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
        sheet.paste(picture, (left, top))
        for line, text in enumerate(caption):
            while draw.textlength(text, font) > cell[0] - MARGIN:
                text = text.removesuffix('…')[:-1] + '…'
            draw.text((left, top + scale * height + line * LINE), text, 'black', font)
    return sheet
