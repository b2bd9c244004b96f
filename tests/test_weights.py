"""Whatever is wrong with a file ends in one line; nothing in it is run, dropped or made up."""

import io
import json
import pickle
import shutil
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import peer
from references import random_google, random_timm
from safetensors.numpy import load_file, save_file

import vit_jax
from vit_jax.__main__ import main
from vit_jax.errors import InputError

ARGUMENTS = dict(
    image_size=12, patch_size=4, num_classes=5, dim=16, depth=2, heads=2, mlp_dim=20, dim_head=8
)
GOOGLE = dict(
    dim=32, depth=2, heads=2, mlp_dim=48, patch=(4, 4), grid=(3, 3), channels=3, num_classes=5
)


@pytest.fixture
def model_and_variables():
    model = vit_jax.ViT(**ARGUMENTS)
    return model, model.init(jax.random.key(0), jnp.zeros((1, 12, 12, 3)))


@pytest.fixture
def tensors(model_and_variables, tmp_path):
    vit_jax.save_weights(tmp_path / 'a.safetensors', *model_and_variables, format='seed')
    return load_file(tmp_path / 'a.safetensors')


@pytest.mark.parametrize('heads, dim_head', [(2, 8), (1, 16)])
@pytest.mark.parametrize('suffix', ['.pt', '.safetensors'])
def test_seed_to_ours_to_seed_is_bit_identical(vit_pytorch, tmp_path, suffix, heads, dim_head):
    import torch
    from safetensors.torch import load_file, save_file

    arguments = ARGUMENTS | dict(heads=heads, dim_head=dim_head)
    state = vit_pytorch.ViT(**arguments).state_dict()
    there, back = tmp_path / f'there{suffix}', tmp_path / f'back{suffix}'
    if suffix == '.pt':
        torch.save(state, there)
    else:
        save_file(state, there)
    model, variables = vit_jax.load_weights(there, heads=heads)
    vit_jax.save_weights(back, model, variables, format='seed')
    again = torch.load(back, weights_only=True) if suffix == '.pt' else load_file(back)
    assert list(sorted(again)) == sorted(state)
    assert all(torch.equal(again[name], state[name]) for name in state)
    vit_pytorch.ViT(**arguments).load_state_dict(again)
    for name, value in arguments.items():
        assert vit_jax.arguments.pair(getattr(model, name)) == vit_jax.model.pair(value), name


def test_our_safetensors_tell_the_whole_model(tmp_path):
    arguments = ARGUMENTS | dict(
        image_size=(6, 8), patch_size=(3, 2), pool='mean', channels=1, dropout=0.25
    )
    model = vit_jax.ViT(**arguments)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 6, 8, 1)))
    vit_jax.save_weights(tmp_path / 'a.safetensors', model, variables, format='seed')
    again, loaded = vit_jax.load_weights(tmp_path / 'a.safetensors')
    assert again == model
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)
    smaller, _ = vit_jax.load_weights(tmp_path / 'a.safetensors', pool='cls')
    assert smaller.pool == 'cls'


def test_heads_are_asked_for(tensors, tmp_path):
    save_file(tensors, tmp_path / 'b.safetensors')
    save_file(random_timm(np.random.default_rng(0), dim=16), tmp_path / 'timm.safetensors')
    for name in ('b.safetensors', 'timm.safetensors'):
        for heads, got in (({}, 'none'), ({'heads': 3}, '3'), ({'heads': -1}, '-1')):
            with pytest.raises(InputError, match=f'heads= dividing 16, got {got}'):
                vit_jax.load_weights(tmp_path / name, **heads)


