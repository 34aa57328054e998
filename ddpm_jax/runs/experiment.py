"""An experiment: the process, the network and the image shape that a config describes, as plain values."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from ddpm_jax import data, diffusion, guidance, samplers, sampling, schedule, training, unet
from ddpm_jax.runs import config as config_module
from ddpm_jax.runs import own as own_module
from ddpm_jax.runs.config import DTYPES
from ddpm_jax.runs.own import Own


class GuidedParams(NamedTuple):
    """The parameters of a network, and of a weaker one that its samples are guided away from."""

    params: Any
    weaker: Any


@dataclasses.dataclass(frozen=True, eq=False)
class Experiment:
    """The process, the network and the image shape that a config describes."""

    config: ml_collections.ConfigDict
    process: diffusion.Process
    model: unet.UNet | own_module.LabelledNetwork
    abstract_params: Any  # shapes and dtypes of the network's parameters
    image_shape: tuple[int, int, int]  # H, W, C
    own: Own = dataclasses.field(default_factory=Own)

    @property
    def condition_fn(self) -> training.ConditionFn | None:
        """Returns `labels [B] int32 -> cond`, what the network is told of a class; None: it knows no classes."""
        return _condition_fn(self.config.model.num_classes)

    def denoise_fn(self, params: Any, labels: jax.Array | None = None) -> diffusion.DenoiseFn:
        """Closes the network over its parameters and the classes of the images, without dropout or guidance.

        `labels` [B] int32 is for a model with classes alone; there -1, and None for all images, is no class.
        """
        cond = None if labels is None else self.condition_fn(labels)
        return lambda x_t, t: self.model.apply({"params": params}, x_t, t, cond)

    def guided_fn(self, params: Any, labels: jax.Array | None = None) -> diffusion.DenoiseFn:
        """Closes the network as `denoise_fn` does, guided as the config's `sample` settings say.

        Guidance by weaker weights takes `GuidedParams`; with the parameters alone there is none.
        """
        settings = self.config.sample
        known = _network_timesteps(self.config.diffusion).astype(np.float32)  # a scale is asked for the network's t
        first, last = known[list(settings.guidance_interval or (0, -1))]
        scale = guidance.within(settings.guidance, first=first, last=last)
        if isinstance(params, GuidedParams):
            return guidance.extrapolate(*(self.denoise_fn(each, labels) for each in params), scale=scale)
        if labels is None or not settings.guidance or settings.guidance_weights:
            return self.denoise_fn(params, labels)
        return guidance.classifier_free(
            lambda x_t, t, cond: self.model.apply({"params": params}, x_t, t, cond),
            self.condition_fn(labels),
            scale=scale,
        )

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
            settings.sampler, self.process, steps=settings.steps, spacing=settings.spacing, eta=float(settings.eta),
            timesteps=settings.timesteps, variances=settings.variances,
        )  # fmt: skip

    def check_whole_chain(self, what: str) -> None:
        """Refuses settings of samples with which `what`, that shows all steps of Algorithm 2, would not do as it says.

        Raises:
            ValueError: naming them.
        """
        sampler = self.sampler()
        chosen = self.config.sample.sampler != "ancestral" or self.config.sample.variances
        if chosen or sampler.num_steps != self.process.num_timesteps:
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

    def inputs(self, seed: int, indices: np.ndarray) -> tuple[jax.Array, ...]:
        """Makes what images number `indices` [N] of a seed are drawn from: their keys, and their labels if the model
        has classes.
        """
        keys = self.image_keys(seed, indices)
        return (keys,) if self.condition_fn is None else (keys, self.sample_labels(indices))

    def sample_labels(self, indices: np.ndarray) -> np.ndarray:
        """Returns the classes [N] int32 of samples number `indices` [N], of a model with classes; -1 is none."""
        labels = np.asarray(config_module.sample_labels(self.config), np.int32)
        return labels[np.asarray(indices) % len(labels)]

    def sample(self, params: Any, keys: jax.Array, labels: jax.Array | None = None) -> jax.Array:
        """Draws images [B, H, W, C] float32 in [-1, 1], one for each of the keys [B] (`sampling.image_keys`).

        Pure: to be jitted, alone or inside a larger function. Parameters and labels are as in `guided_fn`.
        """
        return sampling.sample_loop(
            self.process, self.guided_fn(params, labels), keys=keys, shape=self.image_shape, clip=self.clip,
            sampler=self.sampler(),
        )  # fmt: skip

    def chain(self, params: Any, timesteps: Sequence[int] = ()) -> sampling.Chain:
        """Makes the chain that `sample` takes as a whole; with `timesteps`, it keeps the x_0 predicted at those.

        Its functions take `inputs`: the labels, if there are any, after the keys.
        """

        def with_labels(labels: jax.Array | None) -> sampling.Chain:
            return sampling.sample_chain(
                self.process, self.guided_fn(params, labels), shape=self.image_shape, timesteps=timesteps,
                clip=self.clip, sampler=self.sampler(),
            )  # fmt: skip

        def run(carried: Any, begin: Any, end: Any, keys: jax.Array, labels: jax.Array | None = None) -> Any:
            return with_labels(labels).run(carried, begin, end, keys)

        chain = with_labels(None)
        return chain._replace(init=lambda keys, labels=None: chain.init(keys), run=run)

    def load_data(self, split: str | None = None) -> data.Source:
        """Opens the data set that the config names; `split` None: the one that is trained on.

        Raises:
            ValueError: if there is no such data set, split or image size, or it has other classes than the model.
            FileNotFoundError: if it is not where the config says.
        """
        settings = self.config.data
        if self.own.open_data:
            source = self.own.open_data(split or settings.split)
            if source.image_shape != self.image_shape:
                raise ValueError(
                    f"open_data gives images of {source.image_shape}, and data.image_size and data.channels say "
                    f"{self.image_shape}: set these, or give them to data.from_sequence."
                )
        else:
            source = data.load(
                settings.name,
                split=split or settings.split,
                data_dir=settings.data_dir,
                image_size=self.image_shape[:2],
                channels=settings.channels,
                memory_limit_gib=settings.memory_limit_gib,
                background=settings.background,
                holdout=settings.holdout,
            )
        if self.config.model.num_classes not in (0, len(source.class_names)):
            raise ValueError(
                f"model.num_classes={self.config.model.num_classes}, but the images of {settings.name!r} are of "
                f"{len(source.class_names)} classes: set it to that, or to 0 for a model that is told no class."
            )
        return source


def make_experiment(config: ml_collections.ConfigDict, own: Own | None = None) -> Experiment:
    """Builds what the config describes, with the network and the data of one's own where they are given.

    Raises:
        ValueError: if the process makes no sense, or the network does not fit the images.
    """
    image_shape = (config.data.image_size[0], config.data.image_size[-1], config.data.channels)
    process = _make_process(config.diffusion)
    diffusion.check_loss(process, config.diffusion.loss_type, config.diffusion.loss_weighting)
    own, channels = own or Own(), process.outputs_per_channel * config.data.channels
    model_settings = {name: value for name, value in config.model.items() if name not in ("dtype", "num_classes")}
    model = unet.UNet(channels, dtype=DTYPES[config.model.dtype], **model_settings)
    if own.network is not None:
        model = own_module.LabelledNetwork(own.network, channels)
    abstract_params = _abstract_params(model, image_shape, config.model.num_classes)
    experiment = Experiment(config, process, model, abstract_params, image_shape, own)
    experiment.sampler()  # one that does not fit the process is refused here
    return experiment


def _condition_fn(num_classes: int) -> training.ConditionFn | None:
    return functools.partial(unet.class_condition, num_classes=num_classes) if num_classes else None


def _abstract_params(model: nn.Module, image_shape: tuple[int, int, int], num_classes: int) -> Any:
    """Traces the network, which raises ValueError where it does not fit the images."""
    x = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    t = jax.ShapeDtypeStruct((1,), jnp.int32)
    condition_fn = _condition_fn(num_classes)
    cond = None if condition_fn is None else jax.eval_shape(condition_fn, t)
    return jax.eval_shape(model.init, jax.random.key(0), x, t, cond)["params"]


def _network_timesteps(settings: ml_collections.ConfigDict) -> np.ndarray:
    """Returns what the network is given for each timestep that it was trained on, [T]."""
    timesteps = np.arange(settings.num_timesteps)
    return timesteps * (1000.0 / settings.num_timesteps) if settings.rescale_timesteps else timesteps


def _make_process(settings: ml_collections.ConfigDict, sections: str = "") -> diffusion.Process:
    num_timesteps = settings.num_timesteps
    betas = schedule.beta_schedule(
        settings.schedule, num_timesteps, beta_start=settings.beta_start, beta_end=settings.beta_end
    )
    timesteps = _network_timesteps(settings)
    if sections:
        taken = schedule.respaced_timesteps(num_timesteps, sections)
        betas, timesteps = schedule.respaced_betas(betas, taken), timesteps[taken]
    is_own = not sections and not settings.rescale_timesteps
    return diffusion.make_process(
        betas, mean_type=settings.mean_type, var_type=settings.var_type, timesteps=None if is_own else timesteps
    )
