"""Exported models answer like the predictor of what they were made of."""

import shutil

import numpy as np
import processes
import pytest
from conftest import ROOT, peer
from exporting import BATCHES, MODELS, lines_of_docs, unchecked, write_models

import vit_jax
from vit_jax.__main__ import main
from vit_jax.use.attention import patch_attention, rollout
from vit_jax.use.export import write_stablehlo
from vit_jax.use.exported import ExportedPredictor
from vit_jax.use.onnx import write_onnx
from vit_jax.weights import read_weights

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


@pytest.fixture(scope='module', autouse=True)
def symbolic_batch():
    with unchecked():
        yield


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp('export')
    write_models(folder, *MODELS)
    return folder


def test_stablehlo_answers_like_the_predictor_without_vit_jax(files):
    for name in MODELS:
        weights = read_weights(files / f'{name}.safetensors')
        write_stablehlo(weights, files / f'{name}.stablehlo', weights.preprocessing())
    processes.run('-c', WITHOUT + RUN, *MODELS, cwd=files)


def test_lines_of_the_docs_run_the_stablehlo_file(files, tmp_path, capsys):
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


def test_a_damaged_or_incomplete_export_ends_in_one_line(files, tmp_path, capsys):
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


def test_a_failed_export_leaves_the_earlier_one(files, tmp_path, capsys):
    path = tmp_path / 'm.stablehlo'
    assert main(['export', str(files / 'cls.safetensors'), '-o', str(path)]) == 0
    written = {x.name: x.read_bytes() for x in tmp_path.iterdir()}
    capsys.readouterr()
    for arguments, message in [
        (['cls', path, '--heads', '0'], 'expected heads'),
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


@pytest.fixture(scope='module')
def onnx_files(files):
    """Each of `MODELS` as an .onnx file, 'map' with attention, 'gap' by the command."""
    peer('jax2onnx')
    peer('onnxruntime')
    for name in MODELS.keys() - {'gap'}:
        weights = read_weights(files / f'{name}.safetensors')
        path = files / f'{name}.onnx'
        write_onnx(weights, path, weights.preprocessing(), attention=name == 'map')
    gap = files / 'gap'
    assert main(['export', f'{gap}.safetensors', '-o', f'{gap}.onnx']) == 0
    return files


@pytest.mark.parametrize('name', MODELS)
def test_onnx_runtime_answers_like_the_predictor(name, onnx_files):
    import onnx

    images = np.load(onnx_files / f'{name}.npz')['images']
    # In float32, whatever the model was trained in.
    predictor = vit_jax.Predictor(onnx_files / f'{name}.safetensors', dtype='float32')
    variables = {'pixels': images}
    for size in BATCHES:
        exported = ExportedPredictor(onnx_files / f'{name}.onnx')
        np.testing.assert_allclose(exported(images[:size]), predictor(images[:size]), atol=1e-5)
        lines = lines_of_docs('onnxruntime').replace('digits.onnx', f'{onnx_files / name}.onnx')
        variables['pixels'] = images[:size]
        exec(lines, variables)
        expected = np.load(onnx_files / f'{name}.npz')[str(size)]
        tolerance = 1e-2 if name == 'bfloat16' else 1e-5
        np.testing.assert_allclose(variables['probabilities'], expected, atol=tolerance)
    file = onnx.load(onnx_files / f'{name}.onnx')
    onnx.checker.check_model(file, full_check=True)
    assert [(x.domain, x.version) for x in file.opset_import] == [('', 17)]
    assert not {node.op_type for node in file.graph.node} & {'Loop', 'Scan', 'If'}


def test_onnx_runtime_gives_the_attention_of_the_predictor(onnx_files):
    import onnxruntime

    images = np.load(onnx_files / 'map.npz')['images'][:3]
    predictor = vit_jax.Predictor(onnx_files / 'map.safetensors')
    session = onnxruntime.InferenceSession(onnx_files / 'map.onnx')
    _, each, together = session.run(None, {'images': images})
    weights, model = predictor.attention(images), predictor.model
    np.testing.assert_allclose(each, patch_attention(weights, model), atol=1e-5)
    np.testing.assert_allclose(together, patch_attention(rollout(weights), model), atol=1e-5)


def test_kernels_of_8_bits_take_less_space_and_answer_alike(onnx_files, tmp_path):
    path = tmp_path / 'm.onnx'
    assert main(['export', f'{onnx_files}/gap.safetensors', '-o', str(path), '--int8']) == 0
    images = np.load(onnx_files / 'gap.npz')['images']
    expected = np.load(onnx_files / 'gap.npz')['64']
    got = ExportedPredictor(path)(images)
    assert 1e-5 < np.abs(got - expected).max() < 0.05
    assert (got.argmax(-1) == expected.argmax(-1)).mean() > 0.95
    parameters = sum(x.size for x in _kernels(onnx_files / 'gap.safetensors'))
    saved = (onnx_files / 'gap.onnx').stat().st_size - path.stat().st_size
    assert 2.5 * parameters < saved < 3 * parameters


def _kernels(path):
    from flax.traverse_util import flatten_dict

    arrays = flatten_dict(vit_jax.load_weights(path)[1])
    return [x for name, x in arrays.items() if name[-1] == 'kernel']


def test_8_bits_of_another_file_end_in_one_line(files, tmp_path, capsys):
    source = str(files / 'cls.safetensors')
    assert main(['export', source, '-o', str(tmp_path / 'm.stablehlo'), '--int8']) == 2
    error = capsys.readouterr().err
    assert '--int8' in error and error.count('\n') == 1 and not list(tmp_path.iterdir())
