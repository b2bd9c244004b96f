"""The Vision Transformer as an animation: a picture, its patches, tokens, layers and the answer.

python -m vit_jax.use.animation RUN PICTURE OUTPUT.gif

Everything shown is the model's own: the patches, which of them the cls token attends to in each
layer, and the probabilities.
"""

import argparse
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vit_jax.use.attention import patch_attention
from vit_jax.use.predict import Picture, Predictor

WIDTH, HEIGHT, SCALE = 640, 360, 2  # pixels; drawn SCALE times as large, then reduced
FRAMES_PER_SECOND = 12.5  # GIF counts in hundredths of a second
BACKGROUND, FAINT, PALE, BRIGHT, ACCENT = '#10131c', '#262b3a', '#7d869c', '#eef1f8', '#ffb84d'
PICTURE = (40, 52, 240)  # left, top and side of the picture
ROW = (40, 312, 14)  # left and top of the row of tokens, height of a token
CAPTION, BARS = (320, 60), (320, 150)  # left and top


def animate(predictor: Predictor, image: Picture) -> Iterator[Image.Image]:
    """The frames of the animation.

    Args:
      predictor: of a model with a cls token.
      image: a picture as for the predictor.
    """
    pixels = predictor.preprocess(image)
    attention = predictor.attention([pixels])[0].mean(axis=1)  # of all heads
    first = predictor.model.num_prefix
    scenes = _Scenes(
        pixels,
        patch_attention(attention, predictor.model),
        attention[:, first:, first:],
        predictor.top_k([pixels], 3)[0],
        predictor.model.grid,
    )
    depth = len(scenes.attention)
    script: list[tuple[float, Callable[[float], Image.Image]]] = [
        (0.9, scenes.picture),
        (1.4, scenes.cut),
        (1.4, scenes.fly),
        (1.0, scenes.join),
        *((4.8 / depth, lambda t, layer=layer: scenes.layer(layer, t)) for layer in range(depth)),
        (2.4, scenes.answer),
    ]
    for seconds, draw in script:
        number = max(1, round(seconds * FRAMES_PER_SECOND))
        for frame in range(number):
            yield draw((frame + 1) / number)


