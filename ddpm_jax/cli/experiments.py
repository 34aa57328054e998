"""--config and --config.SECTION.NAME on a command line: experiments by name, and mistakes told before work starts."""

import difflib
import inspect
import re
import runpy
import traceback
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from ddpm_jax.runs import defaults
from ddpm_jax.runs.own import Own, from_file
from ddpm_jax.runtime.foreign_files import cause

_LINE = re.compile(r"config\.(\w+)\.(\w+) = (.+?)(?:  # (.+))?$", re.MULTILINE)  # of defaults.py


def names() -> list[str]:
    """Lists the experiments that come with the package."""
    files = (entry.name for entry in resources.files("ddpm_jax.configs").iterdir())
    return sorted(name.removesuffix(".py") for name in files if name.endswith(".py") and not name.startswith("_"))


def settings() -> dict[str, list[str]]:
    """Lists the names of the settings by section."""
    return {section: list(fields) for section, fields in defaults.get_config().items()}


def help_text() -> str:
    """Lists the experiments, and every setting with its default."""
    lines = [
        f"  --config.{section}.{name}={value}" + (f"\n      {comment}" if comment else "")
        for section, name, value, comment in _LINE.findall(inspect.getsource(defaults.get_config))
    ]
    return "\n".join([f"Experiments: {', '.join(names())}.", "Settings, with the defaults of CIFAR-10:", *lines])


def resolve(arguments: list[str]) -> list[str]:
    """Replaces the name of an experiment by the path of its file, and checks the file and the names of settings.

    Raises:
        flags.Error: if there is no such experiment, file or setting, or the file does not give a config.
    """
    return list(_resolved(iter(arguments)))


def own_of(values: flags.FlagValues) -> Own:
    """Returns what the file that --config gives defines beside its settings."""
    file = config_flags.get_config_filename(values["config"]).split(":")[0]  # what follows is for its get_config
    return from_file(file, values.config)


def _resolved(arguments: Iterator[str]) -> Iterator[str]:
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        option = flag.removeprefix("-").removeprefix("-") if flag.startswith("-") else ""
        if option == "config":
            value = value if equals else next(arguments, "")
            yield f"--config={_path(value)}"
        else:
            if option.startswith("config."):
                _check_setting(option.removeprefix("config."))
            yield argument


def _path(name: str) -> str:
    """Returns the path of an experiment, given its name or path, after a look at what it gives."""
    file, colon, argument = name.partition(":")  # what follows the colon is for its get_config
    if name in names() and not Path(name).is_file():
        return str(resources.files("ddpm_jax.configs") / f"{name}.py")
    if not Path(file).is_file():
        raise flags.Error(f"--config={name} is neither a file nor an experiment; there are {', '.join(names())}.")
    try:
        config = runpy.run_path(file)["get_config"](*[argument] if colon else [])
    except Exception as error:  # a file of the user's may raise anything
        raise flags.Error(f"--config={name} cannot be read: {_where(error, file)}.") from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise flags.Error(f"--config={name} must return a ConfigDict from get_config, not a {type(config).__name__}.")
    return name


def _where(error: Exception, file: str) -> str:
    """Says what went wrong in a file, and in which line of it."""
    if isinstance(error, SyntaxError):
        place = "" if error.filename in (file, None) else f" ({error.filename})"
        return (f"line {error.lineno}: " if error.lineno else "") + f"{error.msg}{place}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    if not lines:
        return "it has no function get_config" if isinstance(error, KeyError) else cause(error)
    return f"line {lines[-1]}: {type(error).__name__}: {cause(error)}"


def _check_setting(name: str) -> None:
    known, name = settings(), re.sub(r"\[.*", "", name)  # an index of a tuple
    section, _, field = name.partition(".")
    if field in known.get(section, ()) or (section in known and not field):
        return
    if section not in known:
        raise flags.Error(f"There is no setting {name}. {suggest(name.split('.')[-1]) or _sections(known)}")
    near = difflib.get_close_matches(field, known[section], n=1)
    hint = f' Did you mean "{near[0]}" instead of "{field}"?' if near else ""
    raise flags.Error(f"There is no setting {name}.{hint} {section} has {', '.join(known[section])}.")


def suggest(field: str) -> str:
    """Names the settings that are called like a flag that there is not; '' where there is none."""
    found = [f"--config.{section}.{name}=..." for section, fields in settings().items() for name in fields
             if name == field]  # fmt: skip
    return f"Did you mean {' or '.join(found)}?" if found else ""


def _sections(known: dict[str, Any]) -> str:
    return f"Settings are --config.SECTION.NAME, and the sections are {', '.join(known)}; --help lists them all."
