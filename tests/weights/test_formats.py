"""Parity with references written from the sources of timm and of Google's ViTs."""

import json
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
from conftest import assert_identical, assert_parity, peer, random_images, random_variables
from references.google import google_logits, random_google
from references.timm import random_timm, timm_logits
from safetensors.numpy import load_file, save_file

import vit_jax
from vit_jax.__main__ import main
from vit_jax.errors import InputError
from vit_jax.weights import read_weights

TIMM = [
    dict(),
    dict(heads=4, patch=(2, 3), channels=1, depth=3),
    dict(qkv_bias=False),
    dict(no_embed_class=True),
    dict(registers=4, layer_scale='ls', no_embed_class=True),
    dict(registers=3, layer_scale='ls', qk_norm=True),
    dict(layer_scale='gamma', no_embed_class=True),
    dict(distilled=True),
    dict(pool='avg', fc_norm=True),
    dict(pool='avg', fc_norm=True, class_token=False),
    dict(pool='avg', fc_norm=False, class_token=False),
    dict(pool='map', class_token=False),
    dict(pool='map', registers=2),
    dict(pre_norm=True),
    dict(gated=True, registers=2, layer_scale='ls', no_embed_class=True),
]


@pytest.mark.parametrize('options', TIMM, ids=lambda options: '-'.join(map(str, options)) or 'vit')
def test_timm_weights_give_timm_logits_and_round_trip_bit_identically(options, tmp_path):
    options = dict(heads=2, patch=(4, 4), channels=3) | options
    state = random_timm(np.random.default_rng(0), **options)
    # Small, so that the epsilon of the first norm matters.
    for name in ('patch_embed.proj.weight', 'patch_embed.proj.bias', 'pos_embed', 'cls_token'):
        if name in state:
            state[name] *= np.float32(1e-3)
    save_file(state, tmp_path / 'a.safetensors')
    p1, p2 = options['patch']
    images = random_images(options['channels'], (3 * p1, 3 * p2))
    # 9 embeddings could also be those of 5 prefix tokens and 2 x 2 patches.
    given = {'posemb': 'learned_patches'} if options.get('registers') == 4 else {}
    how = {}
    if options.get('pre_norm'):  # CLIP
        how = dict(gelu='quick', eps=1e-5)
        given = dict(gelu='quick')
    path = tmp_path / 'a.safetensors'
    model, variables = vit_jax.load_weights(path, heads=options['heads'], **given)
    pool = options.get('pool', 'token')
    heads = options['heads']
    expected = timm_logits(state, images, heads=heads, pool=pool, patch=(p1, p2), **how)
    assert_parity(model, variables, images, expected)
    assert model.grid == (3, 3)

    vit_jax.save_weights(tmp_path / 'b.safetensors', model, variables, format='timm')
    back = load_file(tmp_path / 'b.safetensors')
    if options.get('layer_scale') == 'gamma':  # DeiT-3's names become timm's
        state = {
            name.replace('gamma_', 'ls') + '.gamma' * ('gamma_' in name): x
            for name, x in state.items()
        }
    assert_identical(back, state)
    again, _ = vit_jax.load_weights(tmp_path / 'b.safetensors')
    assert again == model


@pytest.mark.parametrize('gelu', ['erf', 'tanh'])
@pytest.mark.parametrize('suffix', ['.pth', '.bin'])
def test_timm_pytorch_files_load_with_either_gelu(gelu, suffix, tmp_path):
    peer('torch')
    import torch

    state = random_timm(np.random.default_rng(0))
    tensors = {name: torch.from_numpy(x) for name, x in state.items()}
    torch.save({'model': tensors}, tmp_path / f'a{suffix}')  # as in DeiT's files
    images = random_images()
    model, variables = vit_jax.load_weights(tmp_path / f'a{suffix}', heads=2, gelu=gelu)
    expected = timm_logits(state, images, heads=2, pool='token', patch=(4, 4), gelu=gelu)
    assert_parity(model, variables, images, expected)
    if gelu == 'erf':
        vit_jax.save_weights(tmp_path / f'b{suffix}', model, variables, format='timm')
        back = torch.load(tmp_path / f'b{suffix}', weights_only=True)
        assert_identical({name: x.numpy() for name, x in back.items()}, state)