class _Scenes:
    """Draws a frame of each scene, at a time from 0 to 1."""

    def __init__(
        self,
        pixels: np.ndarray,
        attention: np.ndarray,
        between_patches: np.ndarray,
        answer: list[tuple[str, float]],
        grid: tuple[int, int],
    ) -> None:
        self.attention, self.between = attention, between_patches
        self.probabilities, self.grid = answer, grid
        rgb = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
        side = SCALE * PICTURE[2]
        resized = Image.fromarray(rgb).resize((side, side), Image.Resampling.NEAREST)
        rows, columns = grid
        self.size = side / columns, side / rows
        self.patches = [
            resized.crop((round(x), round(y), round(x + self.size[0]), round(y + self.size[1])))
            for y in np.arange(rows) * self.size[1]
            for x in np.arange(columns) * self.size[0]
        ]
        height, width = pixels.shape[:2]
        self.size_text = f'{width} x {height} pixels'

    def picture(self, _: float) -> Image.Image:
        frame = _canvas('A picture', self.size_text)
        self._paste_all(frame, gap=0.0)
        return _finish(frame)

    def cut(self, t: float) -> Image.Image:
        frame = _canvas(f'An image is worth {len(self.patches)} words', 'each patch is a word')
        self._paste_all(frame, gap=_ease(min(1.0, 1.6 * t)))
        return _finish(frame)

    def fly(self, t: float) -> Image.Image:
        frame = _canvas('Patches become tokens', 'one linear layer, plus their position')
        self._paste_all(frame, gap=1.0, shade=0.35 + 0.65 * (1 - t))
        for i, patch in enumerate(self.patches):
            start = 0.55 * i / len(self.patches)
            moved = _ease(min(1.0, max(0.0, (t - start) / 0.45)))
            if moved:
                here, there = self._place(i, 1.0), self._token(i + 1)
                box = [a + (b - a) * moved for a, b in zip(here, there, strict=True)]
                size = max(1, round(box[2] - box[0])), max(1, round(box[3] - box[1]))
                frame.paste(patch.resize(size), (round(box[0]), round(box[1])))
        return _finish(frame)

    def join(self, t: float) -> Image.Image:
        frame = _canvas('A cls token joins', 'it will gather what the answer needs')
        self._paste_all(frame, gap=1.0, shade=0.35)
        self._draw_tokens(frame)
        self._draw_cls(frame, (1 - _ease(t)) * SCALE * ROW[0])
        return _finish(frame)

    def layer(self, layer: int, t: float) -> Image.Image:
        weights = self.attention[layer].ravel()
        before = self.attention[layer - 1].ravel() if layer else np.zeros_like(weights)
        shown = before + (weights - before) * _ease(min(1.0, 2 * t))
        title = f'Layer {layer + 1} of {len(self.attention)}'
        frame = _canvas(title, 'tokens read each other; bright: what cls reads')
        self._paste_all(frame, gap=1.0, weights=shown)
        self._draw_tokens(frame, shown)
        self._draw_layers(frame, layer)
        self._draw_arcs(frame, layer, shown)
        self._draw_cls(frame)
        return _finish(frame)

    def answer(self, t: float) -> Image.Image:
        frame = _canvas('The answer', 'read from the cls token')
        grown = _ease(min(1.0, 2.5 * t))
        self._paste_all(frame, gap=1 - grown, shade=0.25 + 0.75 * grown)
        self._draw_tokens(frame, self.attention[-1].ravel())
        self._draw_cls(frame)
        draw = ImageDraw.Draw(frame)
        for i, (name, probability) in enumerate(self.probabilities):
            left, top = SCALE * BARS[0], SCALE * (BARS[1] + 46 * i)
            colour = ACCENT if i == 0 else PALE
            length = max(SCALE * 2, SCALE * 280 * probability * grown)
            draw.text((left, top), name, BRIGHT if i == 0 else PALE, _font(15))
            draw.text(
                (left + SCALE * 280, top), f'{probability:.0%}', colour, _font(15), anchor='ra'
            )
            top += SCALE * 22
            for end, fill in ((SCALE * 280, FAINT), (length, colour)):
                draw.rounded_rectangle((left, top, left + end, top + SCALE * 8), 4, fill=fill)
        return _finish(frame)

    def _place(self, i: int, gap: float) -> tuple[float, float, float, float]:
        """Where patch i lies in the picture: left, top, right, bottom."""
        row, column = divmod(i, self.grid[1])
        width, height = self.size
        shrink = 0.06 * gap
        left = SCALE * PICTURE[0] + (column + shrink) * width
        top = SCALE * PICTURE[1] + (row + shrink) * height
        return left, top, left + (1 - 2 * shrink) * width, top + (1 - 2 * shrink) * height

    def _token(self, i: int) -> tuple[float, float, float, float]:
        """Where token i lies in the row."""
        left, top, height = (float(SCALE * x) for x in ROW)
        step = SCALE * (WIDTH - 2 * ROW[0]) / (len(self.patches) + 1)
        return left + i * step, top, left + (i + 0.78) * step, top + height

    def _paste_all(
        self,
        frame: Image.Image,
        gap: float,
        shade: float = 1.0,
        weights: np.ndarray | None = None,
    ) -> None:
        light = np.full(len(self.patches), shade)
        if weights is not None:
            light = 0.25 + 0.75 * (weights / max(weights.max(), 1e-9)) ** 0.7
        for i, patch in enumerate(self.patches):
            left, top, right, bottom = self._place(i, gap)
            size = max(1, round(right - left)), max(1, round(bottom - top))
            frame.paste(_dim(patch, float(light[i])).resize(size), (round(left), round(top)))

    def _draw_tokens(self, frame: Image.Image, weights: np.ndarray | None = None) -> None:
        for i, patch in enumerate(self.patches):
            left, top, right, bottom = self._token(i + 1)
            size = max(1, round(right - left)), round(bottom - top)
            light = 1.0
            if weights is not None:
                light = float(0.3 + 0.7 * weights[i] / max(weights.max(), 1e-9))
            frame.paste(_dim(patch.resize(size), light), (round(left), round(top)))

    def _draw_layers(self, frame: Image.Image, current: int) -> None:
        """A pile of all layers, the first one at the bottom."""
        draw, depth = ImageDraw.Draw(frame), len(self.attention)
        left, step = SCALE * BARS[0], SCALE * min(22, 130 / depth)
        for layer in range(depth):
            top = SCALE * BARS[1] + (depth - 1 - layer) * step
            colour = ACCENT if layer == current else PALE if layer < current else FAINT
            box = left, top, left + SCALE * 150, top + 0.7 * step
            draw.rounded_rectangle(box, 0.2 * step, fill=colour)

    def _draw_cls(self, frame: Image.Image, aside: float = 0.0) -> None:
        left, top, right, bottom = self._token(0)
        draw = ImageDraw.Draw(frame)
        draw.rectangle((left - aside, top, right - aside, bottom), fill=ACCENT)
        draw.text((left - aside, bottom + SCALE * 3), 'cls', ACCENT, _font(12))

    def _draw_arcs(self, frame: Image.Image, layer: int, weights: np.ndarray) -> None:
        """Between the patches that attend to each other most, and from the cls token to its own."""
        between = self.between[layer] * (1 - np.eye(len(self.patches)))
        strongest = np.argsort(between, axis=None)[-60:]
        for i, j in zip(*np.unravel_index(strongest, between.shape), strict=True):
            self._draw_arc(frame, int(i) + 1, int(j) + 1, _mix(BACKGROUND, PALE, 0.5), 1)
        for i in np.argsort(weights)[-12:]:
            share = float(weights[i] / max(weights.max(), 1e-9))
            colour = _mix(BACKGROUND, ACCENT, share)
            self._draw_arc(frame, 0, int(i) + 1, colour, 1 + round(3 * share))

    def _draw_arc(
        self, frame: Image.Image, one: int, other: int, colour: tuple[int, ...], width: int
    ) -> None:
        left, top, right, _ = self._token(min(one, other))
        start = (left + right) / 2
        left, _, right, _ = self._token(max(one, other))
        end = (left + right) / 2
        height = min(SCALE * 17, 0.25 * (end - start) + SCALE * 3)
        points = [
            (start + (end - start) * s, top - 3 - height * math.sin(math.pi * s))
            for s in np.linspace(0, 1, 40)
        ]
        ImageDraw.Draw(frame).line(points, fill=colour, width=width)


