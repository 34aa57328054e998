import functools
import importlib
import json
import resource
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from PIL import Image

import configs
from ddpm_jax import data, diffusion, guidance, samplers, sampling
from ddpm_jax.runs import config as config_module
from ddpm_jax.runs import defaults, trainer
from ddpm_jax.runs.experiment import GuidedParams, make_experiment

CLASSES = {"model": {"num_classes": 10}}
CONFIGS = sorted(path.stem for path in Path(configs.__file__).parent.glob("[!_]*.py"))
# Of the released architecture (Appendix B: 35.7 and 114 million); learned variances double the last convolution.
PARAMETERS = {
    "cifar10": 35_746_307, "default": 35_746_307, "celebahq256": 113_673_219, "lsun_bedroom": 113_673_219,
    "lsun_church": 113_673_219, "lsun_cat": 113_673_219, "lsun_bedroom_large": 255_677_955, "table2_eps_kl": 35_746_307,
    "table2_eps_learned": 35_749_766, "table2_xprev_kl": 35_746_307, "table2_xprev_learned": 35_749_766,
    "table2_xprev_mse": 35_746_307, "digits": 701_345, "cifar10_hybrid": 49_066_246, "cifar10_vlb": 49_066_246,
    "digits_by_class": 702_625, "cifar10_by_class": 35_751_427,  # and a vector of 4 ch for each of 10 classes
    "emoji": 6_473_987, "own_images": 6_079_811,
}  # fmt: skip


def expected_parameters(config):
    """Counts by hand what Appendix B describes: convolutions, dense layers and norms, weights and biases."""
    ch, channels = config.model.ch, config.data.channels
    conv = lambda a, b: 9 * a * b + b  # noqa: E731
    dense = lambda a, b: a * b + b  # noqa: E731
    residual = lambda a, b: (  # noqa: E731
        2 * a + conv(a, b) + dense(4 * ch, b) + 2 * b + conv(b, b) + (dense(a, b) if a != b else 0)
    )
    attention = lambda a: 2 * a + 4 * dense(a, a)  # noqa: E731
    side, width, skips = config.data.image_size[0], ch, [ch]
    total = dense(ch, 4 * ch) + dense(4 * ch, 4 * ch) + conv(channels, ch)
    widths = [ch * mult for mult in config.model.ch_mult]
    for level, out in enumerate(widths):
        for _ in range(config.model.num_res_blocks):
            total += residual(width, out) + (attention(out) if side in config.model.attn_resolutions else 0)
            width = out
            skips.append(width)
        if level + 1 < len(widths):
            total += conv(width, width)
            side //= 2
            skips.append(width)
    total += 2 * residual(width, width) + attention(width)
    for level, out in reversed(list(enumerate(widths))):
        for _ in range(config.model.num_res_blocks + 1):
            total += residual(width + skips.pop(), out) + (
                attention(out) if side in config.model.attn_resolutions else 0
            )
            width = out
        if level:
            total += conv(width, width)
            side *= 2
    outputs = channels * (2 if config.diffusion.var_type.startswith("learned") else 1)
    return total + 2 * width + conv(width, outputs) + config.model.num_classes * 4 * ch


def load(name):
    return importlib.import_module(f"configs.{name}").get_config()


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_is_right_and_describes_a_network(name):
    config = load(name)
    config_module.check(config)
    made = make_experiment(config)
    assert made.process.num_timesteps == (4000 if name in ("cifar10_hybrid", "cifar10_vlb") else 1000)
    count = sum(leaf.size for leaf in jax.tree.leaves(made.abstract_params))
    assert count == PARAMETERS[name] == expected_parameters(config)


def test_the_cifar10_config_is_the_paper_s():
    """Section 4 and Appendix B, and the official code's warm-up, clipping and variance."""
    config = load("cifar10")
    assert (config.diffusion.beta_start, config.diffusion.beta_end, config.diffusion.schedule) == (1e-4, 0.02, "linear")
    assert (config.optim.lr, config.optim.ema_decay, config.train.batch_size) == (2e-4, 0.9999, 128)
    assert (config.optim.warmup_steps, config.optim.clip_norm, config.model.dropout) == (5000, 1.0, 0.1)
    assert (config.train.num_steps, config.data.flip, config.diffusion.var_type) == (800_000, True, "fixedlarge")


