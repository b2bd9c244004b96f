"""Every array of a file and every parameter of a model is accounted for."""

import json
import zipfile

import jax
import numpy as np
import pytest
from conftest import peer, random_variables
from references.google import random_google
from references.timm import random_timm
from safetensors.numpy import load_file, save_file

import vit_jax
from vit_jax.errors import InputError

ARGUMENTS = dict(
    image_size=12, patch_size=4, num_classes=5, dim=16, depth=2, heads=2, mlp_dim=20, dim_head=8
)


@pytest.fixture
def model_and_variables():
    model = vit_jax.ViT(**ARGUMENTS)
    return model, random_variables(model)


@pytest.fixture
def tensors(model_and_variables, tmp_path):
    vit_jax.save_weights(tmp_path / 'a.safetensors', *model_and_variables, format='seed')
    return load_file(tmp_path / 'a.safetensors')


@pytest.mark.parametrize('heads, dim_head', [(2, 8), (1, 16)])
@pytest.mark.parametrize('suffix', ['.pt', '.safetensors'])
def test_seed_weights_round_trip_bit_identically(vit_pytorch, tmp_path, suffix, heads, dim_head):
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
        assert vit_jax.model.shapes.pair(getattr(model, name)) == vit_jax.model.shapes.pair(
            value
        ), name


def test_our_safetensors_record_the_whole_model(tmp_path):
    arguments = ARGUMENTS | dict(
        image_size=(6, 8), patch_size=(3, 2), pool='mean', channels=1, dropout=0.25
    )
    model = vit_jax.ViT(**arguments)
    variables = random_variables(model)
    vit_jax.save_weights(tmp_path / 'a.safetensors', model, variables, format='seed')
    again, loaded = vit_jax.load_weights(tmp_path / 'a.safetensors')
    assert again == model
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)
    smaller, _ = vit_jax.load_weights(tmp_path / 'a.safetensors', pool='cls')
    assert smaller.pool == 'cls'


def test_missing_or_wrong_heads_raise(tensors, tmp_path):
    save_file(tensors, tmp_path / 'b.safetensors')
    save_file(random_timm(np.random.default_rng(0), dim=16), tmp_path / 'timm.safetensors')
    for name in ('b.safetensors', 'timm.safetensors'):
        for heads, got in (({}, 'none'), ({'heads': 3}, '3'), ({'heads': -1}, '-1')):
            with pytest.raises(InputError, match=f'heads= dividing 16, got {got}'):
                vit_jax.load_weights(tmp_path / name, **heads)


def test_grid_must_be_given_unless_positions_form_a_square(tmp_path):
    state = random_timm(np.random.default_rng(0), grid=(2, 3))
    save_file(state, tmp_path / 'a.safetensors')
    with pytest.raises(InputError, match='give grid='):
        vit_jax.load_weights(tmp_path / 'a.safetensors', heads=2)
    for given in (dict(image_size=(8, 12)), dict(grid=(2, 3))):
        model, _ = vit_jax.load_weights(tmp_path / 'a.safetensors', heads=2, **given)
        assert model.grid == (2, 3) and model.image_size == (8, 12)
    with pytest.raises(InputError, match='expected 2 x 4 patches'):
        vit_jax.load_weights(tmp_path / 'a.safetensors', heads=2, grid=(2, 4))
    np.savez(
        tmp_path / 'sincos.npz',
        **random_google(
            np.random.default_rng(0),
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
        (add, r'unexpected arrays \(1\): transformer.layers.0.2.bias'),
        (add_block, 'expected an array|unexpected arrays|says depth=2, but arrays say 3'),
        (reshape, 'LAST: expected .*got float32'),
        (to_integers, 'LAST: expected .*got .*32'),
    ],
)
def test_every_array_is_accounted_for(format, damage, message, tmp_path):
    path = tmp_path / {'google': 'a.npz', 'huggingface': 'a'}.get(format, 'a.safetensors')
    change = {
        'seed': {},
        'timm': dict(norm_eps=1e-6),
        'google': dict(norm_eps=1e-6, gelu='tanh', qkv_bias=True),
        'huggingface': {},
    }[format]
    model = vit_jax.ViT(**ARGUMENTS | change)
    variables = random_variables(model)
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


