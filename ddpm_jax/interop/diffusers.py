"""Folders of diffusers' `DDPMPipeline`: the weights of a `UNet2DModel` as `UNet` parameters, and back.

A folder holds config.json, scheduler_config.json and diffusion_pytorch_model.safetensors (or .bin, of torch) side by
side, as the published `google/ddpm-cifar10-32` does, or in unet/ and scheduler/. Neither torch nor diffusers is needed.
"""

import json
import os
import re
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from ddpm_jax.interop import diffusers_config, safetensors_file, torch_file
from ddpm_jax.interop.diffusers_config import Settings
from ddpm_jax.runtime import files, foreign_files

_WEIGHTS = "diffusion_pytorch_model"
_VERSION = "0.42.0"  # of diffusers, whose names these are

_WHOLE = {
    "conv_in": "conv_in", "time_embedding.linear_1": "temb_dense0", "time_embedding.linear_2": "temb_dense1",
    "conv_norm_out": "norm_out", "conv_out": "conv_out", "mid_block.resnets.0": "mid_block_1",
    "mid_block.attentions.0": "mid_attn_1", "mid_block.resnets.1": "mid_block_2", "class_embedding": "cond_proj",
}  # fmt: skip
_PARTS = {"resnets": "block", "attentions": "attn", "downsamplers": "downsample", "upsamplers": "upsample"}
_LAYERS = {
    "norm1": "norm1", "conv1": "conv1", "time_emb_proj": "temb_proj", "norm2": "norm2", "conv2": "conv2",
    "conv_shortcut": "nin_shortcut", "group_norm": "norm", "conv": "conv",
    "query": "q", "key": "k", "value": "v", "proj_attn": "proj_out",  # before diffusers 0.17
    "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out",
}  # fmt: skip


class Pipeline(NamedTuple):
    """What a folder holds.

    Attributes:
        settings: section -> name -> value: the sections data, model, diffusion and sample of a config, in part.
        params: nested `params` of a `UNet`, float32.
    """

    settings: Settings
    params: dict


def _to_ours(name: str, levels: int) -> tuple[str, ...]:
    """Converts a name: `up_blocks.0.resnets.1.conv1.weight` -> ('up_3_block_1', 'conv1', 'weight')."""
    path, leaf = name.rsplit(".", 1)
    if path in _WHOLE:
        return _WHOLE[path], leaf
    if match := re.fullmatch(r"(mid_block\.\w+\.\d)\.(.+)", path):
        return _WHOLE[match[1]], _LAYERS[match[2]], leaf
    way, block, part, i, layer = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)", path).groups()
    level = levels - 1 - int(block) if way == "up" else int(block)
    number = "" if part.endswith("samplers") else f"_{i}"
    return f"{way}_{level}_{_PARTS[part]}{number}", _LAYERS[layer], leaf


def _to_theirs(path: tuple[str, ...], levels: int) -> str:
    """Inverts `_to_ours`, but for the leaf: ('up_3_block_1', 'conv1') -> `up_blocks.0.resnets.1.conv1`."""
    layers = {ours: theirs for theirs, ours in _LAYERS.items()}
    whole = {ours: theirs for theirs, ours in _WHOLE.items()}
    if path[0] in whole:
        return ".".join([whole[path[0]], *(layers[layer] for layer in path[1:])])
    way, level, part, i = re.fullmatch(r"(down|up)_(\d+)_([a-z]+)_?(\d*)", path[0]).groups()
    block = levels - 1 - int(level) if way == "up" else int(level)
    part = {ours: theirs for theirs, ours in _PARTS.items()}[part]
    return f"{way}_blocks.{block}.{part}.{i or 0}.{layers[path[1]]}"


