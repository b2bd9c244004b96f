"""Parity with transformers' own code, in both directions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_identical, assert_parity, peer, random_images
from safetensors.numpy import load_file, save_file

import vit_jax
from vit_jax.errors import InputError
from vit_jax.weights import read_weights

HUGGINGFACE = [
    dict(),
    dict(qkv_bias=False, num_attention_heads=4, hidden_act='gelu_new'),
    dict(image_size=(8, 16), hidden_act='gelu_pytorch_tanh', layer_norm_eps=1e-5),
    dict(num_channels=1, num_hidden_layers=3, intermediate_size=40),
]


def huggingface_model(**options):
    peer('transformers')
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        **dict(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=48,
            image_size=12,
            patch_size=4,
            id2label={0: 'ape', 1: 'bee', 2: 'cow'},
            label2id={'ape': 0, 'bee': 1, 'cow': 2},
        )
        | options
    )
    model = ViTForImageClassification(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.2 * noise + (1 if 'layernorm' in name and 'weight' in name else 0))
            if 'embeddings' in name:  # small, so that the epsilon of the first norm matters
                parameter.mul_(1e-3)
    return model


def huggingface_logits(model, images):
    import torch

    with torch.no_grad():
        return model(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).logits.numpy()


@pytest.mark.parametrize('options', HUGGINGFACE, ids=lambda options: '-'.join(options) or 'vit')
def test_hugging_face_weights_give_its_logits_and_round_trip_bit_identically(options, tmp_path):
    theirs = huggingface_model(**options)
    theirs.save_pretrained(tmp_path / 'a')
    size = options.get('image_size', (12, 12))
    images = random_images(options.get('num_channels', 3), size)
    expected = huggingface_logits(theirs, images)
    weights = read_weights(tmp_path / 'a')
    assert_parity(weights.model, weights.variables, images, expected)
    assert weights.description['class_names'] == ['ape', 'bee', 'cow']

    vit_jax.save_weights(
        tmp_path / 'b', *weights[:2], format='huggingface', description=weights.description
    )
    a, b = (load_file(tmp_path / folder / 'model.safetensors') for folder in 'ab')
    assert_identical(a, b)
    again = type(theirs).from_pretrained(tmp_path / 'b').eval()
    np.testing.assert_allclose(huggingface_logits(again, images), expected, atol=1e-6)
    assert again.config.id2label == theirs.config.id2label


def test_in_memory_names_of_transformers_5_are_read(tmp_path):
    theirs = huggingface_model()
    theirs.save_pretrained(tmp_path)
    state = {name: x.detach().numpy() for name, x in theirs.state_dict().items()}
    assert 'vit.layers.0.attention.q_proj.weight' in state
    expected = read_weights(tmp_path)
    without_prefix = {name.removeprefix('vit.'): x for name, x in state.items()}
    for names in (state, without_prefix):
        save_file(names, tmp_path / 'model.safetensors')
        jax.tree.map(
            np.testing.assert_array_equal, read_weights(tmp_path).variables, expected.variables
        )
    both = state | {'vit.encoder.layer.0.output.dense.bias': np.zeros(32, np.float32)}
    save_file(both, tmp_path / 'model.safetensors')
    with pytest.raises(InputError, match='which are there twice: vit'):
        read_weights(tmp_path)


def test_vit_model_has_no_head_and_gives_its_pooler_output(tmp_path):
    peer('transformers')
    import torch
    from transformers import ViTModel

    torch.manual_seed(0)
    theirs = ViTModel(huggingface_model().config).eval()
    theirs.save_pretrained(tmp_path)
    weights = read_weights(tmp_path)
    assert weights.model.num_classes == 0 and weights.class_names == [] and not weights.notes
    images = random_images()
    with torch.no_grad():
        expected = theirs(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).pooler_output
    np.testing.assert_allclose(weights.model.apply(weights.variables, images), expected, atol=1e-5)
    weights = read_weights(tmp_path, num_classes=7)
    assert weights.notes == ['new head of zeros for 7 classes: the file has none']
    assert not weights.model.apply(weights.variables, images).any()


def test_pooler_beside_a_classifier_raises(tmp_path):
    theirs = huggingface_model()
    theirs.save_pretrained(tmp_path)
    state = load_file(tmp_path / 'model.safetensors')
    state['vit.pooler.dense.weight'] = np.eye(32, dtype=np.float32)
    state['vit.pooler.dense.bias'] = np.zeros(32, np.float32)
    save_file(state, tmp_path / 'model.safetensors')
    with pytest.raises(InputError, match=r'unexpected arrays \(2\): vit.pooler'):
        read_weights(tmp_path)


def test_sharded_weights_are_read(tmp_path):
    theirs = huggingface_model()
    theirs.save_pretrained(tmp_path / 'one')
    theirs.save_pretrained(tmp_path / 'many', max_shard_size='10KB')
    assert len(list((tmp_path / 'many').glob('*.safetensors'))) > 1
    one, many = (read_weights(tmp_path / name).variables for name in ('one', 'many'))
    jax.tree.map(np.testing.assert_array_equal, one, many)


@pytest.mark.parametrize(
    'options',
    [dict(do_normalize=False), dict(do_rescale=False), dict(rescale_factor=1 / 127.5)],
    ids=lambda options: next(iter(options)),
)
def test_pixels_are_scaled_as_by_the_processor(options, tmp_path):
    peer('transformers')
    from transformers import ViTImageProcessorPil

    huggingface_model().save_pretrained(tmp_path)
    processor = ViTImageProcessorPil(
        image_mean=[0.4] * 3, image_std=[0.2] * 3, size={'height': 12, 'width': 12}, **options
    )
    processor.save_pretrained(tmp_path)
    picture = np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8)
    expected = processor(picture, return_tensors='np')['pixel_values'][0].transpose(1, 2, 0)
    got = read_weights(tmp_path).preprocessing().normalize(jnp.asarray(picture)[None])[0]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_preprocessing_is_read_from_and_saved_to_the_folder(tmp_path):
    peer('transformers')
    from transformers import ViTImageProcessorPil

    huggingface_model().save_pretrained(tmp_path / 'a')
    processor = ViTImageProcessorPil(
        image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4], size={'height': 12, 'width': 12}
    )
    processor.save_pretrained(tmp_path / 'a')
    weights = read_weights(tmp_path / 'a')
    preprocessing = weights.preprocessing()
    assert preprocessing.mean == (0.4, 0.5, 0.6) and preprocessing.image_size == (12, 12)
    vit_jax.save_weights(tmp_path / 'b', *weights[:2], 'huggingface', weights.description)
    theirs = ViTImageProcessorPil.from_pretrained(tmp_path / 'b')
    picture = np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8)
    expected = theirs(picture, return_tensors='np')['pixel_values'][0].transpose(1, 2, 0)
    got = preprocessing.normalize(jnp.asarray(preprocessing.resize(picture))[None])[0]
    np.testing.assert_allclose(got, expected, atol=1e-6)
    probabilities = vit_jax.Predictor(tmp_path / 'b')(picture[None])
    logits = weights.model.apply(weights.variables, expected[None])
    np.testing.assert_allclose(probabilities, jax.nn.softmax(logits), atol=1e-6)