def test_unwritable_paths_and_unknown_formats_raise(model_and_variables, tmp_path):
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


def test_overrides_that_contradict_the_weights_raise(tensors, tmp_path):
    for wrong, message in (
        (dict(dim=32), 'expected floats of shape .*32.*, got'),
        (dict(depth=3), 'expected an array transformer.layers.2'),
        (dict(qk_norm=True), 'its format has no array for transformer/attn/fn/k_norm'),
        (dict(width=3), 'expected arguments of ViT, got width'),
    ):
        with pytest.raises(InputError, match=message):
            vit_jax.load_weights(tmp_path / 'a.safetensors', **wrong)


def test_layer_before_the_logits_can_be_dropped(tmp_path):
    state = random_google(np.random.default_rng(0), flavour='classic', pre_logits=24)
    path = tmp_path / 'a.npz'
    np.savez(path, **state)
    weights = vit_jax.weights.read_weights(path, representation_size=0)
    assert weights.notes == [
        'layer before the logits dropped: mlp_head/pre_logits',
        'new head of zeros for 5 classes in place of one for 5',
    ]
    assert weights.variables['params']['mlp_head']['layers_1']['kernel'].shape == (32, 5)
    with pytest.raises(InputError, match='representation_size: expected 24'):
        vit_jax.load_weights(path, representation_size=16)


def test_variables_of_another_model_are_not_saved(model_and_variables, tmp_path):
    model, variables = model_and_variables
    for wrong in (model.clone(depth=3), model.clone(num_classes=9)):
        with pytest.raises(InputError, match='variables do not match the model'):
            vit_jax.save_weights(tmp_path / 'x.safetensors', wrong, variables, format='seed')
    with pytest.raises(InputError, match='expected names of 5 classes'):
        names = {'class_names': ['a', 'b']}
        vit_jax.save_weights(tmp_path / 'x.safetensors', model, variables, 'seed', names)
    assert not list(tmp_path.iterdir())


def test_compressed_pytorch_files_are_read(tmp_path):
    peer('torch')
    import torch

    state = random_timm(np.random.default_rng(0))
    torch.save({name: torch.from_numpy(x) for name, x in state.items()}, tmp_path / 'a.pth')
    with (
        zipfile.ZipFile(tmp_path / 'a.pth') as stored,
        zipfile.ZipFile(tmp_path / 'b.pth', 'w', zipfile.ZIP_DEFLATED) as deflated,
    ):
        for name in stored.namelist():
            deflated.writestr(name, stored.read(name))
    expected, got = (vit_jax.load_weights(tmp_path / f'{n}.pth', heads=2)[1] for n in 'ab')
    jax.tree.map(np.testing.assert_array_equal, got, expected)


def test_vit_pytorch_patches_are_square_by_default(tensors, tmp_path):
    save_file(tensors, tmp_path / 'b.safetensors')  # 4 x 4 pixels, RGB
    resized = vit_jax.weights.read_weights(tmp_path / 'b.safetensors', heads=2, patch_size=2)
    assert resized.model.channels == 3
    assert 'patch embedding resized: 4 x 4 → 2 x 2 pixels' in resized.notes
    model, _ = vit_jax.load_weights(tmp_path / 'b.safetensors', heads=2, patch_size=(2, 8))
    assert model.patch_size == (2, 8) and model.channels == 3


def test_description_that_a_file_cannot_store_is_logged(model_and_variables, tmp_path, caplog):
    peer('torch')
    description = {'class_names': list('abcde'), 'preprocessing': {'mean': (0.1,), 'std': (0.2,)}}
    vit_jax.save_weights(tmp_path / 'a.pt', *model_and_variables, 'seed', description)
    assert 'this format has no room for preprocessing and class names' in caplog.text


def test_metadata_is_plain_json(tensors, tmp_path):
    header = (tmp_path / 'a.safetensors').read_bytes()
    length = int.from_bytes(header[:8], 'little')
    text = json.loads(header[8 : 8 + length])['__metadata__']['vit_jax']
    arguments = json.loads(text)['arguments']
    assert arguments['heads'] == 2 and arguments['dtype'] == 'float32'
