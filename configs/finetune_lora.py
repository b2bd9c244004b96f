"""Fine-tune pretrained weights by low-rank adapters: a small part of the parameters learns.

Source: LoRA (https://arxiv.org/abs/2106.09685), with AdamW, adapters of rank 8 on all kernels of
the layers, and a new head; otherwise configs/finetune.py, whose options are the same.
Command: vit_jax train finetune_lora --workdir=runs/adapted
  --config.init.weights=runs/pretrained --config.data.source=tfds:cifar10
Not run at this length; docs/measured.md has the result of a short run with these settings.
"""

import ml_collections

import vit_jax


def get_config() -> ml_collections.ConfigDict:
    config = vit_jax.load_config('finetune')

    config.optim.name = 'adamw'
    config.optim.learning_rate = 3e-3
    config.optim.lora_rank = 8
    return config
