"""Train S/16 from scratch on photographs, which are cropped as they are decoded.

Source: preprocessing and crops as usual for ImageNet; the schedule is the default's.
Command: python train.py --config=configs/photographs.py --workdir=runs/photographs
  --config.data.source=folder:pets
Not run.
"""

import ml_collections

import vit_jax


def get_config() -> ml_collections.ConfigDict:
    config = vit_jax.default_config()

    config.data.source = 'tfds:oxford_iiit_pet'
    config.data.image_size = 224
    config.data.crop_fraction = 0.875
    config.data.memory_gib = 0.0  # stream: crops are then cut from the original pictures

    config.model.variant = 'S/16'

    config.augment.random_resized_crop = 0.08
    config.augment.pad_and_crop = 0
    return config
