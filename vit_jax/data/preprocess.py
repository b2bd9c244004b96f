"""Preprocessing of every picture before the model sees it, in training and inference alike.

`resize` runs on the host, `normalize` in the compiled step.
"""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from PIL import Image

from vit_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """The size, channels and normalisation that a trained model expects.

    Args:
      image_size: (height, width) in pixels that every picture is resized to.
      channels: 1 (grey) or 3 (RGB).
      mean, std: per channel or one for all, for pixels in [0, 1].
      crop_fraction: centre crop: the fraction kept of each side of the largest centred part with
        image_size's aspect ratio (0.875: the usual 224 of 256). 0: squash the whole picture.

    Raises:
      InputError: if channels is neither 1 nor 3, mean or std does not fit it, or crop_fraction is
        out of range.
    """

    image_size: tuple[int, int]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_fraction: float = 0.0

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise InputError(f'expected pictures with 1 or 3 channels, got {self.channels}')
        for name in ('mean', 'std'):
            values = getattr(self, name)
            if not all(isinstance(x, int | float) and math.isfinite(x) for x in values):
                raise InputError(f'data.{name}: expected finite numbers, got {values}')
            if len(values) not in (1, self.channels):
                raise InputError(
                    f'data.{name}: expected one number for each of {self.channels} channels, or '
                    f'one for all, got {len(values)}: {values}'
                )
        if min(self.std) < 1e-6:
            raise InputError(f'data.std: expected numbers of at least 1e-6, got {self.std}')
        fraction = self.crop_fraction
        if not isinstance(fraction, int | float) or not 0 <= fraction <= 1:
            raise InputError(f'data.crop_fraction: expected 0 to 1, got {fraction}')

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of an image."""
        return (*self.image_size, self.channels)

    def resize(self, picture: np.ndarray | Image.Image) -> UInt8[np.ndarray, 'h w c']:
        """Resizes to `image_size`, bilinear with antialiasing, in the model's number of channels.

        Args:
          picture: PIL image, or uint8 array [height, width] or [height, width, c], c 1, 3 or 4.

        Raises:
          InputError: if it is anything else, or has more than 8 bits per channel.
        """
        if isinstance(picture, np.ndarray):
            picture = picture[..., None] if picture.ndim == 2 else picture
            if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[-1] not in (1, 3, 4):
                raise InputError(
                    f'expected uint8 pixels [height, width, 1, 3 or 4] from 0 to 255, '
                    f'got {picture.dtype} {list(picture.shape)}'
                )
            if picture.shape == self.shape and self.crop_fraction in (0, 1):
                return picture
            picture = Image.fromarray(picture.squeeze(-1) if picture.shape[-1] == 1 else picture)
        if picture.mode.startswith(('I', 'F')):
            raise InputError(f'expected a picture of 8 bits per channel, got mode {picture.mode}')
        picture = picture.convert('L' if self.channels == 1 else 'RGB')
        size = self.image_size[::-1]
        if picture.size != size or self.crop_fraction not in (0, 1):
            box = self._centre_box(*picture.size) if self.crop_fraction else None
            picture = picture.resize(size, Image.Resampling.BILINEAR, box)
        return np.asarray(picture).reshape(self.shape)

    def _centre_box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the centre crop, pixels."""
        rows, columns = self.image_size
        scale = self.crop_fraction * min(height / rows, width / columns)
        left, top = max(width - scale * columns, 0) / 2, max(height - scale * rows, 0) / 2
        return left, top, width - left, height - top

    def recolour(self, pixels: UInt8[np.ndarray, 'h w any']) -> UInt8[np.ndarray, 'h w c']:
        """Converts pixels with 1, 3 or 4 channels to the model's number of channels."""
        if pixels.shape[-1] == self.channels:
            return pixels
        if pixels.shape[-1] == 1:
            return np.repeat(pixels, 3, axis=-1)
        mode = 'L' if self.channels == 1 else 'RGB'
        return np.asarray(Image.fromarray(pixels).convert(mode)).reshape(*pixels.shape[:2], -1)

    def normalize(self, images: UInt8[Array, 'b h w c']) -> Float[Array, 'b h w c']:
        """(images / 255 - mean) / std, in float32."""
        return (images / jnp.float32(255) - jnp.float32(self.mean)) / jnp.float32(self.std)
