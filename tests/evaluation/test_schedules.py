import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from denoise_fns import exact_denoise_fn

from ddpm_jax import diffusion, images, likelihood, sampling
from ddpm_jax.evaluation import image_sets, schedules
from ddpm_jax.evaluation.selection import select_images
from ddpm_jax.runs import sample_files, trained_model
from ddpm_jax.runs.experiment import make_experiment
from ddpm_jax.runs.trained_model import TrainedModel
from ddpm_jax.samplers import search
from ddpm_jax.schedule import beta_schedule


def test_moments_of_a_gaussian_are_those_of_its_closed_form():
    deviation = 0.25
    process = diffusion.make_process(beta_schedule("linear", 12, beta_end=0.4))
    exact = exact_denoise_fn(process, mean=0.0, deviation=deviation)
    x_0 = jnp.asarray(np.random.default_rng(0).normal(0.0, deviation, (64, 8, 8, 1)), jnp.float32)
    keys = sampling.image_keys(0, np.arange(64))
    rows = np.asarray(jax.jit(lambda: schedules.moments(process, exact, x_0=x_0, keys=keys))())
    assert rows.shape == (64, 2 + 2 * 12)
    bound = jax.jit(lambda: likelihood.bpd_loop(process, exact, x_0=x_0, keys=keys))()
    np.testing.assert_allclose(rows[:, 0], bound.terms[:, 0], rtol=1e-5)
    np.testing.assert_allclose(rows[:, 14:], bound.mse, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(rows[:, 1], bound.prior, rtol=1e-5)
    mean = rows.mean(axis=0)
    alphas_cumprod = np.cumprod(1.0 - np.linspace(1e-4, 0.4, 12))
    marginal = alphas_cumprod * deviation**2 + 1.0 - alphas_cumprod
    np.testing.assert_allclose(mean[2:14], (1.0 - alphas_cumprod) / marginal, rtol=0.06)
    np.testing.assert_allclose(mean[14:], deviation**2 * (1.0 - alphas_cumprod) / marginal, rtol=0.06)

    whole = mean[0] + mean[1] + search.bound(search.bound_terms(process, mean[14:]), np.arange(12))
    assert whole < bound.total.mean() - 0.01  # whose variances are fixed


def test_moments_are_of_a_network_that_is_given_other_timesteps():
    betas, timesteps = beta_schedule("linear", 6, beta_end=0.4), np.arange(6) * 20.0 + 3.0
    rows = []
    for process in (diffusion.make_process(betas), diffusion.make_process(betas, timesteps=timesteps)):
        own = (lambda t: t) if process.timesteps is None else (lambda t: (t - 3.0) / 20.0)
        network = lambda x_t, t, own=own: x_t * (0.1 + own(t)[:, None, None, None])  # noqa: E731
        x_0 = jnp.asarray(np.random.default_rng(0).uniform(-1.0, 1.0, (2, 4, 4, 1)), jnp.float32)
        rows.append(schedules.moments(process, network, x_0=x_0, keys=sampling.image_keys(0, np.arange(2))))
    np.testing.assert_allclose(rows[0], rows[1], rtol=1e-5)


def random_selection(config):
    """Selects images of digits, under a network of random weights."""
    experiment = make_experiment(config)
    leaves, structure = jax.tree.flatten(experiment.abstract_params)
    rng = np.random.default_rng(0)
    params = structure.unflatten([0.1 * rng.standard_normal(leaf.shape, np.float32) for leaf in leaves])
    model = TrainedModel(experiment, params, 12, trained_model.average_name(config))
    of_split = image_sets.share_split(experiment, "train")
    return select_images(model, of_split, split="train", num_images=6, seed=0)


@pytest.fixture
def selection(tiny_config):
    return random_selection(tiny_config)


@pytest.mark.slow
def test_schedules_are_measured_once_written_and_taken_by_samplers(selection, tmp_path, monkeypatch):
    file = schedules.measure_schedules(selection, tmp_path, counts=[3, 10], batch_size=4)
    assert file.name == "schedules_step12_ema_train_6_seed0.json"
    three, ten = json.loads(file.read_text())["schedules"]
    assert three["bits_per_dim"] <= three["bits_per_dim_of_linspace"]
    assert ten["bits_per_dim"] == ten["bits_per_dim_of_linspace"]
    assert ten["timesteps"] == list(range(10))
    with pytest.raises(ValueError, match="has schedules of 3, 10 timesteps: choose one by --steps"):
        schedules.read_schedule(file)
    monkeypatch.setattr(schedules, "moments", None)  # nothing is measured again
    file = schedules.measure_schedules(selection, tmp_path, counts=[3], batch_size=4)
    found = schedules.read_schedule(file)
    assert found == schedules.read_schedule(file, steps=3)
    assert list(found.timesteps) == three["timesteps"]

    usual = sample_files.sample_spec(selection.model, seed=0)
    names, drawn = [], []
    for sampler, variances in (("ancestral", found.variances), ("ancestral", ()), ("dpm_solver_2m", ())):
        model = selection.model.sampling_with(sampler=sampler, timesteps=found.timesteps, variances=variances)
        keys = model.experiment.image_keys(0, np.arange(2))
        drawn.append(np.asarray(jax.jit(model.experiment.sample)(model.params, keys)))
        names.append(sample_files.sample_spec(model, seed=0).name)
    assert len({image.tobytes() for image in drawn}) == 3
    assert names[0].startswith(f"{usual.name}_ancestral3_timesteps-")
    assert len(set(names)) == 3


@pytest.mark.slow
def test_schedules_of_a_model_with_classes_are_of_the_classes_of_the_images(tiny_config, tmp_path):
    tiny_config.model.update(num_classes=10, ch=64)  # with 32 the norms, of a channel each, remove what is added to it
    chosen = random_selection(tiny_config)
    chosen.model.params["cond_proj"]["kernel"][:] *= 30.0
    schedules.measure_schedules(chosen, tmp_path, counts=[3], batch_size=4)
    (table,) = tmp_path.glob("moments_*.json")
    made, params = chosen.model.experiment, chosen.model.params
    x_0, keys = images.from_uint8(chosen.images.read(chosen.indices)), sampling.image_keys(0, chosen.indices)

    def errors(labels):
        return likelihood.bpd_loop(made.process, made.denoise_fn(params, labels), x_0=x_0, keys=keys).mse

    told, not_told = jax.jit(errors)(chosen.images.read_labels(chosen.indices)), jax.jit(errors)(None)
    assert np.abs(told - not_told).max() > 1e-3
    np.testing.assert_allclose(json.loads(table.read_text())["by_t"]["x_0_mse"], told.mean(axis=0), rtol=1e-4)


def test_what_is_no_table_of_schedules_is_refused(selection, tmp_path):
    with pytest.raises(ValueError, match="steps=11 must be numbers from 2 to the process's 10"):
        schedules.measure_schedules(selection, tmp_path, counts=[11], batch_size=4)
    assert not list(tmp_path.iterdir())
    (tmp_path / "other.json").write_text('{"schedules": [{"timesteps": 3}]}')
    with pytest.raises(ValueError, match="is no table of schedules"):
        schedules.read_schedule(tmp_path / "other.json", steps=3)
    with pytest.raises(ValueError, match=r"sample\.timesteps=\(0, 2\.5\) must be integers"):
        selection.model.sampling_with(timesteps=(0, 2.5))
    with pytest.raises(ValueError, match="must rise from 0 or more to at most 9"):
        selection.model.sampling_with(timesteps=(0, 10))
