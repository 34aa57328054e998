"""What a run was trained with is written down, and a change of it is told."""

import importlib.metadata
import json

import jax
import pytest

from ddpm_jax.runs import trained_with

FILE = "trained_with.json"


def noted(folder):
    return json.loads((folder / FILE).read_text())


def test_the_facts_are_those_of_this_process():
    facts = trained_with.facts()
    assert facts["jax"] == jax.__version__
    assert facts["flax"] == importlib.metadata.version("flax")
    assert facts["devices"] == f"{jax.device_count()} cpu in 1 process"
    with jax.default_matmul_precision("bfloat16"):
        assert trained_with.facts()["JAX_DEFAULT_MATMUL_PRECISION"] == "bfloat16"
    assert all(isinstance(fact, str) for fact in facts.values())


def test_what_does_not_change_is_noted_once(tmp_path, capsys):
    for step in (0, 0, 4, 8, 12):
        trained_with.note(tmp_path, step)
        assert noted(tmp_path) == [{"from_step": 0} | trained_with.facts()]
    assert not capsys.readouterr().out


def test_each_change_is_noted_and_told(tmp_path, capsys):
    trained_with.note(tmp_path, 0)
    first, own = capsys.readouterr().out, jax.config.jax_default_matmul_precision
    with jax.default_matmul_precision("bfloat16"):
        trained_with.note(tmp_path, 4)
    second = capsys.readouterr().out
    trained_with.note(tmp_path, 8)
    third = capsys.readouterr().out
    said = "From here on it is trained with other than before: JAX_DEFAULT_MATMUL_PRECISION: "
    assert (first, second, third) == ("", f"{said}{own} -> bfloat16.\n", f"{said}bfloat16 -> {own}.\n")
    assert [(part["from_step"], part["JAX_DEFAULT_MATMUL_PRECISION"]) for part in noted(tmp_path)] == [
        (0, str(own)),
        (4, "bfloat16"),
        (8, str(own)),
    ]


def test_steps_that_are_done_anew_are_noted_anew(tmp_path, capsys):
    trained_with.note(tmp_path, 0)
    with jax.default_matmul_precision("bfloat16"):
        trained_with.note(tmp_path, 8)
    capsys.readouterr()
    trained_with.note(tmp_path, 8)  # no checkpoint came after
    assert [part["from_step"] for part in noted(tmp_path)] == [0]
    assert not capsys.readouterr().out


def test_a_run_of_before_it_was_noted_has_it_from_where_it_continues(tmp_path, capsys):
    trained_with.note(tmp_path, 8)
    assert noted(tmp_path) == [{"from_step": 8} | trained_with.facts()]
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    "text", ["", "null", "[null]", "[{}]", '[{"from_step": "\x1b"}]', "[" * 5000, '{"a": 1}', "\x00"]
)
def test_a_damaged_file_is_refused_and_stays(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ValueError, match=f"{FILE}' does not say what the run was trained with: delete it") as refused:
        trained_with.note(tmp_path, 4)
    assert str(refused.value).isprintable()
    assert (tmp_path / FILE).read_text() == text
