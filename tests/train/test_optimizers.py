"""Optimizers of stacked layers against optax's, which see each layer's arrays by themselves."""

import jax
import numpy as np
import optax
import pytest
from conftest import random_variables
from flax.traverse_util import flatten_dict, unflatten_dict

import vit_jax
from vit_jax.__main__ import main
from vit_jax.train.muon import describe_groups
from vit_jax.train.optim import adafactor, create_optimizer, learning_rate_factors

NAMES = ('adamw', 'sgd', 'lamb', 'lion', 'adafactor', 'muon')
RATE, DECAY, B1, B2 = 0.01, 0.3, 0.9, 0.95
OPTIONS = dict(weight_decay=DECAY, b1=B1, b2=B2, clip_norm=1.0)
MODEL = vit_jax.ViT(
    image_size=8, patch_size=4, num_classes=3, dim=32, depth=3, heads=2, mlp_dim=40, gated=True
)


def optimizer(name, **options):
    return create_optimizer(name, optax.constant_schedule(RATE), **OPTIONS | options)


def by_itself(tree, split):
    """A flat tree with each layer's arrays; if `split`, also q, k, v and the gate on their own."""
    flat = {}
    for path, x in flatten_dict(tree).items():
        is_fused = split and path[-1] == 'kernel'
        parts = {'to_qkv': 3, 'net_0': 2}.get(path[-2], 1) if is_fused else 1
        for i, layer in enumerate(x if path[0] == 'transformer' else [x]):
            for j, part in enumerate(np.split(layer, parts, axis=-1)):
                flat[*path[:-1], str(i), str(j), path[-1]] = part
    return unflatten_dict(flat)


def kernels(params):
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == 'kernel', params)


def muon_of_optax():
    """optax's for the matrices of the layers; for the rest it would decay all or nothing."""

    def group(path, x):
        return 'muon' if path[0].key == 'transformer' and x.ndim == 2 else 'adamw'

    transforms = {
        'muon': optax.contrib.muon(RATE, beta=B1, weight_decay=DECAY, consistent_rms=0.2),
        'adamw': optax.adamw(RATE, B1, B2, weight_decay=DECAY, mask=kernels),
    }
    return optax.partition(
        transforms, lambda params: jax.tree_util.tree_map_with_path(group, params)
    )


THEIRS = {
    'lamb': lambda: optax.chain(  # optax.lamb, whose trust ratio is of every array, with a mask
        optax.scale_by_adam(B1, B2, eps=1e-6),
        optax.add_decayed_weights(DECAY, kernels),
        optax.masked(optax.scale_by_trust_ratio(), kernels),
        optax.scale_by_learning_rate(RATE),
    ),
    'lion': lambda: optax.lion(RATE, B1, B2, weight_decay=DECAY, mask=kernels),
    'adafactor': lambda: optax.adafactor(
        RATE,
        min_dim_size_to_factor=32,
        multiply_by_parameter_scale=False,
        clipping_threshold=None,
        momentum=B1,
        weight_decay_rate=RATE * DECAY,  # optax's is not scaled by the learning rate
        weight_decay_mask=kernels,
    ),
    'muon': muon_of_optax,
}


@pytest.mark.parametrize('name', THEIRS)
def test_ten_steps_equal_optax_layer_by_layer(name):
    split = name == 'muon'
    start = params = random_variables(MODEL)['params']
    reference = by_itself(params, split)
    ours, theirs = optimizer(name, gated=True), THEIRS[name]()
    theirs = optax.chain(optax.clip_by_global_norm(1.0), theirs)
    state, their_state = ours.init(params), theirs.init(reference)
    update, their_update = jax.jit(ours.update), jax.jit(theirs.update)
    rng = np.random.default_rng(0)
    for _ in range(10):
        grads = jax.tree.map(lambda x: rng.normal(size=x.shape).astype('f'), params)
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
        updates, their_state = their_update(by_itself(grads, split), their_state, reference)
        reference = optax.apply_updates(reference, updates)
    moved = jax.tree.map(lambda x, y: np.abs(x - y).max(), params, start)
    assert min(jax.tree.leaves(moved)) > RATE / 10
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=2e-5),
        by_itself(params, split),
        reference,
    )


def test_adafactor_forgets_by_b2_at_most():
    """The second moment of a vector, against NumPy: its decay grows with the steps up to b2."""
    update = adafactor(b1=0.0, b2=0.5, moments_dtype='float32')
    params = {'bias': np.ones(1, np.float32)}
    state, second = update.init(params), 0.0
    for step, grad in enumerate((1.0, 3.0, 2.0, 5.0, 4.0), start=1):
        decay = min(0.5, 1 - step**-0.8)
        second = decay * second + (1 - decay) * grad**2
        updates, state = update.update({'bias': np.float32([grad])}, state, params)
        np.testing.assert_allclose(updates['bias'], grad / second**0.5, rtol=1e-5)


