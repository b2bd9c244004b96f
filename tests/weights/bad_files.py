"""Builders of bad weight files, each with the error message it should give."""

import io
import json
import pickle
import zipfile

import numpy as np
from conftest import peer, random_variables
from references.google import random_google
from references.timm import random_timm
from safetensors.numpy import load_file, save_file

import vit_jax

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
    """A header that claims more data than there is."""
    header = io.BytesIO()
    array = {'descr': '<f4', 'fortran_order': False, 'shape': (10**12, 10**3)}
    np.lib.format.write_array_header_1_0(header, array)
    with zipfile.ZipFile(tmp_path / 'a.npz', 'w') as archive:
        archive.writestr('cls.npy', header.getvalue() + bytes(1000))
    return tmp_path / 'a.npz'


def inflating_npz(tmp_path):
    """A few hundred kilobytes that inflate to 320 MiB."""
    header = io.BytesIO()
    array = {'descr': '<f4', 'fortran_order': False, 'shape': (320, 2**18)}
    np.lib.format.write_array_header_1_0(header, array)
    with zipfile.ZipFile(tmp_path / 'a.npz', 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('cls.npy', header.getvalue() + bytes(320 * 2**20))
    return tmp_path / 'a.npz'


def damaged_safetensors(tmp_path):
    """One bit of the last array; the file is well-formed."""
    model = vit_jax.ViT(**ARGUMENTS)
    path = tmp_path / 'a.safetensors'
    vit_jax.save_weights(path, model, random_variables(model), format='seed')
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    return path


def damaged_metadata(tmp_path):
    """An argument that the arrays do not determine."""
    path = tmp_path / 'a.safetensors'
    model = vit_jax.ViT(**ARGUMENTS)
    vit_jax.save_weights(path, model, random_variables(model), format='seed')
    content = path.read_bytes()
    assert content.count(b'norm_eps') == 1
    path.write_bytes(content.replace(b'1e-05', b'1e-03'))
    return path


def renamed_metadata(tmp_path):
    """The entry that holds the checksums of the arrays has another name."""
    path = tmp_path / 'a.safetensors'
    model = vit_jax.ViT(**ARGUMENTS)
    vit_jax.save_weights(path, model, random_variables(model), format='seed')
    content = path.read_bytes().replace(b'"vit_jax":', b'"vot_jax":')
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    return path


def huge_torch(tmp_path):
    """A few bytes that claim to be 4 TB."""
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


def non_finite(tmp_path):
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


def file_without_its_folder(tmp_path):
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
    """Creates a file when unpickled."""

    def __init__(self, folder):
        self.path = str(folder / 'was here')

    def __reduce__(self):
        return (open, (self.path, 'w'))


BAD_FILES = {
    truncated_npz: 'expected a .npz file',
    damaged_npz: 'expected a .npz file',
    object_npz: 'Python objects, which could run code',
    lying_npz: 'not as large as its header says',
    empty_npz: 'no arrays',
    text_npz: 'expected a .npz file',
    zip_of_text: 'expected a .npz file',
    encrypted_npz: 'expected a .npz file',
    hostile_header: 'expected a .npz file',
    non_finite: 'norm.bias: expected finite',
    huge_image: 'at most 65,536 patches',
    inflating_npz: 'inflates to 0.3 GiB, which weights do not',
    huge_torch: 'GiB, but this machine has',
    damaged_safetensors: 'the file is damaged: the checksum of ',
    damaged_metadata: 'the file is damaged: the checksum of its metadata differs',
    renamed_metadata: 'the file is damaged: the checksum of ',
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
    file_without_its_folder: 'the folder with config.json',
    pickle_of_code: 'expected a .pt file, but it cannot be read',
    zipped_pickle_of_code: 'Weights only load failed',
}
