import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import processes
import pytest
from conftest import from_vit_pytorch
from flax.traverse_util import flatten_dict

import vit_jax
from vit_jax.errors import InputError
from vit_jax.model import vit

SEED = dict(image_size=100, patch_size=10, num_classes=10, dim=128, depth=12, heads=8, mlp_dim=256)
SMALL = dict(image_size=16, patch_size=4, num_classes=7, dim=24, depth=3, heads=2, mlp_dim=40)
CASES = {
    "the seed's example": SEED,
    'mean pooling': SMALL | dict(pool='mean'),
    'rectangles': SMALL | dict(image_size=(12, 20), patch_size=(3, 4), dim_head=8),
    'identity projection': SMALL | dict(heads=1, dim_head=24),
    'one head, projected': SMALL | dict(heads=1, dim_head=16),
    'grey': SMALL | dict(channels=1),
}


def build(vit_pytorch, arguments, randomise=True):
    """The peer's model, and ours with its weights."""
    import torch

    torch.manual_seed(0)
    theirs = vit_pytorch.ViT(**arguments).eval()
    if randomise:  # biases and norms start constant or small; make each of them matter
        with torch.no_grad():
            for parameter in theirs.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
    state = {name: tensor.numpy() for name, tensor in theirs.state_dict().items()}
    model, variables = from_vit_pytorch(state, arguments)
    return theirs, model, variables


def relative_error(got, expected):
    return np.abs(np.asarray(got) - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize('arguments', CASES.values(), ids=CASES.keys())
def test_logits_and_gradients_equal_vit_pytorch(vit_pytorch, arguments):
    import torch

    theirs, model, variables = build(vit_pytorch, arguments)
    height, width = vit_jax.model.shapes.pair(arguments['image_size'])
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, height, width, arguments.get('channels', 3))).astype(np.float32)
    labels = np.array([1, 5])

    logits = theirs(torch.from_numpy(images).permute(0, 3, 1, 2))
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels))
    loss.backward()
    expected = from_vit_pytorch(
        {name: parameter.grad.numpy() for name, parameter in theirs.named_parameters()},
        arguments,
    )[1]['params']

    def our_loss(params):
        ours = model.apply({'params': params}, images)
        return optax.softmax_cross_entropy_with_integer_labels(ours, labels).mean(), ours

    gradients, ours = jax.jit(jax.grad(our_loss, has_aux=True))(variables['params'])
    assert relative_error(ours, logits.detach().numpy()) < 1e-5
    gradients, expected = flatten_dict(gradients), flatten_dict(expected)
    assert gradients.keys() == expected.keys()
    for name in expected:
        assert relative_error(gradients[name], expected[name]) < 1e-4, name


def test_smaller_input_uses_the_first_position_embeddings_as_in_vit_pytorch(vit_pytorch):
    import torch

    theirs, model, variables = build(vit_pytorch, SMALL)
    images = np.random.default_rng(0).normal(size=(2, 8, 12, 3)).astype(np.float32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(images).permute(0, 3, 1, 2)).numpy()
    assert relative_error(model.apply(variables, images), expected) < 1e-5


def test_initial_parameters_are_distributed_as_in_vit_pytorch(vit_pytorch):
    """Kolmogorov-Smirnov test of each parameter; constants must be equal."""
    from scipy.stats import ks_2samp

    arguments = SMALL | dict(dim=64, mlp_dim=96, depth=4)
    _, model, theirs = build(vit_pytorch, arguments, randomise=False)
    ours = jax.jit(model.init)(jax.random.key(1), jnp.zeros((1, 16, 16, 3)))
    ours, theirs = flatten_dict(ours['params']), flatten_dict(theirs['params'])
    assert ours.keys() == theirs.keys()
    for name in ours:
        a, b = np.ravel(ours[name]), np.ravel(theirs[name])
        if np.ptp(b) == 0:
            np.testing.assert_array_equal(a, b)
        else:
            assert ks_2samp(a, b).pvalue > 1e-4, name


