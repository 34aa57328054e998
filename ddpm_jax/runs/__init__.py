"""One run on disk: its settings, checkpoints, metrics and samples, and the training that makes them.

defaults.py       every setting, with its default
config.py         checks of settings, what may change while a run goes on, JSON
experiment.py     the process, the network and the image shape that settings describe
own.py            a data set, a network and a log of one's own
trainer.py        the loop: `train`
initial_weights.py    of another run, that a new one starts from
checkpoint.py     the state on disk, by Orbax
checksums.py      of its files, so that damage is noticed
metric_log.py     what is logged, and the lines on the terminal
writers.py        where the log goes: metrics.jsonl, TensorBoard, others
periodic.py       grids of samples and scores while training
dry_run.py        memory and work of a run, without running it
tpu_report.py     the same on a TPU that is not here
memory.py         what memory there is, and which batch or width it has room for
workdir.py        the work folder: its names, its lock, its config
trained_model.py  a trained model from a work folder: `load`
posthoc.py        averages of any length, from those that checkpoints hold
sample_files.py   samples on disk, and what identifies them
resumable.py      an array that is filled batch by batch and continued after a stop
"""

from ddpm_jax.runs.initial_weights import Origin
from ddpm_jax.runs.own import Own
from ddpm_jax.runs.trained_model import TrainedModel, load
from ddpm_jax.runs.trainer import train

__all__ = ["Origin", "Own", "TrainedModel", "load", "train"]