def test_image_size_is_asked_for_where_positions_are_no_square(tmp_path):
    state = random_timm(np.random.default_rng(0), grid=(2, 3))
    save_file(state, tmp_path / 'a.safetensors')
    with pytest.raises(InputError, match='give grid='):
        vit_jax.load_weights(tmp_path / 'a.safetensors', heads=2)
    for told in (dict(image_size=(8, 12)), dict(grid=(2, 3))):
        model, _ = vit_jax.load_weights(tmp_path / 'a.safetensors', heads=2, **told)
        assert model.grid == (2, 3) and model.image_size == (8, 12)
    with pytest.raises(InputError, match='expected a square'):
        vit_jax.load_weights(tmp_path / 'a.safetensors', heads=2, grid=(2, 4))
    np.savez(
        tmp_path / 'sincos.npz',
        **random_google(
            np.random.default_rng(0),
            **GOOGLE,
            flavour='big_vision',
            pool='gap',
            posemb='sincos2d',
        ),
    )
    with pytest.raises(InputError, match='give image_size='):
        vit_jax.load_weights(tmp_path / 'sincos.npz')


def remove(arrays, last):
    del arrays[last]


def remove_block(arrays, last):
    for name in [name for name in arrays if '.0.' in name or '_0/L' in name]:
        del arrays[name]


def add(arrays, last):
    arrays['transformer.layers.0.2.bias'] = np.zeros(3, np.float32)


def add_block(arrays, last):
    for name, x in list(arrays.items()):
        for old, new in (('.1.', '.3.'), ('block_1/', 'block_3/')):
            if old in name:
                arrays[name.replace(old, new, 1)] = x


def reshape(arrays, last):
    arrays[last] = arrays[last][..., :-1].copy()


def to_integers(arrays, last):
    arrays[last] = arrays[last].astype(np.int32)


@pytest.mark.parametrize('format', ['seed', 'timm', 'google', 'huggingface'])
@pytest.mark.parametrize(
    'damage, message',
    [
        (remove, 'expected an array .*LAST'),
        (remove_block, 'expected an array'),
        (add, '1 arrays that the model has no place for: transformer.layers.0.2.bias'),
        (add_block, 'expected an array|no place for'),
        (reshape, 'LAST: expected .*got float32'),
        (to_integers, 'LAST: expected .*got .*32'),
    ],
)
def test_every_array_is_accounted_for(format, damage, message, model_and_variables, tmp_path):
    path = tmp_path / {'google': 'a.npz', 'huggingface': 'a'}.get(format, 'a.safetensors')
    change = {
        'seed': {},
        'timm': dict(norm_eps=1e-6),
        'google': dict(norm_eps=1e-6, gelu='tanh', qkv_bias=True),
        'huggingface': {},
    }[format]
    model = vit_jax.ViT(**ARGUMENTS | change)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 12, 12, 3)))
    vit_jax.save_weights(path, model, variables, format=format)
    file = path / 'model.safetensors' if format == 'huggingface' else path
    arrays = dict(np.load(file)) if format == 'google' else load_file(file)
    last = {
        'seed': 'transformer.layers.1.1.fn.net.3.bias',
        'timm': 'blocks.1.mlp.fc2.bias',
        'google': 'Transformer/encoderblock_1/MlpBlock_3/Dense_1/bias',
        'huggingface': 'vit.encoder.layer.1.output.dense.bias',
    }[format]
    damage(arrays, last)
    if format == 'google':
        np.savez(file, **arrays)
    else:
        save_file(arrays, file)
    heads = {} if format == 'huggingface' else {'heads': 2}
    with pytest.raises(InputError, match=message.replace('LAST', last)):
        vit_jax.load_weights(path, **heads)


def npz(tmp_path, **arrays):
    np.savez(tmp_path / 'a.npz', **arrays)
    return tmp_path / 'a.npz'


def truncated_npz(tmp_path):
    path = npz(tmp_path, **random_google(np.random.default_rng(0), **GOOGLE, flavour='classic'))
    path.write_bytes(path.read_bytes()[:-3000])
    return path


