"""Every Python block of the README and of the pages runs, in tiny settings; every command line of them parses."""

import importlib
import re
import runpy
import shlex
import sys
import types
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from absl import flags

import ddpm_jax
from ddpm_jax import unet
from ddpm_jax.cli import app, doctor
from ddpm_jax.configs import digits
from ddpm_jax.diffusion import make_process
from ddpm_jax.runs import conversion
from ddpm_jax.runs.experiment import make_experiment
from ddpm_jax.runs.own import from_file

ROOT = Path(__file__).parents[2]
_LONG = ("tutorial", "weights")  # which train or convert
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(r"\bddpm-(train|sample|evaluate|schedule|paper|doctor|data|convert)\b([^#]*)")
TINY = {
    r"\bnum_timesteps = 1000": "num_timesteps = 10",
    r'"linear", 1000': '"linear", 10',
    r"num_steps, batch_size = 1200, 64": "num_steps, batch_size = 2, 4",
    r"digits\.get_config\(\)": "tiny_config()",
    r"config\.train\.num_steps = 2000": "config.train.num_steps = 2",
    r"config\.train\.sample_every = 1000": "config.train.sample_every = 2",
    r'\["(fid|bpd)", "\w+"\]': '["bpd"]',  # no Inception, no classifier
    r"num_images=100, num_samples=1000": "num_images=4, num_samples=16",
    r"jnp\.arange\((16|60)\)": "jnp.arange(5)",
    r'split="test"\)\.images\[:64\]': 'split="test").images[:2]',
    r"samplers\.spaced\(process, (10|20),": "samplers.spaced(process, 3,",
}


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.M | re.S)


