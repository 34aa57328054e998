"""A config: its checks, what may change while a run goes on, and how it is written down.

The settings and their defaults stand in defaults.py; `experiment.make_experiment` builds what they describe.
"""

import difflib
import itertools
import json
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import ml_collections

from ddpm_jax import averaging, timesteps
from ddpm_jax.runs import defaults
from ddpm_jax.runtime import profiling
from ddpm_jax.samplers import SAMPLERS, SPACINGS
from ddpm_jax.sampling import PRNG_IMPLS

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}

# Settings that may change while a run goes on: its parameters stay those of a run that was never stopped. With other
# microbatches, as with other devices, they do so to float rounding, and but for the dropout masks.
_FREE = (
    "data.data_dir", "data.memory_limit_gib", "data.num_workers", "sample.", "train.checkpoint_every", "train.eval_",
    "train.keep", "train.keep_period", "train.log_every", "train.microbatches", "train.num_steps",
    "train.on_failed_save", "train.profile", "train.sample_every", "train.steps_per_dispatch",
)  # fmt: skip

_OF_A_HOST = ("data.data_dir", "data.memory_limit_gib", "data.num_workers")

_AT_LEAST = {
    "diffusion.num_timesteps": 2, "train.eval_samples": 2, "model.ch": 1, "model.num_res_blocks": 1,
    "train.num_steps": 1, "train.batch_size": 1, "train.microbatches": 1, "train.steps_per_dispatch": 1,
    "train.log_every": 1, "train.checkpoint_every": 1, "train.keep": 1, "sample.num_samples": 1, "sample.batch_size": 1,
}  # fmt: skip
# Far beyond what makes sense: a config may be somebody else's, and nothing is to be built that takes all memory.
_AT_MOST = {
    "diffusion.num_timesteps": 10**6, "model.ch": 2**14, "model.num_res_blocks": 2**6, "train.batch_size": 2**20,
    "train.steps_per_dispatch": 10**5, "sample.num_samples": 10**9, "sample.batch_size": 2**20,
    "train.seed": 2**32 - 1, "sample.seed": 2**32 - 1,  # beyond, two seeds draw the same numbers
    "model.num_classes": 10**6, "data.num_workers": 2**10,
}  # fmt: skip
_LARGEST = 10**15  # of all other numbers; the least is 0
_SIDE, _LEVELS, _MULT = 2**16, 16, 2**6  # of images in pixels, of resolutions, of their width


def check(config: ml_collections.ConfigDict) -> None:
    """Refuses a config whose fields are not those of the default one, of their types and in their ranges.

    Raises:
        ValueError: naming the fields that are wrong, and for an unknown one the nearest that exists.
    """
    _refuse(_wrong_fields(config.to_dict()))
    _refuse(_unfitting(config))


def _refuse(problems: Iterator[str]) -> None:
    if first := list(itertools.islice(problems, 20)):
        raise ValueError("The config is wrong: " + "; ".join(first) + ".")


def _wrong_fields(sections: dict[str, Any]) -> Iterator[str]:
    given, known = dict(_flatten(sections)), dict(_flatten(defaults.get_config().to_dict()))
    yield from (f"{name} is missing" for name in known if name not in given)
    for name, value in given.items():
        if name not in known:
            (near,) = difflib.get_close_matches(name[:50], known, n=1, cutoff=0.0)
            yield f"{name[:50]} is no setting; the nearest is {near}"
            continue
        kind, least, most = type(known[name]), _AT_LEAST.get(name, 0), _AT_MOST.get(name, _LARGEST)
        if type(value) is not kind and not (kind is float and type(value) is int):
            yield f"{name}={value!r:.100} must be of type {kind.__name__}, like {known[name]!r}"
        elif kind in (int, float) and not value >= least:  # NaN, too
            yield f"{name}={value!r:.100} must be at least {least}"
        elif kind in (int, float) and value > most:
            yield f"{name}={value!r:.100} must be at most {most}"


