import jax
import numpy as np
import pytest
import scipy.ndimage
from conftest import peer, random_variables
from references.timm import random_timm
from safetensors.numpy import save_file

import vit_jax
from vit_jax.errors import InputError
from vit_jax.weights import load_weights, read_weights, save_weights
from vit_jax.weights.resize import resize_patch_kernel, resize_pos_embedding

SIZES = dict(num_classes=5, dim=16, depth=2, heads=2, mlp_dim=20, dim_head=8)
GRIDS = [
    ((14, 14), (24, 24)),
    ((14, 14), (7, 7)),
    ((3, 4), (5, 2)),
    ((2, 5), (1, 9)),
    ((1, 1), (2, 3)),
]


def random_embedding(grid, num_prefix, dim=6):
    n = num_prefix + grid[0] * grid[1]
    return np.random.default_rng(0).normal(size=(1, n, dim)).astype(np.float32)


@pytest.mark.parametrize('num_prefix', [0, 1, 5])
@pytest.mark.parametrize('old, new', GRIDS)
def test_bilinear_equals_googles_zoom_and_a_closed_form(old, new, num_prefix):
    embedding = random_embedding(old, num_prefix)
    got = resize_pos_embedding(embedding, old, new, num_prefix=num_prefix, method='bilinear')
    np.testing.assert_array_equal(got[:, :num_prefix], embedding[:, :num_prefix])
    grid = embedding[0, num_prefix:].reshape(*old, -1)
    zoomed = scipy.ndimage.zoom(grid, (new[0] / old[0], new[1] / old[1], 1), order=1)
    got = got[0, num_prefix:].reshape(*new, -1)
    np.testing.assert_allclose(got, zoomed, atol=1e-4)
    # The closed form: corners aligned, one axis after the other.
    for axis in (0, 1):
        places = np.linspace(0, old[axis] - 1, new[axis])
        known = np.arange(old[axis])
        grid = np.apply_along_axis(
            lambda values, places, known: np.interp(places, known, values),
            axis,
            grid,
            places,
            known,
        )
    np.testing.assert_allclose(got, grid, atol=1e-5)


@pytest.mark.parametrize('num_prefix', [0, 1, 5])
@pytest.mark.parametrize('old, new', GRIDS)
@pytest.mark.parametrize('antialias', [True, False])
def test_bicubic_equals_torch_as_called_by_timm_and_transformers(old, new, num_prefix, antialias):
    peer('torch')
    import torch

    embedding = random_embedding(old, num_prefix)
    method = 'bicubic' if antialias else 'bicubic_no_antialias'
    got = resize_pos_embedding(embedding, old, new, num_prefix=num_prefix, method=method)
    np.testing.assert_array_equal(got[:, :num_prefix], embedding[:, :num_prefix])
    grid = torch.from_numpy(embedding[:, num_prefix:].reshape(1, *old, -1)).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(grid, size=new, mode='bicubic', antialias=antialias)
    expected = expected.permute(0, 2, 3, 1).reshape(1, new[0] * new[1], -1)
    np.testing.assert_allclose(got[:, num_prefix:], expected, atol=1e-4)


def test_wrong_embedding_counts_and_methods_raise():
    embedding = random_embedding((14, 14), 0)
    # 196 embeddings are 14 x 14 patches; a cls token among them would leave 195.
    with pytest.raises(InputError, match=r'expected 1 \+ 14 \* 14 position embeddings, got 196'):
        resize_pos_embedding(embedding, (14, 14), (7, 7), num_prefix=1, method='bilinear')
    with pytest.raises(InputError, match='expected one of bilinear, bicubic'):
        resize_pos_embedding(embedding, (14, 14), (7, 7), num_prefix=0, method='nearest')


@pytest.mark.parametrize('old, new', [((4, 4), (8, 8)), ((8, 8), (4, 4)), ((3, 4), (5, 6))])
def test_patch_kernels_are_resized_by_flexivits_pseudo_inverse(old, new):
    """By definition: with the pseudo-inverse of torch's bilinear resizing as a matrix."""
    peer('torch')
    import torch

    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(*old, 3, 7)).astype(np.float32)
    got = resize_patch_kernel(kernel.reshape(-1, 7), old, new)
    basis = torch.eye(old[0] * old[1], dtype=torch.float64).reshape(-1, 1, *old)
    resized = torch.nn.functional.interpolate(basis, size=new, mode='bilinear', antialias=False)
    matrix = resized.reshape(len(basis), -1).numpy().T
    expected = np.einsum(
        'no,ocd->ncd', np.linalg.pinv(matrix.T), kernel.reshape(len(basis), 3, 7).astype(float)
    )
    np.testing.assert_allclose(got, expected.reshape(-1, 7), atol=1e-5)
    if new >= old:  # resized patches get the original embeddings
        patches = rng.normal(size=(10, len(basis), 3))
        resized = np.einsum('no,boc->bnc', matrix, patches).reshape(10, -1)
        np.testing.assert_allclose(
            resized @ got, patches.reshape(10, -1) @ kernel.reshape(-1, 7), atol=1e-4
        )


