"""An experiment: the process, the network and the image shape that a config describes, as plain values."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from ddpm_jax import data, diffusion, samplers, sampling, schedule, unet
from ddpm_jax.runs.config import DTYPES


@dataclasses.dataclass(frozen=True, eq=False)
class Experiment:
    """The process, the network and the image shape that a config describes."""

    config: ml_collections.ConfigDict
    process: diffusion.Process
    model: unet.UNet
    image_shape: tuple[int, int, int]  # H, W, C

    def denoise_fn(self, params: Any) -> diffusion.DenoiseFn:
        """Closes the network over its parameters, without dropout."""
        return lambda x_t, t: self.model.apply({"params": params}, x_t, t)

    def respaced(self, sections: str) -> "Experiment":
        """Returns the experiment with fewer timesteps, which the same parameters serve.

        Args:
            sections: such as "250", "10,10,20" or "ddim50"; see `schedule.respaced_timesteps`.

        Raises:
            ValueError: as that does.
        """
        return dataclasses.replace(self, process=_make_process(self.config.diffusion, sections))

    def image_keys(self, seed: int, indices: jax.Array) -> jax.Array:
        """Makes the keys [N] of images to be sampled, of the config's generator; see `sampling.image_keys`."""
        return sampling.image_keys(seed, indices, prng_impl=self.config.sample.prng_impl)

    def sampler(self) -> samplers.Sampler:
        """Makes the sampler that the config's `sample` settings choose.

        Raises:
            ValueError: if they do not fit each other or the process.
        """
        settings = self.config.sample
        return samplers.by_name(
            settings.sampler, self.process, steps=settings.steps, spacing=settings.spacing, eta=float(settings.eta)
        )

    def check_whole_chain(self, what: str) -> None:
        """Refuses settings of samples with which `what`, that shows all steps of Algorithm 2, would not do as it says.

        Raises:
            ValueError: naming them.
        """
        sampler = self.sampler()
        if self.config.sample.sampler != "ancestral" or sampler.num_steps != self.process.num_timesteps:
            raise ValueError(
                f"{what} shows all {self.process.num_timesteps} steps of ancestral sampling, not {sampler.num_steps} "
                f"of {self.config.sample.sampler}: give --sampler=ancestral --steps=0."
            )

    @property
    def clip(self) -> bool | diffusion.Constrain:
        """Says what is done to the predicted x_0 at every step: clipping, nothing, or dynamic thresholding."""
        settings = self.config.sample
        if settings.threshold:
            return functools.partial(diffusion.dynamic_threshold, quantile=settings.threshold)
        return settings.clip

    def sample(self, params: Any, keys: jax.Array) -> jax.Array:
        """Draws images [B, H, W, C] float32 in [-1, 1], one for each of the keys [B] (`sampling.image_keys`).

        Pure: to be jitted, alone or inside a larger function.
        """
        return sampling.sample_loop(
            self.process, self.denoise_fn(params), keys=keys, shape=self.image_shape, clip=self.clip,
            sampler=self.sampler(),
        )  # fmt: skip

    def chain(self, params: Any, timesteps: Sequence[int] = ()) -> sampling.Chain:
        """Makes the chain that `sample` takes as a whole; with `timesteps`, it keeps the x_0 predicted at those."""
        return sampling.sample_chain(
            self.process, self.denoise_fn(params), shape=self.image_shape, timesteps=timesteps, clip=self.clip,
            sampler=self.sampler(),
        )  # fmt: skip

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
            background=settings.background,
            holdout=settings.holdout,
        )

    def abstract_params(self) -> Any:
        """Returns the shapes and dtypes of the network's parameters."""
        x = jax.ShapeDtypeStruct((1, *self.image_shape), jnp.float32)
        t = jax.ShapeDtypeStruct((1,), jnp.int32)
        return jax.eval_shape(self.model.init, jax.random.key(0), x, t)["params"]


def make_experiment(config: ml_collections.ConfigDict) -> Experiment:
    """Builds what the config describes.

    Raises:
        ValueError: if the process makes no sense, or the network does not fit the images.
    """
    height, width = config.data.image_size[0], config.data.image_size[-1]
    process = _make_process(config.diffusion)
    diffusion.check_loss(process, config.diffusion.loss_type, config.diffusion.loss_weighting)
    model_settings = {name: value for name, value in config.model.items() if name != "dtype"}
    experiment = Experiment(
        config=config,
        process=process,
        model=unet.UNet(
            process.outputs_per_channel * config.data.channels, dtype=DTYPES[config.model.dtype], **model_settings
        ),
        image_shape=(height, width, config.data.channels),
    )
    experiment.sampler()  # one that does not fit the process is refused here
    experiment.abstract_params()  # traces the network: a size that does not fit is refused here
    return experiment


def _make_process(settings: ml_collections.ConfigDict, sections: str = "") -> diffusion.Process:
    num_timesteps = settings.num_timesteps
    betas = schedule.beta_schedule(
        settings.schedule, num_timesteps, beta_start=settings.beta_start, beta_end=settings.beta_end
    )
    timesteps = np.arange(num_timesteps)
    if sections:
        timesteps = schedule.respaced_timesteps(num_timesteps, sections)
        betas = schedule.respaced_betas(betas, timesteps)
    if settings.rescale_timesteps:
        timesteps = timesteps * (1000.0 / num_timesteps)
    is_own = not sections and not settings.rescale_timesteps
    return diffusion.make_process(
        betas, mean_type=settings.mean_type, var_type=settings.var_type, timesteps=None if is_own else timesteps
    )
