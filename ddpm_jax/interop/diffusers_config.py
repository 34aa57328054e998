"""The configs of diffusers' `UNet2DModel` and schedulers as settings of ours, and back.

Of the many networks that a `UNet2DModel` can be, that of Ho et al. 2020 is ours: the one of the published
`google/ddpm-*` folders. A setting that a config lacks has diffusers' default, which often is another network's.
"""

import math
from typing import Any

import numpy as np

from ddpm_jax import schedule

Settings = dict[str, dict[str, Any]]  # section -> name -> value, as in runs/defaults.py

# Setting of a UNet2DModel: diffusers' default, then the values that mean our network.
_UNET = {
    "center_input_sample": (False, False),
    "time_embedding_type": ("positional", "positional"),
    "freq_shift": (0, 1),
    "mid_block_type": ("UNetMidBlock2D", "UNetMidBlock2D"),
    "mid_block_scale_factor": (1, 1),
    "downsample_padding": (1, 0),
    "downsample_type": ("conv", "conv"),
    "upsample_type": ("conv", "conv"),
    "act_fn": ("silu", "silu", "swish"),
    "norm_num_groups": (32, 32),
    "attn_norm_num_groups": (None, None, 32),
    "norm_eps": (1e-5, 1e-6),
    "resnet_time_scale_shift": ("default", "default"),
    "add_attention": (True, True),
    "class_embed_type": (None, None),
}
_READ = (
    "sample_size", "in_channels", "out_channels", "down_block_types", "up_block_types", "block_out_channels",
    "layers_per_block", "attention_head_dim", "dropout", "num_class_embeds", "time_embedding_dim", "flip_sin_to_cos",
    "num_train_timesteps",  # of a learned embedding alone
)  # fmt: skip
# The same of a scheduler. Where a list is wanted in place of a schedule, it is compared with ours.
_SCHEDULER = {
    "thresholding": (False, False),
    "rescale_betas_zero_snr": (False, False),
    "steps_offset": (0, 0),
    "set_alpha_to_one": (True, True),
}
_SCHEDULES = {"linear": "linear", "scaled_linear": "quad", "squaredcos_cap_v2": "cosine"}
_VARIANCES = {
    "fixed_small": "fixedsmall", "fixed_small_log": "fixedsmall", "fixed_large": "fixedlarge",
    "learned_range": "learned_range",
}  # fmt: skip
_MEANS = {"epsilon": "eps", "sample": "xstart", "v_prediction": "v"}


def _expect(config: dict[str, Any], table: dict[str, tuple]) -> None:
    for name, (default, *wanted) in table.items():
        if (value := config.get(name, default)) not in wanted:
            absent = "" if name in config else ", which is what a config without it means"
            raise ValueError(f"{name}={value!r:.100}{absent}; it must be {' or '.join(map(repr, wanted))}")


def _lookup(table: dict[str, str], name: str, value: str) -> str:
    if value not in table:
        raise ValueError(f"{name}={value!r:.100}; it must be one of {', '.join(table)}")
    return table[value]