@pytest.fixture
def saved(tmp_path):
    model = vit_jax.ViT(image_size=16, patch_size=4, norm_eps=1e-6, **SIZES)
    variables = random_variables(model)
    save_weights(tmp_path / 'a.safetensors', model, variables, format='timm')
    return tmp_path / 'a.safetensors', variables['params']


def test_weights_load_at_other_image_and_patch_sizes(saved):
    path, params = saved
    model, variables = load_weights(path, image_size=(32, 48), resize='bicubic')
    expected = resize_pos_embedding(
        np.asarray(params['pos_embedding']), (4, 4), (8, 12), num_prefix=1, method='bicubic'
    )
    np.testing.assert_array_equal(variables['params']['pos_embedding'], expected)
    assert model.apply(variables, np.ones((2, 32, 48, 3))).shape == (2, 5)

    # Image and patches both twice as large: the same model on an enlarged picture.
    bilinear = read_weights(path, image_size=32, patch_size=8)
    assert bilinear.notes == ['patch embedding resized: 4 x 4 → 8 x 8 pixels']
    image = np.random.default_rng(0).normal(size=(1, 4, 4, 4, 4, 3)).astype(np.float32)
    large = jax.image.resize(image, (1, 4, 4, 8, 8, 3), 'linear', antialias=False)
    large = np.asarray(large).transpose(0, 1, 3, 2, 4, 5).reshape(1, 32, 32, 3)
    small = image.transpose(0, 1, 3, 2, 4, 5).reshape(1, 16, 16, 3)
    original, _ = load_weights(path)
    np.testing.assert_allclose(
        bilinear.model.apply(bilinear.variables, large),
        original.apply({'params': params}, small),
        atol=1e-4,
    )


def test_same_number_of_patches_in_another_grid_is_ambiguous(tmp_path):
    """16 embeddings for 2 x 8 patches: they may be of 4 x 4 patches, or of 2 x 8 already."""
    state = random_timm(np.random.default_rng(0), grid=(4, 4))
    save_file(state, tmp_path / 'a.safetensors')
    wanted = dict(heads=2, image_size=(8, 32))
    with pytest.raises(
        InputError, match='expected 4 x 4 or 2 x 8 patches to fit in exactly one way'
    ):
        read_weights(tmp_path / 'a.safetensors', **wanted)
    square = read_weights(tmp_path / 'a.safetensors', grid=(4, 4), **wanted)
    assert square.notes == ['position embedding resized, bicubic: 4 x 4 → 2 x 8 patches']
    kept = read_weights(tmp_path / 'a.safetensors', grid=(2, 8), **wanted)
    assert not kept.notes
    np.testing.assert_array_equal(kept.variables['params']['pos_embedding'], state['pos_embed'])


def test_new_head_is_zero_and_noted(saved):
    path, params = saved
    weights = read_weights(path, num_classes=3)
    assert weights.notes == ['new head of zeros for 3 classes in place of one for 5']
    head = weights.variables['params']['mlp_head']['layers_1']
    assert head['kernel'].shape == (16, 3) and not head['kernel'].any() and not head['bias'].any()
    kept = read_weights(path, num_classes=5)
    assert not kept.notes
    jax.tree.map(np.testing.assert_array_equal, kept.variables['params'], params)


@pytest.mark.parametrize(
    'format, method',
    [
        ('google', 'bilinear'),
        ('timm', 'bicubic'),
        ('huggingface', 'bicubic_no_antialias'),
        ('seed', 'bilinear'),
    ],
)
def test_each_format_is_resized_as_by_its_own_code(format, method, tmp_path):
    gelu = 'tanh' if format == 'google' else 'erf'
    options = {} if format == 'seed' else dict(gelu=gelu, norm_eps=1e-6, qkv_bias=True)
    model = vit_jax.ViT(image_size=16, patch_size=4, **options, **SIZES)
    path = tmp_path / {'google': 'a.npz', 'huggingface': 'a'}.get(format, 'a.safetensors')
    save_weights(path, model, random_variables(model), format)
    heads = {} if format in ('google', 'huggingface') else {'heads': 2}
    (note,) = read_weights(path, image_size=24, **heads).notes
    assert note == f'position embedding resized, {method}: 4 x 4 → 6 x 6 patches'


def test_load_weights_logs_resizing_and_a_new_head(saved, caplog):
    load_weights(saved[0], image_size=32, num_classes=3, resize='bilinear')
    assert 'position embedding resized, bilinear: 4 x 4 → 8 x 8 patches' in caplog.text
    assert 'new head of zeros for 3 classes in place of one for 5' in caplog.text
