"""Any order of commands, kills and damage: each command gives the undisturbed result, bit for bit, or one sentence.

Hypothesis draws sequences of up to `_STEPS` of: train, sample, evaluate; with a kill -9 or a SIGTERM at some moment;
with settings that may change while a run goes on, and with those that may not; damage of any file in the work folder;
bringing damaged files back. A sequence runs with one process, or with two.

    DDPM_JAX_SEQUENCES=100 python -m pytest -n 0 -s tests/e2e/test_any_order.py

runs so many sequences, others each time, and prints its figures; without the variable a few, always the same.
"""

import collections
import contextlib
import functools
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

import hypothesis
import numpy as np
import orbax.checkpoint as ocp
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from ddpm_jax.runs import config, workdir
from e2e.conftest import TINY
from e2e.forked import Forks

pytestmark = pytest.mark.slow

_ASKED = os.environ.get("DDPM_JAX_SEQUENCES")
_SEQUENCES, _STEPS = int(_ASKED or 4), 9
_AT_A_TIME = 9  # of more than these, Hypothesis spends a tenth and more on the simplest
_LONGEST = 16  # training steps
_TRAIN = ("train.py", *TINY, "--config.train.log_every=1")
_SAMPLE = ("sample.py", "--num_samples=7", "--batch_size=4")
_EVALUATE = ("evaluate.py", "--num_images=6", "--num_samples=7", "--batch_size=4")
_METRICS = ("bpd", "bpd_fast", "bpd,fd_classifier")
_FREE = (
    "train.num_steps=8", f"train.num_steps={_LONGEST}", "train.checkpoint_every=2", "train.checkpoint_every=5",
    "train.keep=1", "train.keep=2", "train.steps_per_dispatch=3", "train.sample_every=5", "sample.seed=1",
    "train.on_failed_save=stop",
)  # fmt: skip
_FORBIDDEN = (
    (*_TRAIN, "--config.optim.lr=0.5"), (*_TRAIN, "--config.train.seed=4"), (*_TRAIN, "--config.model.ch=64"),
    (*_TRAIN, "--config.train.keep=0"), (*_SAMPLE, "--step=77"), (*_SAMPLE, "--weights=ema_0.5"),
    (*_EVALUATE, "--metrics=fidd"), (*_EVALUATE, "--split=none"),
)  # fmt: skip
_TOGETHER = ("--start_timeout_s=30", "--heartbeat_timeout_s=15")
# When to disturb: after so many lines of process 0, and so many milliseconds more.
_MOMENTS = st.tuples(st.integers(0, 9), st.integers(0, 400)) | st.tuples(st.just(0), st.integers(0, 4000))
_DISTURBANCES = st.none() | st.tuples(
    st.sampled_from([signal.SIGKILL, signal.SIGTERM]), st.sampled_from([[0], [1], [0, 1]]), _MOMENTS
)
_DAMAGE = {
    "place": st.integers(0, 10**6), "number": st.integers(0, 10**6),
    "how": st.sampled_from(["truncate", "flip", "flip", "empty", "delete", "garbage"]),
    "where": st.floats(0.0, 1.0, exclude_max=True), "mask": st.integers(1, 255), "count": st.integers(1, 8),
}  # fmt: skip
# One rule, of which Hypothesis leaves out no part for a whole sequence.
_ACTIONS = st.one_of(
    *(
        st.tuples(st.just(name), st.fixed_dictionaries(arguments))
        for name, arguments in (
            ("train", {"changes": st.lists(st.sampled_from(_FREE), max_size=3), "disturbance": _DISTURBANCES}),
            ("sample", {"seed": st.integers(0, 1), "disturbance": _DISTURBANCES}),
            ("evaluate", {"metrics": st.sampled_from(_METRICS), "disturbance": _DISTURBANCES}),
            ("forbidden", {"command": st.sampled_from(_FORBIDDEN)}),
            ("damage", _DAMAGE),
            ("damage", _DAMAGE),
            ("bring_back", {}),
        )
    )
)
# What those say whose peer was ended: ours, JAX's, and ours where they had not met.
_NEWS = ("Lost another process", "another task died", "did not meet the others")
_WARNING = re.compile(r"[IW]\d{4} |\[Gloo\]")  # of absl, and of JAX's transport
_BAR = re.compile(r"\s*\d+%\|")


