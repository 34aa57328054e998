"""Denoising Diffusion Probabilistic Models (Ho, Jain, Abbeel 2020) in JAX and Flax.

The names below are loaded when they are first used: `import ddpm_jax` starts no devices.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ddpm_jax.diffusion import (
        Process,
        make_process,
        p_mean_variance,
        q_posterior,
        q_sample,
        training_losses,
        vb_terms_bpd,
    )
    from ddpm_jax.evaluation import evaluate
    from ddpm_jax.likelihood import bpd_loop
    from ddpm_jax.runs import train
    from ddpm_jax.runs.trained_model import TrainedModel, load
    from ddpm_jax.sampling import image_keys, p_sample, sample_loop
    from ddpm_jax.schedule import beta_schedule
    from ddpm_jax.unet import UNet

__version__ = "0.1.0"

_HOMES = {
    "Process": "diffusion", "make_process": "diffusion", "p_mean_variance": "diffusion", "q_posterior": "diffusion",
    "q_sample": "diffusion", "training_losses": "diffusion", "vb_terms_bpd": "diffusion",
    "evaluate": "evaluation", "bpd_loop": "likelihood", "train": "runs", "TrainedModel": "runs.trained_model",
    "load": "runs.trained_model", "image_keys": "sampling", "p_sample": "sampling", "sample_loop": "sampling",
    "beta_schedule": "schedule", "UNet": "unet",
}  # fmt: skip
_MODULES = (
    "averaging", "data", "diffusion", "evaluation", "gaussian", "guidance", "images", "likelihood", "metrics",
    "parallel", "runs", "samplers", "sampling", "schedule", "training", "unet",
)  # fmt: skip

__all__ = [
    "Process",
    "TrainedModel",
    "UNet",
    "beta_schedule",
    "bpd_loop",
    "evaluate",
    "image_keys",
    "load",
    "make_process",
    "p_mean_variance",
    "p_sample",
    "q_posterior",
    "q_sample",
    "sample_loop",
    "train",
    "training_losses",
    "vb_terms_bpd",
]


def __getattr__(name: str) -> Any:
    """Imports a public name, or a module of the package, on first use."""
    if name in _HOMES:
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    elif name in _MODULES:
        value = importlib.import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Lists the public names and the modules."""
    return sorted({*globals(), *__all__, *_MODULES})
