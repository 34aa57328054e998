import re
from pathlib import Path

import pytest
from absl import flags

from ddpm_jax.cli import app, experiments
from ddpm_jax.runs import defaults


def test_a_name_becomes_the_path_of_its_file_however_it_is_given():
    (path, *_), rest = experiments.resolve(["--config=digits", "--config.optim.lr=1", "--dry_run", "-x"]), ["-x"]
    assert path.endswith("configs/digits.py")
    assert experiments.resolve(["--config", "digits", *rest]) == [path, *rest]
    assert experiments.resolve(["-config=digits"]) == [path]
    assert experiments.resolve([path, "--config.data.image_size[0]=4"]) == [path, "--config.data.image_size[0]=4"]


@pytest.mark.parametrize("given", [["--config=none"], ["--config", "none"], ["--config=none.py"], ["--config"]])
def test_what_is_not_there_is_answered_with_what_there_is(given):
    with pytest.raises(flags.Error, match="is neither a file nor an experiment; there are celebahq256, cifar10,"):
        experiments.resolve(given)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("def get_config(:", "cannot be read: line 1: invalid syntax"),
        ("x = 1", "cannot be read: it has no function get_config"),
        ("import numpy\nimport not_there", "cannot be read: line 2: ModuleNotFoundError: No module named 'not_there'"),
        ("def get_config():\n  return 1 / 0", "cannot be read: line 2: ZeroDivisionError: division by zero"),
        ("def get_config():\n  return {}['lr']", "cannot be read: line 2: KeyError: it has no 'lr'"),
        ("def get_config():\n  return {}", "must return a ConfigDict from get_config, not a dict"),
        ("def get_config(x): pass", "cannot be read: .*missing 1 required positional argument"),
        ("\0", "cannot be read: (?!.*None).*null bytes"),
    ],
    ids=["syntax", "nothing", "import", "error", "key", "dict", "argument", "nul"],
)
def test_a_file_that_gives_no_config_is_refused_in_one_sentence(tmp_path, content, problem):
    path = tmp_path / "mine.py"
    path.write_text(content)
    with pytest.raises(flags.Error, match=f"^--config={path} {problem}") as caught:
        experiments.resolve([f"--config={path}"])
    assert "\n" not in str(caught.value)


def test_a_file_may_take_an_argument(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from ddpm_jax.configs import digits\ndef get_config(ch):\n  int(ch)\n  return digits.get_config()")
    assert experiments.resolve([f"--config={path}:3"]) == [f"--config={path}:3"]
    with pytest.raises(flags.Error, match="line 3: ValueError: invalid literal"):
        experiments.resolve([f"--config={path}:three"])


@pytest.mark.parametrize(
    ("setting", "answer"),
    [
        ("optim.leraning_rate", "There is no setting optim.leraning_rate. optim has averages, clip_norm, ema_decay,"),
        ("optim.lrr", 'Did you mean "lr" instead of "lrr"?'),
        ("lr", "Did you mean --config.optim.lr=...?"),
        ("seed", "Did you mean --config.sample.seed=... or --config.train.seed=...?"),
        ("trian.seed", "Did you mean --config.sample.seed"),
        ("nonsense", "the sections are data, diffusion, model, optim, sample, train; --help lists them all"),
    ],
)
def test_an_unknown_setting_is_named_with_the_way_out(setting, answer):
    with pytest.raises(flags.Error) as caught:
        experiments.resolve([f"--config.{setting}=1"])
    assert answer in str(caught.value)


def test_the_help_lists_every_setting_with_its_default():
    text = experiments.help_text()
    for section, fields in defaults.get_config().items():
        for name in fields:
            assert f"--config.{section}.{name}=" in text
    assert "--config.optim.lr=2e-4\n" in text
    assert "cifar10" in text


def test_a_work_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match=f"--workdir={path} must be a folder, and {tmp_path / 'file'} is a file"):
            app.folder(str(path))
    assert app.folder(str(tmp_path / "new" / "run")) == tmp_path / "new" / "run"


def test_a_file_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder.npz").mkdir()
    assert app.file_to_write(None, ".npz") is None
    assert app.file_to_write("a.npz", ".npz") == Path("a.npz")
    wrong = {
        "x.png": "must end in .npz", "x": "must end in .npz",
        f"{tmp_path}/folder.npz": "must be a file, and is a folder",
        f"{tmp_path}/file/x/y.npz": f"must lie in a folder, and {tmp_path}/file is a file",
    }  # fmt: skip
    for path, message in wrong.items():
        with pytest.raises(ValueError, match=re.escape(f"--out={path} {message}")):
            app.file_to_write(path, ".npz")
