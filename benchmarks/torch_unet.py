"""Theirs: the same network as `diffusers.UNet2DModel`, in the forms in which PyTorch may be fast."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import torch
import torch._inductor.config
from diffusers import UNet2DModel

from benchmarks import hardware
from ddpm_jax.runs.experiment import Experiment
from ddpm_jax.unet import GROUPS


class Variant(NamedTuple):
    """A way to run the network."""

    channels_last: bool
    compile_mode: str | None  # of torch.compile; None: eager


def variants() -> dict[str, Variant]:
    """The ways that are worth a try on this machine."""
    results = {
        "PyTorch eager": Variant(False, None),
        "PyTorch eager, channels_last": Variant(True, None),
        "torch.compile": Variant(False, "default"),
        "torch.compile, channels_last": Variant(True, "default"),
    }
    if hardware.on_gpu():
        results["torch.compile, CUDA graphs"] = Variant(True, "reduce-overhead")
    return results


def device() -> torch.device:
    """The one that PyTorch computes on: JAX's."""
    return torch.device("cuda" if hardware.on_gpu() else "cpu")


def make(experiment: Experiment) -> UNet2DModel:
    """The network of an experiment, as google/ddpm-cifar10-32 configures it for CIFAR-10.

    Raises:
        ValueError: if it has not as many parameters as ours.
    """
    model, height = experiment.config.model, experiment.image_shape[0]
    attention = [height // 2**level in model.attn_resolutions for level in range(len(model.ch_mult))]
    network = UNet2DModel(
        sample_size=experiment.image_shape[:2],
        in_channels=experiment.image_shape[-1],
        out_channels=experiment.model.out_ch,
        layers_per_block=model.num_res_blocks,
        block_out_channels=tuple(model.ch * mult for mult in model.ch_mult),
        down_block_types=tuple("AttnDownBlock2D" if attend else "DownBlock2D" for attend in attention),
        up_block_types=tuple("AttnUpBlock2D" if attend else "UpBlock2D" for attend in reversed(attention)),
        attention_head_dim=None,  # one head
        dropout=model.dropout,
        norm_num_groups=GROUPS,
        norm_eps=1e-6,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
    )
    theirs = sum(parameter.numel() for parameter in network.parameters())
    ours = sum(leaf.size for leaf in jax.tree.leaves(experiment.abstract_params))
    if theirs != ours:
        raise ValueError(f"UNet2DModel has {theirs:,} parameters, and our network {ours:,}: not the same.")
    if hardware.on_gpu():
        torch.set_float32_matmul_precision("high")  # TF32, in which JAX multiplies there, and PyTorch convolves
    return network.to(device())


def arrange(network: UNet2DModel, variant: Variant) -> Callable:
    """The network in the given form: (x_t [B, C, H, W], t) -> [B, C, H, W]."""
    if variant.channels_last:
        network.to(memory_format=torch.channels_last)

    def apply(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return network(x, t, return_dict=False)[0]

    if variant.compile_mode is None:
        return apply
    torch._inductor.config.force_disable_caches = True  # so that its first call compiles, as ours does
    return torch.compile(apply, mode=variant.compile_mode)


def synchronize() -> None:
    """Waits until all is computed."""
    if hardware.on_gpu():
        torch.cuda.synchronize()
