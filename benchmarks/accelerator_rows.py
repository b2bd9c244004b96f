"""One row of the accelerator table: a training step, ours or PyTorch's, compiled and timed."""

import importlib.util
import statistics
import time
from typing import Any

import jax

from benchmarks.peers import create_huggingface
from benchmarks.training import create_training
from vit_jax.model.variants import create_model
from vit_jax.train.memory import chosen_attention, planned_bytes


def create(variant: str, **options: Any) -> Any:
    """A ViT by the name of its variant, or a toy for 8-pixel images."""
    if variant == 'toy':
        small = dict(patch_size=4, dim=64, depth=2, heads=1, mlp_dim=128)
        return create_model('Ti/16', image_size=8, num_classes=10, **small, **options)
    return create_model(variant, **options)


def run_jax(row: dict[str, Any], toy: bool) -> dict[str, Any]:
    """Compiles and times a row's training step."""
    options = {name: value for name, value in row.items() if name not in ('batch', 'variant')}
    model = create(row['variant'], **options)
    step, (state, batch, key) = create_training(
        model, model.image_size, model.num_classes, row['batch'], jax.devices()[:1]
    )
    begun = time.perf_counter()
    compiled = step.lower(state, batch, key).compile()
    compile_seconds = time.perf_counter() - begun

    def run(steps: int) -> None:
        nonlocal state
        for _ in range(steps):
            state, metrics = compiled(state, batch, key)
        jax.block_until_ready((state, metrics))

    return {
        'attention': chosen_attention(model, jax.devices()[0]),
        'compile_seconds': compile_seconds,
        'peak_bytes': planned_bytes(compiled),
        'step_seconds': time_steps(run, toy),
    }


def run_torch(row: dict[str, Any], toy: bool) -> dict[str, Any]:
    """The same step with the ViT of timm or Hugging Face: bfloat16 autocast, compiled on a GPU."""
    import torch

    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    if device == 'cuda':
        torch._dynamo.reset()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    elif not toy:
        raise RuntimeError('PyTorch sees no GPU')
    ours = create(row['variant'])
    if importlib.util.find_spec('timm'):
        from timm.models.vision_transformer import VisionTransformer

        name = 'timm'
        model = VisionTransformer(
            img_size=ours.image_size,
            patch_size=ours.patch_size,
            embed_dim=ours.dim,
            depth=ours.depth,
            num_heads=ours.heads,
            mlp_ratio=ours.mlp_dim / ours.dim,
            num_classes=ours.num_classes,
        )
    else:
        name = 'Hugging Face'
        model = create_huggingface(vars(ours), qkv_bias=ours.qkv_bias)
    model = model.to(device)
    if device == 'cuda':
        torch.set_float32_matmul_precision('high')
        model, name = torch.compile(model), f'{name}, torch.compile'
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, fused=True)
    images = torch.rand(row['batch'], 3, ours.image_size, ours.image_size, device=device)
    labels = torch.randint(0, ours.num_classes, (row['batch'],), device=device)

    def run(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device, torch.bfloat16):
                output = model(images)
                logits = getattr(output, 'logits', output)
            torch.nn.functional.cross_entropy(logits.float(), labels).backward()
            optimizer.step()
        if device == 'cuda':
            torch.cuda.synchronize()

    begun = time.perf_counter()
    run(1)
    first = time.perf_counter() - begun
    seconds = time_steps(run, toy)
    return {
        'racer': name,
        'dtype': 'bfloat16 (autocast)',
        'attention': 'scaled_dot_product_attention',
        'compile_seconds': max(0.0, first - seconds),
        'peak_bytes': torch.cuda.max_memory_allocated() if device == 'cuda' else None,
        'step_seconds': seconds,
    }


def time_steps(run: Any, toy: bool) -> float:
    """Median seconds per step over 5 runs of half a second (a toy: 20 ms), each synchronised."""
    duration = 0.02 if toy else 0.5
    run(2)
    begun = time.perf_counter()
    run(2)
    steps = max(2, round(duration / ((time.perf_counter() - begun) / 2)))
    seconds = []
    for _ in range(5):
        begun = time.perf_counter()
        run(steps)
        seconds.append((time.perf_counter() - begun) / steps)
    return statistics.median(seconds)


def measure_gemm(toy: bool) -> float:
    """FLOP/s of a large matrix product in bfloat16."""
    size = 512 if toy else 8192
    x, y = jax.random.normal(jax.random.key(0), (2, size, size), 'bfloat16')
    multiply = jax.jit(lambda x, y: x @ y)

    def run(steps: int) -> None:
        for _ in range(steps):
            product = multiply(x, y)
        product.block_until_ready()

    return 2 * size**3 / time_steps(run, toy)
