"""Fine-tuning: a run that starts from the weights of another, and what its work folder says of that.

The weights count at the start alone. Once the run has a checkpoint of its own it goes on from there, and the other
folder may be gone.
"""

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import jax.numpy as jnp

from ddpm_jax import parallel, training
from ddpm_jax.runs import checkpoint, config, trained_model, workdir
from ddpm_jax.runs.experiment import Experiment
from ddpm_jax.runtime import files, foreign_files

FILE = "init_from.json"
_SHOWN = 8  # parameters in a message


@dataclasses.dataclass(frozen=True)
class Origin:
    """Whose weights a run is to start from.

    Attributes:
        folder: the work folder of the other run.
        weights: 'raw', 'ema' or another name; see `trained_model.load`. '': as that run's sample.weights says.
        step: of its checkpoint; None: the newest.
        reinit: initialise anew what does not fit this network, and leave out what it does not have.
    """

    folder: str | os.PathLike
    weights: str = ""
    step: int | None = None
    reinit: bool = False

    def facts(self) -> dict[str, Any]:
        """Returns what all processes of a run must have in common, by names for people."""
        return {"--init_from": str(Path(self.folder).absolute())} | {
            f"--init_{name}": getattr(self, name) for name in ("weights", "step", "reinit")
        }


class InitialWeights(NamedTuple):
    """The weights to start from, and what is written down of them."""

    params: dict[tuple[str, ...], jax.Array]  # those that fit, by their names
    record: dict[str, Any]


def read(experiment: Experiment, directory: Path, origin: Origin | None) -> InitialWeights | None:
    """Reads the weights that the run in a work folder starts from; None if it has none, or goes on from its own.

    With several processes all call it alike. Nothing is written.

    Raises:
        ValueError: if the folder holds a run with another start, or the weights do not fit: what does not is named.
        FileNotFoundError: if there is no such run, or no checkpoint in it.
    """
    begun, recorded = parallel.agree(lambda: _check_folder(directory, origin))
    if origin is None or begun:
        return None
    step = recorded["step"] if recorded else origin.step
    model = trained_model.load(origin.folder, step=step, weights=origin.weights or None, own=experiment.own)
    if recorded and recorded["weights_sha256"] != model.fingerprint:
        raise ValueError(
            f"The weights of step {step} in {origin.folder} are no longer those that the run in {directory} began "
            "with. Start in another --workdir."
        )
    given = flax.traverse_util.flatten_dict(model.params)
    wanted = flax.traverse_util.flatten_dict(experiment.abstract_params)
    problems = [
        f"{'/'.join(name)} {_shape(given, name)} -> {_shape(wanted, name)}"
        for name in sorted(given.keys() | wanted.keys())
        if _shape(given, name) != _shape(wanted, name)
    ]
    if problems and not origin.reinit:
        more = f" and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise ValueError(
            f"{len(problems)} of the parameters in {origin.folder} do not fit this network: "
            f"{', '.join(problems[:_SHOWN])}{more}. Give --init_reinit to initialise these anew, or the settings of "
            "model and data that the other run has."
        )
    record = {
        "folder": str(Path(origin.folder).absolute()), "weights": model.weights, "step": model.step,
        "weights_sha256": model.fingerprint, "asked": origin.facts(), "initialised anew": problems,
    }  # fmt: skip
    _describe(record, config.differences(model.experiment.config, experiment.config))
    return InitialWeights({name: x for name, x in given.items() if name in wanted and _fits(x, wanted[name])}, record)


def _describe(record: dict[str, Any], changed: list[str]) -> None:
    print(f"Starting from {record['weights']} of step {record['step']} in {record['folder']}.")
    if problems := record["initialised anew"]:
        print(f"Initialised anew, or left out: {', '.join(problems)}.")
    if other := [change for change in changed if change.startswith("diffusion.")]:
        print(f"They were trained for another process: {'; '.join(other)}.")


def _fits(x: jax.Array, wanted: jax.ShapeDtypeStruct) -> bool:
    return x.shape == wanted.shape


def _shape(params: dict[tuple[str, ...], Any], name: tuple[str, ...]) -> str:
    return str(list(params[name].shape)) if name in params else "none"


def _check_folder(directory: Path, origin: Origin | None) -> tuple[bool, dict[str, Any] | None]:
    """Tells whether a run has checkpoints of its own, and what is recorded of its start; refuses another start."""
    path = Path(directory) / FILE
    begun = any(entry.name.isdecimal() for entry in (Path(directory) / workdir.CHECKPOINTS).glob("*"))
    recorded = foreign_files.read_json(path, "start in another --workdir") if path.exists() else None
    if recorded is not None and not _is_record(recorded):
        raise ValueError(f"{path} does not say what the run began with: start in another --workdir.")
    if origin is None:
        if recorded and not begun:
            raise ValueError(
                f"The run in {directory} is to start from {foreign_files.printable(recorded['folder'])} and has no "
                "checkpoint yet: give --init_from again."
            )
        return begun, recorded
    if (begun or recorded) and (recorded or {}).get("asked") != origin.facts():
        began = foreign_files.printable(str(recorded["asked"])) if recorded else "weights of its own"
        raise ValueError(
            f"The run in {directory} began with {began}, not with {origin.facts()}. Continue it without --init_from, "
            "or start in another --workdir."
        )
    return begun, recorded


def _is_record(recorded: Any) -> bool:
    kinds = {"folder": str, "weights_sha256": str, "step": int, "asked": dict}
    return isinstance(recorded, dict) and all(type(recorded.get(name)) is kind for name, kind in kinds.items())


def write(directory: Path, initial: InitialWeights | None) -> None:
    """Writes down what a run begins with; for process 0, once the folder is its own."""
    if initial:
        files.write_atomically(directory / FILE, json.dumps(initial.record, indent=2) + "\n")


def first_state(
    init_fn: Callable[[], training.TrainState],
    checkpoints: checkpoint.Checkpoints | None,
    initial: InitialWeights | None,
) -> tuple[training.TrainState, int]:
    """Returns the state that a run goes on with, replicated, and its step; with several processes all call it alike.

    Args:
        init_fn: makes the state of a fresh start.
        checkpoints: of process 0, whose newest is restored if there is any.
        initial: what a fresh start takes in place of random weights.
    """
    like = checkpoint.abstract(jax.eval_shape(init_fn), parallel.replicated())
    restored = parallel.raise_on_all(lambda: checkpoints and checkpoints.restore(like))
    state = parallel.replicate(parallel.broadcast(restored or _fresh_state(init_fn(), initial)))
    start = int(state.step)
    if restored:
        print(f"Continuing from step {start} in {checkpoints.directory}.")
    elif not initial:
        print("Starting from scratch.")
    return state, start


def _fresh_state(state: training.TrainState, initial: InitialWeights | None) -> training.TrainState:
    """Puts the weights into a state, as the parameters and as all averages; the optimizer starts anew."""
    if initial is None:
        return state

    def start() -> dict[str, Any]:
        # Copies: the state is donated, and no buffer can be donated twice.
        params = flax.traverse_util.flatten_dict(state.params) | initial.params
        return jax.tree.map(jnp.copy, flax.traverse_util.unflatten_dict(params))

    return state.replace(params=start(), ema_params=start(), averages={name: start() for name in state.averages})
