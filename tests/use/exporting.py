"""Small models that are exported, and the lines of the docs that run them."""

import contextlib
import re

import jaxtyping
import numpy as np
from conftest import ROOT, random_variables

import vit_jax

SIZES = dict(image_size=12, patch_size=4, num_classes=5, dim=32, depth=2, heads=2, mlp_dim=24)
SIZES |= dict(dim_head=16, norm_eps=1e-6, qkv_bias=True)
MODELS = {
    'cls': {},
    'gap': dict(pool='gap', class_token=False, depth=1, channels=1, image_size=(8, 12)),
    'map': dict(pool='map', depth=1, num_registers=2, qk_norm=True, layer_scale=0.1),
    'bfloat16': dict(dtype='bfloat16', depth=1),
}
BATCHES = (1, 7, 64)


def lines_of_docs(containing):
    """The Python lines of docs/export.md that contain a text."""
    text = (ROOT / 'docs' / 'export.md').read_text('utf-8')
    (block,) = [x for x in re.findall(r'```python\n(.*?)```', text, re.S) if containing in x]
    return block


def write_models(folder, *names):
    """Writes weight files of some of `MODELS`, random pictures, and their probabilities."""
    for name in names:
        model = vit_jax.ViT(**SIZES | MODELS[name])
        preprocessing = {'mean': (0.4,) * model.channels, 'std': (0.3,) * model.channels}
        described = {'preprocessing': preprocessing, 'class_names': list('vwxyz')}
        path = folder / f'{name}.safetensors'
        vit_jax.save_weights(path, model, random_variables(model), 'timm', described)
        predictor = vit_jax.Predictor(path)
        assert predictor.model.dtype == model.dtype
        shape = (BATCHES[-1], *predictor.preprocessing.shape)
        images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        expected = {str(size): predictor(images[:size]) for size in BATCHES}
        assert expected['64'].std() > 0.05
        np.savez(folder / f'{name}.npz', images=images, **expected)


@contextlib.contextmanager
def unchecked():
    """Without jaxtyping's checks, which want numbers for a symbolic batch size."""
    jaxtyping.config.update('jaxtyping_disable', True)
    try:
        yield
    finally:
        jaxtyping.config.update('jaxtyping_disable', False)
