import jax
import numpy as np
import pytest
from conftest import count_traces
from PIL import Image

import vit_jax
from vit_jax.__main__ import main
from vit_jax.errors import InputError
from vit_jax.use.attention import patch_attention, rollout
from vit_jax.use.attention_sheet import draw_attention
from vit_jax.use.inside import draw_inside, filters, position_similarity, similarity
from vit_jax.use.predict import ATTENTION_BATCH_SIZES

ARGUMENTS = dict(image_size=8, patch_size=2, num_classes=3, dim=16, depth=2, heads=3, mlp_dim=24)


def save(path, **options):
    """Weights of a model with metadata, so that a predictor needs nothing else."""
    model = vit_jax.ViT(**ARGUMENTS | {'dim_head': 8} | options)
    images = np.zeros((1, 8, 8, model.channels), np.float32)
    vit_jax.save_weights(path, model, jax.jit(model.init)(jax.random.key(0), images), format='seed')
    return path


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    return save(tmp_path_factory.mktemp('weights') / 'vit.safetensors')


@pytest.fixture(scope='module')
def predictor(weights):
    return vit_jax.Predictor(weights, mean=(0.5,), std=(0.5,))


@pytest.fixture(scope='module')
def pictures():
    return np.random.default_rng(0).integers(0, 256, (40, 9, 11, 3), np.uint8)


@pytest.fixture
def picture(tmp_path, pictures):
    Image.fromarray(pictures[0]).save(tmp_path / 'picture.png')
    return str(tmp_path / 'picture.png')


def test_attention_of_any_number_of_pictures_compiles_once_per_batch_size(
    weights, pictures, monkeypatch
):
    traced = count_traces(monkeypatch, 'attention')
    predictor = vit_jax.Predictor(weights, mean=(0.5,), std=(0.5,))
    whole = predictor.attention(pictures)
    assert whole.shape == (40, 2, 3, 17, 17) and whole.dtype == np.float32
    for count in (0, 1, 2, 16, 17, 33):
        part = predictor.attention(pictures[:count])
        np.testing.assert_allclose(part, whole[:count], atol=1e-6)
        assert predictor.tokens(pictures[:count]).shape == (count, 17, 16)
    assert len(traced) == len(ATTENTION_BATCH_SIZES)


def test_tokens_are_what_the_classifier_reads(predictor, pictures):
    head = predictor.variables['params']['mlp_head']['layers_1']
    logits = predictor.tokens(pictures)[:, 0] @ head['kernel'] + head['bias']
    np.testing.assert_allclose(jax.nn.softmax(logits), predictor(pictures), atol=1e-5)


def test_rollout_is_the_product_of_the_mixing_matrices():
    attention = np.random.default_rng(0).random((2, 4, 3, 5, 5)).astype(np.float32)
    attention /= attention.sum(axis=-1, keepdims=True)
    for found, layers in zip(rollout(attention), np.float64(attention), strict=True):
        expected = np.eye(5)
        for heads in layers:
            mixed = sum(heads) / len(heads) + np.eye(5)
            expected = (mixed / mixed.sum(axis=1, keepdims=True)) @ expected
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize('class_token', [True, False])
def test_patch_attention_is_that_of_the_cls_token_or_the_mean(class_token):
    model = vit_jax.ViT(
        **ARGUMENTS, class_token=class_token, num_registers=2, pool='gap', posemb='sincos2d'
    )
    n, first = model.num_prefix + 16, model.num_prefix
    attention = np.random.default_rng(0).random((2, 3, n, n)).astype(np.float32)
    found = patch_attention(attention, model)
    rows = attention[:, :, 0] if class_token else attention[:, :, first:].mean(axis=2)
    expected = rows[..., first:].reshape(2, 3, 4, 4)
    expected /= expected.sum(axis=(-1, -2), keepdims=True)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert patch_attention(attention[..., : first + 8, : first + 8], model, (4, 8)).shape[2:] == (
        2,
        4,
    )


def test_brightest_is_where_the_attention_is(predictor, pictures, monkeypatch):
    attention = np.full((1, 2, 3, 17, 17), 1e-3, np.float32)
    attention[:, 1, 2, 0, 1 + 4 * 3 + 1] = 1  # the last head: row 3, column 1
    monkeypatch.setattr(predictor, 'attention', lambda _: attention)
    white = np.full((8, 8, 3), 255, np.uint8)
    (sheet,) = draw_attention(predictor, white, [1])
    side = 224
    left, top = 2 * (side + 8) + 8, side + 15 + 8 + 8 + 30  # of the sixth panel, in rows of 3
    panel = np.asarray(sheet)[top : top + side, left : left + side].astype(int)
    yellowness = panel[..., 0] - panel[..., 2]
    row, column = np.unravel_index(yellowness.argmax(), yellowness.shape)
    assert 3 * 56 <= row < 4 * 56 and 56 <= column < 2 * 56


def test_similarities_and_filters_have_their_known_values(predictor):
    tokens = np.array([[1, 0], [2, 0], [0, 3], [-1, 0]], np.float32)
    np.testing.assert_allclose(similarity(tokens)[0], [1, 1, 0, -1])
    assert position_similarity(predictor).shape == (16, 4, 4)
    found = filters(predictor)
    assert found.shape == (12, 2, 2, 3)
    flat = found.reshape(12, -1)
    np.testing.assert_allclose(flat @ flat.T, np.eye(12), atol=1e-5)


@pytest.mark.parametrize('posemb', ['learned', 'sincos2d'])
def test_inside_is_drawn_with_and_without_a_picture(tmp_path, pictures, posemb):
    predictor = vit_jax.Predictor(
        save(tmp_path / 'vit.safetensors', posemb=posemb), mean=(0.5,), std=(0.5,)
    )
    assert draw_inside(predictor).size < draw_inside(predictor, pictures[0]).size


def test_commands_draw_pictures_and_animations(weights, picture, tmp_path):
    common = [str(weights), picture, '--mean', '0.5', '--std', '0.5']
    assert main(['attention', *common, '-o', str(tmp_path / 'out.png')]) == 0
    assert main(['attention', *common, '-o', str(tmp_path / 'out.gif')]) == 0
    assert main(['inside', *common, '-o', str(tmp_path / 'inside.png')]) == 0
    with Image.open(tmp_path / 'out.png') as still, Image.open(tmp_path / 'out.gif') as moving:
        assert still.size == moving.size and moving.n_frames == 2


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['attention', '-o', 'out.xyz'], 'expected a picture file'),
        (['attention', '-o', 'out.png', '--layer', '3'], '--layer: expected 1 to 2, got 3'),
        (['inside', '-o', 'out.xyz'], 'expected a picture file'),
    ],
)
def test_wrong_input_exits_with_one_line(arguments, message, weights, picture, capsys):
    command, *options = arguments
    common = [str(weights), picture, '--mean', '0.5', '--std', '0.5']
    assert main([command, *common, *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count('\n') == 1


def test_something_else_than_a_picture_raises(predictor, tmp_path):
    (tmp_path / 'text.png').write_text('not a picture')
    with pytest.raises(InputError, match='expected a picture'):
        draw_attention(predictor, str(tmp_path / 'text.png'), [0])