GOOGLE = [
    dict(flavour='classic'),
    dict(flavour='classic', pre_logits=24, heads=4, prefix='opt/target/'),
    dict(flavour='linen', patch=(2, 3), channels=1),
    dict(flavour='big_vision', prefix='params/'),
    dict(flavour='big_vision', pool='gap', pre_logits=32),
    dict(flavour='big_vision', pool='gap', posemb='sincos2d'),
    dict(flavour='big_vision', pool='map', prefix='params/img/'),
    dict(flavour='big_vision_scan', pool='map', depth=3, channels=4),
    dict(flavour='big_vision_scan', pool='cls', pre_logits=16),
]
SIZES = dict(
    dim=32, depth=2, heads=2, mlp_dim=48, patch=(4, 4), grid=(3, 3), channels=3, num_classes=5
)


@pytest.mark.parametrize(
    'options', GOOGLE, ids=lambda options: '-'.join(map(str, options.values()))
)
def test_google_weights_give_google_logits_and_round_trip_bit_identically(options, tmp_path):
    options = SIZES | dict(pool='cls') | options
    prefix = options.pop('prefix', '')
    state = random_google(np.random.default_rng(0), **options)
    for name in (
        'embedding/kernel',
        'embedding/bias',
        'cls',
        *(n for n in state if 'pos_emb' in n),
    ):
        if name in state:
            state[name] *= np.float32(1e-3)
    (p1, p2), grid = options['patch'], options['grid']
    images = random_images(options['channels'], (3 * p1, 3 * p2))
    expected = google_logits(
        state, images, pool=options['pool'], patch=options['patch'], grid=options['grid']
    )
    others = {'opt/state/step': np.int64(3)} if prefix == 'opt/target/' else {}
    np.savez(tmp_path / 'a.npz', **{prefix + name: x for name, x in state.items()}, **others)
    size = {'image_size': (3 * p1, 3 * p2)} if options.get('posemb') == 'sincos2d' else {}
    weights = read_weights(tmp_path / 'a.npz', **size)
    assert_parity(weights.model, weights.variables, images, expected)
    assert weights.model.grid == grid
    assert bool(weights.notes) == bool(others)

    vit_jax.save_weights(tmp_path / 'b.npz', *weights[:2], format='google')
    with np.load(tmp_path / 'b.npz', allow_pickle=False) as back:
        back = dict(back)
    if options['flavour'] in ('classic', 'big_vision'):
        assert_identical(back, state)
    else:  # numbered or stacked differently, but with the same values
        again = read_weights(tmp_path / 'b.npz', **size)
        jax.tree.map(np.testing.assert_array_equal, again.variables, weights.variables)
        expected = google_logits(back, images, pool=options['pool'], patch=(p1, p2), grid=grid)
        assert_parity(weights.model, weights.variables, images, expected)


def test_positions_in_the_encoder_and_an_inlined_map_head_are_read(tmp_path):
    """big_vision wrote them for a while, and still reads them (`fix_old_checkpoints`)."""
    state = random_google(np.random.default_rng(0), **SIZES, flavour='big_vision', pool='map')
    renamed = {name.replace('MAPHead_0/', ''): x for name, x in state.items()}
    renamed['Transformer/pos_embedding'] = renamed.pop('pos_embedding')
    np.savez(tmp_path / 'a.npz', **renamed)
    model, variables = vit_jax.load_weights(tmp_path / 'a.npz')
    images = random_images()
    expected = google_logits(state, images, pool='map', patch=(4, 4), grid=(3, 3))
    assert_parity(model, variables, images, expected)