def params_from_state_dict(state: dict[str, np.ndarray], *, levels: int, flip_sin_to_cos: bool = False) -> dict:
    """Renames and transposes the weights of a `UNet2DModel` into `UNet` parameters.

    Args:
        state: name -> array, of torch's layout, with the names of old or new attention.
        levels: how many resolutions the network has.
        flip_sin_to_cos: the network was trained with cosines before sines; its first matrix is changed to ours.

    Returns:
        Nested float32 parameters.

    Raises:
        ValueError: naming a weight that has no place in this network.
    """
    params = {}
    for name, array in state.items():
        try:
            *path, leaf = _to_ours(name, levels)
        except (LookupError, AttributeError, ValueError) as error:
            raise ValueError(f"it has a weight {name!r:.200}, which this network does not") from error
        array = np.asarray(array, np.float32)
        if leaf == "weight" and array.ndim > 1 and path[-1] != "cond_proj":
            if path[-1] in ("q", "k", "v", "proj_out", "nin_shortcut"):
                array = array.reshape(array.shape[:2])  # some are convolutions of one pixel
            array = np.moveaxis(array, (0, 1), (-1, -2))  # [out, in, h, w] -> [h, w, in, out]
        kind = "kernel" if array.ndim > 1 else "scale"
        params[*path, kind if leaf == "weight" else leaf] = array
    if flip_sin_to_cos:
        kernel = params["temb_dense0", "kernel"]
        params["temb_dense0", "kernel"] = np.roll(kernel, len(kernel) // 2, axis=0)
    return unflatten_dict(params)


def state_dict_from_params(params: dict, *, levels: int) -> dict[str, np.ndarray]:
    """Inverts `params_from_state_dict`; attention has its present names (`to_q`, ...).

    Args:
        params: nested parameters of a `UNet`.
        levels: how many resolutions the network has.

    Returns:
        name -> float32 array of torch's layout.
    """
    state = {}
    for (*path, leaf), array in flatten_dict(params).items():
        array = np.asarray(array, np.float32)
        if leaf == "kernel" and path[-1] != "cond_proj":
            array = np.moveaxis(array, (-1, -2), (0, 1))
            if path[-1] == "nin_shortcut":
                array = array[:, :, None, None]
        state[f"{_to_theirs(tuple(path), levels)}.{'bias' if leaf == 'bias' else 'weight'}"] = array
    return state


def read_pipeline(folder: str | os.PathLike) -> Pipeline:
    """Reads a folder with a `UNet2DModel` and its scheduler.

    Args:
        folder: with everything side by side, or in unet/ and scheduler/.

    Returns:
        The settings that it has, to be laid over those of a config, and the parameters.

    Raises:
        FileNotFoundError: if the folder or a file is missing.
        ValueError: if a file is damaged, or the network or the scheduler has a setting that ours does not have, which
            the message names.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}.")
    of_unet = folder / "unet" if (folder / "unet").is_dir() else folder
    of_scheduler = folder / "scheduler" if (folder / "scheduler").is_dir() else folder
    refusal = "is no config of a UNet2DModel that can be converted"
    config = foreign_files.read_json(of_unet / "config.json", refusal)
    with foreign_files.reading(of_unet / "config.json", refusal):
        settings = diffusers_config.settings_of_unet(config)
        outputs = config.get("out_channels", 3) // settings["data"]["channels"]
    path, refusal = of_scheduler / "scheduler_config.json", "is no config of a scheduler that can be converted"
    scheduler = foreign_files.read_json(path, refusal)
    with foreign_files.reading(path, refusal):
        settings |= diffusers_config.settings_of_scheduler(scheduler)
        var_type = settings["diffusion"]["var_type"]
        if outputs != (2 if var_type == "learned_range" else 1):
            raise ValueError(f"variance_type of {var_type}, but {config.get('out_channels', 3)} output channels")

    path = of_unet / f"{_WEIGHTS}.safetensors"
    if not path.exists() and path.with_suffix(".bin").exists():
        path = path.with_suffix(".bin")
    state = torch_file.read_state_dict(path) if path.suffix == ".bin" else safetensors_file.read_arrays(path)[0]
    with foreign_files.reading(path, "does not hold the weights of this network"):
        params = params_from_state_dict(
            state, levels=len(config["block_out_channels"]), flip_sin_to_cos=config.get("flip_sin_to_cos", True)
        )
    return Pipeline(settings, params)


def write_pipeline(folder: str | os.PathLike, settings: Settings, params: dict, *, about: str = "") -> None:
    """Writes a folder that `DDPMPipeline.from_pretrained` and `DDIMPipeline.from_pretrained` load.

    Args:
        folder: to make; it must be empty or not there.
        settings: all those of a config, by section.
        params: of the network.
        about: a paragraph for the model card.

    Raises:
        ValueError: if the folder holds something, or diffusers has not what a setting asks for, which is named.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty: choose another folder.")
    try:
        unet, scheduler = diffusers_config.unet_config(settings), diffusers_config.scheduler_config(settings)
    except ValueError as error:
        raise ValueError(f"diffusers cannot express {error}.") from error
    index = {
        "_class_name": "DDPMPipeline", "_diffusers_version": _VERSION, "scheduler": ["diffusers", "DDPMScheduler"],
        "unet": ["diffusers", "UNet2DModel"],
    }  # fmt: skip
    (folder / "unet").mkdir(parents=True, exist_ok=True)
    (folder / "scheduler").mkdir()
    state = state_dict_from_params(jax.device_get(params), levels=len(settings["model"]["ch_mult"]))
    safetensors_file.write_arrays(folder / "unet" / f"{_WEIGHTS}.safetensors", state, metadata={"format": "pt"})
    for name, content in (
        ("unet/config.json", unet | {"_diffusers_version": _VERSION}),
        ("scheduler/scheduler_config.json", scheduler | {"_diffusers_version": _VERSION}),
        ("model_index.json", index),
    ):
        files.write_atomically(folder / name, json.dumps(content, indent=2) + "\n")
    files.write_atomically(folder / "README.md", _card(settings, about))


def _card(settings: Settings, about: str) -> str:
    """Writes the model card."""
    classes, var_type = settings["model"]["num_classes"], settings["diffusion"]["var_type"]
    remarks = [
        f"It is told one of {classes} classes: call `pipeline.unet(x, t, class_labels)` in a loop of your own, as "
        "`DDPMPipeline` passes no labels.\n" if classes else "",
        "It predicts variances too, which `DDPMPipeline` uses and `DDIMPipeline` does not take.\n"
        if var_type == "learned_range" else "",
    ]  # fmt: skip
    size = "x".join(map(str, settings["data"]["image_size"]))
    return "\n".join([
        "---\nlibrary_name: diffusers\ntags:\n- ddpm\n- unconditional-image-generation\n---\n",
        f"# DDPM, images of {size}\n",
        "A denoising diffusion model (Ho et al. 2020, arXiv:2006.11239), trained with ddpm_jax.\n",
        *([about + "\n"] if about else []),
        *filter(None, remarks),
        "```python\nfrom diffusers import DDPMPipeline\n\n"
        'pipeline = DDPMPipeline.from_pretrained("FOLDER")\nimages = pipeline(batch_size=4).images\n```\n',
    ])  # fmt: skip