@pytest.mark.parametrize(
    ("name", "num_steps", "flip"),
    [
        ("celebahq256", 500_000, True),
        ("lsun_bedroom", 2_400_000, False),
        ("lsun_bedroom_large", 1_150_000, False),
        ("lsun_church", 1_200_000, True),
        ("lsun_cat", 1_800_000, True),
    ],
)
def test_the_256_configs_are_the_paper_s(name, num_steps, flip):
    config = load(name)
    assert (config.train.num_steps, config.data.flip, config.model.dropout) == (num_steps, flip, 0.0)
    assert (config.optim.lr, config.train.batch_size, config.diffusion.var_type) == (2e-5, 64, "fixedsmall")
    assert config.data.image_size == (256, 256)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optim": {"leaning_rate": 1.0}}, "optim.leaning_rate is no setting; the nearest is"),
        ({"optim": {"lrr": 1.0}}, "optim.lrr is no setting; the nearest is optim.lr"),
        ({"train": {"batchsize": 1}}, "the nearest is train.batch_size"),
        ({"optim": {"lr": "fast"}}, "optim.lr='fast' must be of type float, like 0.0002"),
        ({"train": {"num_steps": 1.5}}, "train.num_steps=1.5 must be of type int"),
        ({"data": {"flip": 1}}, "data.flip=1 must be of type bool"),
        ({"train": {"batch_size": 0}}, "train.batch_size=0 must be at least 1"),
        ({"optim": {"lr": float("nan")}}, "optim.lr=nan must be at least 0"),
        ({"optim": {"lr": 10**400}}, r"optim.lr=10+ must be at most 10+"),
        ({"diffusion": {"num_timesteps": 10**12}}, "diffusion.num_timesteps=10+ must be at most 1000000"),
        ({"diffusion": {"beta_end": float("inf")}}, "diffusion.beta_end=inf must be at most"),
        ({"model": {"ch": 10**9}}, "model.ch=1000000000 must be at most 16384"),
        ({"model": {"ch_mult": (1, 10**9)}}, r"model.ch_mult=\(1, 10+\) must be 1 to 16 integers in 1..64"),
        ({"model": {"ch_mult": (1,) * 10**4}}, r"model.ch_mult=\(1, [1, ]{1,99} must be 1 to 16"),
        ({"model": {"ch_mult": ()}}, "model.ch_mult"),
        ({"model": {"attn_resolutions": ("8",)}}, "model.attn_resolutions=.*must be integers in"),
        ({"train": {"eval_metrics": (7,)}}, "train.eval_metrics=.*must be names"),
        ({"model": {"dropout": 1.0}}, "model.dropout=1.0 must be below 1"),
        ({"data": {"holdout": 1.0}}, "data.holdout=1.0 must be below 1"),
        ({"data": {"holdout": 0.1, "split": "all"}}, "data.holdout=0.1 keeps images out of split 'train', not 'all'"),
        ({"model": {"dtype": "float16"}}, "model.dtype='float16' must be one of float32, bfloat16"),
        ({"data": {"image_size": (8, 8, 3)}}, r"data.image_size=\(8, 8, 3\) must be one or two"),
        ({"data": {"channels": 5}}, "data.channels=5"),
        ({"train": {"timesteps": "evenly"}}, "train.timesteps='evenly' must be one of uniform, stratified, importance"),
        ({"train": {"profile": "9:3"}}, "train.profile='9:3' must be FIRST:LAST"),
        ({"train": {"profile": "3:800001"}}, "train.profile='3:800001' must end by train.num_steps=800000"),
        ({"sample": {"labels": "3"}}, "sample.labels='3' needs a model with classes, and model.num_classes is 0"),
        ({"sample": {"guidance": 1.0}}, "sample.guidance=1.0 needs a model with classes"),
        ({"sample": {"guidance_step": 5}}, "guidance_step=5 is for guidance by the weights of sample.guidance_weights"),
        ({"sample": {"guidance_interval": (5, 3)}}, r"guidance_interval=\(5, 3\) must be two timesteps of 0..999"),
        (
            {"sample": {"guidance_interval": (0, 1000)}},
            r"guidance_interval=\(0, 1000\) must be two timesteps of 0..999",
        ),
        ({**CLASSES, "sample": {"labels": "0,10"}}, "sample.labels='0,10' must be numbers in 0..9"),
        ({**CLASSES, "sample": {"labels": "-1"}}, "sample.labels='-1' must be numbers in 0..9"),
        ({**CLASSES, "sample": {"labels": "some"}}, "sample.labels='some' must be numbers in 0..9, with commas"),
        ({**CLASSES, "sample": {"labels": "none", "guidance": 1.0}}, "guides towards a class, and .*'none' says none"),
        ({**CLASSES, "train": {"label_dropout": 0.0}, "sample": {"guidance": 1.0}}, "train.label_dropout is 0"),
        ({**CLASSES, "train": {"label_dropout": 0.0}, "sample": {"labels": "none"}}, "train.label_dropout is 0"),
        ({"train": {"label_dropout": 1.0}}, "train.label_dropout=1.0 must be below 1"),
        ({"train": {"seed": -1}}, "train.seed=-1 must be at least 0"),
        ({"sample": {"sampler": "dimm"}}, "sample.sampler='dimm' must be one of ancestral, ddim, dpm_solver_2m"),
        ({"sample": {"steps": 1001}}, "sample.steps=1001 must be at most the 1000 timesteps"),
        ({"sample": {"spacing": "cubic"}}, "sample.spacing='cubic' must be '' or one of linspace, uniform"),
        ({"sample": {"eta": 1.5}}, "sample.eta=1.5 must be at most 1"),
        ({"sample": {"threshold": 1.5}}, "sample.threshold=1.5 must be at most 1"),
        ({"sample": {"seed": 2**32}}, "sample.seed=4294967296 must be at most 4294967295"),
    ],
)
def test_a_wrong_field_is_refused_by_name(change, message):
    values = defaults.get_config().to_dict()
    for section, fields in change.items():
        values[section] |= fields
    with pytest.raises(ValueError, match=message):
        config_module.check(ml_collections.ConfigDict(values))


