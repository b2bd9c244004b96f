"""Low-rank adapters, added to the kernels that they adapt."""

from vit_jax.model.vit import ViT
from vit_jax.weights.files import Arrays


def merge_adapters(model: ViT, params: Arrays) -> tuple[ViT, Arrays]:
    """The same function without adapters: each kernel W becomes W + A B.

    Args:
      model: with any `lora_rank`.
      params: by name.
    """
    merged = {name: x for name, x in params.items() if not name.endswith(('/lora_a', '/lora_b'))}
    for name, a in params.items():
        if name.endswith('/lora_a'):
            kernel = name.replace('/lora_a', '/kernel')
            merged[kernel] = params[kernel] + a @ params[name.replace('/lora_a', '/lora_b')]
    return model.clone(lora_rank=0), merged