def _canvas(title: str, text: str) -> Image.Image:
    frame = Image.new('RGB', (SCALE * WIDTH, SCALE * HEIGHT), BACKGROUND)
    draw = ImageDraw.Draw(frame)
    left, top = (SCALE * x for x in CAPTION)
    draw.text((left, top), title, BRIGHT, _font(24))
    draw.text((left, top + SCALE * 36), text, PALE, _font(14))
    return frame


def _finish(frame: Image.Image) -> Image.Image:
    return frame.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


def _font(size: int) -> Any:
    return ImageFont.load_default(SCALE * size)


def _ease(t: float) -> float:
    """From 0 to 1, slowly at both ends."""
    return t * t * (3 - 2 * t)


def _dim(image: Image.Image, light: float) -> Image.Image:
    """An image between the background, 0, and itself, 1."""
    return Image.blend(Image.new('RGB', image.size, BACKGROUND), image, light)


def _mix(first: str, second: str, share: float) -> tuple[int, ...]:
    ends = [[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in (first, second)]
    return tuple(round(a + (b - a) * share) for a, b in zip(*ends, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('run')
    parser.add_argument('picture')
    parser.add_argument('output')
    arguments = parser.parse_args()
    frames = list(animate(Predictor(arguments.run), arguments.picture))
    # One palette for all frames, so that what does not move takes no space.
    sample = Image.new('RGB', (WIDTH, HEIGHT * 6))
    for i in range(6):
        sample.paste(frames[(2 * i + 1) * len(frames) // 12], (0, i * HEIGHT))
    palette = sample.quantize(255, dither=Image.Dither.NONE)
    reduced = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    reduced[0].save(
        arguments.output,
        save_all=True,
        append_images=reduced[1:],
        duration=round(1000 / FRAMES_PER_SECOND),
        loop=0,
        optimize=True,
    )


if __name__ == '__main__':
    main()
