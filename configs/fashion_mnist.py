"""Fashion-MNIST from scratch: grey pictures of 28 pixels.

Source: our own recipe, for a laptop.
Command: vit_jax train fashion_mnist
Not run.
"""

import ml_collections

import vit_jax


def get_config() -> ml_collections.ConfigDict:
    config = vit_jax.default_config()

    config.num_epochs = 30.0

    config.data.source = 'tfds:fashion_mnist'
    config.data.image_size = 28
    config.data.mean = (0.286,)
    config.data.std = (0.353,)

    config.model.dim = 128
    config.model.depth = 6
    config.model.heads = 4
    config.model.dim_head = 32
    config.model.mlp_dim = 256
    config.model.pool = 'gap'
    config.model.class_token = False

    config.augment.pad_and_crop = 2
    return config
