"""Checkpoints of a run, by Orbax: asynchronous, atomic, verified, and never silently absent.

The one file that knows Orbax. A checkpoint is a folder `<step>/` with an item for each part that is read alone:
`params`, `ema_params`, further averages by their names, and `optimizer`, the rest of the state. The config lies beside
them (`workdir.py`). `checksums.py` notices a damaged one before it is read.
"""

import contextlib
import errno
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from logging import LogRecord, getLogger
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint.checkpoint_managers import preservation_policy

from ddpm_jax import arguments, parallel
from ddpm_jax.runs import checksums, workdir
from ddpm_jax.training import TrainState

_UNFINISHED = ".orbax-checkpoint-tmp*"
_TRIES, _PAUSE_S = 100, 0.1  # of a reader beside a run, which may delete what was just listed


class SaveError(OSError):
    """A checkpoint could not be written; those before it are as they were."""


class Checkpoints:
    """The checkpoints that a training run writes into its folder, and continues from.

    Of several processes, process 0 alone opens them: the state lies whole on each, so one can write all of it, and no
    process waits for the disk of another.

    Args:
        directory: made if it is not there.
        keep: how many of the newest stay.
        keep_period: those at multiples of it stay for ever; 0: none.
    """

    def __init__(self, directory: Path, *, keep: int, keep_period: int):
        policies = [preservation_policy.LatestN(keep)]
        if keep_period:
            policies.append(preservation_policy.EveryNSteps(keep_period))
        self.directory = Path(directory).absolute()
        self.directory.mkdir(parents=True, exist_ok=True)
        self._saving: int | None = None  # the step of the save under way
        self._clear_away_failed()  # Orbax would do so later, while others look
        for logger in (logging.get_absl_logger(), getLogger("asyncio")):
            logger.addFilter(_not_a_trace_of_orbax)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=preservation_policy.AnyPreservationPolicy(policies),
            create=False,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._write_checksums),
            multiprocessing_options=_this_process_alone(),
        )
        self._manager = ocp.CheckpointManager(self.directory, options=options)
        self._report_unraisable, sys.unraisablehook = sys.unraisablehook, self._on_unraisable

    def steps(self) -> list[int]:
        """Lists the steps of all whole checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    def save(self, state: TrainState) -> None:
        """Starts to save the state of its step in the background; the caller may donate it at once.

        Raises:
            SaveError: if that failed at once; or, with the new one under way, if the save before it did.
        """
        failed = None
        try:
            self.wait()
        except SaveError as error:
            failed = error
        self._clear_away_failed()
        with self._failing_as_save_error():
            self._saving = int(state.step)
            _check_room(self.directory, state)
            args = {name: ocp.args.StandardSave(parallel.saveable(item)) for name, item in _items(state).items()}
            self._manager.save(self._saving, args=ocp.args.Composite(**args))
        if failed:
            raise failed

    def check(self) -> None:
        """Raises as `wait` does if a save has ended, without waiting for one still under way."""
        if self._saving is not None and not self._manager.is_saving_in_progress():
            self.wait()

    def wait(self) -> None:
        """Waits until what is being saved is whole on disk.

        Raises:
            SaveError: if it failed.
        """
        with self._failing_as_save_error():
            self._manager.wait_until_finished()
        self._saving = None

    def restore(self, like: TrainState) -> TrainState | None:
        """Restores the newest state that can be read; None where there is no checkpoint at all.

        A damaged checkpoint is named in a warning, set aside as `unreadable-<step>` beside the others, and the one
        before it is used.

        Args:
            like: from `abstract`, with the sharding wanted now; the devices at the time of saving do not matter.

        Raises:
            ValueError: if there are checkpoints and none can be read: starting from scratch would lose them.
            RestoreError: if one that is whole cannot be restored; all stay where they are.
        """
        self._manager.wait_until_finished()
        for step in reversed(self.steps()):
            try:
                items = _read(self.directory / str(step), _items(like))
            except UnreadableError as error:
                aside = workdir.free_name(self.directory / f"unreadable-{step}")
                logging.warning("%s It is set aside as %s.", error, aside.name)
                os.replace(self.directory / str(step), aside)
                self._manager.reload()
            else:
                return TrainState(
                    params=items["params"], ema_params=items["ema_params"], **items["optimizer"],
                    averages={name: items[name] for name in like.averages},
                )  # fmt: skip
        if unreadable := sorted(path.name for path in self.directory.glob("unreadable-*")):
            raise ValueError(
                f"No checkpoint in {self.directory} can be read ({', '.join(unreadable)}). Mend one and give it its "
                "step as its name again, or start in another --workdir."
            )
        return None

    def close(self) -> None:
        """Waits as `wait` does, and stops Orbax's threads."""
        try:
            self.wait()
            self._manager.close()
            self._clear_away_failed()
        finally:
            if sys.unraisablehook == self._on_unraisable:
                sys.unraisablehook = self._report_unraisable

    def _on_unraisable(self, unraisable: Any) -> None:
        # After the first write that fails, each of the others finds Orbax's event loop gone, and would say so.
        if str(unraisable.exc_value) != "Event loop is closed":
            self._report_unraisable(unraisable)

    def _clear_away_failed(self) -> None:
        # More than once: when one item of a checkpoint has failed, Orbax may still be writing the others.
        for unfinished in self.directory.glob(f"*{_UNFINISHED}"):
            shutil.rmtree(unfinished, ignore_errors=True)

    @contextlib.contextmanager
    def _failing_as_save_error(self) -> Iterator[None]:
        """Clears away what a failed save left, so that the next can do better, and says what it was."""
        try:
            yield
        except Exception as error:  # whatever Orbax and TensorStore raise for a disk that does not take it
            step, self._saving = self._saving, None
            self._clear_away_failed()
            self._manager.reload()  # it has forgotten those that it meant to delete after this save
            raise SaveError(f"The checkpoint of step {step} was not saved: {_reason(error)}.") from error

    def _write_checksums(self) -> None:
        # Orbax calls this when all items are written, before it renames the folder: so both become visible at once.
        (folder,) = self.directory.glob(f"{self._saving}{_UNFINISHED}")
        checksums.write(folder)