def remembered(method):
    """Keeps what a method returns for its arguments, as long as its object lives."""

    @functools.wraps(method)
    def remember(self, *arguments):
        key = (method.__name__, *arguments)
        if key not in self.known:
            self.known[key] = method(self, *arguments)
        return self.known[key]

    return remember


class Commands:
    """Runs commands, counts what happened, and knows the undisturbed results."""

    def __init__(self, folder: Path):
        self._folder, self._logs, self._begin = folder, 0, time.monotonic()
        self.known: dict[tuple, object] = {}
        self.counts: collections.Counter[str] = collections.Counter()
        self.forks = Forks(
            os.environ
            | {
                "JAX_PLATFORMS": "cpu",
                "JAX_NUM_CPU_DEVICES": "1",
                "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                "DDPM_JAX_CACHE": str(folder / "ours"),
            }
        )

    def fresh_folder(self) -> Path:
        self.counts["sequences"] += 1
        return self._folder / f"sequence_{self.counts['sequences']}"

    def report(self) -> None:
        """Prints the figures so far, where a run by hand asked for them."""
        if _ASKED:
            seconds = time.monotonic() - self._begin
            print(f"{seconds:.0f} s: {dict(sorted(self.counts.items()))}", file=sys.stderr, flush=True)

    def start(self, processes, script, *arguments):
        self._logs += 1
        self.counts[script] += 1
        shared, own = [*arguments], [[] for _ in range(processes)]
        if processes > 1:
            with socket.socket() as free:
                free.bind(("localhost", 0))
                address = f"--coordinator_address=localhost:{free.getsockname()[1]}"
            shared += [address, f"--num_processes={processes}", *_TOGETHER]
            own = [[f"--process_id={i}"] for i in range(processes)]
        logs = self._folder / "logs"
        logs.mkdir(exist_ok=True)
        return [
            self.forks.start(
                script, *shared, *own[i], stdout=logs / f"{self._logs}.{i}.out", stderr=logs / f"{self._logs}.{i}.err"
            )
            for i in range(processes)
        ]

    def run(self, processes, *command):
        """Runs a command undisturbed, and returns what process 0 printed."""
        started = self.start(processes, *command)
        codes = [process.wait(300) for process in started]
        assert codes == [0] * processes, started[0].stderr.read_text()
        return started[0].stdout.read_text()

    @remembered
    def trained(self, processes: int) -> Path:
        """Returns the work folder of an undisturbed run with a checkpoint of every step."""
        folder = self._folder / f"undisturbed_{processes}"
        longest = (f"--config.train.num_steps={_LONGEST}", "--config.train.checkpoint_every=1")
        self.run(processes, *_TRAIN, *longest, "--config.train.keep=99", f"--workdir={folder}")
        return folder

    @remembered
    def state(self, processes: int, step: int) -> str:
        return state_digest(self.trained(processes) / "checkpoints" / str(step))

    @remembered
    def rows(self, processes: int) -> dict[int, dict]:
        lines = (self.trained(processes) / "metrics.jsonl").read_bytes().splitlines()
        return {row["step"]: row for row in map(loss_row, lines)}

    @remembered
    def pixels(self, processes: int, step: int, seed: int) -> np.ndarray:
        out = self._folder / f"samples_{processes}_{step}_{seed}.npz"
        folder = self.trained(processes)
        self.run(processes, *_SAMPLE, f"--seed={seed}", f"--step={step}", f"--workdir={folder}", f"--out={out}")
        return np.load(out)["arr_0"]

    @remembered
    def tables(self, processes: int, step: int, metrics: str) -> tuple[str, Path]:
        """Returns what evaluate.py prints, and the folder that it writes."""
        out = self._folder / f"tables_{processes}_{step}_{metrics}"
        where = (f"--workdir={self.trained(processes)}", f"--out={out}", f"--step={step}")
        return printed_numbers(self.run(processes, *_EVALUATE, f"--metrics={metrics}", *where)), out


def printed_numbers(output):
    """Leaves out where things are, and what was there before."""
    passing = ("Images: ", "Grid of", "These samples", "Training the classifier", "Features of the", "Continuing after")
    lines = [line for line in output.splitlines() if not line.startswith(passing)]
    return "\n".join(line for line in lines if not re.match(r"(Written to|From) /", line))


