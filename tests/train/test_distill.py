"""Knowledge distillation: its losses, what each classifier learns from, the teacher, resuming."""

import shutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import assert_identical, peer, random_variables
from flax.traverse_util import flatten_dict
from PIL import Image

import vit_jax
from vit_jax.data.files import FileSource
from vit_jax.data.preprocess import Preprocessing
from vit_jax.errors import InputError
from vit_jax.train.distill import Distillation, both_logits, hard_loss, soft_loss
from vit_jax.train.start import Start
from vit_jax.train.step import Learner
from vit_jax.train.teacher import read_teacher
from vit_jax.train.trainer import train

SIZES = dict(patch_size=4, num_classes=5, dim=16, depth=2, heads=2, mlp_dim=24, dim_head=8)
STUDENT = vit_jax.ViT(image_size=8, distilled=True, **SIZES)
TEACHER = vit_jax.ViT(image_size=4, pool='mean', **SIZES)
PREPROCESSING = Preprocessing((4, 4), 3, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
RNG = np.random.default_rng(0)
LOGITS, TAUGHT = RNG.normal(size=(2, 8, 5)).astype(np.float32) * 3
IMAGES = RNG.integers(0, 256, (8, 8, 8, 3), np.uint8)
LABELS = RNG.integers(0, 5, 8).astype(np.int32)


def assert_equals_torch(loss, torch_loss):
    """Values and gradients with respect to the student's logits."""
    import torch

    found, gradient = jax.value_and_grad(loss)(jnp.asarray(LOGITS), jnp.asarray(TAUGHT))
    logits = torch.tensor(LOGITS, requires_grad=True)
    expected = torch_loss(logits, torch.tensor(TAUGHT))
    expected.backward()
    np.testing.assert_allclose(found, expected.item(), rtol=1e-6)
    np.testing.assert_allclose(gradient, logits.grad.numpy(), atol=1e-6)


@pytest.mark.parametrize('t', [0.5, 1.0, 3.0])
def test_soft_loss_equals_torch(t):
    peer('torch')
    from torch.nn.functional import kl_div, log_softmax, softmax

    def expected(logits, taught):
        divergence = kl_div(
            log_softmax(logits / t, -1), softmax(taught / t, -1), reduction='batchmean'
        )
        return divergence * t**2

    assert_equals_torch(lambda logits, taught: soft_loss(logits, taught, t), expected)


def test_hard_loss_equals_torch():
    peer('torch')
    from torch.nn.functional import cross_entropy

    assert_equals_torch(
        hard_loss, lambda logits, taught: cross_entropy(logits, taught.argmax(dim=-1))
    )


def test_the_teacher_sees_the_pictures_in_its_own_size_and_normalisation():
    teacher = random_variables(TEACHER)
    found = Distillation(TEACHER, PREPROCESSING, 'soft', 0.25, 2.0).mix(
        jnp.float32(10), jnp.asarray(LOGITS), teacher, jnp.asarray(IMAGES)
    )
    channels = np.moveaxis(IMAGES, -1, 1).astype(np.float32)
    small = [
        [np.asarray(Image.fromarray(x).resize((4, 4), Image.Resampling.BILINEAR)) for x in image]
        for image in channels
    ]
    seen = (np.moveaxis(np.array(small), 1, -1) / 255 - PREPROCESSING.mean) / PREPROCESSING.std
    taught = TEACHER.apply(teacher, np.float32(seen))
    expected = 0.75 * 10 + 0.25 * soft_loss(jnp.asarray(LOGITS), taught, 2.0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_both_logits_have_the_models_answer_as_their_mean():
    variables, images = random_variables(STUDENT), IMAGES / np.float32(255)
    by_labels, by_teacher = both_logits(partial(STUDENT.apply, variables, images))
    assert np.abs(by_labels - by_teacher).max() > 0.1
    answer = STUDENT.apply(variables, images)
    np.testing.assert_array_equal((by_labels + by_teacher) / 2, answer)


@pytest.mark.parametrize('alpha', [0.0, 1.0])
@pytest.mark.parametrize('distilled', [True, False])
def test_each_classifier_learns_from_its_own_targets(distilled, alpha):
    """Without a distillation token, one classifier learns from both."""
    student = STUDENT.clone(distilled=distilled)
    learner = Learner(
        student,
        lambda images: images / jnp.float32(255),
        optimizer=optax.sgd(1.0),
        distillation=Distillation(TEACHER, PREPROCESSING, 'hard', alpha, 1.0),
    )
    before = random_variables(student)['params']
    state = learner.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), before)
    batch = {'image': IMAGES, 'label': LABELS, 'position': np.arange(8)}
    step = jax.jit(learner.train_step)
    after, _ = step(state, batch, jax.random.key(0), teacher=random_variables(TEACHER))
    changes = jax.tree.map(lambda a, b: np.abs(a - b).max(), after.params, before)['mlp_head']
    changed = {name for name, x in changes.items() if 'kernel' in x and x['kernel'] > 0}
    assert changed == {'dist' if distilled and alpha else 'layers_1'}