def _unfitting(config: ml_collections.ConfigDict) -> Iterator[str]:
    if config.model.dtype not in DTYPES:
        yield f"model.dtype={config.model.dtype!r} must be one of {', '.join(DTYPES)}"
    if len(config.data.image_size) not in (1, 2) or not _all_in(config.data.image_size, _SIDE):
        yield f"data.image_size={config.data.image_size!r:.100} must be one or two of 1..{_SIDE}: height, width"
    if not 1 <= len(config.model.ch_mult) <= _LEVELS or not _all_in(config.model.ch_mult, _MULT):
        yield f"model.ch_mult={config.model.ch_mult!r:.100} must be 1 to {_LEVELS} integers in 1..{_MULT}"
    if not _all_in(config.model.attn_resolutions, _SIDE):
        yield f"model.attn_resolutions={config.model.attn_resolutions!r:.100} must be integers in 1..{_SIDE}"
    if not all(isinstance(name, str) for name in config.train.eval_metrics):
        yield f"train.eval_metrics={config.train.eval_metrics!r:.100} must be names"
    if config.data.channels not in (1, 2, 3, 4):
        yield f"data.channels={config.data.channels} must be 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGBA)"
    background = config.data.background
    if len(background) != 3 or not all(type(n) is int and 0 <= n <= 255 for n in background):
        yield f"data.background={background!r:.100} must be three integers in 0..255: red, green, blue"
    if config.train.on_failed_save not in ("continue", "stop"):
        yield f"train.on_failed_save={config.train.on_failed_save!r} must be continue or stop"
    if config.train.timesteps not in timesteps.CHOICES:
        yield f"train.timesteps={config.train.timesteps!r:.100} must be one of {', '.join(timesteps.CHOICES)}"
    if config.data.holdout and config.data.split != "train":
        yield f"data.holdout={config.data.holdout} keeps images out of split 'train', not {config.data.split!r:.100}"
    for section in ("train", "sample"):
        if config[section].prng_impl not in PRNG_IMPLS:
            yield f"{section}.prng_impl={config[section].prng_impl!r:.100} must be one of {', '.join(PRNG_IMPLS)}"
    if config.sample.sampler not in SAMPLERS:
        yield f"sample.sampler={config.sample.sampler!r:.100} must be one of {', '.join(SAMPLERS)}"
    if config.sample.spacing not in ("", *SPACINGS):
        yield f"sample.spacing={config.sample.spacing!r:.100} must be '' or one of {', '.join(SPACINGS)}"
    if not all(type(n) is int for n in config.sample.timesteps):
        yield f"sample.timesteps={config.sample.timesteps!r:.100} must be integers"
    if not all(type(n) in (int, float) for n in config.sample.variances):
        yield f"sample.variances={config.sample.variances!r:.100} must be numbers"
    if config.sample.steps > config.diffusion.num_timesteps:
        yield f"sample.steps={config.sample.steps} must be at most the {config.diffusion.num_timesteps} timesteps"
    for name in ("eta", "threshold"):
        if config.sample[name] > 1.0:
            yield f"sample.{name}={config.sample[name]} must be at most 1"
    if not config.optim.clip_norm > 0.0:
        yield f"optim.clip_norm={config.optim.clip_norm} must be above 0, or no step changes a weight"
    for name in ("data.holdout", "model.dropout", "optim.ema_decay", "train.label_dropout"):
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

    for name in config.optim.averages:
        try:
            averaging.parse(str(name))
        except ValueError as error:
            yield f"optim.averages: {error}"
    if len(set(config.optim.averages)) < len(config.optim.averages):
        yield f"optim.averages={config.optim.averages!r:.100} must be different names"
    try:
        sample_labels(config)
    except ValueError as error:
        yield str(error)
    yield from _unfitting_guidance(config)


def _unfitting_guidance(config: ml_collections.ConfigDict) -> Iterator[str]:
    settings, last = config.sample, config.diffusion.num_timesteps - 1
    interval = settings.guidance_interval
    if interval != () and not (
        len(interval) == 2 and all(type(t) is int for t in interval) and 0 <= interval[0] <= interval[1] <= last
    ):
        yield f"sample.guidance_interval={interval!r:.100} must be two timesteps of 0..{last}, the lower first, or ()"
    if settings.guidance_step and not settings.guidance_weights:
        yield f"sample.guidance_step={settings.guidance_step} is for guidance by the weights of sample.guidance_weights"
    by_class = bool(settings.guidance) and not settings.guidance_weights
    if by_class and not config.model.num_classes:
        yield f"sample.guidance={settings.guidance} needs a model with classes, and model.num_classes is 0"
    if config.model.num_classes and not config.train.label_dropout and (by_class or settings.labels == "none"):
        yield (
            f"sample.guidance={settings.guidance} and sample.labels={settings.labels!r} need a model that was trained "
            "without labels, too, and train.label_dropout is 0"
        )
    if by_class and settings.labels == "none":
        yield f"sample.guidance={settings.guidance} guides towards a class, and sample.labels='none' says none"


