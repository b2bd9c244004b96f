"""Every option, with its unit and its reason; the other configs only override.

Unchanged, it trains a small ViT from scratch on CIFAR-10, a starting point for images of about that
size. Not run.
"""

import ml_collections
from ml_collections import config_dict


def get_config() -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()

    config.seed = 0  # of initialisation, data order, augmentation and dropout
    config.num_steps = config_dict.placeholder(int)  # optimizer steps; overrides num_epochs
    config.num_epochs = 100.0  # passes over the training split
    config.batch_size = 128  # examples per step over all devices, in evaluation too

    # Periods, the warm-up and the cool-down are in steps or in epochs; steps win if both are set.
    # Unset (None), each is a twentieth of the run, the cool-down a fifth.

    # Training metrics; 0: only at the end; None: a twentieth of the run, at most 100.
    config.log_every_steps = config_dict.placeholder(int)
    # The whole test split; 0: only with checkpoints; None: a twentieth of the run.
    config.eval_every_steps = config_dict.placeholder(int)
    config.eval_every_epochs = config_dict.placeholder(float)  # eval_every_steps in epochs
    # Saves the run, and evaluates, to know the best checkpoint; 0: only at the end; None: a
    # twentieth of the run.
    config.checkpoint_every_steps = config_dict.placeholder(int)
    # checkpoint_every_steps in epochs.
    config.checkpoint_every_epochs = config_dict.placeholder(float)
    # Saves without evaluating, so that a killed run loses no more minutes than this; 0: never.
    config.checkpoint_every_minutes = 10.0
    # Also logs the metrics to this project of Weights & Biases (pip install wandb).
    config.wandb_project = config_dict.placeholder(str)
    # A larger loss stops the run, like one that is not finite. By chance, it is ln(classes), or
    # ln(2) with sigmoids.
    config.max_loss = 100.0

    # Builds and compiles, prints what a step computes, holds and sends, and stops.
    config.dry_run = False
    # The first and the last step to write a profiler's trace of, such as (20, 25), to RUN/profile.
    config.profile = ()

    config.data = ml_collections.ConfigDict()
    # 'tfds:NAME', any TFDS data set of labelled images; 'folder:PATH', pictures in
    # PATH/train/CLASS/ and PATH/test/CLASS/, or in PATH/CLASS/, a tenth of which become the test
    # split; 'csv:PATH' or 'jsonl:PATH', a list of pictures with the columns file, labels (any
    # number) or label (one) and, optionally, split. `vit_jax preview CONFIG` shows what the network
    # sees.
    config.data.source = 'tfds:cifar10'
    # Where TFDS keeps its data sets; None: $TFDS_DATA_DIR or ~/tensorflow_datasets.
    config.data.dir = config_dict.placeholder(str)
    config.data.train_split = 'train'  # or a slice such as 'train[:99%]', or 'all'
    config.data.test_split = 'test'  # or another, such as 'val', or a slice of one
    # Pixels, an int or (height, width); every picture is resized to it.
    config.data.image_size = config_dict.FieldReference(32, field_type=object)
    # Centre crop: the fraction kept of the largest centred region with image_size's aspect ratio
    # (0.875 is the usual 224 of 256 pixels). 0: squash the whole picture.
    config.data.crop_fraction = 0.0
    # Mean of pixels in [0, 1], per channel or one for all; with data.std 0.5 it maps to [-1, 1].
    config.data.mean = (0.5,)
    # Standard deviation of pixels in [0, 1], per channel or one for all.
    config.data.std = (0.5,)
    # GiB of resized pixels. A split that fits is read into memory once; a larger one is decoded
    # during training, in bounded memory.
    config.data.memory_gib = 4.0
    config.data.on_error = 'raise'  # what to do about an unusable example; 'skip': leave it out
    # Of a picture as stored; a larger one is unusable. It bounds memory and time, since a few bytes
    # can hold a picture of any size.
    config.data.max_pixels = 2**26
    # Repeated augmentation: copies of each example in its batch, augmented independently.
    # batch_size counts the copies, so an epoch has as many times the steps.
    config.data.repeats = 1
    # Which examples a batch is drawn from: 'uniform', each once an epoch; or 'balanced', each class
    # equally often, for data in which some classes are rare.
    config.data.sampling = 'uniform'

    # Initial parameters: random, or read from `weights`. Weights bring their architecture; set in
    # config.model only what should differ (see configs/finetune.py).
    config.init = ml_collections.ConfigDict()
    # A run directory, a weight file or a Hugging Face folder.
    config.init.weights = config_dict.placeholder(str)
    config.init.step = 'newest'  # of a run directory's checkpoint: 'newest', 'best' or a number
    config.init.head = (
        'new'  # a classifier of zeros; 'keep': the weights' own, for the same classes
    )
    # Of position embeddings: 'bilinear', 'bicubic' or 'bicubic_no_antialias'. None: as the weights'
    # own code does.
    config.init.resize = config_dict.placeholder(str)

    # The ViT's own arguments (vit_jax/model/vit.py and extras.py). None: the variant's value, else
    # the weights', else ViT's default. What is set here overrides all three. Image size, classes
    # and channels follow from the data.
    config.model = ml_collections.ConfigDict()
    # A published variant such as 'S/16' (vit_jax/model/variants.py). Without one and without
    # weights, the sizes have defaults for images of about 32 pixels.
    config.model.variant = config_dict.placeholder(str)
    # Pixels, an int or (height, width). The default, 4, gives 64 tokens for a 32-pixel image.
    config.model.patch_size = config_dict.FieldReference(None, field_type=object)
    config.model.dim = config_dict.placeholder(int)  # features of a token; default 192
    config.model.depth = config_dict.placeholder(int)  # number of layers; default 9
    config.model.heads = config_dict.placeholder(int)  # attention heads; default 3
    # Hidden features of the feed-forward blocks; default 768, usually 4 times dim.
    config.model.mlp_dim = config_dict.placeholder(int)
    # What the classifier reads: 'cls' (default), 'mean' (all tokens), 'gap' (patches), 'cls_gap'
    # (cls and patches) or 'map'.
    config.model.pool = config_dict.placeholder(str)
    # Features of one head; default 64, usually dim divided by heads.
    config.model.dim_head = config_dict.placeholder(int)
    # Dropout rate in the blocks, default 0: strong augmentation works better for small data sets.
    config.model.dropout = config_dict.placeholder(float)
    # Rate of dropout after the position embedding, default 0.
    config.model.emb_dropout = config_dict.placeholder(float)
    # Dropout rate of the attention weights; rules out fused attention.
    config.model.attn_dropout = config_dict.placeholder(float)
    config.model.head_dropout = config_dict.placeholder(float)  # rate before the classifier
    # Stochastic depth: probability of dropping each branch of the last layer for an example, less
    # in earlier layers, 0 in the first; default 0.
    config.model.drop_path = config_dict.placeholder(float)
    # 'learned' (default), 'learned_patches' (patches only), 'sincos2d' or 'rope2d'.
    config.model.posemb = config_dict.placeholder(str)
    config.model.rope_theta = config_dict.placeholder(float)  # base of 'rope2d', default 100
    config.model.class_token = config_dict.placeholder(
        bool
    )  # may be False with pool 'gap' and 'map'
    # A distillation token, whose own classifier learns from distill.weights.
    config.model.distilled = config_dict.placeholder(bool)
    config.model.patch_bias = config_dict.placeholder(bool)  # of the patch embedding
    config.model.embed_norm = config_dict.placeholder(bool)  # a norm before the first layer
    config.model.num_registers = config_dict.placeholder(int)  # 4 keep attention maps clean
    config.model.qkv_bias = config_dict.placeholder(bool)
    config.model.qk_norm = config_dict.placeholder(bool)  # stabilises large models
    config.model.layer_scale = config_dict.placeholder(float)  # about 1e-5 stabilises deep models
    config.model.norm_eps = config_dict.placeholder(float)  # default 1e-5
    # 'erf' (default), its approximations 'tanh' and 'quick', or 'silu'.
    config.model.gelu = config_dict.placeholder(str)
    config.model.gated = config_dict.placeholder(bool)  # feed-forward blocks with a gate, as SwiGLU
    config.model.fc_norm = config_dict.placeholder(bool)  # pool 'gap': norm follows the mean
    # Features of a tanh layer before the classifier; 0 (default): no such layer.
    config.model.representation_size = config_dict.placeholder(int)
    # Of the computation: 'float32' (default), or 'bfloat16' for accelerators.
    config.model.dtype = config_dict.placeholder(str)
    # 'auto' (default), the best for the device; 'xla'; 'cudnn', the fused kernel of NVIDIA GPUs for
    # bfloat16; or 'pallas', for TPUs.
    config.model.attention = config_dict.placeholder(str)
    # What the backward pass recomputes: 'none', 'dots' (default; all but the products with
    # parameters and fused attention) or 'full' (whole layers).
    config.model.remat = config_dict.placeholder(str)
    # Layers compiled into one iteration of the scan over layers (default 1); more may run
    # faster and takes longer to compile.
    config.model.unroll = config_dict.placeholder(int)

    config.optim = ml_collections.ConfigDict()
    # 'adamw', 'sgd', 'lamb', 'lion', 'adafactor' or 'muon'; docs/config.md compares them.
    config.optim.name = 'adamw'
    config.optim.learning_rate = 1e-3  # the peak
    # After the warm-up: a 'cosine' or 'linear' to 0, 'rsqrt' (one over the root of the step) or
    # 'constant'. The last two end with a cool-down.
    config.optim.schedule = 'cosine'
    # The warm-up, linear from 0; a cosine, or what optim.schedule says, follows. None: a twentieth
    # of the run.
    config.optim.warmup_steps = config_dict.placeholder(int)
    config.optim.warmup_epochs = config_dict.placeholder(float)  # the warm-up in epochs
    # The cool-down of 'rsqrt' and 'constant', linear to 0; 0: none. None: a fifth of the run.
    config.optim.cooldown_steps = config_dict.placeholder(int)
    config.optim.cooldown_epochs = config_dict.placeholder(float)  # the cool-down in epochs
    config.optim.weight_decay = 0.05  # multiplied by the learning rate; kernels only
    config.optim.b1 = 0.9  # decay of the first moment or the momentum; muon's is usually 0.95
    # Decay of the second moment, adafactor's largest; of lion's momentum, usually 0.99.
    config.optim.b2 = 0.999
    config.optim.clip_norm = 1.0  # largest global norm of the gradients; 0: no limit
    # Parts of a batch whose gradients are computed one after the other, in the memory of one part.
    # batch_size counts them all.
    config.optim.accumulate_steps = 1
    config.optim.moments_dtype = 'float32'  # of the first moment; 'bfloat16' halves its memory
    # For fine-tuning: ratio of each layer's learning rate to that of the next layer; 1: the same
    # for all.
    config.optim.layer_decay = 1.0
    # Patterns of parameters to freeze, such as ('to_patch_embedding/*', 'transformer/[0-5]/*').
    config.optim.freeze = ()
    # For fine-tuning: rank of adapters beside the kernels of the layers, 0 for none. Then only they
    # and the head learn; whoever reads the run gets them merged into the kernels.
    config.optim.lora_rank = 0
    config.optim.lora_kernels = 'all'  # or 'attention', which kernels have adapters

    # Exponential moving average of the parameters, evaluated beside them. Whatever reads the run
    # gets it, and it decides which checkpoint is the best; --no-ema gives the parameters.
    config.ema = ml_collections.ConfigDict()
    # 0: none; 0.999 and more for long runs. In the first steps the decay is lower.
    config.ema.decay = 0.0

    config.loss = ml_collections.ConfigDict()
    # 'softmax', or 'sigmoid', the mean of a binary cross-entropy for each class. None: 'sigmoid' if
    # the data is multi-label, 'softmax' otherwise.
    config.loss.name = config_dict.placeholder(str)
    # Weights of the classes (of their presence, for 'sigmoid'): a number for each, such as
    # (0.5, 2.0), or ('balanced',), inversely proportional to their examples. (): none.
    config.loss.class_weights = ()

    # Ends the run early when it no longer improves on the test split, with a checkpoint.
    config.early_stopping = ml_collections.ConfigDict()
    config.early_stopping.patience = 0  # evaluations without a better metric than before; 0: off
    # Of the test lines of metrics.jsonl, such as 'loss' or 'ema_accuracy'; losses are better lower.
    config.early_stopping.metric = 'accuracy'

    # Knowledge distillation: a frozen teacher sees the same augmented pictures, resized to its own
    # size. A resumed run reads it again.
    config.distill = ml_collections.ConfigDict()
    # A run directory, a weight file or a Hugging Face folder, for the classes of the data; None: no
    # teacher.
    config.distill.weights = config_dict.placeholder(str)
    # 'hard', the teacher's decisions, as DeiT; or 'soft', its probabilities.
    config.distill.kind = 'hard'
    config.distill.alpha = 0.5  # share of the teacher in the loss; the labels have the rest
    config.distill.temperature = 3.0  # of 'soft'; higher: flatter probabilities

    # Applied in this order, with random numbers of each example's own, inside the compiled step.
    config.augment = ml_collections.ConfigDict()
    # Smallest fraction of the area that is cropped and resized, 0.08 for photographs; 0: off. A
    # stream crops the original pictures, a split in memory the resized ones.
    config.augment.random_resized_crop = 0.0
    config.augment.pad_and_crop = 4  # pixels per side; an eighth of the image is usual
    config.augment.horizontal_flip = True  # wrong for digits and letters
    # Largest change of brightness, contrast, saturation (as factors) and hue (turns, up to 0.5).
    config.augment.color_jitter = (0.0, 0.0, 0.0, 0.0)
    # 'none', 'randaugment', 'autoaugment' (the policy found for CIFAR-10), 'trivialaugment' or
    # 'threeaugment' (grey, solarised or blurred).
    config.augment.policy = 'none'
    config.augment.num_ops = 2  # of randaugment
    # Of randaugment, from 0 to 10, the strongest; torchvision's default, 9 of 30, is 3 here.
    config.augment.magnitude = 10.0
    config.augment.erasing_prob = 0.0  # probability of replacing a rectangle with noise
    config.augment.mixup_alpha = 0.0  # mixing weights are drawn from Beta(alpha, alpha); 0: off
    config.augment.cutmix_alpha = 0.0  # the rectangle's area is drawn likewise; 0: off
    config.augment.mix_prob = 1.0  # probability that an example is mixed at all
    config.augment.mix_switch_prob = 0.5  # probability of CutMix rather than mixup, if both are on
    config.augment.label_smoothing = 0.1  # probability spread evenly over all classes

    config.parallel = ml_collections.ConfigDict()
    config.parallel.mode = 'jit'  # 'jit' or 'pmap', over all devices
    # A mesh of all devices, for mode 'jit': how many along each axis; -1: the rest of them.
    config.parallel.data = -1  # each trains on its part of the batch
    config.parallel.fsdp = 1  # they also split the state; about 16 on TPUs, a host's GPUs
    config.parallel.tensor = 1  # they split the heads and the hidden features of one model
    # What fsdp splits: 3, parameters and optimizer; 1, the optimizer only, which transfers less.
    config.parallel.zero_stage = 3

    # Several processes as one run, each with its own devices (docs/scaling.md). Slurm, Open MPI,
    # Kubernetes and TPU pods tell what is None here.
    config.distributed = ml_collections.ConfigDict()
    config.distributed.coordinator_address = config_dict.placeholder(str)  # HOST:PORT of process 0
    config.distributed.num_processes = config_dict.placeholder(int)
    config.distributed.process_id = config_dict.placeholder(int)  # from 0
    # Hosts start at different times: the longest wait for all of them, seconds.
    config.distributed.connect_seconds = 300
    # A process that has given no sign of life for so long ends the others, seconds.
    config.distributed.heartbeat_seconds = 100
    # So does one that is alive but keeps the others waiting in a step for so long, seconds.
    config.distributed.step_seconds = 900.0

    config.lock()
    return config
