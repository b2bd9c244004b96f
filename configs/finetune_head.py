"""Fine-tune the head of pretrained weights alone, on augmented pictures.

Only the last norm, the pooling and the classifier learn, which takes no backward pass through the
layers. `vit_jax probe` fits a classifier without augmentation, in one go.
Source: linear classification as of DINO (https://arxiv.org/abs/2104.14294): SGD with momentum 0.9,
no weight decay, a cosine schedule; otherwise configs/finetune.py, whose options are the same.
Command: vit_jax train finetune_head --workdir=runs/head
  --config.init.weights=runs/pretrained --config.data.source=tfds:cifar10
Not run at this length; docs/measured.md has the result of a short run with these settings.
"""

import ml_collections

import vit_jax


def get_config() -> ml_collections.ConfigDict:
    config = vit_jax.load_config('finetune')

    config.optim.learning_rate = 0.3
    config.optim.freeze = ('[!m]*',)  # all but mlp_head: whatever tokens and embeddings there are
    return config