class UnreadableError(ValueError):
    """A checkpoint is damaged: its checksums say so."""


class RestoreError(ValueError):
    """A checkpoint is not known to be damaged, and could not be restored: it does not fit, or memory is short, ..."""


def abstract(tree: Any, sharding: jax.sharding.Sharding) -> Any:
    """Returns the shapes and dtypes of a pytree, to be restored with that sharding."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def steps_with(directory: Path, name: str, *, up_to: int) -> list[int]:
    """Lists the steps, ascending, of the checkpoints that have an item; those after `up_to` are left out.

    Raises:
        FileNotFoundError: if there is no checkpoint at all.
    """
    return [step for step in _listed_steps(directory) if step <= up_to and (directory / str(step) / name).is_dir()]


def restore_weights(directory: Path, name: str, like: Any, *, step: int | None = None) -> tuple[int, Any]:
    """Reads the weights of a checkpoint, changing nothing on disk: a run may be writing there.

    Args:
        directory: the folder of the checkpoints.
        name: `params`, `ema_params`, or the name of an average.
        like: their abstract form, from `abstract`.
        step: of the checkpoint; None: the newest that can be read.

    Returns:
        The step and the weights.

    Raises:
        FileNotFoundError: if there is no checkpoint, or none of that step.
        UnreadableError: if it is damaged, or all are.
        RestoreError: if it could not be restored for another reason.
    """
    directory, damaged = Path(directory), []
    for _ in range(_TRIES):
        steps = _listed_steps(directory)
        if step not in (None, *steps):
            raise FileNotFoundError(f"There is no checkpoint of step {step} in {directory}; there are {steps}.")
        candidates = [found for found in steps if step in (None, found) and found not in damaged]
        if not candidates:
            break
        folder = directory / str(candidates[-1])
        try:
            return candidates[-1], _read(folder, {name: like})[name]
        except (UnreadableError, RestoreError) as error:
            time.sleep(_PAUSE_S)
            if folder.exists() and set(_listed_steps(directory)) <= set(steps):  # no run is replacing it
                if isinstance(error, RestoreError):
                    raise
                logging.warning("%s", error)
                damaged.append(candidates[-1])
    raise UnreadableError(f"Of the checkpoints {damaged or candidates} in {directory} none can be read.")


def _listed_steps(directory: Path) -> list[int]:
    """Lists the steps of all checkpoints, ascending.

    Raises:
        FileNotFoundError: if there is none.
    """
    for _ in range(3):  # a listing can miss both the one that a run deletes and the one that it has just written
        if steps := sorted(int(path.name) for path in directory.glob("*") if path.name.isdecimal()):
            return steps
        time.sleep(_PAUSE_S)
    raise FileNotFoundError(f"There is no checkpoint in {directory}: train first.")


def _this_process_alone() -> ocp.options.MultiprocessingOptions:
    """Keeps Orbax from waiting for other processes: the state lies whole on each."""
    process = ocp.multihost.process_index()
    return ocp.options.MultiprocessingOptions(primary_host=process, active_processes={process})


def _not_a_trace_of_orbax(record: LogRecord) -> bool:
    # Orbax logs what it raises, several times, with the stack of its threads; so does asyncio for it. And it misses the
    # metadata beside the items of a checkpoint, which are not used here.
    orbax, said = "orbax" in record.pathname, record.getMessage()
    traced = record.exc_info and (orbax or "was never retrieved" in said)
    return not (traced or (orbax and "Metadata file" in said))


def _check_room(directory: Path, state: TrainState) -> None:
    # Asked before, because Orbax, out of room half-way, fails in many threads at once.
    needed, free = sum(x.nbytes for x in jax.tree.leaves(state)), shutil.disk_usage(directory).free
    if free < needed:
        room = f"it has {needed / 2**20:.1f} MiB, and the disk {free / 2**20:.1f} MiB of room"
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} ({room})")


def _reason(error: Exception) -> str:
    """Says why, in the words of the operating system if it was the cause."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if code := re.search(r"os_error_code='(\d+)'", str(error)):
        return os.strerror(int(code[1]))
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _items(state: TrainState) -> dict[str, Any]:
    rest = {"step": state.step, "opt_state": state.opt_state}
    if jax.tree.leaves(state.timestep_state):  # checkpoints that are older than it have none
        rest["timestep_state"] = state.timestep_state
    return {"params": state.params, "ema_params": state.ema_params, **state.averages, "optimizer": rest}