def settings_of_unet(config: dict[str, Any]) -> Settings:
    """Translates the config of a `UNet2DModel` into the sections `data` and `model`.

    Raises:
        ValueError: naming the first setting that our network does not have.
        TypeError, LookupError: if it is not such a config.
    """
    known = (*_UNET, *_READ)
    if unknown := [name for name, value in config.items() if name[0] != "_" and name not in known and value]:
        raise ValueError(f"{unknown[0]}={config[unknown[0]]!r:.100}, which this network does not have")
    _expect(config, _UNET)
    size, widths = config["sample_size"], config["block_out_channels"]
    height, width = size if isinstance(size, list) else (size, size)
    ch = widths[0]
    if any(each % ch for each in widths):
        raise ValueError(f"block_out_channels={widths}; they must be multiples of the first")
    if config.get("time_embedding_dim") not in (None, 4 * ch):
        raise ValueError(f"time_embedding_dim={config['time_embedding_dim']}; it must be {4 * ch}, 4 times the width")
    attends = _attends(config)
    attended = [*(each for each, here in zip(widths, attends, strict=True) if here), widths[-1]]
    head = config.get("attention_head_dim", 8)
    if head is not None and any(head != each for each in attended):
        raise ValueError(f"attention_head_dim={head}; it must be null, one head as wide as the block")
    return {
        "data": {"image_size": (height, width), "channels": config.get("in_channels", 3)},
        "model": {
            "ch": ch, "ch_mult": tuple(each // ch for each in widths),
            "num_res_blocks": config.get("layers_per_block", 2),
            "attn_resolutions": tuple(height >> level for level, here in enumerate(attends) if here),
            "dropout": float(config.get("dropout", 0.0)), "num_classes": config.get("num_class_embeds") or 0,
        },
    }  # fmt: skip


def _attends(config: dict[str, Any]) -> list[bool]:
    """Tells at which resolutions there is attention, the highest first."""
    down, up = config["down_block_types"], config["up_block_types"]
    kinds = {"DownBlock2D": False, "AttnDownBlock2D": True, "UpBlock2D": False, "AttnUpBlock2D": True}
    for name, blocks, part in (("down_block_types", down, "Down"), ("up_block_types", up, "Up")):
        if other := [kind for kind in blocks if kind not in kinds or part not in kind]:
            raise ValueError(f"{name} has {other[0]!r:.100}; it must be {part}Block2D or Attn{part}Block2D")
    if [kinds[kind] for kind in down] != [kinds[kind] for kind in reversed(up)]:
        raise ValueError(f"up_block_types={up} have attention at other resolutions than down_block_types={down}")
    return [kinds[kind] for kind in down]


def settings_of_scheduler(config: dict[str, Any]) -> Settings:
    """Translates the config of a `DDPMScheduler` or `DDIMScheduler` into `diffusion` and `sample`.

    Raises:
        ValueError: naming the first setting that our process does not have.
        TypeError, LookupError: if it is not such a config.
    """
    kind = config.get("_class_name", "DDPMScheduler")
    if kind not in ("DDPMScheduler", "DDIMScheduler"):
        raise ValueError(f"_class_name={kind!r:.100}; it must be DDPMScheduler or DDIMScheduler")
    _expect(config, _SCHEDULER)
    clip = config.get("clip_sample", True)
    if clip and config.get("clip_sample_range", 1.0) != 1.0:
        raise ValueError(f"clip_sample_range={config['clip_sample_range']}; it must be 1, the range of images")
    variance = "fixed_small" if kind == "DDIMScheduler" else config.get("variance_type", "fixed_small")
    of_ddim = {"sampler": "ddim", "steps": min(50, config.get("num_train_timesteps", 1000))}  # as its pipeline
    return {
        "diffusion": _schedule(config) | {
            "mean_type": _lookup(_MEANS, "prediction_type", config.get("prediction_type", "epsilon")),
            "var_type": _lookup(_VARIANCES, "variance_type", variance),
        },
        "sample": {"clip": clip} | (of_ddim if kind == "DDIMScheduler" else {}),
    }  # fmt: skip


def _schedule(config: dict[str, Any]) -> dict[str, Any]:
    """Finds the schedule among ours."""
    betas = config.get("trained_betas")
    if betas is None:
        name, ends = config.get("beta_schedule", "linear"), ("beta_start", "beta_end")
        start, end = (config.get(each, default) for each, default in zip(ends, (1e-4, 0.02), strict=True))
        found = _lookup(_SCHEDULES, "beta_schedule", name)
        return {
            "schedule": found, "num_timesteps": config.get("num_train_timesteps", 1000), "beta_start": start,
            "beta_end": end,
        }  # fmt: skip
    for name in schedule.SCHEDULES:
        made = {"schedule": name, "num_timesteps": len(betas), "beta_start": min(betas), "beta_end": max(betas)}
        if len(betas) > 1 and min(betas) > 0.0 and max(betas) < 1.0:
            ours = schedule.beta_schedule(name, len(betas), beta_start=min(betas), beta_end=max(betas))
            if np.allclose(ours, betas, rtol=1e-6, atol=0.0):
                return made
    raise ValueError(f"trained_betas; the {len(betas)} values are none of {', '.join(schedule.SCHEDULES)}")


def unet_config(settings: Settings) -> dict[str, Any]:
    """Writes the network that settings describe as the config of a `UNet2DModel`.

    Raises:
        ValueError: naming the setting that it cannot express.
    """
    data, model = settings["data"], settings["model"]
    height, width = data["image_size"][0], data["image_size"][-1]
    levels = range(len(model["ch_mult"]))
    attends = [height >> level in model["attn_resolutions"] for level in levels]
    learned = settings["diffusion"]["var_type"].startswith("learned")
    return {
        "_class_name": "UNet2DModel",
        **{name: wanted for name, (_, wanted, *_) in _UNET.items()},
        "sample_size": height if height == width else [height, width],
        "in_channels": data["channels"], "out_channels": data["channels"] * (2 if learned else 1),
        "down_block_types": ["AttnDownBlock2D" if here else "DownBlock2D" for here in attends],
        "up_block_types": ["AttnUpBlock2D" if here else "UpBlock2D" for here in reversed(attends)],
        "block_out_channels": [model["ch"] * mult for mult in model["ch_mult"]],
        "layers_per_block": model["num_res_blocks"], "attention_head_dim": None, "dropout": model["dropout"],
        "num_class_embeds": model["num_classes"] or None, "time_embedding_dim": None, "flip_sin_to_cos": False,
    }  # fmt: skip


def scheduler_config(settings: Settings) -> dict[str, Any]:
    """Writes the process that settings describe as the config of a `DDPMScheduler`.

    Raises:
        ValueError: naming the setting that it cannot express.
    """
    process, sample = settings["diffusion"], settings["sample"]
    if process["rescale_timesteps"] and process["num_timesteps"] != 1000:
        raise ValueError(f"diffusion.rescale_timesteps with {process['num_timesteps']} timesteps")
    if sample["threshold"]:
        raise ValueError(f"sample.threshold={sample['threshold']}, dynamic thresholding without a largest value")
    named = {ours: theirs for theirs, ours in reversed(_SCHEDULES.items())}.get(process["schedule"])
    betas = schedule.beta_schedule(
        process["schedule"], process["num_timesteps"], beta_start=process["beta_start"], beta_end=process["beta_end"]
    )
    if not math.prod(1.0 - betas) > 0.0:
        raise ValueError(f"diffusion.schedule={process['schedule']!r}, whose last step leaves nothing of the image")
    return {
        "_class_name": "DDPMScheduler",
        "num_train_timesteps": process["num_timesteps"], "beta_start": process["beta_start"],
        "beta_end": process["beta_end"], "beta_schedule": named or "linear",
        "trained_betas": None if named else betas.tolist(),
        "variance_type": _inverse(_VARIANCES, "diffusion.var_type", process["var_type"]),
        "prediction_type": _inverse(_MEANS, "diffusion.mean_type", process["mean_type"]),
        "clip_sample": sample["clip"], "clip_sample_range": 1.0, "thresholding": False, "steps_offset": 0,
        "timestep_spacing": "leading", "rescale_betas_zero_snr": False,
    }  # fmt: skip


def _inverse(table: dict[str, str], name: str, value: str) -> str:
    names = {ours: theirs for theirs, ours in reversed(table.items())}
    if value not in names:
        raise ValueError(f"{name}={value!r}; it has {', '.join(names)}")
    return names[value]
