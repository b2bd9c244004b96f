from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import random_variables

import vit_jax
from configs import default
from vit_jax.augment.augment import augment
from vit_jax.data.preprocess import Preprocessing
from vit_jax.errors import InputError
from vit_jax.parallel.parallel import create_parallel, init, put
from vit_jax.train.distill import Distillation
from vit_jax.train.optim import create_optimizer
from vit_jax.train.schedule import learning_rate_schedule
from vit_jax.train.step import Learner

MODEL = vit_jax.ViT(
    image_size=8, patch_size=4, num_classes=5, dim=16, depth=2, heads=2, mlp_dim=24, dim_head=8
)
SGD = optax.sgd(0.1, momentum=0.9)
OF_A_RUN = create_optimizer(
    'adamw',
    learning_rate_schedule('cosine', 1e-3, warmup_steps=10, num_steps=1400),
    weight_decay=0.05,
    b1=0.9,
    b2=0.95,
    clip_norm=1.0,
)
AUGMENT = dict(default.get_config().augment) | {
    'pad_and_crop': 2,
    'cutmix_alpha': 1.0,  # across devices; all of augmentation is in tests/augment
    'mixup_alpha': 0.2,
}
NORMALIZE = Preprocessing((8, 8), 3, (0.5,), (0.5,)).normalize
IMAGES = jnp.zeros((1, 8, 8, 3))
LAYOUTS = {
    'data': ('jit', 8, {}),
    'pmap': ('pmap', 8, {}),
    'pmap on one device': ('pmap', 1, {}),
    'fsdp': ('jit', 8, {'fsdp': 8, 'data': 1}),
    'the optimizer alone': ('jit', 8, {'fsdp': 8, 'data': 1, 'zero_stage': 1}),
    'data and tensor': ('jit', 8, {'data': 2, 'tensor': 4}),
    'all three': ('jit', 8, {'data': 2, 'fsdp': 2, 'tensor': 2}),
}
RATES = dict(dropout=0.2, attn_dropout=0.1, head_dropout=0.1, drop_path=0.3)
SPLIT_MODEL = MODEL.clone(dim=32, heads=4, mlp_dim=64, **RATES)
SETUPS = {'jit on 8': ('jit', 8), 'pmap on 8': ('pmap', 8), 'pmap on 1': ('pmap', 1)}


def batches(count, batch_size=16):
    rng = np.random.default_rng(0)
    for _ in range(count):
        yield {
            'image': rng.integers(0, 256, (batch_size, 8, 8, 3), np.uint8),
            'label': rng.integers(0, 5, batch_size).astype(np.int32),
            'position': np.arange(batch_size, dtype=np.int32),
        }


@cache
def initial_state(model, optimizer):
    learner = Learner(model, NORMALIZE, optimizer=optimizer, ema_decay=0.9)
    return jax.device_get(jax.jit(learner.init)(jax.random.key(0), IMAGES))


def run(
    mode,
    num_devices,
    optimizer,
    num_steps=5,
    model=MODEL,
    augmentation=AUGMENT,
    accumulate_steps=1,
    distillation=None,
    **mesh,
):
    """State and metrics after some training steps, with augmentation unless it is None."""
    parallel = create_parallel(mode, 16, jax.devices()[:num_devices], **mesh)
    augmented = augmentation and partial(
        augment, num_classes=5, axis_name=parallel.axis_name, **augmentation
    )
    learner = Learner(
        model,
        NORMALIZE,
        augmented,
        optimizer,
        accumulate_steps=accumulate_steps,
        ema_decay=0.9,
        distillation=distillation,
        place_gradients=parallel.place_gradients,
    )
    run_step = parallel.train_step(learner.train_step)
    state = parallel.spread(put(parallel, initial_state(model, optimizer)))
    teacher = parallel.spread(distillation and random_variables(distillation.model))
    history = []
    for batch in batches(num_steps):
        batch = parallel.put_batch(batch)
        state, metrics = run_step(state, batch, jax.random.key(1), teacher=teacher)
        history.append(jax.device_get(metrics))
    return jax.device_get(parallel.collect(state)), history


def assert_equal(found, expected, tolerance):
    """States, and the metrics of each step."""
    jax.tree.map(partial(np.testing.assert_allclose, atol=tolerance), found[0], expected[0])
    jax.tree.map(partial(np.testing.assert_allclose, rtol=10 * tolerance), found[1], expected[1])


@pytest.fixture(scope='module')
def expected_split():
    """State and metrics of one device, with dropout."""
    expected = run('jit', 1, OF_A_RUN, model=SPLIT_MODEL)
    assert expected[0].step == 5
    return expected


# A mesh of all three axes is in the gate.
GATED = [
    pytest.param(*layout, id=name, marks=[pytest.mark.slow] if name == 'data and tensor' else [])
    for name, layout in LAYOUTS.items()
]


@pytest.mark.parametrize('mode, num_devices, mesh', GATED)
def test_every_layout_trains_the_same(mode, num_devices, mesh, expected_split):
    """With mixup, CutMix and dropout."""
    found = run(mode, num_devices, OF_A_RUN, model=SPLIT_MODEL, **mesh)
    assert_equal(found, expected_split, 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['adafactor', 'muon'])
