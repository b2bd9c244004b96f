"""CIFAR-10 from scratch in one hour on two CPU cores, first on pictures of 16 pixels, then of 24.

Source: our own recipe. For the first half of the hour, 16 tokens instead of 36 cut the cost of a
picture by half (progressive resizing). Muon learns faster per step than AdamW (docs/recipes.md).
Commands: vit_jax train cifar10_1h --workdir=runs/small --config.data.image_size=16
    --config.num_steps=7000 --config.optim.schedule=constant --config.optim.cooldown_steps=0
    --config.augment.pad_and_crop=2
  vit_jax train cifar10_1h --config.init.weights=runs/small
Hardware and time: 2 CPU cores, 59 min. Result: 80.74 %, one seed (docs/recipes.md).
"""

import ml_collections

import vit_jax


def get_config() -> ml_collections.ConfigDict:
    config = vit_jax.default_config()

    config.num_steps = 3600
    config.eval_every_steps = 1200
    config.checkpoint_every_steps = 0

    config.data.image_size = 24

    config.init.head = 'keep'

    config.model.dim = 128
    config.model.depth = 6
    config.model.heads = 4
    config.model.dim_head = 32
    config.model.mlp_dim = 512
    config.model.pool = 'gap'
    config.model.class_token = False
    config.model.remat = 'full'  # as in configs/digits.py, for a CPU

    config.optim.name = 'muon'
    config.optim.learning_rate = 5e-3
    config.optim.b1 = 0.95
    config.optim.b2 = 0.99
    config.optim.schedule = 'linear'
    config.optim.warmup_steps = 200

    config.augment.pad_and_crop = 3
    return config
