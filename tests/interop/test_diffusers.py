"""Folders of diffusers, without diffusers: what it wrote and computed is recorded in tests/data/diffusers."""

import fnmatch
import functools
import json
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddpm_jax
from ddpm_jax.configs import digits
from ddpm_jax.interop import hub, safetensors_file
from ddpm_jax.runs import conversion

RECORDED = Path(__file__).parent.parent / "data" / "diffusers"
WEIGHTS = "diffusion_pytorch_model.safetensors"


def recorded_weights(shapes):
    """The weights that the recorded network has, from their names and shapes."""
    rng = np.random.default_rng(0)
    return {
        name: (float("norm" in name and name.endswith("weight")) + 0.1 * rng.standard_normal(shape)).astype(np.float32)
        for name, shape in sorted(shapes.items())
    }


def our_network(model, labels=None):
    """The network in one compiled function of x and t [B]."""
    labels = None if labels is None else jnp.asarray(labels)
    return jax.jit(model.experiment.denoise_fn(model.params, labels))


def our_chain(model, network, noise):
    """Draws with noise [T, B, H, W, C], the first of it x_T."""
    experiment, x = model.experiment, noise[0]
    step = jax.jit(functools.partial(ddpm_jax.p_sample, experiment.process, network, clip=experiment.clip))
    for t, eps in zip(reversed(range(len(noise))), [*noise[1:], np.zeros_like(x)], strict=True):
        x, _ = step(x_t=x, t=jnp.full(len(x), t, jnp.int32), eps=eps)
    return x


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The recorded folder, with its weights."""
    folder = tmp_path_factory.mktemp("pipeline")
    for name in ("config.json", "scheduler_config.json"):
        (folder / name).write_bytes((RECORDED / name).read_bytes())
    weights = recorded_weights(json.loads((RECORDED / "shapes.json").read_text()))
    safetensors_file.write_arrays(folder / WEIGHTS, weights, metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    """The work folder made of it."""
    directory = tmp_path_factory.mktemp("runs") / "run"
    conversion.from_diffusers(folder, directory)
    return directory


def copy(folder, to, *, unet=(), scheduler=()):
    """Copies a folder with other settings."""
    to.mkdir()
    (to / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes())
    for name, changes in (("config.json", unet), ("scheduler_config.json", scheduler)):
        (to / name).write_text(json.dumps(json.loads((folder / name).read_text()) | dict(changes)))
    return to


def test_the_network_and_a_whole_chain_are_those_of_diffusers(run):
    model = ddpm_jax.load(run)
    network = our_network(model)
    with np.load(RECORDED / "outputs.npz") as recorded:
        eps_pred = network(recorded["x"], jnp.asarray(recorded["t"], jnp.int32))
        np.testing.assert_allclose(eps_pred, recorded["eps_pred"], rtol=0, atol=1e-4)
        np.testing.assert_allclose(our_chain(model, network, recorded["noise"]), recorded["x_0"], rtol=0, atol=1e-4)


def test_a_run_is_written_as_the_folder_that_it_was_made_of(folder, run, tmp_path):
    conversion.to_diffusers(ddpm_jax.load(run, weights="raw"), tmp_path / "pipeline")
    before, _ = safetensors_file.read_arrays(folder / WEIGHTS)
    after, metadata = safetensors_file.read_arrays(tmp_path / "pipeline" / "unet" / WEIGHTS)
    assert metadata == {"format": "pt"}
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(array, after[name])
    for name, path in (("config.json", "unet"), ("scheduler_config.json", "scheduler")):
        written, original = (json.loads((at / name).read_text()) for at in (tmp_path / "pipeline" / path, folder))
        assert original.items() <= (original | written).items()
        assert {key: written[key] for key in original.keys() & written.keys()} == {
            key: value for key, value in original.items() if key in written
        }
    assert "DDPMPipeline" in (tmp_path / "pipeline" / "README.md").read_text()
    with pytest.raises(ValueError, match="is not empty"):
        conversion.to_diffusers(ddpm_jax.load(run), tmp_path / "pipeline")


def test_weights_alone_make_a_work_folder_again(run, tmp_path):
    model = ddpm_jax.load(run)
    conversion.to_safetensors(model, tmp_path / "weights.safetensors")
    params = safetensors_file.read_params(tmp_path / "weights.safetensors")
    jax.tree.map(np.testing.assert_array_equal, params, jax.device_get(model.params))
    conversion.from_safetensors(tmp_path / "weights.safetensors", tmp_path / "run", step=7)
    again = ddpm_jax.load(tmp_path / "run")
    assert again.step == 7
    assert again.experiment.config.to_dict() == model.experiment.config.to_dict()
    jax.tree.map(np.testing.assert_array_equal, again.params, model.params)


def test_a_config_says_how_to_train_what_was_read(folder, tmp_path):
    settings = digits.get_config()
    conversion.from_diffusers(folder, tmp_path / "run", settings=settings)
    config = ddpm_jax.load(tmp_path / "run").experiment.config
    assert config.data.name == "digits"
    assert config.model.dropout == settings.model.dropout
    assert (config.data.image_size, config.model.ch_mult) == ((8, 8), (1, 2))
    with pytest.raises(ValueError, match="holds a run"):
        conversion.from_diffusers(folder, tmp_path / "run")


@pytest.mark.parametrize(
    ("unet", "scheduler", "named"),
    [
        ({"attention_head_dim": 8}, {}, "attention_head_dim=8"),
        ({"norm_eps": 1e-5}, {}, "norm_eps=1e-05"),
        ({"freq_shift": 0}, {}, "freq_shift=0"),
        ({"downsample_padding": 1}, {}, "downsample_padding=1"),
        ({"norm_num_groups": 16}, {}, "norm_num_groups=16"),
        ({"resnet_time_scale_shift": "scale_shift"}, {}, "resnet_time_scale_shift='scale_shift'"),
        ({"down_block_types": ["DownBlock2D", "SkipDownBlock2D"]}, {}, "SkipDownBlock2D"),
        ({"up_block_types": ["UpBlock2D", "AttnUpBlock2D"]}, {}, "attention at other resolutions"),
        ({"block_out_channels": [32, 48]}, {}, "block_out_channels"),
        ({"block_out_channels": "wide"}, {}, "is no config of a UNet2DModel"),
        ({"sample_size": None}, {}, "is no config of a UNet2DModel"),
        ({"cross_attention_dim": 64}, {}, "cross_attention_dim=64"),
        ({"layers_per_block": 2}, {}, "missing: down_0_block_1"),
        ({"out_channels": 6}, {}, "6 output channels"),
        ({}, {"beta_schedule": "sigmoid"}, "beta_schedule='sigmoid'"),
        ({}, {"trained_betas": [0.1, 0.3, 0.2]}, "trained_betas"),
        ({}, {"variance_type": "learned"}, "variance_type='learned'"),
        ({}, {"prediction_type": "flow"}, "prediction_type='flow'"),
        ({}, {"clip_sample_range": 2.0}, "clip_sample_range=2.0"),
        ({}, {"thresholding": True}, "thresholding=True"),
        ({}, {"_class_name": "PNDMScheduler"}, "_class_name='PNDMScheduler'"),
    ],
)  # fmt: skip
def test_what_cannot_be_expressed_is_refused_by_name(folder, tmp_path, unet, scheduler, named):
    changed = copy(folder, tmp_path / "changed", unet=unet, scheduler=scheduler)
    with pytest.raises(ValueError, match=re.escape(named)):
        conversion.from_diffusers(changed, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"mean_type": "xprev", "loss_type": "mse"}, "diffusion.mean_type='xprev'"),
        ({"var_type": "learned"}, "diffusion.var_type='learned'"),
        ({"schedule": "jsd"}, "diffusion.schedule='jsd'"),
        ({"rescale_timesteps": True}, "diffusion.rescale_timesteps"),
    ],
)
def test_what_diffusers_does_not_have_is_refused_by_name(run, tmp_path, change, named):
    from ddpm_jax.interop import diffusers

    settings = ddpm_jax.load(run).experiment.config.to_dict()
    settings["diffusion"] |= change
    with pytest.raises(ValueError, match="diffusers cannot express") as error:
        diffusers.write_pipeline(tmp_path / "pipeline", settings, {})
    assert named in str(error.value)
    assert not (tmp_path / "pipeline").exists()


def test_a_damaged_file_of_weights_is_named(folder, tmp_path):
    changed = copy(folder, tmp_path / "changed")
    (changed / WEIGHTS).write_bytes((changed / WEIGHTS).read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"diffusion_pytorch_model.safetensors' is no .safetensors file of weights"):
        conversion.from_diffusers(changed, tmp_path / "run")
    (changed / WEIGHTS).unlink()
    with pytest.raises(FileNotFoundError, match="There is no file"):
        conversion.from_diffusers(changed, tmp_path / "run")


class Hub:
    """In place of huggingface_hub: a folder, of which it copies the files that are asked for."""

    def __init__(self, source, cache):
        self.source, self.cache = source, cache

    def snapshot_download(self, name, *, allow_patterns):
        self.cache.mkdir(exist_ok=True)
        for file in self.source.iterdir():
            if any(fnmatch.fnmatch(file.name, pattern) for pattern in allow_patterns):
                (self.cache / file.name).write_bytes(file.read_bytes())
        return str(self.cache)


def test_a_name_at_the_hub_is_downloaded(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub(folder, tmp_path / "cache"))
    assert hub.is_name("google/ddpm-cifar10-32")
    assert not hub.is_name(str(folder))
    assert hub.fetch("google/ddpm-cifar10-32") == tmp_path / "cache"
    assert {file.name for file in (tmp_path / "cache").iterdir()} == {"config.json", "scheduler_config.json", WEIGHTS}
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModuleNotFoundError, match="pip install huggingface_hub"):
        conversion.from_diffusers("google/ddpm-cifar10-32", tmp_path / "run")