def test_adafactor_stores_vectors_whole_however_many_layers():
    """Stacked over 40 layers, the scales of a norm would be a matrix that is worth factoring."""
    state = optimizer('adafactor').init(random_variables(MODEL.clone(depth=40))['params'])
    factored = state[1].inner_states['layers'].inner_state[0]
    whole, rows = (x['transformer']['attn']['norm']['scale'] for x in (factored.v, factored.v_row))
    assert whole.shape == (40, 32) and rows.shape == (40, 1)


def test_muon_moves_matrices_by_orthogonal_ones():
    """As far as AdamW moves them, 0.2 in the root mean square."""
    params = random_variables(MODEL)['params']
    update = optimizer('muon', weight_decay=0.0, gated=True)
    updates, _ = jax.jit(update.update)(params, update.init(params), params)
    kernel = np.asarray(updates['transformer']['ff']['fn']['net_1']['kernel'])
    values = np.linalg.svd(kernel[1] / (RATE * 0.2 * 40**0.5), compute_uv=False)
    assert values.min() > 0.6 and values.max() < 1.3
    assert np.sqrt((kernel**2).mean()) == pytest.approx(0.2 * RATE, rel=0.15)


def test_groups_count_what_learns():
    params = random_variables(MODEL)['params']
    sizes = {path: x.size for path, x in flatten_dict(params).items()}
    matrices = sum(size for path, size in sizes.items() if path[-1] == 'kernel' and len(path) == 5)

    def said(*freeze):
        return describe_groups(params, learning_rate_factors(params, 0.5, freeze))

    rest = sum(sizes.values()) - matrices
    assert f'muon for {matrices:,} parameters' in said() and f'the other {rest:,}' in said()
    assert f'muon for {matrices // 3:,} parameters' in said('transformer/[01]/*')
    assert 'muon for 0 parameters' in said('transformer/*')


@pytest.mark.parametrize('name', NAMES)
def test_frozen_layers_stay(name):
    """Whether some of the layers are frozen or all."""
    params = random_variables(MODEL)['params']
    for freeze in ('transformer/1/*', 'transformer/*'):
        factors = learning_rate_factors(params, 0.5, (freeze,))
        frozen = optimizer(name, factors=factors, gated=True)
        updates, _ = jax.jit(frozen.update)(params, frozen.init(params), params)
        moves = jax.tree.map(lambda x: [np.abs(layer).max() for layer in x], updates)
        for first, middle, last in flatten_dict(moves['transformer']).values():
            assert not middle and (first > 0) == (last > 0) == (freeze == 'transformer/1/*')
        assert all(min(leaf) > 0 for leaf in flatten_dict(moves['mlp_head']).values())


def test_adapters_learn_by_muon():
    """A, whose columns are the rank, as one matrix; B of q, k and v as three."""
    model = MODEL.clone(lora_rank=4)
    params = random_variables(model)['params']
    factors = learning_rate_factors(params, 1.0, ())
    adapters = optimizer('muon', factors=factors, gated=True, weight_decay=0.0)
    updates, _ = jax.jit(adapters.update)(params, adapters.init(params), params)
    to_qkv = updates['transformer']['attn']['fn']['to_qkv']
    assert not to_qkv['kernel'].any()
    for matrix in (to_qkv['lora_a'][0], *np.split(to_qkv['lora_b'][0], 3, axis=-1)):
        values = np.linalg.svd(matrix, compute_uv=False)
        values /= RATE * 0.2 * max(matrix.shape) ** 0.5
        assert values.min() > 0.6 and values.max() < 1.3


@pytest.mark.parametrize('name', NAMES)
def test_bfloat16_moments_halve_the_first_moment(name):
    params = random_variables(MODEL)['params']
    size = sum(x.size for x in jax.tree.leaves(params))
    sizes = [
        sum(x.nbytes for x in jax.tree.leaves(optimizer(name, moments_dtype=dtype).init(params)))
        for dtype in ('float32', 'bfloat16')
    ]
    assert sizes[0] - sizes[1] == 2 * size


def test_a_run_with_muon_says_what_learns_how(digits_config, tmp_path, capsys):
    digits_config.optim.name = 'muon'
    digits_config.optim.schedule = 'constant'
    run = str(tmp_path / 'run')
    vit_jax.train(digits_config, run)
    said = capsys.readouterr().out
    assert 'warm-up over 2, cool-down over 1' in said
    assert 'muon for 5,632 parameters, the matrices of the layers; adamw for the other' in said
    assert main(['summary', run, '--device', 'h100']) == 0
    assert 'on one h100 with muon: about' in capsys.readouterr().out