def damaged_npz(tmp_path):
    path = npz(tmp_path, **random_google(np.random.default_rng(0), **GOOGLE, flavour='classic'))
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
    told = json.dumps({'arguments': {'heads': 'two', 'depth': None}})
    save_file(random_timm(np.random.default_rng(0)), tmp_path / 'a.safetensors', {'vit_jax': told})
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
    variables = model.init(jax.random.key(0), jnp.zeros((1, 12, 12, 3)))
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
    save_file(load_file(path), path)  # without what our own files tell besides
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
    huge_torch: 'GiB, and this machine has',
    truncated_safetensors: 'expected a .safetensors file',
    foreign_safetensors: 'the arrays of a ViT by google, timm, huggingface, seed, got conv1',
    foreign_metadata: "'vit_jax' is not what this package writes",
    wrong_metadata: 'a.safetensors',
    text: 'expected a .safetensors file',
    unknown_ending: 'expected a file ending in',
    missing: 'no such file',
    empty_folder: 'neither',
    folder_without_config: 'neither',
    folder_without_weights: 'there is neither',
    file_out_of_its_folder: 'the folder with config.json',
    pickle_of_code: 'expected a state dict of tensors',
    zipped_pickle_of_code: 'expected a state dict of tensors',
}
CONFIGS = [
    (dict(model_type='bert'), "expected model_type 'vit'"),
    (dict(hidden_act='relu'), 'expected hidden_act'),
    (dict(num_attention_heads='two'), "'two' where heads was expected"),
    (dict(num_hidden_layers=10**6), 'expected an array'),
    (dict(num_hidden_layers=10**9), 'whole number from 1 to'),
    (dict(num_hidden_layers=1), 'no place for'),
    (dict(image_size=10**12), 'below 65,536'),
    (dict(image_size=400), 'expected floats of shape'),
    (dict(image_size='large'), "'large' where image_size was expected"),
    (dict(layer_norm_eps=None), 'None where norm_eps was expected'),
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


def test_places_that_cannot_be_written_are_told(model_and_variables, tmp_path):
    for name, format in (('nowhere/a.safetensors', 'seed'), ('a.npz', 'seed'), ('a.pt', 'google')):
        with pytest.raises(InputError, match=name):
            vit_jax.save_weights(tmp_path / name, *model_and_variables, format=format)
    with pytest.raises(InputError, match='expected one of google, timm, huggingface, seed'):
        vit_jax.save_weights(tmp_path / 'a.safetensors', *model_and_variables, format='onnx')
    assert not list(tmp_path.iterdir())
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'thesis.tex').write_text('')
    with pytest.raises(InputError, match='expected a new folder'):
        vit_jax.save_weights(tmp_path / 'full', *model_and_variables, format='huggingface')
    assert [path.name for path in tmp_path.rglob('*')] == ['full', 'thesis.tex']


def test_overrides_that_the_weights_contradict_are_told(tensors, tmp_path):
    for wrong, message in (
        (dict(dim=32), 'expected floats of shape .*32.*, got'),
        (dict(depth=3), 'expected an array transformer.layers.2'),
        (dict(qk_norm=True), 'its format has nothing for transformer/attn/fn/k_norm'),
        (dict(width=3), 'expected arguments of ViT, got width'),
    ):
        with pytest.raises(InputError, match=message):
            vit_jax.load_weights(tmp_path / 'a.safetensors', **wrong)


def test_the_layer_before_the_logits_can_be_left_out(tmp_path):
    state = random_google(np.random.default_rng(0), **GOOGLE, flavour='classic', pre_logits=24)
    path = npz(tmp_path, **state)
    weights = vit_jax.weights.read_weights(path, representation_size=0)
    assert weights.notes == [
        'layer before the logits left out: mlp_head/pre_logits',
        'new head of zeros: 5 → 5 classes',
    ]
    assert weights.variables['params']['mlp_head']['layers_1']['kernel'].shape == (32, 5)
    with pytest.raises(InputError, match='representation_size: expected 24'):
        vit_jax.load_weights(path, representation_size=16)
    shutil.rmtree(tmp_path)


def test_metadata_is_plain_json(tensors, tmp_path):
    header = (tmp_path / 'a.safetensors').read_bytes()
    length = int.from_bytes(header[:8], 'little')
    text = json.loads(header[8 : 8 + length])['__metadata__']['vit_jax']
    arguments = json.loads(text)['arguments']
    assert arguments['heads'] == 2 and arguments['dtype'] == 'float32'
