"""Theirs: the reverse chain as `diffusers.DDPMPipeline` runs it, a Python loop over its `DDPMScheduler`."""

from collections.abc import Callable

import torch
from diffusers import DDPMScheduler

from benchmarks import torch_unet
from ddpm_jax.runs.experiment import Experiment


def scheduler(experiment: Experiment) -> DDPMScheduler:
    """The process of an experiment."""
    diffusion = experiment.config.diffusion
    return DDPMScheduler(
        num_train_timesteps=diffusion.num_timesteps,
        beta_schedule=diffusion.schedule,
        beta_start=diffusion.beta_start,
        beta_end=diffusion.beta_end,
        variance_type={"fixedlarge": "fixed_large", "fixedsmall": "fixed_small"}[diffusion.var_type],
        clip_sample=experiment.config.sample.clip,
    )


def chain(
    experiment: Experiment, variant: torch_unet.Variant, *, batch_size: int, num_steps: int
) -> Callable[[], torch.Tensor]:
    """Returns what draws images, [B, C, H, W] on the CPU, by the last `num_steps` steps of the chain."""
    device = torch_unet.device()
    dtype = torch.bfloat16 if experiment.config.model.dtype == "bfloat16" else torch.float32
    denoise = torch_unet.arrange(torch_unet.make(experiment).eval().to(dtype), variant)
    steps = scheduler(experiment)
    steps.set_timesteps(experiment.process.num_timesteps)
    height, width, channels = experiment.image_shape
    memory_format = torch.channels_last if variant.channels_last else torch.contiguous_format

    @torch.inference_mode()
    def draw() -> torch.Tensor:
        x = torch.randn(batch_size, channels, height, width, device=device, dtype=dtype)
        x = x.contiguous(memory_format=memory_format)
        for t in steps.timesteps[-num_steps:]:
            # CUDA graphs reuse the memory of their output in the next call; elsewhere this does nothing.
            torch.compiler.cudagraph_mark_step_begin()
            x = steps.step(denoise(x, t), t, x).prev_sample
        return x.cpu()

    return draw
