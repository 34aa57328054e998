"""Models at the Hugging Face hub, by name."""

import re
from pathlib import Path

from ddpm_jax.runtime.foreign_files import cause

_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def is_name(source: str) -> bool:
    """Tells whether it is like `google/ddpm-cifar10-32`, and no path of something that is there."""
    return bool(_NAME.fullmatch(source)) and not Path(source).exists()


def fetch(name: str) -> Path:
    """Downloads a pipeline of diffusers, or finds it where huggingface_hub keeps what it downloaded.

    Of the weights, the .safetensors file is taken, and the .bin file only where there is none.

    Returns:
        Its folder.

    Raises:
        ModuleNotFoundError: without huggingface_hub.
        OSError: if there is no such model, or the hub cannot be reached.
    """
    try:
        import huggingface_hub
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{name!r} is no folder here, and to download it by this name needs: pip install huggingface_hub."
        ) from error
    for kind in ("safetensors", "bin"):
        patterns = ["*config.json", f"*diffusion_pytorch_model.{kind}"]
        try:
            folder = Path(huggingface_hub.snapshot_download(name, allow_patterns=patterns))
        except OSError as error:
            raise OSError(
                f"{name!r} is no folder here, and the Hugging Face hub gave no such model: {cause(error)}."
            ) from error
        if any(folder.rglob(f"*.{kind}")):
            break
    return folder