def test_optimizers_of_whole_layers_train_the_same_split_or_not(name):
    optimizer = create_optimizer(
        name, optax.constant_schedule(1e-3), weight_decay=0.05, b1=0.9, b2=0.95, clip_norm=1.0
    )
    options = dict(num_steps=2, model=SPLIT_MODEL, augmentation=None)
    expected = run('jit', 1, optimizer, **options)
    for layout in ('fsdp', 'the optimizer alone', 'all three'):
        mode, num_devices, mesh = LAYOUTS[layout]
        assert_equal(run(mode, num_devices, optimizer, **options, **mesh), expected, 1e-5)


def test_a_state_is_the_same_wherever_it_is_made():
    mode, num_devices, mesh = LAYOUTS['all three']
    parallel = create_parallel(mode, 16, jax.devices()[:num_devices], **mesh)
    learner = Learner(SPLIT_MODEL, NORMALIZE, optimizer=OF_A_RUN, ema_decay=0.9)
    made = init(parallel, learner.init, jax.random.key(0), IMAGES)
    jax.tree.map(np.testing.assert_array_equal, made, initial_state(SPLIT_MODEL, OF_A_RUN))


@pytest.mark.parametrize(
    'mode, num_devices, mesh',
    [
        pytest.param('jit', 1, {}, marks=pytest.mark.slow),
        ('jit', 4, {'fsdp': 2}),
        ('pmap', 4, {}),
    ],
)
def test_accumulation_equals_one_large_batch(mode, num_devices, mesh, expected_split):
    """With mixup, CutMix and dropout."""
    found = run(mode, num_devices, OF_A_RUN, model=SPLIT_MODEL, accumulate_steps=4, **mesh)
    assert_equal(found, expected_split, 1e-6)


@pytest.mark.slow
def test_every_layout_distils_the_same():
    """A teacher of another size teaches a distillation token."""
    teacher = MODEL.clone(image_size=12, pool='gap', heads=4)
    preprocessing = Preprocessing((12, 12), 3, (0.4,), (0.2,))
    options = dict(
        model=MODEL.clone(distilled=True),
        augmentation=None,
        distillation=Distillation(teacher, preprocessing, 'soft', 0.5, 2.0),
        num_steps=2,
    )
    expected = run('jit', 1, SGD, **options)
    for mode, num_devices, layout in (
        ('pmap', 8, {}),
        ('jit', 8, {'data': 2, 'fsdp': 2, 'tensor': 2, 'accumulate_steps': 2}),
    ):
        assert_equal(run(mode, num_devices, SGD, **layout, **options), expected, 1e-6)


def test_bfloat16_gradients_are_added_up_in_float32():
    """So the modes differ by the order of the sums only; rounded terms would differ by 1e-3."""
    model = MODEL.clone(dtype='bfloat16', layer_scale=0.1, pool='map')
    with_jit, with_pmap = (
        run(mode, 8, SGD, num_steps=1, model=model, augmentation=None)[0].opt_state
        for mode in ('jit', 'pmap')
    )

    def assert_close(a, b):
        np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max())

    jax.tree.map(assert_close, with_jit, with_pmap)


def test_pmap_devices_draw_different_dropout_masks():
    """All examples are equal, so only the masks can make the devices' losses differ."""
    parallel = create_parallel('pmap', 16, jax.devices())
    model = MODEL.clone(emb_dropout=0.5)
    learner = Learner(model, NORMALIZE, optimizer=SGD)
    state = jax.jit(learner.init)(jax.random.key(0), IMAGES)
    batch = next(batches(1))
    batch['image'][:] = batch['image'][0]
    batch['label'][:] = 0

    def loss(state, batch):  # each device's own
        return learner.train_step(state, batch, jax.random.key(1))[1]['loss']

    losses = jax.pmap(loss)(parallel.spread(state), parallel.put_batch(batch))
    assert len(set(np.asarray(losses).tolist())) == 8


@pytest.mark.parametrize('mode, num_devices', [('jit', 1), *SETUPS.values()])
def test_eval_step_sums_over_the_mask(mode, num_devices):
    parallel = create_parallel(mode, 16, jax.devices()[:num_devices])
    learner = Learner(MODEL, NORMALIZE)
    state = jax.jit(learner.init)(jax.random.key(0), IMAGES)
    batch = next(batches(1)) | {'mask': (np.arange(16) % 3 == 0).astype(np.float32)}
    del batch['position']
    run_step = parallel.eval_step(learner.eval_step)
    sums = run_step(parallel.spread(state), parallel.put_batch(batch))

    variables = {'params': state.params}
    logits = np.float64(MODEL.apply(variables, NORMALIZE(jnp.asarray(batch['image']))))
    log_probabilities = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    loss = -log_probabilities[np.arange(16), batch['label']]
    correct = logits.argmax(-1) == batch['label']
    mask = batch['mask']
    np.testing.assert_allclose(sums['loss'], (loss * mask).sum(), rtol=1e-5)
    assert sums['accuracy'] == (correct * mask).sum()
    assert sums['count'] == 6


def test_indivisible_batches_and_unknown_modes_raise():
    with pytest.raises(InputError, match='multiple of the 8 devices, got 12'):
        create_parallel('jit', 12)
    with pytest.raises(InputError, match="'jit' or 'pmap'"):
        create_parallel('pjit', 16)