def commands(page):
    """Yields the lines of the indented blocks, each whole."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S).replace("\\\n", " ")
    for line in re.findall(r"^    +(.*)$", text, re.M):
        yield from re.split(r"&&| & ?|;|\|\|?", line)


def tiny_config(num_classes=0):
    config = digits.get_config()
    config.diffusion.num_timesteps = 10
    config.model.update(ch_mult=(1,), attn_resolutions=(), num_classes=num_classes)
    config.train.update(num_steps=2, batch_size=4, checkpoint_every=2, steps_per_dispatch=1, eval_samples=16)
    return config


class OneLayer(unet.UNet):
    """Takes what the U-Net takes, and compiles in no time."""

    @nn.compact
    def __call__(self, x, t, cond=None, *, train=False):
        temb = nn.Dense(self.out_ch)(unet.timestep_embedding(t, self.ch))
        if cond is not None:
            temb += nn.Dense(self.out_ch, use_bias=False)(cond)
        return nn.Dense(self.out_ch)(x) + temb[:, None, None, :]


def wandb():
    """A stand-in for Weights & Biases: the functions of it that the pages call."""
    run = types.SimpleNamespace(log=lambda values, step: None, finish=lambda: None)
    return types.SimpleNamespace(init=lambda project, id, resume, dir: run, Image=lambda pixels: pixels)


@pytest.fixture(scope="module", autouse=True)
def tiny(tmp_path_factory):
    """Small networks, compiled as fast as can be; and a working directory with the work folders that the pages name."""
    jax.config.update("jax_disable_most_optimizations", True)
    folder = tmp_path_factory.mktemp("docs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("DDPM_JAX_CACHE", str(folder / "cache"))
        patch.setattr(unet, "UNet", OneLayer)
        patch.setitem(sys.modules, "wandb", wandb())
        ddpm_jax.train(tiny_config(), "runs/digits")
        ddpm_jax.train(tiny_config(num_classes=10), "runs/digits_by_class")
        Path("runs/cifar10").symlink_to("digits")
        np.savez("theirs.npz", np.zeros((4, 8, 8, 1), np.uint8))
        yield
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()  # of what was compiled so


def given():
    """What pages take for granted: a process, networks, images, keys."""
    x_0, cond = jnp.zeros((5, 8, 8, 1)), jnp.zeros((5, 3))
    return dict(
        tiny_config=tiny_config, process=make_process(ddpm_jax.beta_schedule("linear", 10)),
        denoise_fn=lambda x_t, t: 0.1 * x_t, weaker_denoise_fn=lambda x_t, t: 0.2 * x_t,
        model_fn=lambda x_t, t, cond: 0.1 * x_t, log_likelihood=lambda x_0: -(x_0**2).sum((1, 2, 3)), cond=cond,
        x_0=x_0, eps=jnp.ones_like(x_0), t=jnp.arange(5), keys=ddpm_jax.image_keys(0, jnp.arange(5)),
        shape=(8, 8, 1),
    )  # fmt: skip


@pytest.fixture
def with_unets(tmp_path, monkeypatch):
    """The work folder and the pipeline that the page on weights names, of real U-Nets."""
    monkeypatch.setattr(unet, "UNet", OneLayer.__base__)
    monkeypatch.chdir(tmp_path)
    params = make_experiment(tiny_config()).abstract_params
    params = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.01, leaf.dtype), params)
    conversion.write_run("runs/digits", tiny_config(), params)
    conversion.to_diffusers(ddpm_jax.load("runs/digits"), "google-ddpm")


@pytest.mark.filterwarnings("ignore:Matplotlib")
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.stem, marks=[pytest.mark.slow] * (page.stem in _LONG))
        for page in PAGES
        if blocks(page, "python")
    ],
)
def test_the_python_blocks_of_a_page_run_one_after_another(page, request):
    if page.stem == "weights":
        request.getfixturevalue("with_unets")
    matplotlib.use("agg")
    names = given()
    with jax.numpy_rank_promotion("allow"):  # as it is for users
        for i, code in enumerate(blocks(page, "python")):
            for pattern, tiny in TINY.items():
                code = re.sub(pattern, tiny, code)
            exec(compile(code, f"{page.name}, block {i + 1}", "exec"), names)
    plt.close("all")


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # of ml_collections
def test_a_config_file_with_a_network_and_data_trains_and_is_measured(tmp_path):
    (code,) = (code for code in blocks(ROOT / "docs/own_data_and_network.md", "python") if "def get_network" in code)
    path = tmp_path / "mine.py"
    path.write_text(code)
    config = runpy.run_path(str(path))["get_config"]()
    config.diffusion.num_timesteps = 10
    config.train.update(num_steps=2, batch_size=4, checkpoint_every=2, steps_per_dispatch=1)
    own = from_file(str(path), config)
    ddpm_jax.train(config, tmp_path / "run", own=own)
    with pytest.raises(ValueError, match="another network than .* own= or --own="):
        ddpm_jax.load(tmp_path / "run")
    model = ddpm_jax.load(tmp_path / "run", own=own)
    (score,) = ddpm_jax.evaluate(model, ["bpd"], split="test", num_images=4)
    assert score.value > 0.0
    values = doctor._define_flags()
    values(["ddpm-doctor", f"--config={path}"])
    assert doctor._facts(values)["number of images"] == "200"


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # of ml_collections
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_flags_of_a_page_exist(page, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "")
    (tmp_path / "mine.py").write_text("from ddpm_jax.configs.default import get_config")
    for line in commands(page):
        if found := COMMAND.search(line):
            arguments = re.sub(r"[\[\]\\]|\.\.\.", "", found[2]).replace("=mine.py", f"={tmp_path}/mine.py")
            arguments = re.sub(r"=\$.*|=[NI]\b", "=1", arguments)
            if arguments.count("'") % 2:  # of a quoted command that goes on
                arguments = arguments.replace("'", "")
            parse(found[1], shlex.split(arguments), monkeypatch)


def parse(name, arguments, monkeypatch):
    """Parses a command line as the command itself does; leaves no flag behind."""
    command = importlib.import_module(f"ddpm_jax.cli.{name}")
    if name in ("data", "doctor"):
        command._define_flags()([name, *getattr(command, "_resolved", list)(arguments)])
        return
    before = set(flags.FLAGS)
    monkeypatch.setattr(sys, "argv", [f"ddpm-{name}", *arguments])  # where settings are looked for
    try:
        command._define_flags()
        app._define_process_flags()
        app.parse(sys.argv, doc="", positional="WORKDIR")
    finally:
        flags.FLAGS.remove_flag_values(dict.fromkeys(set(flags.FLAGS) - before))
        flags.FLAGS.unparse_flags()
