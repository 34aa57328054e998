"""Features that need no download: those of a small classifier, trained on a data set's own labels.

They suit small images unlike any that Inception-v3 was trained on. It is another feature space, so a distance in it is
no FID: call it `fd_classifier`, `kd_classifier` and so on. Scores compare only if the fingerprints are equal.
"""

import os
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ddpm_jax import data, images, sampling
from ddpm_jax.metrics.features import Extractor, Features, fingerprint
from ddpm_jax.runtime import files, foreign_files


class _Classifier(nn.Module):
    """Applies three convolutions, the second of stride 2; their output, averaged over pixels, is the 64 features.

    No dense layer precedes the features: it would make them tell classes apart better, but images of low quality less.
    """

    num_classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> Features:
        """Returns the features and logits of x, [B, H, W, C] in [-1, 1]."""
        for ch, stride in ((32, 1), (64, 2), (64, 1)):
            x = nn.Conv(ch, (3, 3), strides=stride, precision="highest")(x)
            x = nn.relu(nn.GroupNorm(num_groups=8)(x))
        pool = x.mean(axis=(1, 2))  # [B, 64]
        return Features(pool, nn.Dense(self.num_classes, precision="highest")(pool))


def train(
    source: data.Source,
    *,
    name: str,
    seed: int = 0,
    num_steps: int = 300,
    batch_size: int = 128,
    learning_rate: float = 2e-3,
) -> Extractor:
    """Trains a classifier of the labels; the input of its last layer becomes the features.

    The result depends on the arguments alone, bit for bit on one machine: it uses one device, however many there are.

    Args:
        source: the training split.
        name: name of the data set; the extractor is called 'classifier-<name>'.
        seed: determines the initial weights and the order of the images.
        num_steps: steps of Adam, whose learning rate decays to 0 as a cosine. The default suits digits.
        batch_size: images per step.
        learning_rate: of the first step.

    Raises:
        ValueError: if the data set has no labels.
        FloatingPointError: if the loss is not finite.
    """
    if source.num_classes < 2:
        raise ValueError(f"A classifier needs labels of 2 classes or more; the data set {name!r} has none.")
    network = _Classifier(source.num_classes)
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, num_steps))

    @jax.jit  # a step at a time: gradients of convolutions are slow in a loop on the CPU, see `ops.convolution`
    def step(params: Any, state: Any, batch: data.Batch) -> tuple[Any, Any, jax.Array]:
        def mean_loss(params: Any) -> jax.Array:
            logits = network.apply({"params": params}, images.from_uint8(batch.images)).logits
            return optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels).mean()

        loss, gradients = jax.value_and_grad(mean_loss)(params)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(params, updates), state, loss

    with jax.default_device(jax.local_devices()[0]):
        init = jax.jit(sampling.pinned(network.init))
        params = init(sampling.run_key(seed), jnp.zeros((1, *source.image_shape)))["params"]
        state = optimizer.init(params)
        batches = data.batches(source, seed=seed, batch_size=batch_size, start_step=0, num_steps=num_steps)
        for batch in batches:
            params, state, loss = step(params, state, batch)
        if not np.isfinite(loss):  # and so it stays once it is not: the weights are then NaN too
            raise FloatingPointError(f"The loss of the classifier is {loss} after {num_steps} steps.")
    return from_params(f"classifier-{name}", jax.device_get(params))


def save(extractor: Extractor, path: str | os.PathLike) -> None:
    """Writes an extractor that `train` returned, so that `load` brings back the same bits; never half a file."""
    arrays = flax.traverse_util.flatten_dict(extractor.params, sep="/")
    with files.atomically(path) as unfinished, unfinished.open("wb") as file:
        np.savez(file, name=np.array(extractor.name), **arrays)


def read(path: str | os.PathLike) -> tuple[str, Any]:
    """Reads what `save` wrote: the extractor's name and parameters.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds something else.
    """
    try:
        with foreign_files.open_npz(path, "does not hold a classifier") as file:
            arrays = dict(file)
            name = str(arrays.pop("name"))
            params = flax.traverse_util.unflatten_dict(arrays, sep="/")
            pixels = jax.ShapeDtypeStruct((1, 8, 8, params["Conv_0"]["kernel"].shape[2]), jnp.uint8)
            jax.eval_shape(from_params(name, params).apply, params, pixels)
    except flax.errors.FlaxError as error:
        raise ValueError(f"{str(path)!r} holds another classifier than this version's: {error}.") from error
    return name, params


def load(path: str | os.PathLike) -> Extractor:
    """Returns the extractor that `save` wrote; raises as `read` does."""
    return from_params(*read(path))


def from_params(name: str, params: Any) -> Extractor:
    """Makes an extractor from what `read` returned; the shapes give classes and channels."""
    channels, num_classes = params["Conv_0"]["kernel"].shape[2], params["Dense_0"]["kernel"].shape[1]

    def apply(params: Any, pixels: jax.Array) -> Features:
        if pixels.dtype != jnp.uint8 or pixels.ndim != 4 or pixels.shape[3] != channels:
            raise ValueError(
                f"{name} takes images [B, H, W, {channels}] uint8; got {list(pixels.shape)} {pixels.dtype}."
            )
        return _Classifier(num_classes).apply({"params": params}, images.from_uint8(pixels))

    return Extractor(name, fingerprint(params), params, apply)
