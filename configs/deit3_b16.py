"""ImageNet-1k, B/16 at 192 pixels in 800 epochs: DeiT III, before its fine-tuning at 224.

Source: Touvron, Cord and Jégou, "DeiT III: Revenge of the ViT" (https://arxiv.org/abs/2204.07118)
and https://github.com/facebookresearch/deit: 83.8 % after 20 more epochs at 224 pixels. DeiT III
drops paths at one rate for all layers, ours is linear; a picture that is mixed of two classes has
each of them whole; and its batches have 2048 examples, which three does not divide. Its epochs do
not count the copies, so each has a third of our steps.
Command: vit_jax train deit3_b16 --config.data.dir=gs://BUCKET/tensorflow_datasets
Not run.
"""

import ml_collections

import vit_jax


def get_config() -> ml_collections.ConfigDict:
    config = vit_jax.load_config('photographs')

    config.num_epochs = 800 / 3
    config.batch_size = 2016  # divides by the three copies, and by 32 devices

    config.data.source = 'tfds:imagenet2012'
    config.data.test_split = 'validation'
    config.data.image_size = 192
    config.data.crop_fraction = 1.0
    config.data.mean = (0.485, 0.456, 0.406)
    config.data.std = (0.229, 0.224, 0.225)
    config.data.repeats = 3

    config.model.variant = 'B/16'
    config.model.gelu = 'erf'
    config.model.posemb = 'learned_patches'
    config.model.layer_scale = 1e-4
    config.model.drop_path = 0.2
    config.model.dtype = 'bfloat16'

    config.optim.name = 'lamb'
    config.optim.learning_rate = 3e-3
    config.optim.warmup_epochs = 5 / 3
    config.optim.weight_decay = 0.05

    config.loss.name = 'sigmoid'

    config.augment.color_jitter = (0.3, 0.3, 0.3, 0.0)
    config.augment.policy = 'threeaugment'
    config.augment.mixup_alpha = 0.8
    config.augment.cutmix_alpha = 1.0
    config.augment.label_smoothing = 0.0
    return config
