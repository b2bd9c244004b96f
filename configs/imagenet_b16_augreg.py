"""ImageNet-1k, B/16 in 300 epochs with the augmentation and regularization of AugReg.

Source: Steiner et al., "How to train your ViT?" (https://arxiv.org/abs/2106.10270), its "medium2"
for B/16, as in big_vision's `configs/vit_i1k.py`, with the dropout and the drop path that the paper
found to help. Its RandAugment has magnitude 15, beyond our scale, which ends at 10. The loss is
softmax here.
Command: vit_jax train imagenet_b16_augreg --config.data.dir=gs://BUCKET/tensorflow_datasets
Not run.
"""

import ml_collections

import vit_jax


def get_config() -> ml_collections.ConfigDict:
    config = vit_jax.load_config('imagenet_s16')

    config.num_epochs = 300.0
    config.batch_size = 4096

    config.model.variant = 'B/16'
    config.model.pool = 'cls'
    config.model.class_token = True
    config.model.posemb = 'learned'
    config.model.representation_size = 768
    config.model.dropout = 0.1
    config.model.drop_path = 0.1

    config.augment.mixup_alpha = 0.5
    return config
