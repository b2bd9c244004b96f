"""A bad file ends in one line and exit status 2, whatever is wrong; nothing in it is run."""

import io
import json
import pickle
import zipfile

import numpy as np
import pytest
from conftest import peer, random_variables
from references.google import random_google
from references.timm import random_timm
from safetensors.numpy import load_file, save_file

import vit_jax
from vit_jax.__main__ import main

ARGUMENTS = dict(
    image_size=12, patch_size=4, num_classes=5, dim=16, depth=2, heads=2, mlp_dim=20, dim_head=8
)


def npz(tmp_path, **arrays):
    np.savez(tmp_path / 'a.npz', **arrays)
    return tmp_path / 'a.npz'


def truncated_npz(tmp_path):
    path = npz(tmp_path, **random_google(np.random.default_rng(0), flavour='classic'))
    path.write_bytes(path.read_bytes()[:-3000])
    return path


def damaged_npz(tmp_path):
    path = npz(tmp_path, **random_google(np.random.default_rng(0), flavour='classic'))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return path


def object_npz(tmp_path):
    return npz(tmp_path, cls=np.array([Evil(tmp_path)], object))


def lying_npz(tmp_path):
    """A header that promises more than there is."""
    header = io.BytesIO()
    array = {'descr': '<f4', 'fortran_order': False, 'shape': (10**12, 10**3)}
    np.lib.format.write_array_header_1_0(header, array)
    with zipfile.ZipFile(tmp_path / 'a.npz', 'w') as archive:
        archive.writestr('cls.npy', header.getvalue() + bytes(1000))
    return tmp_path / 'a.npz'


def huge_torch(tmp_path):
    """A few bytes that call themselves 4 TB."""
    peer('torch')
    import torch

    torch.save({'cls_token': torch.zeros(1).expand(10**12)}, tmp_path / 'a.pt')
    return tmp_path / 'a.pt'


def encrypted_npz(tmp_path):
    path = npz(tmp_path, cls=np.zeros(3, np.float32))
    content = bytearray(path.read_bytes())
    for mark, place in ((b'PK\x03\x04', 6), (b'PK\x01\x02', 8)):
        content[content.index(mark) + place] |= 1
    path.write_bytes(content)
    return path


def hostile_header(tmp_path):
    header = b'\x93NUMPY\x01\x00' + (3000).to_bytes(2, 'little') + b'(' * 3000
    with zipfile.ZipFile(tmp_path / 'a.npz', 'w') as archive:
        archive.writestr('cls.npy', header)
    return tmp_path / 'a.npz'


def not_finite(tmp_path):
    state = random_timm(np.random.default_rng(0))
    state['norm.bias'] = np.full(32, 1e300)
    save_file(state, tmp_path / 'a.safetensors')
    return tmp_path / 'a.safetensors'


def described_as(description):
    def make(tmp_path):
        metadata = json.dumps({'description': description})
        state = random_timm(np.random.default_rng(0))
        save_file(state, tmp_path / 'a.safetensors', {'vit_jax': metadata})
        return tmp_path / 'a.safetensors'

    return make


def huge_image(tmp_path):
    state = random_google(
        np.random.default_rng(0), flavour='big_vision', pool='gap', posemb='sincos2d'
    )
    metadata = json.dumps({'arguments': {'image_size': 65532}})
    save_file(state, tmp_path / 'a.safetensors', {'vit_jax': metadata})
    return tmp_path / 'a.safetensors'


def truncated_safetensors(tmp_path):
    save_file(random_timm(np.random.default_rng(0)), tmp_path / 'a.safetensors')
    whole = (tmp_path / 'a.safetensors').read_bytes()
    (tmp_path / 'a.safetensors').write_bytes(whole[:-100])
    return tmp_path / 'a.safetensors'


def foreign_safetensors(tmp_path):
    save_file({'conv1.weight': np.zeros((2, 2), np.float32)}, tmp_path / 'a.safetensors')
    return tmp_path / 'a.safetensors'


def foreign_metadata(tmp_path):
    save_file(random_timm(np.random.default_rng(0)), tmp_path / 'a.safetensors', {'vit_jax': '[1]'})
    return tmp_path / 'a.safetensors'


def wrong_metadata(tmp_path):
    metadata = json.dumps({'arguments': {'heads': 'two', 'depth': None}})
    save_file(
        random_timm(np.random.default_rng(0)), tmp_path / 'a.safetensors', {'vit_jax': metadata}
    )
    return tmp_path / 'a.safetensors'


def empty_npz(tmp_path):
    return npz(tmp_path)


def text(tmp_path):
    (tmp_path / 'a.safetensors').write_text('no tensors')
    return tmp_path / 'a.safetensors'


def text_npz(tmp_path):
    (tmp_path / 'a.npz').write_text('no arrays')
    return tmp_path / 'a.npz'


def zip_of_text(tmp_path):
    with zipfile.ZipFile(tmp_path / 'a.npz', 'w') as archive:
        archive.writestr('cls.npy', 'no array')
    return tmp_path / 'a.npz'


def unknown_ending(tmp_path):
    (tmp_path / 'a.onnx').write_text('')
    return tmp_path / 'a.onnx'


def missing(tmp_path):
    return tmp_path / 'nothing.pt'


def empty_folder(tmp_path):
    (tmp_path / 'a').mkdir()
    return tmp_path / 'a'


