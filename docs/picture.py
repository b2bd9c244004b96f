"""Draws the picture in the README: test digits and the predictions of a run.

python docs/picture.py runs/digits docs/digits.png
"""

import sys

import numpy as np
from PIL import Image, ImageDraw

from vit_jax import Predictor
from vit_jax.data.sources import open_source

SIDE, CAPTION, COLUMNS, ROWS = 96, 30, 8, 2  # in pixels (two), in pictures (two)


def main(run_directory: str, path: str) -> None:
    """Draws the first correctly classified digits of the test split, then the first mistake."""
    predictor = Predictor(run_directory)
    split = open_source('tfds:digits').open('test')
    digits = [split[i] for i in range(len(split))]
    images = np.stack([digit.decode() for digit in digits])
    labels = np.array([digit.label for digit in digits])
    probabilities = predictor(images)
    classes = probabilities.argmax(-1)
    right, wrong = np.flatnonzero(classes == labels), np.flatnonzero(classes != labels)
    shown = [*right[: COLUMNS * ROWS - 1], *wrong[:1]]

    sheet = Image.new('RGB', (COLUMNS * SIDE, ROWS * (SIDE + CAPTION)), 'white')
    draw = ImageDraw.Draw(sheet)
    for place, index in enumerate(shown):
        x, y = place % COLUMNS * SIDE, place // COLUMNS * (SIDE + CAPTION)
        digit = Image.fromarray(255 - images[index, ..., 0])
        sheet.paste(digit.resize((SIDE - 8, SIDE - 8), Image.Resampling.NEAREST), (x + 4, y + 4))
        name = predictor.class_names[classes[index]]
        colour = 'black' if classes[index] == labels[index] else 'crimson'
        text = f'{name}  {probabilities[index].max():.0%}'
        draw.text((x + SIDE // 2, y + SIDE + 8), text, colour, anchor='mm', font_size=15)
    sheet.save(path, optimize=True)


if __name__ == '__main__':
    main(*sys.argv[1:])
