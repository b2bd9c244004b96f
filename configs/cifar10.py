"""CIFAR-10 from scratch: the published recipe for this architecture, in bfloat16 for one GPU.

Source: https://github.com/aanna0701/SPT_LSA_ViT, its plain ViT: 93.58 % for the best epoch on the
test set. Its 100 epochs are of three passes each; repeated augmentation is three passes there, not
copies in one batch. It also drops paths at one rate for all layers, decays biases and norms, and
mixes a whole batch at one ratio.
Command: vit_jax train cifar10
Not run.
"""

import ml_collections

import vit_jax


def get_config() -> ml_collections.ConfigDict:
    config = vit_jax.default_config()

    config.num_epochs = 300.0
    config.optim.warmup_epochs = 30.0
    config.optim.clip_norm = 0.0

    config.data.mean = (0.4914, 0.4822, 0.4465)
    config.data.std = (0.2470, 0.2435, 0.2616)

    config.model.dim = 192
    config.model.depth = 9
    config.model.heads = 12
    config.model.dim_head = 16
    config.model.mlp_dim = 384
    config.model.drop_path = 0.1

    # A step this small is limited by the launches of kernels, so the layers are unrolled.
    config.model.dtype = 'bfloat16'
    config.model.remat = 'none'
    config.model.unroll = 9

    config.augment.policy = 'autoaugment'
    config.augment.erasing_prob = 0.25
    config.augment.mixup_alpha = 1.0
    config.augment.cutmix_alpha = 1.0
    config.augment.mix_prob = 0.5
    return config