def huggingface_folder(tmp_path, **config):
    model = vit_jax.ViT(**ARGUMENTS)
    variables = random_variables(model)
    vit_jax.save_weights(tmp_path / 'a', model, variables, format='huggingface')
    if config:
        text = json.loads((tmp_path / 'a' / 'config.json').read_text())
        (tmp_path / 'a' / 'config.json').write_text(json.dumps(text | config))
    return tmp_path / 'a'


def folder_without_config(tmp_path):
    path = huggingface_folder(tmp_path)
    (path / 'config.json').unlink()
    return path


def file_out_of_its_folder(tmp_path):
    path = huggingface_folder(tmp_path) / 'model.safetensors'
    save_file(load_file(path), path)  # without our own metadata
    return path


def folder_without_weights(tmp_path):
    path = huggingface_folder(tmp_path)
    (path / 'model.safetensors').unlink()
    return path


def pickle_of_code(tmp_path):
    peer('torch')
    (tmp_path / 'a.pt').write_bytes(pickle.dumps({'cls_token': Evil(tmp_path)}))
    return tmp_path / 'a.pt'


def zipped_pickle_of_code(tmp_path):
    peer('torch')
    import torch

    torch.save({'cls_token': Evil(tmp_path)}, tmp_path / 'a.pth')
    return tmp_path / 'a.pth'


class Evil:
    def __init__(self, folder):
        self.path = str(folder / 'was here')

    def __reduce__(self):
        return (open, (self.path, 'w'))


BAD = {
    truncated_npz: 'expected a .npz file',
    damaged_npz: 'expected a .npz file',
    object_npz: 'Python objects, which could run code',
    lying_npz: 'not as large as its header says',
    empty_npz: 'no arrays',
    text_npz: 'expected a .npz file',
    zip_of_text: 'expected a .npz file',
    encrypted_npz: 'expected a .npz file',
    hostile_header: 'expected a .npz file',
    not_finite: 'norm.bias: expected finite',
    huge_image: 'at most 65,536 patches',
    huge_torch: 'GiB, but this machine has',
    truncated_safetensors: 'expected a .safetensors file',
    foreign_safetensors: 'one of the formats google, timm, huggingface, seed, got conv1',
    foreign_metadata: "'vit_jax' is not in this package's format",
    wrong_metadata: 'a.safetensors',
    text: 'expected a .safetensors file',
    unknown_ending: 'expected a file ending in',
    missing: 'no such file',
    empty_folder: 'neither',
    folder_without_config: 'neither',
    folder_without_weights: 'there is neither',
    file_out_of_its_folder: 'the folder with config.json',
    pickle_of_code: 'expected a .pt file, but it cannot be read',
    zipped_pickle_of_code: 'Weights only load failed',
}
CONFIGS = [
    (dict(model_type='bert'), "expected model_type 'vit'"),
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


@pytest.mark.parametrize('make', BAD, ids=lambda make: make.__name__)
def test_bad_files_end_in_one_line_and_status_2(make, tmp_path, capsys):
    path = make(tmp_path)
    destination = tmp_path / 'out.safetensors'
    assert main(['convert', str(path), str(destination), '--to', 'timm', '--heads', '2']) == 2
    output, error = capsys.readouterr()
    assert BAD[make] in error and error.count('\n') == 1 and str(path) in error and not output
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
def test_descriptions_that_are_none_end_in_one_line(description, tmp_path, capsys):
    path = described_as(description)(tmp_path)
    destination = tmp_path / 'out.safetensors'
    assert main(['convert', str(path), str(destination), '--to', 'timm', '--heads', '2']) == 2
    assert str(path) in (error := capsys.readouterr().err) and error.count('\n') == 1
    assert not destination.exists()


def test_what_lies_beside_is_left_alone(tmp_path, capsys):
    """Folders and files that look like temporary ones are somebody's."""
    path = huggingface_folder(tmp_path)
    for name in ('b.tmp', 'c.safetensors.tmp'):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'thesis.tex').write_text('')
    assert main(['convert', str(path), str(tmp_path / 'b'), '--to', 'huggingface']) == 0
    assert main(['convert', str(path), str(tmp_path / 'c.safetensors'), '--to', 'seed']) == 0
    assert len(list(tmp_path.rglob('thesis.tex'))) == 2
    assert main(['convert', str(path), '.', '--to', 'huggingface']) == 2
    assert main(['convert', str(path), str(tmp_path / ('x' * 300)), '--to', 'huggingface']) == 2


@pytest.mark.parametrize('config, message', CONFIGS, ids=lambda value: next(iter(value)))
def test_bad_configs_of_hugging_face_end_in_one_line_and_status_2(
    config, message, tmp_path, capsys
):
    path = huggingface_folder(tmp_path, **config)
    assert main(['convert', str(path), str(tmp_path / 'b.safetensors'), '--to', 'seed']) == 2
    error = capsys.readouterr().err
    assert message in error and error.count('\n') == 1


def test_a_broken_json_ends_in_one_line(tmp_path, capsys):
    path = huggingface_folder(tmp_path)
    (path / 'config.json').write_text('{')
    assert main(['convert', str(path), str(tmp_path / 'b.safetensors'), '--to', 'seed']) == 2
    assert 'expected JSON' in capsys.readouterr().err
