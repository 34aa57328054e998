"""diffusers itself, both ways: the folders that it writes, and those that it loads."""

import json

import jax
import ml_collections
import numpy as np
import pytest
from interop.test_diffusers import RECORDED, our_chain, our_network, recorded_weights

import ddpm_jax
from ddpm_jax.interop import diffusers as interop
from ddpm_jax.runs import conversion, defaults
from ddpm_jax.runs.experiment import make_experiment

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("torch")]

DDPM = {
    "attention_head_dim": None, "downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1, "norm_eps": 1e-6,
}  # fmt: skip
SMALL = DDPM | {
    "sample_size": 8, "block_out_channels": (32, 64), "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
}  # fmt: skip
ALL_ATTEND = {"down_block_types": ("AttnDownBlock2D",) * 2, "up_block_types": ("AttnUpBlock2D",) * 2}
CASES = {
    "as published": ({}, {"variance_type": "fixed_large"}),
    "attention everywhere": (ALL_ATTEND | {"layers_per_block": 2}, {"beta_schedule": "squaredcos_cap_v2"}),
    "one channel, height and width": (
        {"in_channels": 1, "out_channels": 1, "sample_size": (12, 8)}, {"beta_schedule": "scaled_linear"},
    ),
    "six output channels": ({"out_channels": 6}, {"variance_type": "learned_range"}),
    "classes, cosines first": (
        {"num_class_embeds": 5, "flip_sin_to_cos": True}, {"prediction_type": "v_prediction", "clip_sample": False},
    ),
    "predicts x_0": ({}, {"prediction_type": "sample", "variance_type": "fixed_small_log"}),
    "betas in a list": ({}, {"trained_betas": [0.01] * 20}),
}  # fmt: skip