def test_the_configs_of_improved_ddpm_are_its_own():
    """Its published flags for CIFAR-10, and the defaults of its code."""
    for name, loss_type, drawn in (("cifar10_hybrid", "hybrid", "uniform"), ("cifar10_vlb", "kl", "importance")):
        config = load(name)
        chosen = config.diffusion
        assert (chosen.schedule, chosen.num_timesteps, chosen.rescale_timesteps) == ("cosine", 4000, True)
        assert (chosen.mean_type, chosen.var_type, chosen.loss_type) == ("eps", "learned_range", loss_type)
        assert (config.train.timesteps, config.train.batch_size, config.train.num_steps) == (drawn, 128, 500_000)
        assert (config.optim.lr, config.optim.warmup_steps, config.optim.ema_decay) == (1e-4, 0, 0.9999)
        assert (config.model.num_res_blocks, config.model.dropout, config.data.flip) == (3, 0.3, False)
        np.testing.assert_allclose(make_experiment(config).process.timesteps, np.arange(4000) / 4)


@pytest.mark.parametrize("rescale", [False, True])
def test_a_respaced_experiment_gives_the_network_the_timesteps_that_it_knows(tiny_config, rescale):
    tiny_config.diffusion.update(num_timesteps=100, rescale_timesteps=rescale)
    made = make_experiment(tiny_config)
    respaced = made.respaced("4,3,3")
    taken = np.array([0, 11, 22, 33, 34, 50, 66, 67, 83, 99])
    np.testing.assert_array_equal(respaced.process.timesteps, taken * 10 if rescale else taken)
    np.testing.assert_allclose(respaced.process.alphas_cumprod, made.process.alphas_cumprod[taken], rtol=1e-6)
    np.testing.assert_array_equal(made.process.network_t(taken), taken * 10 if rescale else taken)
    assert (respaced.model, respaced.image_shape) == (made.model, made.image_shape)
    with pytest.raises(ValueError, match="must be written like '250'"):
        made.respaced("all")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(loss_weighting="snr"), "The loss weighting 'snr' must be"),
        (dict(loss_type="hybrid"), "var_type='fixedlarge' has none to learn"),
        (dict(loss_type="kl", loss_weighting="p2_1"), "loss_type='kl' has none"),
        (dict(var_type="learned_range"), "var_type='learned_range' would never be learned"),
    ],
)
def test_losses_that_do_not_fit_are_refused(tiny_config, change, message):
    tiny_config.diffusion.update(change)
    with pytest.raises(ValueError, match=message):
        make_experiment(tiny_config)