def sample_labels(config: ml_collections.ConfigDict) -> tuple[int, ...] | None:
    """Returns the labels of samples, those of image i at i modulo their number; None if the model knows no classes.

    Where no class is asked for, the label is -1.

    Raises:
        ValueError: if sample.labels does not fit the model.
    """
    given, num_classes = config.sample.labels, config.model.num_classes
    named = {"": range(num_classes), "all": range(num_classes), "none": (-1,)}
    if not num_classes:
        if given:
            raise ValueError(f"sample.labels={given!r:.100} needs a model with classes, and model.num_classes is 0")
        return None
    if given in named:
        return tuple(named[given])
    numbers = [number.strip() for number in given.split(",")]
    if not all(number.isdecimal() and len(number) < 9 and int(number) < num_classes for number in numbers):
        raise ValueError(
            f"sample.labels={given!r:.100} must be numbers in 0..{num_classes - 1}, with commas between, all or none"
        )
    return tuple(map(int, numbers))


def labels_name(config: ml_collections.ConfigDict) -> str:
    """Returns the one name of `sample_labels`: 'all', 'none', '0,1,2'; '' if the model knows no classes."""
    labels = sample_labels(config)
    if labels is None:
        return ""
    names = {(-1,): "none", tuple(range(config.model.num_classes)): "all"}
    return names.get(labels, ",".join(map(str, labels)))


def _all_in(numbers: tuple, largest: int) -> bool:
    return all(type(n) is int and 1 <= n <= largest for n in numbers)


def changed(old: ml_collections.ConfigDict, new: ml_collections.ConfigDict) -> dict[str, tuple[Any, Any]]:
    """Returns the settings in which `new` cannot continue what `old` began: name -> both values."""
    before, after = dict(_flatten(old.to_dict())), dict(_flatten(new.to_dict()))
    return {
        name: (before.get(name), after.get(name))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name) and not name.startswith(_FREE)
    }


def differences(old: ml_collections.ConfigDict, new: ml_collections.ConfigDict) -> list[str]:
    """Lists what `changed` returns, as `name: old -> new`."""
    return [f"{name}: {before!r} -> {after!r}" for name, (before, after) in changed(old, new).items()]


def facts(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns the settings that all processes of a run must have in common: all but where and how each reads data."""
    return {f"config.{name}": value for name, value in _flatten(config.to_dict()) if name not in _OF_A_HOST}


def to_json(config: ml_collections.ConfigDict) -> str:
    """Writes the config as JSON; `from_json` is its inverse."""
    return json.dumps(config.to_dict(), indent=2) + "\n"


def from_json(text: str) -> ml_collections.ConfigDict:
    """Reads what `to_json` wrote: lists become the tuples that they were.

    A setting that it lacks is younger than what wrote it, and has its default.

    Raises:
        ValueError: if it is not a config, or one that `check` refuses.
    """
    try:
        read = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"The config is not JSON: {str(error).splitlines()[0]}.") from error
    if not isinstance(read, dict):
        raise ValueError(f"The config is a {type(read).__name__}, not settings by section and name.")
    sections = defaults.get_config().to_dict()
    for section, fields in read.items():
        if isinstance(fields, dict):
            if section == "sample" and isinstance(fields.get("ema"), bool):  # as it was before weights had names
                fields["weights"] = "ema" if fields.pop("ema") else "raw"
            as_tuples = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
            sections[section] = sections.get(section, {}) | as_tuples
        else:
            sections[section] = fields
    _refuse(_wrong_fields(sections))  # before ConfigDict meets names that it does not take
    config = ml_collections.ConfigDict(sections).lock()
    _refuse(_unfitting(config))
    return config


def _flatten(sections: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for section, fields in sections.items():
        if isinstance(fields, dict):
            yield from ((f"{section}.{name}", value) for name, value in fields.items())
        else:
            yield section, fields
