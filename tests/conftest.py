"""Shared by all tests: eight CPU devices, checked array shapes, prepared digits."""

import fcntl
import functools
import gc
import importlib.metadata
import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ['XLA_FLAGS'] = '--xla_force_host_platform_device_count=8'
os.environ['XLA_FLAGS'] += ' --xla_cpu_parallel_codegen_split_count=1'
if importlib.metadata.version('jaxlib').startswith('0.10.'):  # later ones have no such flag
    # Compiling takes a third of the time with XLA's older way to loops.
    os.environ['XLA_FLAGS'] += ' --xla_cpu_use_fusion_emitters=false'
os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['EPATH_USE_TF'] = 'false'  # before TFDS uses epath, see vit_jax/run/storage.py
# Compiling is most of the work, and many tests compile the same programs. Workers and child
# processes share them, and LLVM's optimisations, which come after XLA's own, are left out.
SESSION = os.environ.get('PYTEST_XDIST_TESTRUNUID', str(os.getpid()))
SHARED = Path(tempfile.gettempdir()) / f'vit_jax-tests-{SESSION}'
os.environ['JAX_COMPILATION_CACHE_DIR'] = str(SHARED / 'compiled')
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'
os.environ['JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES'] = '-1'
os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] = '1'
# Without the Python lines of each operation, lowering takes less time.
os.environ['JAX_TRACEBACK_IN_LOCATIONS_LIMIT'] = '0'

from jaxtyping import install_import_hook

install_import_hook('vit_jax', 'beartype.beartype')

import jax
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))


def pytest_collection_finish():
    """What is imported by now stays, so collections of garbage need not look at it again."""
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


def pytest_unconfigure(config):
    """Removes what the workers shared, in the process that started them."""
    if not hasattr(config, 'workerinput'):
        shutil.rmtree(SHARED, ignore_errors=True)


@pytest.fixture(scope='session')
def data_dir() -> str:
    """A TFDS folder in which `tfds:digits` is prepared, by the first worker that needs it."""
    from vit_jax.data.sources import open_source

    SHARED.mkdir(exist_ok=True)
    with (SHARED / 'lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        open_source('tfds:digits', str(SHARED / 'tfds')).prepare()
    return str(SHARED / 'tfds')


@pytest.fixture(scope='session')
def photographs(tmp_path_factory):
    """A folder of pictures, see `write_photographs`."""
    from pictures import write_photographs

    root = tmp_path_factory.mktemp('photographs')
    write_photographs(root)
    return root


@pytest.fixture
def digits_config(data_dir):
    return small_digits_config(data_dir)


@pytest.fixture(scope='session')
def shared_digits_run(data_dir, tmp_path_factory):
    """A finished run of `digits_config`, to read only."""
    from vit_jax.train.trainer import train

    path = tmp_path_factory.mktemp('digits') / 'run'
    train(small_digits_config(data_dir), str(path))
    return path


@pytest.fixture
def digits_run(shared_digits_run, tmp_path):
    """Makes `tmp_path` a finished run of `digits_config`; each test has a copy."""
    shutil.copytree(shared_digits_run, tmp_path, dirs_exist_ok=True)


def small_digits_config(data_dir):
    """`configs/digits.py`, small enough to train in a test."""
    from configs import digits

    config = digits.get_config()
    config.data.dir = data_dir
    config.data.train_split, config.data.test_split = 'train[:96]', 'test[:48]'
    config.num_steps = 6
    config.batch_size = 16
    config.log_every_steps = 2
    config.eval_every_steps = 0
    config.checkpoint_every_steps = 3
    config.model.dim = 16
    config.model.depth = 2
    config.model.heads = 2
    config.model.mlp_dim = 24
    config.optim.warmup_steps = 2
    return config


def peer(package: str):
    """Skips the test if a peer's package is missing; in CI, fails it."""
    if importlib.util.find_spec(package) is None:
        reason = f'compares with the package {package}, which is not installed'
        if os.environ.get('CI'):
            pytest.fail(reason)
        pytest.skip(reason)


def from_vit_pytorch(arrays, arguments):
    """Our model and variables for the arrays of a vit-pytorch ViT, loaded from a file."""
    from safetensors.numpy import save_file

    import vit_jax

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'vit.safetensors'
        save_file({name: np.ascontiguousarray(x) for name, x in arrays.items()}, path)
        return vit_jax.load_weights(path, **arguments)


def assert_parity(model, variables, images, expected):
    """Our logits equal a peer's, which are of about unit scale."""
    assert expected.std() > 0.1
    got = jax.jit(model.apply)(variables, images)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    np.testing.assert_array_equal(got.argmax(-1), expected.argmax(-1))


def assert_identical(arrays, others):
    """The same names, shapes, dtypes and bytes."""
    assert arrays.keys() == others.keys()
    for name, array in arrays.items():
        assert array.dtype == others[name].dtype and array.shape == others[name].shape, name
        assert array.tobytes() == others[name].tobytes(), name


@functools.cache
def random_variables(model):
    """Random values for all variables of a model; faster than `model.init`."""
    from vit_jax.model.shapes import abstract_variables

    rng = np.random.default_rng(0)
    shapes = abstract_variables(model)
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32) / 4, shapes)


def count_traces(monkeypatch, name):
    """A list that grows each time a new Predictor's function of `vit_jax.use.answer` is traced."""
    from vit_jax.use import answer

    function, traced = getattr(answer, name), []

    def traceable(*arguments, **options):
        traced.append(name)
        return function(*arguments, **options)

    monkeypatch.setattr(answer, name, traceable)
    return traced


def random_images(channels=3, size=(12, 12)):
    return np.random.default_rng(1).normal(size=(4, *size, channels)).astype(np.float32)


@pytest.fixture(scope='session')
def vit_pytorch():
    """The module vit_pytorch/vit.py of the installed package, loaded without its siblings."""
    peer('torch')
    peer('vit_pytorch')
    from benchmarks.peers import load_vit_pytorch

    return load_vit_pytorch()
