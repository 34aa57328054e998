"""Every setting, with its default: the paper's CIFAR-10 model (Ho et al. 2020, Section 4 and Appendix B).

An experiment in configs/ starts from here and changes a few lines. Nothing else holds a default. It is in the library,
which must know the settings that a work folder may hold, and what those that it lacks were.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Returns the settings, locked: no other can be added."""
    config = ml_collections.ConfigDict()

    config.data = ml_collections.ConfigDict()
    config.data.name = "cifar10"  # 'digits' (embedded), 'image_folder' (a folder or tar), or any TFDS name
    config.data.data_dir = ""  # of the folder, the tar or the TFDS data sets; '': TFDS' own default
    config.data.split = "train"
    config.data.holdout = 0.0  # the share of an image_folder without splits that is kept out of training as 'test'
    config.data.image_size = (32, 32)  # height, width; one number: square
    config.data.channels = 3  # 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA
    config.data.background = (255, 255, 255)  # red, green, blue: what transparent images are shown on
    config.data.flip = True  # mirror images left to right at random
    config.data.memory_limit_gib = 4.0  # data sets up to this size are held decoded in memory, larger ones streamed
    config.data.num_workers = 0  # processes that stream a data set, for each process of a run; 0: its threads

    config.diffusion = ml_collections.ConfigDict()
    config.diffusion.schedule = "linear"  # see ddpm_jax/schedule.py
    config.diffusion.num_timesteps = 1000
    config.diffusion.beta_start = 1e-4
    config.diffusion.beta_end = 0.02
    config.diffusion.rescale_timesteps = False  # give the network t * 1000 / num_timesteps, as Improved DDPM does
    config.diffusion.mean_type = "eps"  # these four: see ddpm_jax/diffusion/
    config.diffusion.var_type = "fixedlarge"
    config.diffusion.loss_type = "mse"
    config.diffusion.loss_weighting = ""  # of the squared error: none, or 'min_snr_5', 'p2_1', ...

    config.model = ml_collections.ConfigDict()
    config.model.ch = 128  # these: see ddpm_jax/unet.py
    config.model.ch_mult = (1, 2, 2, 2)
    config.model.num_res_blocks = 2
    config.model.attn_resolutions = (16,)
    config.model.dropout = 0.1
    config.model.dtype = "float32"  # or 'bfloat16', of the computation; parameters are float32
    config.model.remat = False  # save memory by computing activations twice
    config.model.num_classes = 0  # that the network is told of: all that the data set has; 0: it is told none

    config.optim = ml_collections.ConfigDict()
    config.optim.lr = 2e-4
    config.optim.warmup_steps = 5000
    config.optim.clip_norm = 1.0
    config.optim.ema_decay = 0.9999
    config.optim.averages = ()  # further ones, such as ('ema_0.999', 'power_0.05', 'power_0.1'): see averaging.py
    config.optim.ema_warmup = False  # let the decay rise from 0.1: for runs of fewer than some 50,000 steps

    config.train = ml_collections.ConfigDict()
    config.train.num_steps = 800_000
    config.train.batch_size = 128  # global: shared by all devices
    config.train.microbatches = 1  # parts that a device computes its images in, one after another, to save memory
    config.train.timesteps = "uniform"  # or 'stratified', 'importance': see ddpm_jax/timesteps.py
    config.train.label_dropout = 0.1  # the share of images whose class is kept from a network that is told classes
    config.train.seed = 0
    config.train.prng_impl = "threefry2x32"  # or 'rbg', whose numbers are others on another kind of device
    config.train.steps_per_dispatch = 1  # at most; more is faster for small models
    config.train.log_every = 100  # these six in steps
    config.train.checkpoint_every = 5000
    config.train.sample_every = 10_000  # 0: never
    config.train.eval_every = 0  # 0: never
    config.train.keep_period = 50_000  # checkpoints of multiples of this are kept for ever; 0: none
    config.train.keep = 3  # newest checkpoints
    config.train.eval_metrics = ("fid",)  # of evaluate.py's, those of samples and bpd_fast
    config.train.eval_samples = 1000  # fewer than evaluate.py takes, so that names say FID@1000
    config.train.profile = ""  # 'N:M': write a trace of the steps N to M, to be seen in TensorBoard, into profile/
    config.train.on_failed_save = "continue"  # or 'stop': what to do when the disk is full

    config.sample = ml_collections.ConfigDict()
    config.sample.num_samples = 64  # of sample.py, where not given, and of the grids drawn during training
    config.sample.batch_size = 64
    config.sample.seed = 0
    config.sample.prng_impl = "threefry2x32"  # or 'rbg', as above
    config.sample.clip = True  # the predicted x_0, at every step
    config.sample.threshold = 0.0  # in place of clipping, dynamic thresholding at this quantile, such as 0.995; 0: none
    config.sample.sampler = "ancestral"  # these three: see ddpm_jax/samplers/named.py
    config.sample.steps = 0  # how many of the timesteps it takes; 0: all
    config.sample.spacing = ""  # of those timesteps; '': as is usual for the sampler
    config.sample.eta = 0.0  # of ddim, from 0 to 1
    config.sample.timesteps = ()  # the timesteps themselves, rising, in place of steps and spacing; (): as those say
    config.sample.variances = ()  # of ancestral, one for each of sample.timesteps; (): those of diffusion.var_type
    config.sample.labels = ""  # of images 0, 1, ...: 'all' in turn, which is the default of a model with classes;
    # numbers such as '3' or '0,1,2', repeated; 'none': as if it had no classes
    config.sample.guidance = 0.0  # w in (1 + w) eps(x_t, c) - w eps(x_t); 0: none; 'scales' of others are 1 + w
    config.sample.guidance_weights = ""  # 'raw' or 'ema': guide by that weaker network, not by the one without a class;
    config.sample.guidance_step = 0  # of this step of training, 0: the same. Grids and scores in training do without.
    config.sample.guidance_interval = ()  # (first, last) timestep of 0..T-1 with guidance; (): all
    config.sample.weights = "ema"  # of which to draw: 'raw', 'ema', their average with the decay optim.ema_decay, or
    # another average by its name

    return config.lock()