def loss_row(line):
    row = json.loads(line)
    return {name: value for name, value in row.items() if not name.endswith("_per_s")}


def state_digest(folder):
    """Hashes all arrays of a checkpoint."""
    digest = hashlib.sha256()
    with ocp.StandardCheckpointer() as checkpointer:
        for item in ("params", "ema_params", "optimizer"):
            flat = ocp.utils.to_flat_dict(checkpointer.restore(folder.absolute() / item))
            for name in sorted(flat):
                digest.update(repr((item, name)).encode() + np.asarray(flat[name]).tobytes())
    return digest.hexdigest()


def contents(folder):
    """Returns the bytes of all files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def sha256(data):
    return hashlib.sha256(repr(data).encode() if isinstance(data, dict) else data).hexdigest()


@functools.lru_cache(maxsize=10_000)
def state_digest_of(tree, folder):
    """Hashes the arrays of a checkpoint whose files have the hash `tree`."""
    return state_digest(folder)


class AnyOrder(RuleBasedStateMachine):
    commands: Commands

    def __init__(self):
        super().__init__()
        self.sound = False

    @initialize(processes=st.sampled_from([1, 1, 1, 2]), disturbance=_DISTURBANCES)
    def begin(self, processes, disturbance):
        self.processes, self.folder = processes, self.commands.fresh_folder()
        self.spoiled = set()  # hashes of files, and of checkpoints, as damage left them
        self.stray_rows = set()  # lines of metrics.jsonl that damage left
        self.log_is_whole = True
        self.damage_done = {}  # path -> bytes before, bytes after or None
        self.may_refuse = False
        self.keep = 3
        self.was_forbidden = False  # the last command
        self.commands.counts[f"sequences with {processes}"] += 1
        self.train([], disturbance)

    def teardown(self):
        if self.sound:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.commands.report()

    @contextlib.contextmanager
    def checking(self):
        self.sound = False
        yield
        self.sound = True

    @rule(action=_ACTIONS)
    def act(self, action):
        name, arguments = action
        getattr(self, name)(**arguments)

    def train(self, changes, disturbance):
        with self.checking():
            good = self.good_checkpoints()
            keep = [int(change[-1]) for change in changes if "keep" in change]
            self.keep = keep[-1] if keep else 3
            arguments = [f"--config.{change}" for change in changes]
            codes, output = self.execute(disturbance, *_TRAIN, *arguments)
            if found := re.search(r"^Continuing from step (\d+)", output, re.MULTILINE):
                assert int(found[1]) >= max(good, default=0)
            elif codes[0] != 1 and "Starting from scratch" in output:
                assert not good
            if found := re.search(r"^(Finished|Stopped) at step (\d+)", output, re.MULTILINE):
                assert int(found[2]) in self.good_checkpoints()
                if self.log_is_whole:
                    assert [row["step"] for row in self.rows()] == list(range(1, int(found[2]) + 1))
            self.check_checkpoints(good, may_delete=True)
            self.check_rows()

    def sample(self, seed, disturbance):
        with self.checking():
            good = self.good_checkpoints()
            codes, output = self.execute(disturbance, *_SAMPLE, f"--seed={seed}")
            if codes[0] == 0:
                step = self.step_used(output, good)
                pixels = np.load(self.folder / "samples" / f"step{step}_ema_seed{seed}_7.npz")["arr_0"]
                np.testing.assert_array_equal(pixels, self.commands.pixels(self.processes, step, seed))
            self.check_checkpoints(good)
            self.check_samples()

    def evaluate(self, metrics, disturbance):
        with self.checking():
            good = self.good_checkpoints()
            codes, output = self.execute(disturbance, *_EVALUATE, f"--metrics={metrics}")
            if codes[0] == 0:
                step = self.step_used(output, good)
                expected, tables = self.commands.tables(self.processes, step, metrics)
                assert printed_numbers(output) == expected
                for table in tables.glob("bpd*.json"):
                    assert json.loads((self.folder / "tables" / table.name).read_text()) == json.loads(
                        table.read_text()
                    )
                theirs, ours = (scores(path / "metrics.json") for path in (tables, self.folder / "tables"))
                assert theirs.items() <= ours.items()
            self.check_checkpoints(good)
            self.check_samples()

    def forbidden(self, command):
        if self.was_forbidden or not (self.folder / "config.json").is_file():
            return  # nothing forbids it there, or one after another would tell nothing more
        with self.checking():
            before = contents(self.folder)
            codes, _ = self.execute(None, *command, refused=True)
            assert codes == [1] * self.processes
            after = contents(self.folder)
            assert before.pop(".lock", None) is None or after.pop(".lock") is not None
            after.pop(".lock", None)
            assert after == before

    def damage(self, place, number, how, where, mask, count):
        files = collections.defaultdict(list)
        for path in sorted(self.folder.rglob("*")):
            if path.is_file():
                files[path.relative_to(self.folder).parts[0]].append(path)
        if not files:
            return
        paths = files[sorted(files)[place % len(files)]]
        path = paths[number % len(paths)]
        before, size = path.read_bytes(), path.stat().st_size
        at = int(where * size)
        spoiled = bytes(byte ^ mask for byte in before[at : at + count])
        after = {
            "truncate": before[:at], "flip": before[:at] + spoiled + before[at + count :], "empty": b"",
            "delete": None, "garbage": np.random.default_rng(number).bytes(size),
        }[how]  # fmt: skip
        if after == before or is_an_edit(path, before, after):
            return
        self.commands.counts["damages"] += 1
        self.commands.counts[f"damages: {how}"] += 1
        hypothesis.note(f"{how} {path.relative_to(self.folder)} at {at} of {size}")
        path.write_bytes(after) if after is not None else path.unlink()
        self.may_refuse = True
        self.damage_done.setdefault(path, (before, after))
        self.damage_done[path] = (self.damage_done[path][0], after)
        self.spoiled.add(sha256(after or b""))
        parts = path.relative_to(self.folder).parts
        if parts[0] == "checkpoints":
            self.spoiled.add(sha256(contents(self.folder / parts[0] / parts[1])))
        if parts[0] == "metrics.jsonl":
            self.log_is_whole = False
            self.stray_rows |= set((after or b"").split(b"\n"))

    def bring_back(self):
        """Puts the files back that are still as damage left them, under the name that it had."""
        if not self.damage_done:
            return
        checkpoints = self.folder / "checkpoints"
        for aside in checkpoints.glob("unreadable-*"):
            step = checkpoints / aside.name.split("-")[1]
            if not step.exists() and not self.good_checkpoints():
                aside.rename(step)
        mended = True
        for path, (before, after) in self.damage_done.items():
            now = path.read_bytes() if path.is_file() else None
            if now == after and path.parent.exists():
                path.write_bytes(before)
            else:
                mended = False
        self.damage_done = {}
        self.may_refuse = self.may_refuse and not mended
        self.commands.counts["brought back"] += 1

    def execute(self, disturbance, script, *arguments, refused=False):
        """Runs a command; returns the exit codes, and what process 0 printed."""
        self.was_forbidden = refused
        counts, untrained = self.commands.counts, not self.good_checkpoints()
        started = self.commands.start(self.processes, script, *arguments, f"--workdir={self.folder}")
        number, victims, (lines, milliseconds) = disturbance or (None, [], (0, 0))
        if disturbance:
            if lines == 0 or self.processes == 1:
                victims = range(self.processes)  # else one would wait for the other to come
            end = time.monotonic() + 300
            while started[0].poll() is None and started[0].stdout.read_bytes().count(b"\n") < lines:
                assert time.monotonic() < end, "no line came"
                time.sleep(0.005)
            time.sleep(milliseconds / 1000)
            for victim in victims:
                started[victim].send_signal(number)
        codes = [process.wait(300) for process in started]
        outputs = [process.stdout.read_text() for process in started]
        errors = [process.stderr.read_text(errors="replace") for process in started]
        said = f"{script} {codes}\n" + "\n".join(outputs + errors)
        hypothesis.note(said)
        assert "Traceback" not in said, said
        assert "WARNING:absl" not in said, said  # each warning would be there twice
        ended_by = {None: set(), signal.SIGKILL: {-9}, signal.SIGTERM: {143, -15}}[number]
        if hit := [i for i in victims if codes[i] in ended_by]:
            counts[f"{number.name} in time"] += 1
        for process, code in enumerate(codes):
            assert code in {0, 1, *ended_by} or (hit and code == -6), said  # SIGABRT: JAX was the first to notice
            if code == 1 and not (hit and any(news in errors[process] for news in _NEWS)):
                assert_one_sentence(errors[process], script)
                assert refused or self.may_refuse or (untrained and script != "train.py"), said
        if 1 in codes and not hit:
            assert codes == [1] * self.processes, said
            counts["refusals"] += 1
        if codes[0] == 0:
            self.damage_done = {path: done for path, done in self.damage_done.items() if done[1] is not None}
        return codes, outputs[0]

    def step_used(self, output, good):
        step = int(re.search(r"^Step (\d+), ema weights", output, re.MULTILINE)[1])
        assert step >= max(good, default=0)
        return step

    def checkpoints(self):
        """Returns the hash of the files of each checkpoint by step."""
        folders = [path for path in (self.folder / "checkpoints").glob("*") if path.name.isdecimal()]
        return {int(path.name): sha256(contents(path)) for path in folders}

    def good_checkpoints(self):
        return {step: tree for step, tree in self.checkpoints().items() if tree not in self.spoiled}

    def check_checkpoints(self, before, may_delete=False):
        """All that were good still are, but for those that the newest `keep` have replaced; new ones are right."""
        there = self.checkpoints()
        for step, tree in before.items():
            replaced = may_delete and sum(other > step for other in there) >= self.keep
            assert there.get(step) == tree or (step not in there and replaced), f"checkpoint {step} is lost"
        for step, tree in self.good_checkpoints().items():
            digest = state_digest_of(tree, self.folder / "checkpoints" / str(step))
            assert digest == self.commands.state(self.processes, step), f"checkpoint {step} is another"

    def rows(self):
        log = self.folder / "metrics.jsonl"
        lines = log.read_bytes().split(b"\n")[:-1] if log.exists() else []
        return [loss_row(line) for line in lines if line not in self.stray_rows]

    def check_rows(self):
        expected = self.commands.rows(self.processes)
        for row in self.rows():
            assert row == expected[row["step"]]

    def check_samples(self):
        """Every set of samples that damage has not touched is as it should be, whoever drew it."""
        for path in (self.folder / "samples").glob("step*.npz"):
            if sha256(path.read_bytes()) not in self.spoiled:
                step, seed = map(int, re.fullmatch(r"step(\d+)_ema_seed(\d+)_7", path.stem).groups())
                expected = self.commands.pixels(self.processes, step, seed)
                np.testing.assert_array_equal(np.load(path)["arr_0"], expected)


def is_an_edit(path, before, after):
    """Tells whether config.json is another config, as if edited by hand, which is the way to go on with other settings
    on purpose.
    """
    if path.name != workdir.CONFIG or after is None:
        return False
    with contextlib.suppress(ValueError):
        return config.from_json(after.decode()) != config.from_json(before.decode())
    return False


def scores(file):
    return {(entry["name"], entry["settings"].get("step")): entry["value"] for entry in json.loads(file.read_text())}


def assert_one_sentence(error, script):
    lines = [line for line in re.split(r"[\r\n]+", error) if line.strip()]
    said = [line for line in lines if not _WARNING.match(line) and not _BAR.match(line)]
    assert len(said) == 1, error
    assert said[0].startswith(f"{script}: "), error


def test_any_order_of_commands_gives_the_undisturbed_result_or_one_sentence(tmp_path_factory):
    commands = Commands(tmp_path_factory.mktemp("any_order"))
    settings = hypothesis.settings(
        stateful_step_count=_STEPS, deadline=None, database=None, derandomize=not _ASKED,
        phases=[hypothesis.Phase.generate], suppress_health_check=list(hypothesis.HealthCheck), print_blob=False,
    )  # fmt: skip
    sequence = type("Sequence", (AnyOrder,), {"commands": commands})
    try:
        while (left := _SEQUENCES - commands.counts["sequences"]) > 0:
            some = hypothesis.settings(settings, max_examples=min(left, _AT_A_TIME))
            run_state_machine_as_test(sequence, settings=some)
    finally:
        commands.forks.close()
