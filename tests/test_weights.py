import json
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import peer
from safetensors.numpy import load_file, save_file

import vit_jax
from vit_jax.errors import InputError

ARGUMENTS = dict(
    image_size=12, patch_size=4, num_classes=5, dim=16, depth=2, heads=2, mlp_dim=20, dim_head=8
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
    for heads, got in (({}, 'none'), ({'heads': 3}, '3'), ({'heads': -1}, '-1')):
        with pytest.raises(InputError, match=f'heads= dividing 16, got {got}'):
            vit_jax.load_weights(tmp_path / 'b.safetensors', **heads)


def remove(tensors):
    del tensors['transformer.layers.1.1.fn.net.3.bias']


def remove_layer(tensors):
    for name in [name for name in tensors if name.startswith('transformer.layers.0.')]:
        del tensors[name]


def add(tensors):
    tensors['transformer.layers.0.2.bias'] = np.zeros(3, np.float32)


def reshape(tensors):
    tensors['mlp_head.1.weight'] = tensors['mlp_head.1.weight'][:, :-1].copy()


def flatten(tensors):
    tensors['cls_token'] = tensors['cls_token'].ravel()


def rename(tensors):
    tensors['cls'] = tensors.pop('cls_token')


@pytest.mark.parametrize(
    'damage, message',
    [
        (remove, 'expected a parameter transformer.layers.1.1.fn.net.3.bias'),
        (remove_layer, 'expected a parameter transformer.layers.0'),
        (add, 'no place for: transformer.layers.0.2.bias'),
        (reshape, 'mlp_head.1.weight: expected'),
        (flatten, 'cls_token: expected'),
        (rename, "expected vit-pytorch's state dict"),
    ],
)
def test_every_parameter_is_accounted_for(tensors, tmp_path, damage, message):
    damage(tensors)
    save_file(tensors, tmp_path / 'b.safetensors')
    with pytest.raises(InputError, match=message):
        vit_jax.load_weights(tmp_path / 'b.safetensors', heads=2)


def test_damaged_and_foreign_files_are_told(tensors, tmp_path):
    whole = (tmp_path / 'a.safetensors').read_bytes()
    (tmp_path / 'short.safetensors').write_bytes(whole[:-100])
    (tmp_path / 'text.safetensors').write_text('no tensors')
    (tmp_path / 'a.onnx').write_text('')
    save_file(tensors, tmp_path / 'metadata.safetensors', {'vit_jax': 'no JSON'})
    for name in (
        'short.safetensors',
        'text.safetensors',
        'a.onnx',
        'nothing.pt',
        'metadata.safetensors',
    ):
        with pytest.raises(InputError, match=name):
            vit_jax.load_weights(tmp_path / name, heads=2)


def test_pickles_are_not_run(tmp_path):
    peer('torch')

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / 'was here'), 'w'))

    (tmp_path / 'evil.pt').write_bytes(pickle.dumps({'cls_token': Evil()}))
    with pytest.raises(InputError, match='evil.pt'):
        vit_jax.load_weights(tmp_path / 'evil.pt', heads=2)
    assert not (tmp_path / 'was here').exists()


def test_places_that_cannot_be_written_are_told(model_and_variables, tmp_path):
    for path in (tmp_path / 'nowhere' / 'a.safetensors', tmp_path / 'a.npz'):
        with pytest.raises(InputError, match=path.name):
            vit_jax.save_weights(path, *model_and_variables, format='seed')
    with pytest.raises(InputError, match="expected 'seed'"):
        vit_jax.save_weights(tmp_path / 'a.safetensors', *model_and_variables, format='onnx')
    assert not list(tmp_path.iterdir())


def test_metadata_is_plain_json(tensors, tmp_path):
    header = (tmp_path / 'a.safetensors').read_bytes()
    length = int.from_bytes(header[:8], 'little')
    arguments = json.loads(json.loads(header[8 : 8 + length])['__metadata__']['vit_jax'])
    assert arguments['heads'] == 2 and arguments['dtype'] == 'float32'


@pytest.mark.parametrize('options', [dict(qkv_bias=True), dict(norm_eps=1e-6), dict(gelu='tanh')])
def test_what_vit_pytorch_cannot_compute_is_not_saved_for_it(options, tmp_path):
    model = vit_jax.ViT(
        image_size=8, patch_size=4, num_classes=3, dim=8, depth=1, heads=1, mlp_dim=8, **options
    )
    variables = model.init(jax.random.key(0), np.zeros((1, 8, 8, 3)))
    with pytest.raises(InputError, match=f'a model with {next(iter(options))}='):
        vit_jax.save_weights(tmp_path / 'x.safetensors', model, variables, format='seed')
    assert not list(tmp_path.iterdir())
