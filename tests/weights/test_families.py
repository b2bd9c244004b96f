"""Parity with the code of transformers' other ViTs, in both directions."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_identical, peer
from families import FAMILIES, FULL, compute, create, images_for
from safetensors.numpy import load_file

import vit_jax
from vit_jax.errors import InputError
from vit_jax.weights import read_weights

RESIZED = ('vit', 'dinov2', 'dinov2-registers', 'siglip', 'clip', 'dinov3', 'deit', 'mae', 'ijepa')


def assert_equal_outputs(weights, images, expected):
    tokens, pooled = expected
    assert tokens.std() > 0.1
    model, variables = weights.model, jax.tree.map(jnp.asarray, weights.variables)
    normed = not model.embed_norm  # CLIP returns its tokens before the last norm
    got = model.apply(variables, images, method='tokens', normed=normed)
    np.testing.assert_allclose(got, tokens, atol=1e-4)
    if pooled is not None:
        assert pooled.std() > 0.1
        np.testing.assert_allclose(model.apply(variables, images), pooled, atol=1e-4)


@pytest.mark.parametrize('name', FAMILIES)
def test_weights_give_transformers_outputs_and_round_trip_bit_identically(name, tmp_path):
    theirs = create(name)
    theirs.save_pretrained(tmp_path / 'a')
    images = images_for(theirs)
    expected = compute(theirs, images)
    weights = read_weights(tmp_path / 'a')
    assert not weights.notes
    assert_equal_outputs(weights, images, expected)
    if 'bee' in theirs.config.id2label.values():
        assert weights.description['class_names'] == ['ape', 'bee', 'cow']

    save = vit_jax.save_weights
    save(tmp_path / 'b', *weights[:2], 'huggingface', weights.description)
    a, b = (load_file(tmp_path / folder / 'model.safetensors') for folder in 'ab')
    assert_identical(a, b)
    if name == 'mae':  # written as a ViT
        return
    again, info = type(theirs).from_pretrained(tmp_path / 'b', output_loading_info=True)
    assert not any(info.values()), info
    for got, value in zip(compute(again.eval(), images), expected, strict=True):
        if value is not None:
            np.testing.assert_allclose(got, value, atol=1e-5)
    assert again.config.id2label == theirs.config.id2label


@pytest.mark.parametrize('name', RESIZED)
def test_other_image_sizes_give_transformers_outputs(name, tmp_path):
    size = (8, 24)  # from 3 x 3 patches, mostly, to fewer rows and more columns
    theirs = create(name)
    theirs.save_pretrained(tmp_path)
    images = images_for(theirs, size)
    weights = read_weights(tmp_path, image_size=size)
    assert_equal_outputs(weights, images, compute(theirs, images))


@pytest.mark.parametrize('name', FULL)
def test_other_parts_of_full_models_are_noted(name, tmp_path):
    theirs = create(name, FULL)
    theirs.save_pretrained(tmp_path)
    weights = read_weights(tmp_path)
    (note,) = weights.notes
    assert 'arrays besides the ViT ignored' in note
    images = images_for(theirs)
    if name == 'siglip-classifier':
        assert_equal_outputs(weights, images, compute(theirs, images))
        return
    part = theirs.vit if name == 'mae' else theirs.vision_model
    tokens, pooled = compute(part, images)
    if name == 'clip':
        import torch

        with torch.no_grad():
            pooled = theirs.visual_projection(torch.from_numpy(pooled)).numpy()
    assert_equal_outputs(weights, images, (tokens, pooled))


def test_registers_positions_are_added_to_the_registers(tmp_path):
    create('dinov2-registers').save_pretrained(tmp_path / 'a')
    model, variables = vit_jax.load_weights(tmp_path / 'a')
    params = dict(variables['params'])
    positions = params['pos_embedding'].copy()
    assert not positions[:, 1:4].any()
    positions[:, 1:4] = np.random.default_rng(0).normal(size=(1, 3, 32))
    variables = {'params': params | {'pos_embedding': positions}}
    vit_jax.save_weights(tmp_path / 'b', model, variables, 'huggingface')
    images = np.ones((1, 12, 12, 3), np.float32)
    got, others = vit_jax.load_weights(tmp_path / 'b')
    expected = model.apply(variables, images)
    np.testing.assert_allclose(got.apply(others, images), expected, atol=1e-5)


def test_dinov3_without_biases_has_zeros(tmp_path):
    theirs = create('dinov3', query_bias=False, proj_bias=False, mlp_bias=False)
    theirs.save_pretrained(tmp_path)
    images = images_for(theirs)
    assert_equal_outputs(read_weights(tmp_path), images, compute(theirs, images))


def test_biases_that_a_family_lacks_must_be_zero(tmp_path):
    create('clip-projection').save_pretrained(tmp_path / 'a')
    model, variables = vit_jax.load_weights(tmp_path / 'a')
    variables = jax.tree.map(np.copy, variables)
    variables['params']['mlp_head']['layers_1']['bias'][0] = 1
    with pytest.raises(InputError, match='expected zeros, since it has no visual_projection.bias'):
        vit_jax.save_weights(tmp_path / 'b', model, variables, 'huggingface')


@pytest.mark.parametrize(
    'config, message',
    [
        (dict(model_type='beit'), "model_type 'beit' is not supported"),
        (dict(model_type='siglip2_vision_model'), 'NaFlex'),
        (dict(image_size=(12, 8)), 'expected square images'),
        (dict(mlp_ratio='two'), "'two' for hidden_size and mlp_ratio"),
        (dict(mlp_ratio=3), 'says mlp_dim=96, but arrays say 64'),
        (dict(vision_config=[]), 'expected vision_config to be an object'),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_in_one_line(config, message, tmp_path):
    create('dinov2').save_pretrained(tmp_path)
    path = tmp_path / 'config.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    with pytest.raises(InputError, match=message) as error:
        read_weights(tmp_path)
    assert '\n' not in str(error.value)


def test_clip_classifiers_are_refused_by_name(tmp_path):
    peer('transformers')
    from transformers import CLIPConfig, CLIPForImageClassification

    CLIPForImageClassification(CLIPConfig(**FULL['clip'][2])).save_pretrained(tmp_path)
    with pytest.raises(InputError, match='CLIPForImageClassification is not supported'):
        read_weights(tmp_path)


@pytest.mark.parametrize(
    'processor, expected, note',
    [
        (dict(size=dict(shortest_edge=16), do_center_crop=True, crop_size=12), 0.75, ''),
        (dict(size=dict(height=12, width=12)), None, ''),
        (
            dict(
                size=dict(shortest_edge=16),
                do_center_crop=True,
                crop_size=dict(height=8, width=8),
                resample=3,
            ),
            0.5,
            'resample 3|8 x 8 pixels',
        ),
        (dict(size=16, do_center_crop=True, crop_size=12), None, 'size 16'),
        (
            dict(size=16, do_center_crop=True, crop_size=12, feature_extractor_type='CLIPX'),
            0.75,
            '',
        ),
        (dict(size=dict(shortest_edge=12)), None, 'size '),
    ],
)
def test_crops_and_resizing_are_read_from_the_processor(processor, expected, note, tmp_path):
    create('dinov2').save_pretrained(tmp_path)
    text = json.dumps(dict(image_mean=[0.4] * 3, image_std=[0.2] * 3) | processor)
    (tmp_path / 'preprocessor_config.json').write_text(text)
    weights = read_weights(tmp_path)
    assert weights.description['preprocessing'].get('crop_fraction') == expected
    folder = tmp_path / 'b'
    vit_jax.save_weights(folder, *weights[:2], 'huggingface', weights.description)
    assert read_weights(folder).description['preprocessing'].get('crop_fraction') == expected
    text = ' '.join(weights.notes)
    assert all(part in text for part in note.split('|')) and bool(text) == bool(note)


def test_centre_crops_are_written_for_clips_processor(tmp_path):
    peer('transformers')
    from transformers import CLIPImageProcessorPil

    create('clip').save_pretrained(tmp_path / 'a')
    weights = read_weights(tmp_path / 'a')
    described = {'preprocessing': {'mean': (0.4,), 'std': (0.2,), 'crop_fraction': 0.75}}
    vit_jax.save_weights(tmp_path / 'b', *weights[:2], 'huggingface', described)
    theirs = CLIPImageProcessorPil.from_pretrained(tmp_path / 'b')
    picture = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    expected = theirs(picture, return_tensors='np')['pixel_values'][0].transpose(1, 2, 0)
    ours = read_weights(tmp_path / 'b').preprocessing()
    got = ours.normalize(jnp.asarray(ours.resize(picture))[None])[0]
    np.testing.assert_allclose(got, expected, atol=1e-5)
