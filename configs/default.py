"""Every option there is, with its unit and its reason; other configs only override.

A small ViT from scratch on CIFAR-10, a starting point for pictures of about its size. Not run.
"""

import ml_collections
from ml_collections import config_dict


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()

    config.seed = 0  # of initialisation, data order, augmentation and dropout
    config.num_steps = config_dict.placeholder(int)  # optimizer steps; where set, wins over epochs
    config.num_epochs = 100.0  # passes over the training split, with all its repeats
    config.batch_size = 128  # examples a step, over all devices together; evaluation's as well

    config.log_every_steps = 100  # training metrics; 0: only at the end
    config.eval_every_steps = 1000  # the whole test split; 0: only with a checkpoint and at the end
    config.checkpoint_every_steps = 1000  # evaluates too, to know the best; 0: only at the end

    config.data = ml_collections.ConfigDict()
    # 'tfds:NAME', any TFDS data set of labelled images, or 'folder:PATH', pictures in
    # PATH/train/CLASS/ and PATH/test/CLASS/, or in PATH/CLASS/ with a tenth of them for the test.
    # `python -m vit_jax preview CONFIG` shows what the network sees of it.
    config.data.source = 'tfds:cifar10'
    config.data.dir = config_dict.placeholder(str)  # of TFDS; unset: ~/tensorflow_datasets
    config.data.train_split = 'train'  # slices too: 'train[:99%]'
    config.data.test_split = 'test'
    # Pixels, an int or (height, width): every picture is resized to it.
    config.data.image_size = config_dict.FieldReference(32, field_type=object)
    # Of every picture as much of the middle as has this aspect, and of that so large a share: 0.875
    # is the usual 224 of 256 pixels. 0: the whole picture, whatever its aspect.
    config.data.crop_fraction = 0.0
    # Of pixels in [0, 1], per channel or one for all. 0.5 and 0.5 make them -1 to 1.
    config.data.mean = (0.5,)
    config.data.std = (0.5,)
    # GiB. A split that takes no more as resized pixels is read into memory once; a larger one is
    # decoded as training goes, in bounded memory.
    config.data.memory_gib = 4.0
    config.data.on_error = 'raise'  # at an example that cannot be used; 'skip': go on without it
    config.data.repeats = 1  # rows of each example in its batch, each augmented on its own

    # What the parameters are before the first step: drawn from the seed, or somebody's weights.
    # Then the model is the one they belong to, and of config.model only what is to be said about it
    # may be set; configs/finetune.py unsets all of it.
    config.init = ml_collections.ConfigDict()
    config.init.weights = config_dict.placeholder(str)  # run directory, weight file, HF folder
    config.init.step = 'newest'  # of a run directory: 'newest', 'best' or a number
    config.init.head = 'new'  # zeros; 'keep': the weights' own, where the classes are the same
    config.init.resize = 'bilinear'  # of position embeddings, as Google's; 'bicubic' as timm's

    # The ViT's own arguments. Size of the input, classes and channels follow from the data.
    config.model = ml_collections.ConfigDict()
    # 'S/16' and the like (vit_jax/variants.py); where set, wins over what else it stands for:
    # patch_size, dim, depth, heads, mlp_dim, dim_head, qkv_bias, norm_eps, gelu.
    config.model.variant = config_dict.placeholder(str)
    # Pixels, an int or (height, width). 4 gives 64 tokens of a 32-pixel image.
    config.model.patch_size = config_dict.FieldReference(4, field_type=object)
    config.model.dim = 192
    config.model.depth = 9
    config.model.heads = 3
    config.model.mlp_dim = 768
    config.model.pool = 'cls'  # 'cls', 'mean' (cls and patches), 'gap' (patches) or 'map'
    config.model.dim_head = 64  # features of one head
    config.model.dropout = 0.0  # share; strong augmentation serves small data sets better
    config.model.emb_dropout = 0.0
    config.model.posemb = 'learned'  # 'learned_patches': not of the cls token; or 'sincos2d'
    config.model.class_token = True  # pool 'gap' and 'map' need none
    config.model.distilled = False  # a distillation token; no teacher is trained with here
    config.model.num_registers = 0  # tokens without a meaning; 4 keep attention maps clean
    config.model.qkv_bias = False
    config.model.qk_norm = False  # steadies large models at high learning rates
    config.model.layer_scale = config_dict.placeholder(float)  # 1e-5 or so steadies deep ones
    config.model.fc_norm = False  # with 'gap': norm the mean instead of the patches
    config.model.representation_size = 0  # features of a tanh layer before the logits; 0: none
    config.model.norm_eps = 1e-5
    config.model.gelu = 'erf'  # or its approximation, 'tanh'
    config.model.attention = 'xla'  # 'cudnn': the fused kernel of NVIDIA GPUs, with bfloat16
    config.model.dtype = 'float32'  # of the computation; 'bfloat16' is for accelerators
    # What the backward pass computes again instead of storing it: 'none', 'dots' (all but the
    # products with parameters; in the field's terms, dots_with_no_batch_dims_saveable) or 'full'.
    config.model.remat = 'dots'
    config.model.unroll = 1  # layers compiled one after the other; more costs compile time

    config.optim = ml_collections.ConfigDict()
    config.optim.name = 'adamw'  # 'adamw' or 'sgd'
    config.optim.learning_rate = 1e-3  # the peak
    config.optim.warmup_steps = 1000  # linear from 0; a cosine to 0 follows
    config.optim.weight_decay = 0.05  # times the learning rate, of kernels only
    config.optim.b1 = 0.9  # momentum, of sgd too
    config.optim.b2 = 0.999
    config.optim.clip_norm = 1.0  # largest global norm of the gradients; 0: no limit
    # For fine-tuning: each layer learns so many times as fast as the next; 1: all alike.
    config.optim.layer_decay = 1.0
    # Patterns of parameters that stay as they are: ('to_patch_embedding/*', 'transformer/[0-5]/*').
    config.optim.freeze = ()

    # In this order, each example by itself, in the compiled step.
    config.augment = ml_collections.ConfigDict()
    # Smallest share of the area that is cut out and resized, 0.08 for photographs; 0: none. Where
    # pictures are not held in memory it is cut out of the original ones, as they are decoded.
    config.augment.random_resized_crop = 0.0
    config.augment.pad_and_crop = 4  # pixels a side; an eighth of the image is usual
    config.augment.horizontal_flip = True  # wrong for digits and letters
    # Largest change of brightness, contrast, saturation (as factors) and hue (turns, up to 0.5).
    config.augment.color_jitter = (0.0, 0.0, 0.0, 0.0)
    # 'none', 'randaugment', 'autoaugment' (the one found for CIFAR-10) or 'trivialaugment'.
    config.augment.policy = 'none'
    config.augment.num_ops = 2  # of randaugment
    config.augment.magnitude = 10.0  # of randaugment, 0 to 10; others call it 30 of 30
    config.augment.erasing_prob = 0.0  # of replacing a rectangle by noise
    config.augment.mixup_alpha = 0.0  # of Beta(alpha, alpha), the weights' distribution; 0: none
    config.augment.cutmix_alpha = 0.0
    config.augment.mix_prob = 1.0  # of mixing an example at all, where one of them is on
    config.augment.mix_switch_prob = 0.5  # of cutmix where both are on
    config.augment.label_smoothing = 0.1  # probability spread over all classes

    config.parallel = ml_collections.ConfigDict()
    config.parallel.mode = 'jit'  # 'jit' or 'pmap', over all devices

    config.lock()
    return config
