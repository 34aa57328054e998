"""Converts weights: a diffusers pipeline into a work folder, and a trained model into a pipeline or a file of weights.

    ddpm-convert --from=google/ddpm-cifar10-32 --workdir=runs/cifar10 --config=cifar10
    ddpm-convert --from=model.ckpt-790000 --workdir=runs/official --config=cifar10
    ddpm-convert --workdir=runs/digits --to=diffusers --out=digits-pipeline [--weights=raw]
    ddpm-convert --workdir=runs/digits --to=safetensors --out=digits.safetensors

--from is a folder with a UNet2DModel and its scheduler, laid out as the published google/ddpm-cifar10-32, or its name
at the Hugging Face hub, which is downloaded; a checkpoint of the official TensorFlow release; a .pth checkpoint of
score_sde's network ddpm; or a .safetensors file that --to=safetensors wrote. The work folder serves ddpm-sample,
ddpm-evaluate and ddpm-train at once. --config says what --from does not: the data, how to train, and of checkpoints the
network. What cannot be expressed is refused by name. A pipeline folder is loaded by DDPMPipeline.from_pretrained and
DDIMPipeline.from_pretrained.
"""

import shlex
from typing import Any

from absl import flags
from ml_collections import config_flags

from ddpm_jax.cli import app, sample
from ddpm_jax.interop import tf1
from ddpm_jax.runs import config, conversion, workdir


def main() -> None:
    """Runs the command."""
    app.run(_define_flags, _convert, doc=__doc__)


def _define_flags() -> None:
    sample.define_weights_flags()
    config_flags.DEFINE_config_file("config", help_string="With --from: an experiment, by name or file.")
    flags.DEFINE_string("from", None, "What to make a work folder of.")
    flags.DEFINE_enum("to", None, ["diffusers", "safetensors"], "What to make of the work folder's weights.")
    flags.DEFINE_string("out", None, "With --to: the folder or the .safetensors file to write.")
    flags.mark_flag_as_required("workdir")


def _convert(values: flags.FlagValues) -> int:
    source, kind = values["from"].value, values.to
    if bool(source) == bool(kind):
        raise ValueError("Give either --from=..., which makes --workdir, or --to=..., which reads it.")
    if source:
        _read(values, source)
        return 0
    if not values.out:
        raise ValueError(f"--to={kind} needs --out=..., the {'folder' if kind == 'diffusers' else 'file'} to write.")
    path = app.folder(values.out, "--out") if kind == "diffusers" else app.file_to_write(values.out, ".safetensors")
    model = sample.load_weights(values)
    write = conversion.to_diffusers if kind == "diffusers" else conversion.to_safetensors
    write(model, path)
    print(f"Step {model.step}, {model.short_weights} weights: written to {path}.")
    return 0


def _read(values: flags.FlagValues, source: str) -> None:
    directory = app.folder(values.workdir)
    options = {} if values.step is None else {"step": values.step}
    if source.endswith(".safetensors"):
        read = conversion.from_safetensors
    elif tf1.is_checkpoint(source):
        read = conversion.from_tf1
    elif source.endswith(".pth"):
        read = conversion.from_score_sde
    else:
        read = conversion.from_diffusers
    try:
        read(source, directory, settings=values.config, **options)
    except ModuleNotFoundError as error:
        raise ValueError(str(error)) from error
    print(f"Written to {directory}: ddpm-sample --workdir={directory} draws from it.")
    if values.config and (changed := config.changed(values.config, workdir.read_config(directory))):
        more = " ".join(f"--config.{name}={_flag_value(value)}" for name, (_, value) in changed.items())
        print(f"To train it further, give ddpm-train beside that --config: {more}")


def _flag_value(value: Any) -> str:
    return shlex.quote(str(value).replace(" ", ""))


if __name__ == "__main__":
    main()
