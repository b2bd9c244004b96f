"""A server in a thread, for tests; and what they send to it."""

import contextlib
import functools
import tempfile
import threading
from pathlib import Path

import jax
import numpy as np

import vit_jax
from vit_jax.use.serve import App
from vit_jax.use.server import Server, bind
from vit_jax.use.uploads import Limits

SIZE, PATCH, DEPTH, HEADS, CLASSES = 32, 8, 3, 4, 7


def save_model(folder):
    """Weights of a small model; those of attention are large, so that its maps differ."""
    sizes = dict(dim=32, depth=DEPTH, heads=HEADS, mlp_dim=16, dim_head=8)
    model = vit_jax.create_model(
        'Ti/16', num_classes=CLASSES, image_size=SIZE, patch_size=PATCH, **sizes
    )
    variables = model.init(jax.random.key(0), np.zeros((1, SIZE, SIZE, 3), np.float32))
    variables = jax.tree.map(lambda x: x * 4 if x.ndim > 2 else x, variables)
    head = jax.random.normal(jax.random.key(1), (32, CLASSES))
    variables = jax.tree.map(lambda x: head if x.shape == head.shape else x, variables)
    vit_jax.save_weights(folder / 'small.npz', model, variables, 'google')
    return folder / 'small.npz'


@functools.cache
def small_predictor():
    """A predictor of that model; it compiles once for all tests of a process."""
    with tempfile.TemporaryDirectory() as folder:
        return vit_jax.Predictor(save_model(Path(folder)))


class Running:
    """A server that runs, and ends with the block."""

    def __init__(self, predictor, limits=None, hosts=None):
        self.app = App(predictor, limits or Limits(), name='small', hosts=hosts)
        self.bound = bind('127.0.0.1', 0)
        self.port = self.bound.getsockname()[1]
        self.url = f'http://127.0.0.1:{self.port}'
        self.answering = self.app._answering

    def __enter__(self):
        started = threading.Event()
        self.server = Server(self.app, self.bound, lambda url: started.set())
        self.thread = threading.Thread(target=self.server.answer)
        self.thread.start()
        assert started.wait(20)
        return self

    def __exit__(self, *_):
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive()


@contextlib.contextmanager
def held(running):
    """Holds the model: what is sent meanwhile waits."""
    may_run = threading.Event()
    works = running.answering._works
    runs = {key: work.run for key, work in works.items()}

    def wait_and_run(run):
        def waiting(items):
            assert may_run.wait(30)
            return run(items)

        return waiting

    for key, work in works.items():
        object.__setattr__(work, 'run', wait_and_run(runs[key]))
    try:
        yield may_run
    finally:
        may_run.set()
        for key, work in works.items():
            object.__setattr__(work, 'run', runs[key])
