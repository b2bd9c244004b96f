"""Fine-tune pretrained weights on new classes.

Source: the fine-tuning of "An image is worth 16x16 words" (https://arxiv.org/abs/2010.11929,
table 4): SGD with momentum 0.9, a new head of zeros, no weight decay, warm-up over a twentieth of
the steps, cosine schedule, gradients clipped to 1, a learning rate of 0.03. Their batches are of
512 examples; smaller ones suit smaller data sets.
Command: vit_jax train finetune --workdir=runs/finetuned
  --config.init.weights=runs/pretrained --config.data.source=tfds:cifar10
A file without its number of heads needs --config.model.heads=…, one without its normalisation
--config.data.mean=… --config.data.std=….
Not run at this length; docs/measured.md has the result of a short run with these settings.
"""

import ml_collections
from ml_collections import config_dict

import vit_jax


def get_config() -> ml_collections.ConfigDict:
    config = vit_jax.default_config()

    config.num_epochs = 20.0

    with config.unlocked():  # None: whatever the weights have
        config.data.image_size = config_dict.placeholder(object)  # another one resizes embeddings
        config.data.mean = config_dict.placeholder(tuple)
        config.data.std = config_dict.placeholder(tuple)
        config.data.crop_fraction = config_dict.placeholder(float)

    config.optim.name = 'sgd'  # or 'adamw', with about 1e-4 and layer_decay=0.75
    config.optim.learning_rate = 0.03
    config.optim.weight_decay = 0.0

    config.augment.label_smoothing = 0.0
    return config
