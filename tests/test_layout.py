"""The code's layout: which room imports which. No circle, and no arrow that runs back up."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import ddpm_jax

PACKAGE = Path(ddpm_jax.__file__).parent

# From the bottom up: a room may import the rooms before it. The paper's modules are rooms of their own.
ORDER = (
    "arguments", "schedule", "gaussian", "images", "ops", "diffusion", "unet", "samplers", "sampling", "likelihood",
    "timesteps", "averaging", "training", "guidance", "runtime", "interop", "data", "metrics", "parallel", "doctor",
    "runs", "configs", "evaluation", "paper", "editing", "cli",
)  # fmt: skip


def room(module):
    return module.removeprefix("ddpm_jax.").split(".")[0]


def imports():
    """(room, imported room, file) for each import within the package; `__main__` is a command, as those in cli."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts == ("__init__",):
            continue  # loads the public names on first use
        own = "cli" if parts[-1] == "__main__" else parts[0]
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "ddpm_jax":
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ddpm_jax."):
                targets = [room(node.module)]
            elif isinstance(node, ast.Import):
                targets = [room(alias.name) for alias in node.names if alias.name.startswith("ddpm_jax.")]
            else:
                continue
            yield from ((own, target, path.name) for target in targets if target != own)


def test_no_room_imports_one_that_stands_above_it():
    found = list(imports())
    assert len(found) > 100
    for own, target, file in found:
        assert own in ORDER, f"{own} has no place in the order"
        assert target in ORDER, f"{own}/{file} imports {target}, which has no place in the order"
        assert ORDER.index(target) < ORDER.index(own), f"{own}/{file} imports {target}"


def test_the_core_knows_no_disk_flag_or_process():
    core = ORDER[: ORDER.index("runtime")]
    for own, target, file in imports():
        assert own not in core or target in core, f"{own}/{file} imports {target}"


@pytest.mark.parametrize("name", ddpm_jax.__all__)
def test_every_public_name_is_there(name):
    assert getattr(ddpm_jax, name) is not None
    assert name in dir(ddpm_jax)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'ddpm_jax' has no attribute 'nothing'"):
        ddpm_jax.nothing  # noqa: B018


def test_importing_the_package_loads_nothing_and_starts_no_devices():
    program = (
        "import sys, jax; before = set(sys.modules); import ddpm_jax\n"
        "assert {name for name in set(sys.modules) - before} <= {'ddpm_jax', 'importlib', 'typing'}, sys.modules\n"
        "ddpm_jax.load, ddpm_jax.train, ddpm_jax.evaluate, ddpm_jax.UNet, ddpm_jax.sample_loop\n"
    )
    environment = os.environ | {"JAX_PLATFORMS": "none_such"}  # with which no device can start
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=120)
