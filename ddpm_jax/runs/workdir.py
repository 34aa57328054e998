"""The folder of one run: its config, and, with its checkpoints, all that is needed to use the trained model."""

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_collections

from ddpm_jax.runs import checkpoint, experiment
from ddpm_jax.runtime import files

CONFIG, CHECKPOINTS, LOCK, METRICS, PROFILE, SAMPLES, TABLES, TENSORBOARD = (
    "config.json", "checkpoints", ".lock", "metrics.jsonl", "profile", "samples", "tables", "tensorboard",
)  # fmt: skip
_MAX_CONFIG_CHARACTERS = 2**16  # one has some 2000; of a longer file the rest is missed as JSON


class Loaded(NamedTuple):
    """A trained model: `experiment.sample(params, keys)` draws from it."""

    experiment: experiment.Experiment
    params: Any
    step: int  # of training
    weights: str  # 'ema' or 'raw'


def load(workdir: str | os.PathLike, *, step: int | None = None, ema: bool | None = None) -> Loaded:
    """Loads the trained model of a work folder, given the folder alone; changes nothing in it.

    Args:
        workdir: of a run of train.py, perhaps one still going on.
        step: of the checkpoint; None: the newest.
        ema: the averaged weights rather than the last ones; None: as the config's sample.ema says.

    Returns:
        What the config describes, the parameters on the default device, their training step, and which of the two.

    Raises:
        FileNotFoundError: if that is no work folder, or there is no checkpoint yet.
        ValueError: if its config is wrong, or the checkpoints cannot be read.
    """
    made = experiment.make(read_config(workdir))
    averaged = made.config.sample.ema if ema is None else ema
    on_one_device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    like = checkpoint.abstract(made.abstract_params(), on_one_device)
    name = "ema_params" if averaged else "params"
    step, params = checkpoint.restore_weights(Path(workdir) / CHECKPOINTS, name, like, step=step)
    return Loaded(made, params, step, "ema" if averaged else "raw")


def read_config(workdir: str | os.PathLike) -> ml_collections.ConfigDict:
    """The config that the run was started with; settings that are younger than it have their defaults.

    Raises:
        FileNotFoundError: if that is no work folder.
        ValueError: if its config is none, or wrong.
    """
    path = Path(workdir) / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{Path(workdir).absolute()} is no work folder: it has no {CONFIG}. Train there first.")
    try:
        with path.open() as file:
            return experiment.from_json(file.read(_MAX_CONFIG_CHARACTERS))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def recent_loss(workdir: str | os.PathLike, step: int, *, reports: int = 10) -> float | None:
    """The mean of the training loss over the last reports in metrics.jsonl up to `step`; None if there is none."""
    path = Path(workdir) / METRICS
    *lines, _torn = path.read_text().split("\n") if path.is_file() else [""]  # a run may be writing there
    reports_so_far = [report for report in map(json.loads, lines) if report["step"] <= step and "loss" in report]
    losses = [report["loss"] for report in reports_so_far[-reports:]]
    return sum(losses) / len(losses) if losses else None


def check(workdir: str | os.PathLike, config: ml_collections.ConfigDict) -> None:
    """Refuses to continue the run in a work folder with settings that would make it another run.

    Raises:
        ValueError: naming the settings that differ.
    """
    path = Path(workdir) / CONFIG
    if path.is_file() and (changed := experiment.differences(read_config(workdir), config)):
        raise ValueError(
            f"{Path(workdir).absolute()} holds a run with other settings: {'; '.join(changed)}. Continue it with "
            f"its own, start in another --workdir, or, to go on with the new ones on purpose, edit {path} first."
        )


def claim(workdir: str | os.PathLike, config: ml_collections.ConfigDict) -> None:
    """Makes the work folder of a new run, or lets the run in it be continued with this config.

    Raises:
        ValueError: as `check` does.
    """
    check(workdir, config)
    path = Path(workdir) / CONFIG
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomically(path, experiment.to_json(config))


@contextlib.contextmanager
def locked(workdir: str | os.PathLike) -> Iterator[None]:
    """Makes the folder, and keeps a second training run out of it while entered; who only reads does not ask.

    The kernel's lock on a file, so it ends with the process, however that ends. On a network file system it holds
    between hosts where the system supports locks, as NFS does.

    Raises:
        ValueError: if another run holds it.
    """
    path = Path(workdir) / LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ValueError(
                f"{Path(workdir).absolute()} is in use by another run, {file.read().strip() or 'just begun'}: wait "
                "until it ends, stop it, or start in another --workdir."
            ) from None
        file.truncate(0)
        print(f"process {os.getpid()} on {socket.gethostname()}", file=file, flush=True)
        yield
