"""Exported models answer like the predictor of what they were made of."""

import re
import shutil

import jaxtyping
import numpy as np
import processes
import pytest
from conftest import ROOT, random_variables

import vit_jax
from vit_jax.__main__ import main
from vit_jax.use.export import write_stablehlo
from vit_jax.weights import read_weights

SIZES = dict(image_size=12, patch_size=4, num_classes=5, dim=32, depth=2, heads=2, mlp_dim=24)
SIZES |= dict(dim_head=16, norm_eps=1e-6, qkv_bias=True)
MODELS = {
    'cls': {},
    'gap': dict(pool='gap', class_token=False, channels=1, image_size=(8, 12)),
    'map': dict(pool='map', num_registers=2, qk_norm=True, layer_scale=0.1),
    'bfloat16': dict(dtype='bfloat16'),
}
BATCHES = (1, 7, 64)
# A process that has jax and not vit_jax.
WITHOUT = "import sys; sys.modules |= dict.fromkeys(['vit_jax', 'flax', 'einops'])\n"
RUN = """
import numpy as np, jax, jax.export
for name in sys.argv[1:]:
    model = jax.export.deserialize(bytearray(open(f'{name}.stablehlo', 'rb').read()))
    assert model.platforms == ('cpu', 'cuda', 'tpu')
    for size in (1, 7, 64):
        images = np.load(f'{name}.npz')['images'][:size]
        expected = np.load(f'{name}.npz')[str(size)]
        np.testing.assert_allclose(jax.jit(model.call)(images), expected, atol=1e-5)
"""


@pytest.fixture(scope='session')
def files(tmp_path_factory):
    """A folder with a weight file of each of `MODELS`, random pictures, and their probabilities."""
    folder = tmp_path_factory.mktemp('export')
    for name, change in MODELS.items():
        model = vit_jax.ViT(**SIZES | change)
        preprocessing = {'mean': (0.4,) * model.channels, 'std': (0.3,) * model.channels}
        described = {'preprocessing': preprocessing, 'class_names': list('vwxyz')}
        path = folder / f'{name}.safetensors'
        vit_jax.save_weights(path, model, random_variables(model), 'timm', described)
        rng = np.random.default_rng(0)
        predictor = vit_jax.Predictor(path, dtype=model.dtype)
        shape = (BATCHES[-1], *predictor._preprocessing.shape)
        images = rng.integers(0, 256, shape, np.uint8)
        expected = {str(size): predictor(images[:size]) for size in BATCHES}
        assert expected['64'].std() > 0.05
        np.savez(folder / f'{name}.npz', images=images, **expected)
    return folder


@pytest.fixture
def unchecked():
    """Without jaxtyping's checks, which want numbers for a symbolic batch size."""
    jaxtyping.config.update('jaxtyping_disable', True)
    yield
    jaxtyping.config.update('jaxtyping_disable', False)


def lines_of_docs(containing):
    """The Python lines of docs/export.md that contain a text."""
    blocks = re.findall(r'```python\n(.*?)```', (ROOT / 'docs/export.md').read_text('utf-8'), re.S)
    (block,) = [block for block in blocks if containing in block]
    return block


def test_stablehlo_answers_like_the_predictor_without_vit_jax(files, unchecked):
    for name in MODELS:
        weights = read_weights(files / f'{name}.safetensors')
        write_stablehlo(weights, files / f'{name}.stablehlo', weights.preprocessing())
    processes.run('-c', WITHOUT + RUN, *MODELS, cwd=files)


def test_lines_of_the_docs_run_the_stablehlo_file(files, unchecked, tmp_path, capsys):
    path = tmp_path / 'digits.stablehlo'
    assert main(['export', str(files / 'gap.safetensors'), '-o', str(path)]) == 0
    assert 'uint8 [b, 8, 12, 1] → probabilities [b, 5]' in capsys.readouterr().out
    (tmp_path / 'docs').mkdir()
    shutil.copy(ROOT / 'docs/seven.png', tmp_path / 'docs')
    lines = lines_of_docs('deserialize')
    assert len(lines.strip().splitlines()) <= 12
    output, _ = processes.run('-c', WITHOUT + lines, cwd=tmp_path)
    name, probability = output.split()
    predictor = vit_jax.Predictor(files / 'gap.safetensors')
    ((expected, likeliest),) = predictor.top_k([tmp_path / 'docs/seven.png'], 1)[0]
    assert name == expected and float(probability) == pytest.approx(likeliest, abs=1e-5)
    assert main(['predict', str(path), str(tmp_path / 'docs/seven.png'), '--format', 'csv']) == 0
    found = capsys.readouterr().out.splitlines()[1].split(',')
    assert found[1] == name and float(found[2]) == pytest.approx(likeliest, abs=1e-5)


def test_a_damaged_or_incomplete_export_ends_in_one_line(files, unchecked, tmp_path, capsys):
    path, beside = tmp_path / 'm.stablehlo', tmp_path / 'm.stablehlo.json'
    assert main(['export', str(files / 'cls.safetensors'), '-o', str(path)]) == 0
    data, text = path.read_bytes(), beside.read_bytes()
    predict = ['predict', str(path), str(ROOT / 'docs/seven.png')]
    capsys.readouterr()
    for place in np.random.default_rng(0).integers(0, len(data), 20):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        assert main(predict) == 2
        error = capsys.readouterr().err
        assert 'm.stablehlo: the file was damaged or replaced' in error and error.count('\n') == 1
    for damaged, described, message in [
        (data[:100], text, 'damaged or replaced'),
        (data, text.replace(b'"v"', b'"w"'), 'm.stablehlo.json: the file was damaged or edited'),
        (data, b'[]', 'expected a JSON object'),
        (data, None, 'm.stablehlo.json: no such file'),
    ]:
        path.write_bytes(damaged)
        beside.unlink() if described is None else beside.write_bytes(described)
        assert main(predict) == 2
        error = capsys.readouterr().err
        assert message in error and error.count('\n') == 1


def test_a_failed_export_leaves_the_earlier_one(files, unchecked, tmp_path, capsys):
    path = tmp_path / 'm.stablehlo'
    assert main(['export', str(files / 'cls.safetensors'), '-o', str(path)]) == 0
    written = {x.name: x.read_bytes() for x in tmp_path.iterdir()}
    capsys.readouterr()
    for arguments, message in [
        (['cls', path, '--num-classes', '0'], 'expected num_classes'),
        (['nothing', path], 'no such file or run directory'),
        (['cls', tmp_path / 'm.pb'], 'expected a file ending in .stablehlo'),
        (['cls', tmp_path / 'nowhere/m.stablehlo'], 'expected a file in an existing folder'),
    ]:
        source, output, *rest = map(str, arguments)
        command = ['export', str(files / f'{source}.safetensors'), '-o', output, *rest]
        assert main(command) == 2
        error = capsys.readouterr().err
        assert message in error and error.count('\n') == 1
    assert {x.name: x.read_bytes() for x in tmp_path.iterdir()} == written
