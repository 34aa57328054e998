"""Theirs: the usual training loop of PyTorch, with what our train step does: flips, dropout, clipping, Adam, EMA."""

from collections.abc import Callable

import numpy as np
import torch

from benchmarks import torch_unet
from ddpm_jax.runs.experiment import Experiment


def train_steps(experiment: Experiment, variant: torch_unet.Variant) -> Callable[[np.ndarray], torch.Tensor]:
    """Returns `(pixels [K, B, H, W, C] uint8) -> loss`, K steps; the loss may not be computed yet.

    The network is in the precision of the config: bfloat16 by autocast, as PyTorch trains with float32 weights.
    """
    device, optim = torch_unet.device(), experiment.config.optim
    network = torch_unet.make(experiment).train()
    denoise = torch_unet.arrange(network, variant)
    parameters = list(network.parameters())
    averages = [parameter.detach().clone() for parameter in parameters]
    optimizer = torch.optim.Adam(parameters, lr=optim.lr, fused=True)
    alphas_cumprod = torch.tensor(np.asarray(experiment.process.alphas_cumprod), device=device)
    half = experiment.config.model.dtype == "bfloat16"

    def step(pixels: torch.Tensor) -> torch.Tensor:
        x_0 = pixels.to(device, non_blocking=True).permute(0, 3, 1, 2).float() / 127.5 - 1.0  # [B, C, H, W]
        if experiment.config.data.flip:
            flipped = torch.rand(len(x_0), 1, 1, 1, device=device) < 0.5
            x_0 = torch.where(flipped, x_0.flip(-1), x_0)
        if variant.channels_last:
            x_0 = x_0.contiguous(memory_format=torch.channels_last)
        t = torch.randint(len(alphas_cumprod), (len(x_0),), device=device)
        eps = torch.randn_like(x_0)
        alpha_cumprod = alphas_cumprod[t][:, None, None, None]
        x_t = alpha_cumprod.sqrt() * x_0 + (1.0 - alpha_cumprod).sqrt() * eps
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            eps_pred = denoise(x_t, t)
        loss = torch.nn.functional.mse_loss(eps_pred.float(), eps)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, optim.clip_norm)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(averages, parameters, 1.0 - optim.ema_decay)
        return loss.detach()

    def steps(pixels: np.ndarray) -> torch.Tensor:
        for batch in pixels:
            loss = step(torch.from_numpy(batch))
        return loss

    return steps
