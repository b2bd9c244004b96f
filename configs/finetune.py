"""From somebody's weights to other classes: a run directory, or any weight file.

Source: the fine-tuning of "An image is worth 16x16 words" (https://arxiv.org/abs/2010.11929,
table 4): SGD with momentum 0.9, a new head of zeros, no weight decay, cosine, gradients clipped to
1; 0.03 is what it takes for CIFAR (512 examples a step, 10,000 steps).
Command: python train.py --config=configs/finetune.py --workdir=runs/finetuned
  --config.init.weights=runs/pretrained --config.data.source=tfds:cifar10
A file that does not tell its heads wants --config.model.heads=…, one that does not tell mean and
std --config.data.mean=… --config.data.std=….
Not run at this length; README, "Fine-tune", has the result of a short run with these settings.
"""

import ml_collections
from ml_collections import config_dict

from configs import default


def get_config() -> ml_collections.ConfigDict:
    config = default.get_config()

    config.num_steps = 10_000
    config.batch_size = 512

    with config.unlocked():
        # None of these says: as the weights have it.
        for name in config.model:
            config.model[name] = config_dict.placeholder(config.model.get_type(name))
        config.data.image_size = config_dict.placeholder(object)  # another one resizes embeddings
        config.data.mean = config_dict.placeholder(tuple)
        config.data.std = config_dict.placeholder(tuple)
        config.data.crop_fraction = config_dict.placeholder(float)

    config.optim.name = 'sgd'  # or 'adamw', with 1e-4 or so and layer_decay=0.75
    config.optim.learning_rate = 0.03
    config.optim.warmup_steps = 500
    config.optim.weight_decay = 0.0

    config.augment.label_smoothing = 0.0
    return config