def test_layers_are_initialised_differently():
    variables = jax.jit(vit_jax.ViT(**SMALL).init)(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    kernel = variables['params']['transformer']['ff']['fn']['net_0']['kernel']
    assert not np.allclose(kernel[0], kernel[1])


def test_dropout_acts_only_in_training():
    model = vit_jax.ViT(**SMALL, dropout=0.5, emb_dropout=0.5)
    images = jax.random.normal(jax.random.key(1), (4, 16, 16, 3))
    variables = jax.jit(model.init)(jax.random.key(0), images)
    apply = jax.jit(model.apply, static_argnames='train')
    plain = jax.jit(vit_jax.ViT(**SMALL).apply)(variables, images)
    key = {'dropout': jax.random.key(2)}
    np.testing.assert_array_equal(apply(variables, images, rngs=key), plain)
    trained = apply(variables, images, train=True, rngs=key)
    assert np.abs(trained - plain).max() > 0.1
    other = apply(variables, images, train=True, rngs={'dropout': jax.random.key(3)})
    assert np.abs(trained - other).max() > 0.1


def test_bfloat16_is_close_to_float32_with_float32_parameters():
    images = jax.random.normal(jax.random.key(1), (4, 16, 16, 3))
    half = vit_jax.ViT(**SMALL, dtype='bfloat16')
    variables = jax.jit(half.init)(jax.random.key(0), images)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype('float32')}
    logits = jax.jit(half.apply)(variables, images)
    assert logits.dtype == jnp.float32
    expected = jax.jit(vit_jax.ViT(**SMALL).apply)(variables, images)
    assert 1e-6 < relative_error(logits, np.asarray(expected)) < 0.1


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(patch_size=5), 'patch_size must divide image_size'),
        (dict(image_size=(16, 18)), '16 x 18'),
        (dict(pool='max'), 'expected pool out of'),
        (dict(depth=0), 'depth a whole number from 1'),
        (dict(patch_size=0), 'expected a size in pixels'),
        (dict(dropout=1.0), 'dropout'),
        (dict(dtype='float23'), 'float23'),
        (dict(remat='all'), 'expected remat out of'),
        (dict(gelu='relu'), 'expected gelu out of'),
        (dict(attention='cudnn'), "expected dtype='bfloat16'"),
    ],
)
def test_wrong_arguments_raise_at_construction(change, message):
    with pytest.raises(InputError, match=message):
        vit_jax.ViT(**SMALL | change)


@pytest.mark.parametrize('shape', [(1, 16, 16, 1), (1, 15, 16, 3), (1, 32, 32, 3)])
def test_images_of_wrong_shape_raise(shape):
    model = vit_jax.ViT(**SMALL)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    with pytest.raises(InputError, match='expected images'):
        model.apply(variables, jnp.zeros(shape))


@pytest.mark.parametrize('options', [dict(remat='dots'), dict(remat='full'), dict(unroll=3)])
def test_remat_and_unrolling_give_the_same_gradients(options):
    images = jax.random.normal(jax.random.key(1), (2, 16, 16, 3))
    variables = jax.jit(vit_jax.ViT(**SMALL).init)(jax.random.key(0), images)
    gradients, programs = [], []
    for switches in (dict(remat='none'), options):
        model = vit_jax.ViT(**SMALL, dropout=0.2, **switches)

        def loss(variables, model=model):
            rngs = {'dropout': jax.random.key(2)}
            return (model.apply(variables, images, train=True, rngs=rngs) ** 2).sum()

        gradients.append(jax.jit(jax.grad(loss))(variables))
        programs.append(jax.jit(jax.grad(loss)).lower(variables).as_text())
    assert programs[0] != programs[1]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), *gradients)


EXPORT = """
import jax
import jax.numpy as jnp
import vit_jax

sizes = dict(image_size=16, patch_size=4, num_classes=7, dim=24, depth=2, heads=2, mlp_dim=40)
for change in (
    {},
    dict(pool='gap', posemb='sincos2d', class_token=False),
    dict(pool='map', posemb='learned_patches', num_registers=2, qk_norm=True, layer_scale=0.1),
):
    model = vit_jax.ViT(**sizes | change)
    images = jax.random.normal(jax.random.key(0), (7, 16, 16, 3))
    variables = jax.jit(model.init)(jax.random.key(1), images)
    (batch,) = jax.export.symbolic_shape('b')
    shape = jax.ShapeDtypeStruct((batch, 16, 16, 3), jnp.float32)
    apply = jax.jit(model.apply)
    exported = jax.export.export(apply, platforms=('cpu', 'cuda', 'tpu'))(variables, shape)
    reloaded = jax.export.deserialize(exported.serialize())
    expected = apply(variables, images)
    for size in (1, 7):
        assert jnp.allclose(reloaded.call(variables, images[:size]), expected[:size], atol=1e-5)
"""


def test_model_exports_with_a_symbolic_batch_size():
    """For three platforms at once; in a process without jaxtyping's checks, which want numbers."""
    processes.run('-c', EXPORT)


def test_each_option_is_declared_once():
    """Modules receive all extras as one object, so a new one needs no second declaration."""
    seed = {
        vit.PreNorm: {'dim', 'fn'},
        vit.FeedForward: {'dim', 'hidden_dim', 'dropout'},
        vit.Attention: {'dim', 'heads', 'dim_head', 'dropout'},
        vit.Transformer: {'dim', 'depth', 'heads', 'dim_head', 'mlp_dim', 'dropout'},
    }
    for module, arguments in seed.items():
        names = {field.name for field in dataclasses.fields(module)} - {'parent', 'name'}
        assert names == arguments | {'extras'}
