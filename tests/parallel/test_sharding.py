"""What a mesh's devices hold, and what they send each other, in the compiled step."""

import math
import re
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vit_jax
from vit_jax.errors import InputError
from vit_jax.model.shapes import abstract_variables
from vit_jax.parallel.parallel import create_parallel, init, mesh_sizes
from vit_jax.parallel.sharding import place_state
from vit_jax.train.checks import check_split
from vit_jax.train.memory import planned_bytes, planned_optimizer
from vit_jax.train.step import Learner

DEPTH = 5
MODEL = vit_jax.ViT(
    image_size=16,
    patch_size=8,
    num_classes=16,
    dim=128,
    depth=DEPTH,
    heads=8,
    dim_head=16,
    mlp_dim=512,
)


def compile_step(**mesh):
    """The state of a model, and its training step, compiled."""
    parallel = create_parallel('jit', 8, **mesh)
    learner = Learner(
        MODEL, jnp.asarray, optimizer=optax.adamw(1e-3), place_gradients=parallel.place_gradients
    )
    key = jax.random.key(0)
    state = init(parallel, learner.init, key, jnp.zeros((1, 16, 16, 3)))
    batch = {
        'image': np.zeros((8, 16, 16, 3), np.float32),
        'label': np.zeros(8, np.int32),
        'position': np.arange(8, dtype=np.int32),
    }
    step = parallel.train_step(learner.train_step)
    return state, step.lower(state, parallel.put_batch(batch), key).compile()


def own_bytes(state):
    return sum(x.addressable_data(0).nbytes for x in jax.tree.leaves(state))


def gathered_shapes(compiled):
    """The shapes that all-gathers result in."""
    shapes = re.findall(r'\w+\[([\d,]+)\]\S* all-gather', compiled.as_text())
    return [tuple(map(int, shape.split(','))) for shape in shapes]


@pytest.fixture(scope='module')
def replicated():
    return compile_step()


@pytest.fixture(scope='module')
def fsdp():
    return compile_step(fsdp=8, data=1)


def test_fsdp_holds_an_eighth_of_the_state_on_each_device(replicated, fsdp):
    (whole, compiled_whole), (split, compiled_split) = replicated, fsdp
    assert own_bytes(whole) == sum(x.nbytes for x in jax.tree.leaves(whole))
    assert own_bytes(split) <= 1.15 / 8 * own_bytes(whole)
    for compiled, state in ((compiled_whole, whole), (compiled_split, split)):
        inputs = compiled.memory_analysis().argument_size_in_bytes
        assert inputs == pytest.approx(own_bytes(state), abs=10_000)  # the batch
    assert planned_bytes(compiled_split) < 0.3 * planned_bytes(compiled_whole)


def test_fsdp_gathers_one_layer_at_a_time(fsdp):
    """In the forward pass and again in the backward pass."""
    sizes = Counter(map(math.prod, gathered_shapes(fsdp[1])))
    to_qkv, to_out, both_of_mlp = 128 * 384, 128 * 128, 128 * 512
    patch_embedding, classifier = 192 * 128, 128 * 16
    once = {patch_embedding: 1, classifier: 1}
    assert sizes == once | {to_qkv: 2, to_out: 2, both_of_mlp: 4}


def test_zero_1_splits_the_optimizer_alone(replicated):
    state, compiled = compile_step(fsdp=8, data=1, zero_stage=1)
    parameters = own_bytes(state.params)
    assert parameters == own_bytes(replicated[0].params)
    assert own_bytes(state.opt_state) <= 1.15 / 8 * own_bytes(replicated[0].opt_state)
    # Nothing is gathered in the layers, but all updates at once after them.
    assert {shape[0] for shape in gathered_shapes(compiled) if len(shape) == 3} == {DEPTH}


def test_factors_of_adafactor_lie_whole():
    """Their last dimensions are not those of their kernels; the momentum's are."""
    planned = planned_optimizer('adafactor')
    state = {'opt_state': jax.eval_shape(planned.init, abstract_variables(MODEL)['params'])}
    mesh = create_parallel('jit', 8, fsdp=2, tensor=2).mesh
    parts = {
        jax.tree_util.keystr(path, simple=True, separator='/'): x.sharding.shard_shape(x.shape)
        for path, x in jax.tree_util.tree_leaves_with_path(place_state(mesh, state))
    }
    layers, kernel = 'opt_state/1/inner_states/layers/inner_state', 'ff/fn/net_0/kernel'
    assert parts[f'{layers}/0/v_row/transformer/{kernel}'] == (DEPTH, 128)
    assert parts[f'{layers}/0/v_col/transformer/{kernel}'] == (DEPTH, 512)
    assert parts[f'{layers}/1/ema/transformer/{kernel}'] == (DEPTH, 64, 256)


def test_tensor_parallelism_sends_activations_only():
    state, compiled = compile_step(data=2, tensor=4)
    kernels = state.params['transformer']['ff']['fn']
    assert kernels['net_0']['kernel'].addressable_data(0).shape == (DEPTH, 128, 128)
    assert kernels['net_1']['kernel'].addressable_data(0).shape == (DEPTH, 128, 128)
    assert not gathered_shapes(compiled)


@pytest.mark.parametrize(
    'axes, expected',
    [((-1, 1, 1), (8, 1, 1)), ((2, -1, 2), (2, 2, 2)), ((1, 8, 1), (1, 8, 1)), ((4, 2, -1), None)],
)
def test_the_rest_of_the_devices_goes_to_one_axis(axes, expected):
    assert mesh_sizes(8, *axes) == (expected or (4, 2, 1))


@pytest.mark.parametrize('axes', [(3, 1, 1), (-1, 3, 1), (-1, -1, 1), (0, 1, -1), (8, 2, 1)])
def test_a_mesh_of_other_devices_raises(axes):
    with pytest.raises(InputError, match='expected a mesh of the 8 devices, got data='):
        mesh_sizes(8, *axes)


def test_wrong_combinations_raise():
    with pytest.raises(InputError, match="parallel.mode='pmap': expected a mesh of data alone"):
        create_parallel('pmap', 16, fsdp=2)
    with pytest.raises(InputError, match='parallel.zero_stage: expected 1 or 3, got 2'):
        create_parallel('jit', 16, zero_stage=2)
    on_tensor = create_parallel('jit', 16, tensor=8)
    with pytest.raises(InputError, match=r'parallel.tensor: .* divisor of model.heads=4, got 8'):
        check_split(MODEL.clone(heads=4), on_tensor, 1)
    with pytest.raises(InputError, match=r'parallel.tensor: .* model.mlp_dim=100, got 8'):
        check_split(MODEL.clone(mlp_dim=100), on_tensor, 1)
    with pytest.raises(InputError, match='a divisor of the 16 examples of each device, got 3'):
        check_split(MODEL, on_tensor, 3)
