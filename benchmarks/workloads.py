"""Ours: the experiments that are timed, and the programs that train.py and sample.py run for them."""

from typing import Any

import jax
import ml_collections
import numpy as np

from benchmarks import hardware
from configs import celebahq256 as celebahq256_config
from configs import cifar10 as cifar10_config
from configs import digits as digits_config
from ddpm_jax import data, parallel
from ddpm_jax.runs import trainer
from ddpm_jax.runs.experiment import make_experiment


def cifar10(*, quick: bool) -> ml_collections.ConfigDict:
    """The paper's CIFAR-10 model: batch 8 in float32 on a CPU, 128 in bfloat16 on a GPU."""
    config = cifar10_config.get_config()
    if hardware.on_gpu():
        config.model.dtype = "bfloat16"
        config.train.batch_size = 128
    else:
        config.train.batch_size = 8
    if quick:
        _shrink(config)
    return config


def celebahq256(*, batch_size: int, quick: bool) -> ml_collections.ConfigDict:
    """The paper's model of 256x256 images, in bfloat16."""
    config = celebahq256_config.get_config()
    config.model.dtype = "bfloat16"
    if quick:
        _shrink(config)
    config.train.batch_size = batch_size
    return config


def digits(*, quick: bool) -> ml_collections.ConfigDict:
    """The demonstration's model of 8x8 images."""
    config = digits_config.get_config()
    if quick:
        _shrink(config)
        config.diffusion.num_timesteps = 20
        config.sample.update(num_samples=4, batch_size=4)
    return config


def _shrink(config: ml_collections.ConfigDict) -> None:
    """Leaves of the network what compiles in seconds: one level, with attention."""
    config.data.image_size = (8, 8)
    config.model.update(ch=32, ch_mult=(1,), num_res_blocks=1, attn_resolutions=(8,))
    config.train.batch_size = 8


def pixels(config: ml_collections.ConfigDict, *, steps: int = 1) -> np.ndarray:
    """Random images for so many steps, uint8 [steps, B, H, W, C]."""
    height, width = config.data.image_size[0], config.data.image_size[-1]
    shape = (steps, config.train.batch_size, height, width, config.data.channels)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


class Training:
    """The train step as train.py runs it: mapped over the devices, the state donated and kept here."""

    def __init__(self, config: ml_collections.ConfigDict):
        self.experiment = make_experiment(config)
        optimizer, train_step = trainer.make_step(self.experiment)
        self.state = parallel.replicate(trainer.make_init(self.experiment, optimizer)())
        self._steps = parallel.pmap_train_steps(train_step)

    def dispatch(self, images: np.ndarray) -> Any:
        """Makes the steps of one dispatch, [K, B, H, W, C]; returns the metrics, perhaps before they are computed."""
        batch = data.Batch(images, np.zeros(images.shape[:2], np.int32))
        self.state, metrics, _ = self._steps(self.state, batch)
        return metrics

    def run(self, images: np.ndarray, *, dispatches: int) -> None:
        """Makes several dispatches, and waits."""
        for _ in range(dispatches):
            metrics = self.dispatch(images)
        jax.block_until_ready((self.state, metrics))

    def flops(self) -> float:
        """Counts the operations of one step, on all devices: see `dry_run.cost`."""
        return trainer.lower(self.experiment).cost_analysis()["flops"] * jax.device_count()
