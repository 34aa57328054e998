"""A config: what is wrong with it, what it describes, and how it is written down.

The settings and their defaults stand in configs/default.py. Here they are checked and unpacked, so that the library
receives plain arguments.
"""

import dataclasses
import difflib
import json
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from ddpm_jax import data, diffusion, profiling, sampling, schedule, unet

_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}

# Settings that may change while a run goes on: its parameters stay those of a run that was never stopped. With other
# microbatches, as with other devices, they do so to float rounding, and but for the dropout masks.
_FREE = (
    "data.data_dir", "data.memory_limit_gib", "sample.", "train.checkpoint_every", "train.eval_", "train.keep",
    "train.keep_period", "train.log_every", "train.microbatches", "train.num_steps", "train.on_failed_save",
    "train.profile", "train.sample_every", "train.steps_per_dispatch",
)  # fmt: skip

_AT_LEAST = {
    "diffusion.num_timesteps": 2, "model.ch": 1, "model.num_res_blocks": 1, "model.dropout": 0, "optim.lr": 0,
    "optim.warmup_steps": 0, "optim.clip_norm": 0, "optim.ema_decay": 0, "train.num_steps": 1, "train.batch_size": 1,
    "train.microbatches": 1, "train.steps_per_dispatch": 1, "train.log_every": 1, "train.checkpoint_every": 1,
    "train.sample_every": 0, "train.eval_every": 0, "train.eval_samples": 2, "train.keep": 1, "train.keep_period": 0,
    "sample.num_samples": 1, "sample.batch_size": 1, "data.memory_limit_gib": 0,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The process, the network and the image shape that a config describes."""

    config: ml_collections.ConfigDict
    process: diffusion.Process
    model: unet.UNet
    image_shape: tuple[int, int, int]  # H, W, C

    def denoise_fn(self, params: Any) -> diffusion.DenoiseFn:
        """The network with these parameters, without dropout."""
        return lambda x_t, t: self.model.apply({"params": params}, x_t, t)

    def sample(self, params: Any, keys: jax.Array) -> jax.Array:
        """Draws images [B, H, W, C] float32 in [-1, 1], one for each of the keys [B] (`sampling.image_keys`).

        Pure: to be jitted, alone or inside a larger function.
        """
        return sampling.sample_loop(
            self.process, self.denoise_fn(params), keys=keys, shape=self.image_shape, clip=self.config.sample.clip
        )

    def load_data(self, split: str | None = None) -> data.Source:
        """Opens the data set that the config names; `split` None: the one that is trained on.

        Raises:
            ValueError: if there is no such data set, split or image size.
            FileNotFoundError: if it is not where the config says.
        """
        settings = self.config.data
        return data.load(
            settings.name,
            split=split or settings.split,
            data_dir=settings.data_dir,
            image_size=self.image_shape[:2],
            channels=settings.channels,
            memory_limit_gib=settings.memory_limit_gib,
        )

    def abstract_params(self) -> Any:
        """The shapes and dtypes of the network's parameters."""
        x, t = jnp.zeros((1, *self.image_shape)), jnp.zeros((1,), jnp.int32)
        return jax.eval_shape(self.model.init, jax.random.key(0), x, t)["params"]


def make(config: ml_collections.ConfigDict) -> Experiment:
    """Builds what the config describes.

    Raises:
        ValueError: if the process makes no sense, or the network does not fit the images.
    """
    height, width = config.data.image_size[0], config.data.image_size[-1]
    process_settings = {name: config.diffusion[name] for name in ("mean_type", "var_type", "loss_type")}
    betas = schedule.beta_schedule(
        config.diffusion.schedule,
        config.diffusion.num_timesteps,
        beta_start=config.diffusion.beta_start,
        beta_end=config.diffusion.beta_end,
    )
    model_settings = {name: value for name, value in config.model.items() if name != "dtype"}
    process = diffusion.make_process(betas, **process_settings)
    out_ch = process.outputs_per_channel * config.data.channels
    experiment = Experiment(
        config=config,
        process=process,
        model=unet.UNet(out_ch, dtype=_DTYPES[config.model.dtype], **model_settings),
        image_shape=(height, width, config.data.channels),
    )
    experiment.abstract_params()  # traces the network: a size that does not fit is refused here
    return experiment


def check(config: ml_collections.ConfigDict, default: ml_collections.ConfigDict) -> None:
    """Refuses a config that has not the fields of `default`, of its types and in their ranges.

    Raises:
        ValueError: naming every field that is wrong, and for an unknown one the nearest that exists.
    """
    given, known = dict(_flatten(config)), dict(_flatten(default))
    problems = [f"{name} is missing" for name in known if name not in given]
    for name, value in given.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            problems.append(f"{name} is no setting; the nearest is {near}")
        elif type(value) is not type(known[name]) and not (type(known[name]) is float and type(value) is int):
            wanted = type(known[name]).__name__
            problems.append(f"{name}={value!r} must be of type {wanted}, like {known[name]!r}")
        elif value != value or (name in _AT_LEAST and value < _AT_LEAST[name]):  # NaN, or too small
            problems.append(f"{name}={value!r} must be at least {_AT_LEAST.get(name, 0)}")
    if not problems:
        problems = list(_unfitting(config))
    if problems:
        raise ValueError("The config is wrong: " + "; ".join(problems) + ".")


def _unfitting(config: ml_collections.ConfigDict) -> Iterator[str]:
    if config.model.dtype not in _DTYPES:
        yield f"model.dtype={config.model.dtype!r} must be one of {', '.join(_DTYPES)}"
    if len(config.data.image_size) not in (1, 2) or not all(type(n) is int and n > 0 for n in config.data.image_size):
        yield f"data.image_size={config.data.image_size} must be one or two positive integers: height, width"
    if config.data.channels not in (1, 2, 3, 4):
        yield f"data.channels={config.data.channels} must be 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGBA)"
    if config.train.on_failed_save not in ("continue", "stop"):
        yield f"train.on_failed_save={config.train.on_failed_save!r} must be continue or stop"
    for name in ("model.dropout", "optim.ema_decay"):
        section, field = name.split(".")
        if config[section][field] >= 1.0:
            yield f"{name}={config[section][field]} must be below 1"
    try:
        traced = profiling.parse(config.train.profile)
    except ValueError as error:
        yield f"train.profile={config.train.profile!r} {error}"
    else:
        if traced and traced[-1] > config.train.num_steps:
            yield f"train.profile={config.train.profile!r} must end by train.num_steps={config.train.num_steps}"
    for name in ("num_steps", "log_every", "checkpoint_every", "sample_every", "eval_every"):
        steps, group = config.train[name], config.train.steps_per_dispatch
        if steps % group:
            yield (
                f"train.{name}={steps} must be a multiple of train.steps_per_dispatch={group}; "
                f"try {max(1, round(steps / group)) * group}"
            )


def differences(old: ml_collections.ConfigDict, new: ml_collections.ConfigDict) -> list[str]:
    """The settings in which `new` cannot continue what `old` began, as `name: old -> new`."""
    before, after = dict(_flatten(old)), dict(_flatten(new))
    return [
        f"{name}: {before.get(name)!r} -> {after.get(name)!r}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name) and not name.startswith(_FREE)
    ]


def to_json(config: ml_collections.ConfigDict) -> str:
    """The config as JSON; `from_json` is its inverse."""
    return json.dumps(config.to_dict(), indent=2) + "\n"


def from_json(text: str) -> ml_collections.ConfigDict:
    """Reads what `to_json` wrote: lists become the tuples that they were."""
    sections = {
        section: {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
        for section, fields in json.loads(text).items()
    }
    return ml_collections.ConfigDict(sections).lock()


def _flatten(config: ml_collections.ConfigDict) -> Iterator[tuple[str, Any]]:
    for section, fields in config.items():
        if isinstance(fields, ml_collections.ConfigDict):
            yield from ((f"{section}.{name}", value) for name, value in fields.items())
        else:
            yield section, fields
