"""Preprocessing in Hugging Face's `preprocessor_config.json`."""

from typing import Any

from vit_jax.model.shapes import pair
from vit_jax.model.vit import ViT
from vit_jax.weights.timm import differing


def read_processor(config: dict[str, Any], image_size: Any) -> tuple[dict[str, Any], list[str]]:
    """What it says of pixels and crops, and notes on what differs from ours.

    Args:
      config: the JSON.
      image_size: of the model, pixels.

    Returns:
      The description's 'preprocessing', if mean and std are known, for pixels in [0, 1]. A centre
      crop out of a picture whose shortest edge was resized is our `crop_fraction`.
    """
    if not {'image_mean', 'image_std'} <= config.keys():
        return {}, []
    normalize, rescale = config.get('do_normalize', True), config.get('do_rescale', True)
    scale = 255 * (config.get('rescale_factor', 1 / 255) if rescale else 1)
    mean = config['image_mean'] if normalize else (0.0,)
    std = config['image_std'] if normalize else (1.0,)
    found: dict[str, Any] = {
        'mean': tuple(x / scale for x in mean),
        'std': tuple(x / scale for x in std),
    }
    edge, size = _sizes(config)
    crop = config.get('crop_size') if config.get('do_center_crop') else None
    others: dict[str, tuple[Any, ...]] = {'do_resize': (None, True), 'resample': (None, 2)}
    if crop is not None:
        size = _size(crop)
        if edge and size and max(size) <= edge:
            found['crop_fraction'] = min(size) / edge
        else:
            others['size'] = ()
    elif config.get('do_center_crop'):
        others['do_center_crop'] = (None, False)
    elif edge:  # pictures of any aspect ratio
        others['size'] = ()
    notes = differing(config, others)
    if size and size != pair(image_size):
        height, width = size
        notes.append(
            f'its pictures have {height} x {width} pixels; image_size=({height}, {width}) resizes '
            f'the position embeddings to them'
        )
    return {'preprocessing': found}, notes


def write_processor(model: ViT, preprocessing: dict[str, Any]) -> dict[str, Any]:
    """The contents of `preprocessor_config.json`; a crop of a square image is CLIP's kind."""
    height, width = pair(model.image_size)
    fraction = preprocessing.get('crop_fraction')
    if fraction and height == width:
        kind = {
            'image_processor_type': 'CLIPImageProcessor',
            'size': {'shortest_edge': round(height / fraction)},
            'do_center_crop': True,
            'crop_size': {'height': height, 'width': width},
        }
    else:
        kind = {
            'image_processor_type': 'ViTImageProcessor',
            'size': {'height': height, 'width': width},
        }
    return {
        **kind,
        'image_mean': _per_channel(preprocessing['mean'], model.channels),
        'image_std': _per_channel(preprocessing['std'], model.channels),
        'resample': 2,
    }


def _sizes(config: dict[str, Any]) -> tuple[int | float | None, tuple[int, int] | None]:
    """The shortest edge or the (height, width) that pictures are resized to."""
    size = config.get('size')
    kind = str(config.get('image_processor_type') or config.get('feature_extractor_type'))
    if isinstance(size, int) and kind.startswith('CLIP'):  # before they were objects
        return size, None
    if isinstance(size, dict) and isinstance(edge := size.get('shortest_edge'), int) and edge > 0:
        return edge, None
    return None, _size(size)


def _size(size: Any) -> tuple[int, int] | None:
    if isinstance(size, dict):
        size = size.get('height'), size.get('width')
    sides = size if isinstance(size, tuple) else (size, size)
    return sides if len(sides) == 2 and all(isinstance(x, int) and x > 0 for x in sides) else None


def _per_channel(values: tuple[float, ...], channels: int) -> list[float]:
    return list(values) * (channels // len(values))
