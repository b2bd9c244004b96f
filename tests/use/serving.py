"""A server in a thread, for tests; and what they send to it."""

import functools
import tempfile
import threading
import time
from pathlib import Path

import jax
import numpy as np
from pictures import encode
from PIL import Image
from sklearn.datasets import load_sample_image

import vit_jax
from vit_jax.use.serving.app import App
from vit_jax.use.serving.batching import Work
from vit_jax.use.serving.server import Server, bind
from vit_jax.use.serving.uploads import Limits

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


class Held:
    """Holds the model from its next batch on: what is sent meanwhile waits, and fits one batch."""

    def __init__(self, running):
        self._answering = running.answering
        self._works = dict(running.answering._works)
        self._may_run = threading.Event()
        self._num_running = 0

    def __enter__(self):
        held = {key: Work(self._hold(work.run), {16: 0.001}) for key, work in self._works.items()}
        self._answering._works = held
        return self

    def __exit__(self, *_):
        self.let_go()
        self._answering._works = self._works

    def _hold(self, run):
        def wait_and_run(items):
            self._num_running += len(items)
            assert self._may_run.wait(30)
            return run(items)

        return wait_and_run

    @property
    def num_decoded(self):
        return self._num_running + len(self._answering._batcher._jobs)

    def let_go(self):
        self._may_run.set()


def photographs(count):
    china = Image.fromarray(load_sample_image('china.jpg'))
    return [china.crop((20 * i, 10 * i, 20 * i + 200, 10 * i + 150)) for i in range(count)]


def as_form(images, format='png'):
    return [('picture', (f'{i}.{format}', encode(x, format))) for i, x in enumerate(images)]


def wait_until(holds, seconds=20):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)