def _read(folder: Path, like: dict[str, Any]) -> dict[str, Any]:
    """Reads the named items of a checkpoint.

    Raises:
        UnreadableError: if it is damaged.
        RestoreError: if anything else kept it from being restored.
    """
    try:
        checksums.verify(folder, items=like)
        for name, item in like.items():
            _check_shapes(folder.absolute() / name, item)
        with ocp.StandardCheckpointer(multiprocessing_options=_this_process_alone()) as checkpointer:
            return {name: checkpointer.restore(folder.absolute() / name, item) for name, item in like.items()}
    except checksums.DamagedError as error:
        raise UnreadableError(f"The checkpoint {folder} cannot be read: {error}.") from error
    except Exception as error:  # whatever Orbax and TensorStore raise
        reason = _reason(error).split(". ")[0].rstrip(".:")
        if isinstance(error, ValueError):
            reason += ", so it is of another network than config.json describes (one of your own: own= or --own=)"
        raise RestoreError(f"The checkpoint {folder} was not restored, and is left as it is: {reason}.") from error


def _check_shapes(path: Path, like: Any) -> None:
    # Before Orbax reads any array: where one does not fit, it drops the reads under way, and they print tracebacks.
    options = _this_process_alone()
    with contextlib.closing(ocp.StandardCheckpointHandler(multiprocessing_options=options)) as handler:
        saved = handler.metadata(path).tree
    shapes = ({name: x.shape for name, x in ocp.tree.to_flat_dict(tree, sep="/").items()} for tree in (saved, like))
    if problems := arguments.misfits(*shapes):
        raise ValueError(arguments.listed(problems, 3))  # not more: `_reason` would cut the sentence