def test_an_older_config_has_the_defaults_of_younger_settings(tiny_config):
    values = json.loads(config_module.to_json(tiny_config))
    for section, name in (("diffusion", "loss_weighting"), ("diffusion", "rescale_timesteps"), ("train", "timesteps")):
        del values[section][name]
    again = config_module.from_json(json.dumps(values))
    assert again == tiny_config
    assert config_module.differences(again, tiny_config) == []


def test_every_wrong_field_is_named_at_once():
    values = defaults.get_config().to_dict()
    del values["model"]["ch"]
    values["optim"]["lr"] = -1.0
    values["surprise"] = 3
    with pytest.raises(ValueError, match="model.ch is missing; .*optim.lr=-1.0.*surprise is no setting"):
        config_module.check(ml_collections.ConfigDict(values))


def test_an_unknown_field_in_a_config_file_is_refused_at_once():
    with pytest.raises(AttributeError, match="Did you mean.*batch_size"):
        defaults.get_config().train.batch_sise = 3


def test_a_whole_number_is_a_float_too():
    config = defaults.get_config()
    values = config.to_dict()
    values["optim"]["clip_norm"] = 1
    config_module.check(ml_collections.ConfigDict(values))


def test_json_gives_the_config_back(tiny_config):
    again = config_module.from_json(config_module.to_json(tiny_config))
    assert again == tiny_config
    assert isinstance(again.model.ch_mult, tuple)


def test_differences_are_those_that_change_the_run():
    old, new = defaults.get_config(), defaults.get_config()
    new.train.update(num_steps=5, log_every=5, keep=9, profile="2:3")
    new.sample.seed = 3
    assert config_module.differences(old, new) == []
    new.optim.lr = 1e-3
    new.train.seed = 7
    assert config_module.differences(old, new) == ["optim.lr: 0.0002 -> 0.001", "train.seed: 0 -> 7"]
    old.data.holdout = 0.1
    assert config_module.differences(old, new)[0] == "data.holdout: 0.1 -> 0.0"


def test_an_experiment_holds_out_what_its_config_says(tmp_path, tiny_config):
    for i in range(40):
        Image.new("L", (8, 8), i).save(tmp_path / f"{i}.png")
    tiny_config.data.update(name="image_folder", data_dir=str(tmp_path))
    made = make_experiment(tiny_config)
    assert len(made.load_data()) == 40
    with pytest.raises(ValueError, match="has no split 'test'; train with data.holdout=0.1"):
        made.load_data("test")
    tiny_config.data.holdout = 0.25
    train, test = (set(made.load_data(split).images[:, 0, 0, 0]) for split in (None, "test"))
    assert train | test == set(range(40))
    assert 0 < len(test) == 40 - len(train) < 20


def test_an_image_size_of_one_number_is_square(tiny_config):
    tiny_config.data.image_size = (4,)
    assert make_experiment(tiny_config).image_shape == (4, 4, 1)


def test_sample_is_a_pure_function_of_parameters_and_keys(tiny_config):
    made = make_experiment(tiny_config)
    params = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.01), made.abstract_params)
    keys = jax.random.split(jax.random.key(0), 2)
    outer = jax.jit(lambda params, keys: made.sample(params, keys).sum())
    x_0 = made.sample(params, keys)
    assert x_0.shape == (2, 8, 8, 1)
    np.testing.assert_allclose(outer(params, keys), x_0.sum(), rtol=1e-4)


@pytest.mark.parametrize(
    ("labels", "name", "drawn"),
    [("", "all", [0, 1, 2, 3]), ("all", "all", [0, 1, 2, 3]), ("03, 1", "3,1", [3, 1, 3, 1]), ("7", "7", [7] * 4),
     ("none", "none", [-1] * 4)],
)  # fmt: skip
def test_the_class_of_a_sample_is_a_function_of_its_number(tiny_config, labels, name, drawn):
    tiny_config.model.num_classes = 10
    tiny_config.sample.labels = labels
    made = make_experiment(tiny_config)
    assert config_module.labels_name(tiny_config) == name
    assert made.sample_labels(np.arange(4)).tolist() == drawn
    keys, of_some = made.inputs(5, np.array([3, 11]))
    assert of_some.tolist() == [made.sample_labels(np.arange(12))[i] for i in (3, 11)]
    np.testing.assert_array_equal(jax.random.key_data(keys), jax.random.key_data(made.image_keys(5, np.array([3, 11]))))


