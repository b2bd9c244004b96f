"""CIFAR-100 from scratch: the recipe of configs/cifar10.py.

Source: https://github.com/aanna0701/SPT_LSA_ViT, its plain ViT: 73.81 % for the best epoch on the
test set.
Command: vit_jax train cifar100
Not run.
"""

import ml_collections

import vit_jax


def get_config() -> ml_collections.ConfigDict:
    config = vit_jax.load_config('cifar10')

    config.data.source = 'tfds:cifar100'
    config.data.mean = (0.5071, 0.4865, 0.4409)
    config.data.std = (0.2673, 0.2564, 0.2762)
    return config