@pytest.mark.parametrize('dtype', [ml_dtypes.bfloat16, np.float16])
def test_half_precision_files_are_read_exactly(dtype, tmp_path):
    google = random_google(np.random.default_rng(0), **SIZES, flavour='classic')
    timm = random_timm(np.random.default_rng(0))
    half = {name: x.astype(dtype) for name, x in google.items()}
    np.savez(tmp_path / 'a.npz', **half)
    if dtype == ml_dtypes.bfloat16:
        with np.load(tmp_path / 'a.npz') as stored:
            assert stored['cls'].dtype == np.dtype('V2')  # how NumPy reads bfloat16 back
    _, variables = vit_jax.load_weights(tmp_path / 'a.npz')
    np.testing.assert_array_equal(variables['params']['cls_token'], half['cls'].astype(np.float32))
    save_file({name: x.astype(dtype) for name, x in timm.items()}, tmp_path / 'a.safetensors')
    _, variables = vit_jax.load_weights(tmp_path / 'a.safetensors', heads=2)
    np.testing.assert_array_equal(
        variables['params']['cls_token'], timm['cls_token'].astype(dtype).astype(np.float32)
    )


def test_timm_folder_gives_preprocessing_arguments_and_class_names(tmp_path):
    save_file(random_timm(np.random.default_rng(0)), tmp_path / 'model.safetensors')
    pretrained = {'mean': [0.4, 0.5, 0.6], 'std': [0.2, 0.2, 0.2], 'crop_pct': 0.9}
    config = {'architecture': 'vit_mine', 'pretrained_cfg': pretrained}
    (tmp_path / 'config.json').write_text(json.dumps(config))
    weights = read_weights(tmp_path, heads=2)
    assert weights.preprocessing().mean == (0.4, 0.5, 0.6)
    assert weights.preprocessing().crop_fraction == 0.9 and not weights.notes
    pretrained |= {'crop_mode': 'border', 'interpolation': 'bicubic'}
    (tmp_path / 'config.json').write_text(json.dumps(config))
    weights = read_weights(tmp_path, heads=2)
    assert 'crop_mode border, interpolation bicubic' in weights.notes[0]
    pretrained |= {'crop_mode': 'squash', 'interpolation': 'bilinear'}
    config['model_args'] = {'num_heads': 2, 'act_layer': 'gelu_tanh', 'dynamic': True}
    config |= {'global_pool': 'avg', 'label_names': list('abcde')}
    (tmp_path / 'config.json').write_text(json.dumps(config))
    weights = read_weights(tmp_path)
    assert (weights.model.heads, weights.model.gelu, weights.model.pool) == (2, 'tanh', 'gap')
    assert weights.description['class_names'] == list('abcde')
    assert 'ignored in config.json: model_args dynamic' in weights.notes[0]
    assert weights.preprocessing().crop_fraction == 0
    config['model_args'] = {'act_layer': 'relu'}
    (tmp_path / 'config.json').write_text(json.dumps(config))
    with pytest.raises(InputError, match="expected act_layer gelu and .*'relu'"):
        read_weights(tmp_path, heads=2)


def test_converting_from_format_to_format_keeps_the_logits(tmp_path):
    """Google → Hugging Face → timm → Google, with 'erf' GELU, since not all of them know 'tanh'."""
    state = random_google(np.random.default_rng(0), **SIZES, flavour='classic')
    np.savez(tmp_path / 'a.npz', **state)
    images = random_images()
    model, variables = vit_jax.load_weights(tmp_path / 'a.npz', gelu='erf')
    expected = model.apply(variables, images)
    vit_jax.save_weights(tmp_path / 'hf', model, variables, format='huggingface')
    model, variables = vit_jax.load_weights(tmp_path / 'hf')
    np.testing.assert_array_equal(model.apply(variables, images), expected)
    vit_jax.save_weights(tmp_path / 'timm.safetensors', model, variables, format='timm')
    model, variables = vit_jax.load_weights(tmp_path / 'timm.safetensors', gelu='tanh')
    vit_jax.save_weights(tmp_path / 'b.npz', model, variables, format='google')
    with np.load(tmp_path / 'b.npz') as back:
        assert_identical(dict(back), state)