def test_a_model_without_classes_is_told_none(tiny_config):
    made = make_experiment(tiny_config)
    assert (made.condition_fn, config_module.labels_name(tiny_config)) == (None, "")
    assert len(made.inputs(0, np.arange(2))) == 1


@pytest.mark.slow
def test_samples_depend_on_their_class_and_on_guidance_within_its_interval(tiny_config):
    tiny_config.model.update(num_classes=10, ch=64)  # with 32 the norms, of a channel each, remove what is added to it
    tiny_config.sample.update(guidance=2.0, guidance_interval=(3, 9), clip=False)
    made, rng = make_experiment(tiny_config), np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(0.0, 0.1, leaf.shape).astype(np.float32), made.abstract_params)
    params["cond_proj"]["kernel"] *= 30.0
    labels, classes = np.array([3, 7, -1], np.int32), np.eye(10, dtype=np.float32)[[3, 7, 0]]
    classes[2] = 0.0
    x_t, t = rng.standard_normal((3, 8, 8, 1), np.float32), np.array([2, 3, 9])
    told, not_told = (made.model.apply({"params": params}, x_t, t, cond) for cond in (classes, None))
    scales = np.float32([0.0, 2.0, 2.0])[:, None, None, None]
    np.testing.assert_allclose(made.denoise_fn(params, labels)(x_t, t), told, rtol=1e-4, atol=1e-4)
    expected = (1 + scales) * told - scales * not_told
    np.testing.assert_allclose(made.guided_fn(params, labels)(x_t, t), expected, rtol=1e-4, atol=1e-4)
    assert (np.abs(told - not_told).max(axis=(1, 2, 3)) > 0.05).tolist() == [True, True, False]

    keys = made.image_keys(0, np.arange(3))
    sample = jax.jit(made.sample)
    by_class, of_others = (sample(params, keys, asked) for asked in (labels, labels[::-1]))
    chain = sampling.sample_loop(
        made.process, made.guided_fn(params, labels), keys=keys, shape=(8, 8, 1), clip=False
    )  # fmt: skip
    np.testing.assert_allclose(by_class, chain, rtol=1e-3, atol=1e-3)
    assert (np.abs(by_class - of_others).max(axis=(1, 2, 3)) > 0.01).tolist() == [True, False, True]


