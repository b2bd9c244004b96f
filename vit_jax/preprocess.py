"""What happens to every picture before the model sees it, in training and in use alike.

`resize` runs on the host, once a picture; `normalize` runs in the compiled step.
"""

import dataclasses
import math
import os
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from PIL import Image, ImageOps

from vit_jax.arguments import pair
from vit_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Size, channels and normalisation that belong to a trained model.

    Args:
      image_size: (height, width) in pixels that every picture is resized to, aspect ignored.
      channels: 1 (grey) or 3 (RGB).
      mean, std: per channel or one for all, on the scale where pixels lie in [0, 1].

    Raises:
      InputError: where the channels cannot be made from pictures or mean and std do not fit them.
    """

    image_size: tuple[int, int]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise InputError(f'expected pictures of 1 or 3 channels, got {self.channels}')
        for name in ('mean', 'std'):
            values = getattr(self, name)
            if not all(isinstance(x, int | float) and math.isfinite(x) for x in values):
                raise InputError(f'data.{name}: expected finite numbers, got {values}')
            if len(values) not in (1, self.channels):
                raise InputError(
                    f'data.{name}: expected 1 or {self.channels} numbers for {self.channels} '
                    f'channels, got {len(values)}: {values}'
                )
        if min(self.std) < 1e-6:
            raise InputError(f'data.std: expected numbers from 1e-6, got {self.std}')

    @classmethod
    def from_config(cls, data: Any, channels: int) -> 'Preprocessing':
        """From `config.data` and the source's number of channels."""
        return cls(pair(data.image_size), channels, data.mean, data.std)

    def resize(self, picture: np.ndarray | Image.Image) -> UInt8[np.ndarray, 'h w c']:
        """Bilinear with antialiasing to `image_size`, in the model's number of channels.

        Args:
          picture: PIL image, or uint8 array [height, width] or [height, width, c], c 1, 3 or 4.

        Raises:
          InputError: where an array is something else.
        """
        height, width = self.image_size
        if isinstance(picture, np.ndarray):
            picture = picture[..., None] if picture.ndim == 2 else picture
            if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[-1] not in (1, 3, 4):
                raise InputError(
                    f'expected uint8 pixels [height, width, 1, 3 or 4] from 0 to 255, '
                    f'got {picture.dtype} {list(picture.shape)}'
                )
            if picture.shape == (height, width, self.channels):
                return picture
            picture = Image.fromarray(picture.squeeze(-1) if picture.shape[-1] == 1 else picture)
        if picture.mode.startswith(('I', 'F')):
            raise InputError(f'expected a picture of 8 bits a channel, got mode {picture.mode}')
        picture = picture.convert('L' if self.channels == 1 else 'RGB')
        if picture.size != (width, height):
            picture = picture.resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(picture).reshape(height, width, self.channels)

    def normalize(self, images: UInt8[Array, 'b h w c']) -> Float[Array, 'b h w c']:
        """(images / 255 - mean) / std, in float32."""
        return (images / jnp.float32(255) - jnp.float32(self.mean)) / jnp.float32(self.std)


def read_picture(path: str | os.PathLike[str]) -> Image.Image:
    """Opens and decodes a picture file, turned upright as its EXIF orientation says.

    Raises:
      InputError: where there is no such file, or Pillow cannot decode it.
    """
    try:
        with Image.open(path) as picture:
            return ImageOps.exif_transpose(picture)
    except FileNotFoundError:
        raise InputError(f'{path}: no such file') from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f'{path}: expected a picture, but it cannot be read: {error}') from None