def test_converting_to_float16_halves_the_file_and_rounds_its_numbers(tmp_path):
    model = vit_jax.ViT(
        image_size=8, patch_size=4, num_classes=3, dim=16, depth=2, heads=2, mlp_dim=24
    )
    whole, half = str(tmp_path / 'whole.safetensors'), str(tmp_path / 'half.safetensors')
    vit_jax.save_weights(whole, model, random_variables(model), format='seed')
    assert main(['convert', whole, half, '--to', 'seed', '--float16']) == 0
    rounded = {name: x.astype('float16') for name, x in load_file(whole).items()}
    assert_identical(load_file(half), rounded)
    read, variables = vit_jax.load_weights(half)
    assert read == model and variables['params']['cls_token'].dtype == np.float32


@pytest.mark.parametrize(
    'format, options',
    [
        ('seed', dict(qkv_bias=True)),
        ('seed', dict(norm_eps=1e-6)),
        ('seed', dict(gelu='tanh')),
        ('seed', dict(num_registers=2)),
        ('timm', dict(norm_eps=1e-5)),
        ('timm', dict(gelu='tanh')),
        ('timm', dict(gated=True)),
        ('timm', dict(embed_norm=True)),
        ('timm', dict(pool='mean')),
        ('timm', dict(representation_size=8)),
        ('google', dict(gelu='erf')),
        ('google', dict(qkv_bias=False)),
        ('google', dict(layer_scale=0.1)),
        ('google', dict(pool='gap')),
        ('huggingface', dict(pool='gap')),
        ('huggingface', dict(num_registers=2)),
        ('huggingface', dict(qk_norm=True)),
    ],
)
def test_models_that_a_format_cannot_express_are_not_saved(format, options, tmp_path):
    fitting = {
        'seed': dict(norm_eps=1e-5, gelu='erf', qkv_bias=False),
        'timm': dict(norm_eps=1e-6, gelu='erf'),
        'google': dict(norm_eps=1e-6, gelu='tanh', qkv_bias=True),
        'huggingface': {},
    }
    sizes = dict(image_size=8, patch_size=4, num_classes=3, dim=8, depth=1, heads=2, mlp_dim=8)
    path = tmp_path / {'google': 'x.npz', 'huggingface': 'x'}.get(format, 'x.safetensors')
    for change in ({}, options):
        model = vit_jax.ViT(**sizes, dim_head=4, **fitting[format] | change)
        variables = random_variables(model)
        if not change:
            vit_jax.save_weights(path, model, variables, format=format)
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            continue
        name = next(iter(options))
        # timm has such models with another argument besides.
        name = {'gated': 'gelu', 'embed_norm': 'patch_bias'}.get(name, name)
        with pytest.raises(InputError, match=f'expected a model with .*{name}=|class_token=False'):
            vit_jax.save_weights(path, model, variables, format=format)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('posemb', ['sincos2d', 'learned_patches'])
@pytest.mark.parametrize('format', ['seed', 'timm', 'huggingface'])
def test_fixed_positions_become_learned_ones_of_the_same_function(format, posemb, tmp_path):
    options = {'seed': {}, 'timm': dict(norm_eps=1e-6), 'huggingface': {}}[format]
    sizes = dict(image_size=8, patch_size=4, num_classes=3, dim=8, depth=1, heads=2, mlp_dim=8)
    model = vit_jax.ViT(**sizes, dim_head=4, posemb=posemb, **options)
    variables = random_variables(model)
    path = tmp_path / ('x' if format == 'huggingface' else 'x.safetensors')
    vit_jax.save_weights(path, model, variables, format=format)
    other, others = vit_jax.load_weights(path)
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    if format != 'timm' or posemb == 'sincos2d':
        assert other.posemb == 'learned'
    np.testing.assert_allclose(
        other.apply(others, images), model.apply(variables, images), atol=1e-5
    )
