"""Any bad file gives one line of error and exit status 2; nothing in it is run."""

import pytest
from bad_files import BAD_FILES, described_as, huggingface_folder

from vit_jax.__main__ import main

BAD_CONFIGS = [
    (dict(model_type='bert'), 'expected model_type to be one of'),
    (dict(hidden_act='relu'), 'expected hidden_act'),
    (dict(num_attention_heads='two'), "'two' for heads, expected a number"),
    (dict(num_hidden_layers=10**9), 'says depth=1000000000, but arrays say 2'),
    (dict(hidden_size=32), 'says dim=32, but arrays say 16'),
    (dict(hidden_act={}), 'expected hidden_act'),
    (dict(id2label={str(i): 'a\nb' for i in range(5)}), 'expected names of 5 classes'),
    (dict(image_size=10**12), 'below 65,536'),
    (dict(image_size=400), 'expected 100 x 100 patches'),
    (dict(image_size='large'), "'large' for image_size, expected a number"),
    (dict(layer_norm_eps=None), 'None for norm_eps, expected a number'),
    (dict(id2label={'0': 'ape'}), 'expected id2label with 5 classes, got 1'),
    (dict(pooler_act='relu'), "expected pooler_act 'tanh'"),
]


@pytest.mark.parametrize('make', BAD_FILES, ids=lambda make: make.__name__)
def test_bad_files_exit_with_one_line_and_status_2(make, tmp_path, capsys):
    path = make(tmp_path)
    destination = tmp_path / 'out.safetensors'
    assert main(['convert', str(path), str(destination), '--to', 'timm', '--heads', '2']) == 2
    output, error = capsys.readouterr()
    assert BAD_FILES[make] in error and error.count('\n') == 1 and str(path) in error and not output
    assert not destination.exists() and not (tmp_path / 'was here').exists()


@pytest.mark.parametrize(
    'description',
    [
        5,
        [],
        None,
        {'class_names': 'abcde'},
        {'class_names': [1, 2, 3, 4, 5]},
        {'class_names': ['a'] * 4},
        {'class_names': ['\ud800'] * 5},
        {'preprocessing': [1]},
        {'preprocessing': {'mean': 0.5, 'std': 0.5}},
        {'preprocessing': {'mean': ['a'], 'std': [0.5]}},
        {'preprocessing': {'mean': [0.5], 'std': [float('nan')]}},
        {'preprocessing': {'mean': [0.5], 'std': [0.5], 'gamma': 2}},
        {'notes': 5},
    ],
    ids=str,
)
def test_malformed_descriptions_exit_with_one_line_and_status_2(description, tmp_path, capsys):
    path = described_as(description)(tmp_path)
    destination = tmp_path / 'out.safetensors'
    assert main(['convert', str(path), str(destination), '--to', 'timm', '--heads', '2']) == 2
    assert str(path) in (error := capsys.readouterr().err) and error.count('\n') == 1
    assert not destination.exists()


def test_neighbouring_files_are_left_alone(tmp_path, capsys):
    """Folders and files with temporary-looking names may be the user's."""
    path = huggingface_folder(tmp_path)
    for name in ('b.tmp', 'c.safetensors.tmp'):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'thesis.tex').write_text('')
    assert main(['convert', str(path), str(tmp_path / 'b'), '--to', 'huggingface']) == 0
    assert main(['convert', str(path), str(tmp_path / 'c.safetensors'), '--to', 'seed']) == 0
    assert len(list(tmp_path.rglob('thesis.tex'))) == 2
    assert main(['convert', str(path), '.', '--to', 'huggingface']) == 2
    assert main(['convert', str(path), str(tmp_path / ('x' * 300)), '--to', 'huggingface']) == 1


@pytest.mark.parametrize('config, message', BAD_CONFIGS, ids=lambda value: next(iter(value)))
def test_bad_hugging_face_configs_exit_with_one_line_and_status_2(
    config, message, tmp_path, capsys
):
    path = huggingface_folder(tmp_path, **config)
    assert main(['convert', str(path), str(tmp_path / 'b.safetensors'), '--to', 'seed']) == 2
    error = capsys.readouterr().err
    assert message in error and error.count('\n') == 1


def test_broken_json_exits_with_status_2(tmp_path, capsys):
    path = huggingface_folder(tmp_path)
    (path / 'config.json').write_text('{')
    assert main(['convert', str(path), str(tmp_path / 'b.safetensors'), '--to', 'seed']) == 2
    assert 'expected JSON' in capsys.readouterr().err