@pytest.mark.slow
def test_samples_can_be_guided_by_weaker_weights(tiny_config):
    tiny_config.sample.update(guidance=2.0, guidance_weights="raw", guidance_interval=(3, 9))
    config_module.check(tiny_config)
    made, rng = make_experiment(tiny_config), np.random.default_rng(0)
    strong, weak = (
        jax.tree.map(lambda leaf: rng.normal(0.0, 0.1, leaf.shape).astype(np.float32), made.abstract_params)
        for _ in range(2)
    )
    x_t, t = rng.standard_normal((3, 8, 8, 1), np.float32), np.array([2, 3, 9])
    outputs = [made.model.apply({"params": params}, x_t, t) for params in (strong, weak)]
    scales = np.float32([0.0, 2.0, 2.0])[:, None, None, None]
    guided = made.guided_fn(GuidedParams(strong, weak))(x_t, t)
    np.testing.assert_allclose(guided, (1 + scales) * outputs[0] - scales * outputs[1], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(made.guided_fn(strong)(x_t, t), outputs[0], rtol=1e-4)
    assert np.abs(outputs[0] - outputs[1]).max() > 0.1


def test_the_interval_of_guidance_is_of_the_timesteps_of_training(tiny_config, monkeypatch):
    tiny_config.diffusion.update(num_timesteps=300, rescale_timesteps=True)
    tiny_config.sample.update(guidance=2.0, guidance_weights="raw", guidance_interval=(100, 199))
    experiment, scales = make_experiment(tiny_config), []
    monkeypatch.setattr(guidance, "extrapolate", lambda *networks, scale: scales.append(scale))
    for made in (experiment, experiment.respaced("10,20,30")):
        made.guided_fn(GuidedParams(None, None))
        t = np.arange(made.process.num_timesteps)
        guided = np.asarray(jax.jit(lambda made, t: scales[-1](made.network_t(t)))(made.process, t)) > 0
        assert t[guided].tolist() == list(range(100, 200) if made is experiment else range(10, 30))


def test_a_data_set_with_other_classes_is_refused(tiny_config):
    tiny_config.model.num_classes = 12
    with pytest.raises(ValueError, match="model.num_classes=12, but the images of 'digits' are of 10 classes"):
        make_experiment(tiny_config).load_data()
    tiny_config.model.num_classes = 10
    assert len(make_experiment(tiny_config).load_data()) == 1442


def test_weights_of_a_config_from_before_they_had_names_are_read(tiny_config):
    for ema, name in ((True, "ema"), (False, "raw")):
        text = config_module.to_json(tiny_config).replace('"weights": "ema"', f'"ema": {str(ema).lower()}')
        assert f'"ema": {str(ema).lower()}' in text
        assert config_module.from_json(text).sample.weights == name


@pytest.mark.parametrize(
    ("changes", "start", "ends"),
    [
        (dict(steps_per_dispatch=10, log_every=5), 0, [5, 10, 15, 20]),
        (dict(steps_per_dispatch=3, log_every=100), 0, [3, 6, 9, 12, 15, 18, 20]),
        (dict(steps_per_dispatch=10, log_every=15, sample_every=6), 0, [6, 12, 15, 18, 20]),
        (dict(steps_per_dispatch=10, log_every=10), 6, [10, 20]),
        (dict(steps_per_dispatch=10, log_every=100, eval_every=7, checkpoint_every=14), 0, [7, 14, 20]),
    ],
)
def test_a_dispatch_ends_where_something_is_due(tiny_config, changes, start, ends):
    tiny_config.train.update(dict(num_steps=20, checkpoint_every=1000, batch_size=4, log_every=1000) | changes)
    source = data.load("digits", image_size=(8, 8), channels=1, memory_limit_gib=1.0)
    step, images = start, []
    for end, batch in trainer.dispatches(tiny_config, source, start):
        assert len(batch.images) == len(batch.labels) == end - step
        images += list(batch.images)
        step = end
        assert end == ends.pop(0)
    assert not ends
    batches = data.batches(source, seed=0, batch_size=4, start_step=start, num_steps=20 - start)
    np.testing.assert_array_equal(images, [batch.images for batch in batches])


def test_a_config_that_is_only_looked_at_takes_no_memory(tiny_config):
    tiny_config.data.update(image_size=(2**16,), channels=1)  # 17 GiB an image
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert make_experiment(tiny_config).image_shape == (2**16, 2**16, 1)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # KiB


@pytest.mark.slow
def test_an_experiment_samples_as_its_config_says(tiny_config):
    """Against the loop with the sampler and the thresholding that are named; all timesteps of it are the default."""
    tiny_config.sample.update(sampler="ddim", steps=4, spacing="trailing", eta=0.5, threshold=0.9)
    made = make_experiment(tiny_config)
    params = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.05, leaf.dtype), made.abstract_params)
    keys = made.image_keys(0, jnp.arange(2))
    expected = sampling.sample_loop(
        made.process, made.denoise_fn(params), keys=keys, shape=(8, 8, 1),
        sampler=samplers.ddim(made.process, np.array([1, 4, 7, 9]), eta=0.5),
        clip=functools.partial(diffusion.dynamic_threshold, quantile=0.9),
    )  # fmt: skip
    np.testing.assert_allclose(jax.jit(made.sample)(params, keys), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(eta=0.5), "eta=0.5 is of ddim alone, not of sampler='ancestral'"),
        (dict(sampler="ddim", steps=1), "steps=1 with spacing='uniform' must be from 2 to the process's 10"),
        (dict(sampler="heun"), "sampler='heun' with spacing='karras' asks between whole timesteps"),
        (dict(sampler="probability_flow", spacing="linspace"), "asks between whole timesteps, where a network of"),
    ],
)
def test_a_sampler_that_does_not_fit_is_refused_before_any_work(tiny_config, settings, message):
    tiny_config.diffusion.mean_type = "xprev"
    tiny_config.sample.update(settings)
    with pytest.raises(ValueError, match=message):
        make_experiment(tiny_config)


def test_what_shows_the_whole_chain_wants_it(tiny_config):
    make_experiment(tiny_config).check_whole_chain("Figure 6")
    for settings in (dict(sampler="ddim"), dict(sampler="ancestral", steps=5)):
        tiny_config.sample.update(settings)
        with pytest.raises(ValueError, match="Figure 6 shows all 10 steps of ancestral sampling, not"):
            make_experiment(tiny_config).check_whole_chain("Figure 6")
