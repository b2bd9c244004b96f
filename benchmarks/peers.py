"""The peers of the race: a training step and an inference call each, of equal sizes and batch.

Each is a function (sizes, batch size) → Peer. All use float32, AdamW and cross-entropy, on images
and labels that stay on the device.
"""

import functools
import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Peer:
    """A racer; its calls block until the result is ready."""

    infer: Callable[[], None]
    train: Callable[[], None]
    compile_seconds: Callable[[], dict[str, float]]  # of 'infer' and 'train', once both have run


def vit_jax(sizes: dict[str, Any], batch_size: int) -> Peer:
    from vit_jax import ViT

    return _jax(ViT(**sizes), sizes, batch_size)


def plain_linen(sizes: dict[str, Any], batch_size: int) -> Peer:
    from benchmarks.plain_linen import PlainViT

    arguments = {name: value for name, value in sizes.items() if name != 'image_size'}
    return _jax(PlainViT(**arguments), sizes, batch_size)


def _jax(model: Any, sizes: dict[str, Any], batch_size: int) -> Peer:
    import jax

    from benchmarks.training import create_training, normalize

    step, (state, batch, key) = create_training(
        model, sizes['image_size'], sizes['num_classes'], batch_size
    )
    seconds: dict[str, float] = {}

    @functools.cache
    def compiled(what: str) -> Any:
        started = time.perf_counter()
        if what == 'train':
            program = step.lower(state, batch, key).compile()
        else:
            predict = jax.jit(lambda params, x: model.apply({'params': params}, normalize(x)))
            program = predict.lower(state.params, batch['image']).compile()
        seconds[what] = time.perf_counter() - started
        return program

    def infer() -> None:
        jax.block_until_ready(compiled('infer')(state.params, batch['image']))

    def train() -> None:
        nonlocal state
        state, metrics = compiled('train')(state, batch, key)
        jax.block_until_ready((state, metrics))

    return Peer(infer, train, lambda: seconds)


def load_vit_pytorch() -> Any:
    """Imports vit_pytorch/vit.py alone: the rest of the package has more dependencies."""
    package = Path(importlib.util.find_spec('vit_pytorch').origin).parent
    spec = importlib.util.spec_from_file_location('vit_pytorch_vit', package / 'vit.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def vit_pytorch(sizes: dict[str, Any], batch_size: int, compiled: bool = False) -> Peer:
    return _torch(load_vit_pytorch().ViT(**sizes), sizes, batch_size, compiled)


def create_huggingface(sizes: dict[str, Any], qkv_bias: bool) -> Any:
    """A ViTForImageClassification; its heads always split the features of a token."""
    import transformers

    config = transformers.ViTConfig(
        hidden_size=sizes['dim'],
        num_hidden_layers=sizes['depth'],
        num_attention_heads=sizes['heads'],
        intermediate_size=sizes['mlp_dim'],
        image_size=sizes['image_size'],
        patch_size=sizes['patch_size'],
        num_labels=sizes['num_classes'],
        qkv_bias=qkv_bias,
    )
    return transformers.ViTForImageClassification(config)


def huggingface(sizes: dict[str, Any], batch_size: int, compiled: bool = False) -> Peer:
    model = create_huggingface(sizes, qkv_bias=False)
    return _torch(model, sizes, batch_size, compiled, lambda output: output.logits)


def _torch(
    model: Any,
    sizes: dict[str, Any],
    batch_size: int,
    compiled: bool,
    logits: Callable[[Any], Any] = lambda output: output,
) -> Peer:
    import torch

    images = torch.rand(batch_size, 3, *[sizes['image_size']] * 2) * 2 - 1
    labels = torch.arange(batch_size) % sizes['num_classes']
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    run = torch.compile(model) if compiled else model
    calls: dict[str, list[float]] = {'infer': [], 'train': []}

    def timed(call: Callable[[], None], name: str) -> Callable[[], None]:
        def run_and_note() -> None:
            started = time.perf_counter()
            call()
            calls[name].append(time.perf_counter() - started)

        return run_and_note

    def infer() -> None:
        model.eval()
        with torch.inference_mode():
            run(images)

    def train() -> None:
        model.train()
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(logits(run(images)), labels).backward()
        optimizer.step()

    def compile_seconds() -> dict[str, float]:
        if not compiled:
            return {'infer': 0.0, 'train': 0.0}
        return {name: seconds[0] - min(seconds) for name, seconds in calls.items()}

    return Peer(timed(infer, 'infer'), timed(train, 'train'), compile_seconds)


# By name: the peer, and the packages that it needs.
PEERS = {
    'vit_jax': (vit_jax, ('jax',)),
    'vit_jax, a device a core': (vit_jax, ('jax',)),  # race.py sets JAX_NUM_CPU_DEVICES
    'plain linen': (plain_linen, ('jax',)),
    'vit-pytorch, eager': (vit_pytorch, ('torch', 'vit_pytorch')),
    'vit-pytorch, torch.compile': (
        functools.partial(vit_pytorch, compiled=True),
        ('torch', 'vit_pytorch'),
    ),
    'Hugging Face, eager': (huggingface, ('torch', 'transformers')),
    'Hugging Face, torch.compile': (
        functools.partial(huggingface, compiled=True),
        ('torch', 'transformers'),
    ),
}