# As google/ddpm-cifar10-32 and google/ddpm-church-256 have them.
PUBLISHED = {
    "32x32": {
        "sample_size": 32, "block_out_channels": (128, 256, 256, 256),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    },
    "256x256": {
        "sample_size": 256, "block_out_channels": (128, 128, 256, 256, 512, 512),
        "down_block_types": (*("DownBlock2D",) * 4, "AttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "AttnUpBlock2D", *("UpBlock2D",) * 4),
    },
}  # fmt: skip


def make_network(config, *, spread):
    """A UNet2DModel with random weights, those of its norms too."""
    import diffusers
    import torch

    torch.manual_seed(0)
    model = diffusers.UNet2DModel(**(DDPM | config)).eval()
    for weights in model.parameters():
        weights.data += spread * torch.randn_like(weights)
    return model


@pytest.fixture(params=CASES)
def theirs(request):
    """A pipeline with random weights."""
    import diffusers

    unet, scheduler = CASES[request.param]
    model = make_network(SMALL | unet, spread=0.1)
    return diffusers.DDPMPipeline(model, diffusers.DDPMScheduler(num_train_timesteps=20, **scheduler))


def draw(pipeline, *shape):
    """Images or noise, and classes if the network is told them."""
    config = pipeline.unet.config
    size = config.sample_size if isinstance(config.sample_size, (tuple, list)) else (config.sample_size,) * 2
    x = np.random.default_rng(0).standard_normal((*shape, *size, config.in_channels)).astype(np.float32)
    labels = np.arange(shape[-1]) % config.num_class_embeds if config.num_class_embeds else None
    return x, labels


def to_torch(array):
    import torch

    return torch.from_numpy(np.array(array)).permute(0, 3, 1, 2).contiguous()


def predict(pipeline, x, t, labels):
    """Calls diffusers' network."""
    import torch

    with torch.no_grad():
        classes = None if labels is None else torch.from_numpy(labels)
        return pipeline.unet(to_torch(x), torch.from_numpy(np.asarray(t)), classes).sample.permute(0, 2, 3, 1).numpy()


def their_chain(pipeline, noise, labels, monkeypatch):
    """Draws by diffusers' scheduler with noise [T, B, H, W, C], the first of it x_T."""
    from diffusers.schedulers import scheduling_ddpm

    x, pending = noise[0], iter(noise[1:])
    with monkeypatch.context() as patch:
        patch.setattr(scheduling_ddpm, "randn_tensor", lambda *_, **__: to_torch(next(pending)))
        for t in pipeline.scheduler.timesteps:
            output = predict(pipeline, x, np.full(len(x), int(t)), labels)
            x = pipeline.scheduler.step(to_torch(output), t, to_torch(x)).prev_sample
            x = x.permute(0, 2, 3, 1).numpy()
    return x


@pytest.mark.filterwarnings("default")
def test_the_recorded_folder_is_what_diffusers_writes(tmp_path, monkeypatch):
    import diffusers
    import torch

    model = diffusers.UNet2DModel(**SMALL).eval()
    shapes = {name: tuple(weights.shape) for name, weights in model.state_dict().items()}
    state = {name: torch.from_numpy(weights) for name, weights in recorded_weights(shapes).items()}
    model.load_state_dict(state)
    pipeline = diffusers.DDPMPipeline(model, diffusers.DDPMScheduler(20, variance_type="fixed_large"))
    noise, _ = draw(pipeline, 20, 2)
    t = np.array([0, 19])
    arrays = {
        "x": noise[0], "t": t, "eps_pred": predict(pipeline, noise[0], t, None), "noise": noise,
        "x_0": their_chain(pipeline, noise, None, monkeypatch),
    }  # fmt: skip
    model.save_config(tmp_path)
    pipeline.scheduler.save_config(tmp_path)
    if not RECORDED.exists():  # to record anew, remove the folder
        RECORDED.mkdir()
        for name in ("config.json", "scheduler_config.json"):
            (RECORDED / name).write_bytes((tmp_path / name).read_bytes())
        (RECORDED / "shapes.json").write_text(json.dumps(shapes, indent=1) + "\n")
        np.savez_compressed(RECORDED / "outputs.npz", **arrays)
    for name in ("config.json", "scheduler_config.json"):
        assert json.loads((RECORDED / name).read_text()) == json.loads((tmp_path / name).read_text())
    with np.load(RECORDED / "outputs.npz") as recorded:
        for name, array in arrays.items():
            np.testing.assert_allclose(recorded[name], array, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("default")
def test_a_pipeline_becomes_a_work_folder_and_a_pipeline_again(theirs, tmp_path, monkeypatch):
    import diffusers

    theirs.save_pretrained(tmp_path / "theirs")
    conversion.from_diffusers(tmp_path / "theirs", tmp_path / "run")
    model = ddpm_jax.load(tmp_path / "run")
    x, labels = draw(theirs, 2)
    network, t = our_network(model, labels), np.array([3, 19], np.int32)
    output = predict(theirs, x, t, labels)
    np.testing.assert_allclose(network(x, t), output, rtol=0, atol=1e-4)

    noise, labels = draw(theirs, 20, 2)
    chain = their_chain(theirs, noise, labels, monkeypatch)
    # A random network is rough: it makes more of the rounding at every step.
    np.testing.assert_allclose(our_chain(model, network, noise), chain, rtol=0, atol=1e-3)

    conversion.to_diffusers(model, tmp_path / "back")
    for kind in (diffusers.DDPMPipeline, diffusers.DDIMPipeline):
        back = kind.from_pretrained(tmp_path / "back")
        assert back.scheduler.config.prediction_type == theirs.scheduler.config.prediction_type
        np.testing.assert_allclose(back.scheduler.betas, theirs.scheduler.betas, rtol=1e-6)
        if labels is None and not (kind is diffusers.DDIMPipeline and theirs.unet.config.out_channels == 6):
            assert len(back(batch_size=1, num_inference_steps=2).images) == 1
    np.testing.assert_allclose(predict(back, x, t, labels), network(x, t), rtol=0, atol=1e-4)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("size", PUBLISHED)
def test_published_networks_both_ways(size, tmp_path):
    import diffusers

    theirs = make_network(PUBLISHED[size], spread=0.02)
    theirs.save_pretrained(tmp_path / "theirs")  # flat, as the published folders are
    diffusers.DDPMScheduler(variance_type="fixed_large").save_pretrained(tmp_path / "theirs")
    settings = {section: fields.to_dict() for section, fields in defaults.get_config().items()}
    read = interop.read_pipeline(tmp_path / "theirs")
    for section, fields in read.settings.items():
        settings[section] |= fields
    experiment = make_experiment(ml_collections.ConfigDict(settings))

    pipeline = diffusers.DDPMPipeline(theirs, diffusers.DDPMScheduler())
    x, _ = draw(pipeline, 1)
    t = np.array([500], np.int32)
    ours, output = jax.jit(experiment.denoise_fn(read.params))(x, t), predict(pipeline, x, t, None)
    np.testing.assert_allclose(ours, output, rtol=0, atol=1e-4)

    interop.write_pipeline(tmp_path / "back", settings, read.params)
    back = diffusers.DDPMPipeline.from_pretrained(tmp_path / "back")
    np.testing.assert_allclose(predict(back, x, t, None), ours, rtol=0, atol=1e-4)


@pytest.mark.filterwarnings("default")
def test_flat_folders_with_torch_files_and_old_names_are_read(tmp_path):
    import diffusers
    import torch

    model = diffusers.UNet2DModel(**SMALL).eval()
    model.save_config(tmp_path)
    diffusers.DDPMScheduler().save_config(tmp_path)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = {}
    for name, weights in model.state_dict().items():
        for new, former in old.items():
            name = name.replace(f".{new}.", f".{former}.")
        state[name] = weights
    torch.save(state, tmp_path / "diffusion_pytorch_model.bin")
    conversion.from_diffusers(tmp_path, tmp_path / "run")
    ours = ddpm_jax.load(tmp_path / "run")
    pipeline = diffusers.DDPMPipeline(model, diffusers.DDPMScheduler())
    x, _ = draw(pipeline, 2)
    t = np.array([0, 999], np.int32)
    np.testing.assert_allclose(our_network(ours)(x, t), predict(pipeline, x, t, None), rtol=0, atol=1e-4)