def student(channels):
    """What a run starts from, as far as a teacher depends on it."""
    model = STUDENT.clone(channels=channels, dtype='bfloat16')
    return Start(model, None, Preprocessing((8, 8), channels, (0.1,), (0.3,)), [])


def data(class_names, multi_label=False):
    return FileSource('folder:data', {}, list(class_names), multi_label, [])


def test_a_teacher_that_does_not_fit_is_one_line(shared_digits_run, tmp_path):
    digits = list('0123456789')
    fits = data(digits)

    def read(channels=1, source=fits, weights=shared_digits_run, kind='hard'):
        options = dict(weights=str(weights), kind=kind, alpha=0.5, temperature=1.0)
        return read_teacher(student(channels), source, **options)

    for message, wrong in {
        'distill.weights: .*nowhere: no such file or run': dict(weights=tmp_path / 'nowhere'),
        'but the data has 2 classes, the weights 10; fine-tune': dict(source=data('ab')),
        "the data has 'ten' where the weights have '9'": dict(source=data([*digits[:9], 'ten'])),
        'for pictures with 3 channels, .* got one for 1': dict(channels=3),
        'distill.weights: expected one label': dict(source=data(digits, multi_label=True)),
        "distill.kind: expected 'hard' or 'soft', got 'warm'": dict(kind='warm'),
    }.items():
        with pytest.raises(InputError, match=message):
            read(**wrong)


def test_a_teacher_without_a_normalisation_gets_that_of_the_data(tmp_path, capsys):
    path = tmp_path / 'teacher.safetensors'
    vit_jax.save_weights(path, TEACHER, random_variables(TEACHER), 'seed')
    options = dict(weights=str(path), kind='hard', alpha=0.5, temperature=1.0)
    distillation, _ = read_teacher(student(3), data('abcde'), **options)
    assert distillation.preprocessing == Preprocessing((4, 4), 3, (0.1,), (0.3,))
    assert distillation.model.dtype == 'bfloat16'
    assert 'mean (0.1,) and std (0.3,) are those of the data' in capsys.readouterr().out


def test_a_distilled_run_resumes_bit_identically_with_its_teacher_alone(
    digits_config, shared_digits_run, tmp_path
):
    teacher, run = tmp_path / 'teacher', tmp_path / 'run'
    shutil.copytree(shared_digits_run, teacher)
    digits_config.distill.weights = str(teacher)
    digits_config.model.update({'distilled': True, 'pool': 'cls'})
    train(digits_config, str(run))

    def parameters():
        return flatten_dict(vit_jax.load_weights(run)[1]['params'], sep='/')

    whole = parameters()
    shutil.rmtree(run / 'checkpoints' / '6')
    teacher.rename(tmp_path / 'away')
    with pytest.raises(InputError, match='distill.weights: .*teacher: no such file or run'):
        train(digits_config, str(run))
    (tmp_path / 'away').rename(teacher)
    train(digits_config, str(run))
    assert_identical(parameters(), whole)
