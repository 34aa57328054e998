"""The numbers in the code beside the paper's own tables, which tests/data/paper_tables.txt holds as printed."""

import re
from pathlib import Path

import pytest

from ddpm_jax.paper import published
from ddpm_jax.paper.published import Lsun, Model, Objective, RateDistortion, Value

PRINTED = (Path(__file__).parents[1] / "data" / "paper_tables.txt").read_text()


def printed(title: str) -> list[tuple[str, str, list[str]]]:
    """Reads a table's rows, each a heading, a name without references and cells; the first row names the columns."""
    (block,) = (block for block in PRINTED.split("\n\n") if block.startswith(title))
    heading, rows = "", []
    for line in block.splitlines()[1:]:
        name, *cells = (cell.strip() for cell in re.split(r" \|(?= |$)", line))
        if cells:
            rows.append((heading, re.sub(r" \[\d+\]", "", name), cells))
        else:
            heading = name
    return rows


def number(cell: str) -> float | None:
    """Parses '8.30', '<= 5.40' and '4.21*'; None for an empty cell or a dash."""
    return None if cell in ("", "-") else float(cell.removeprefix("<=").removesuffix("*"))


def value(cell: str) -> Value | None:
    """Parses '8.30' and '8.87 +- 0.12'."""
    numbers = [number(part.strip()) for part in cell.split("+-")]
    return None if numbers == [None] else Value(*numbers)


def test_table_1():
    columns, *rows = printed("Table 1")
    assert columns[2] == ["IS", "FID", "NLL Test (Train)"]
    expected = []
    for heading, name, (score, fid, nll) in rows:
        test, _, train = nll.removesuffix(")").partition(" (")
        name = re.sub(r"Ours \((.*)\)", r"DDPM, \1", name)
        if heading == "Conditional":
            name = f"{name[:-1]}, conditional)" if name.endswith(")") else f"{name} (conditional)"
        expected.append(Model(name, value(score), number(fid), number(test), number(train)))
    assert list(published.TABLE_1) == expected


def test_table_2():
    columns, *rows = printed("Table 2")
    assert columns[2] == ["IS", "FID"]
    mean_types = {"mu-tilde prediction (baseline)": "xprev", "eps prediction (ours)": "eps"}
    settings = {
        "L, learned diagonal Sigma": ("L, learned diagonal Sigma", "learned", "kl"),
        "L, fixed isotropic Sigma": ("L, fixed isotropic Sigma", "fixedlarge", "kl"),
        "||mu-tilde - mu-tilde_theta||^2": ("mean squared error", "fixedlarge", "mse"),
        "||eps - eps_theta||^2 (L_simple)": ("L_simple", "fixedlarge", "mse"),
    }
    expected = []
    for heading, objective, (score, fid) in rows:
        name, var_type, loss_type = settings[objective]
        name = f"{heading.split()[0]}, {name}"
        expected.append(Objective(name, mean_types[heading], var_type, loss_type, value(score), number(fid)))
    assert list(published.TABLE_2) == expected


def test_table_3():
    columns, *rows = printed("Table 3")
    assert columns[2] == ["LSUN Bedroom", "LSUN Church", "LSUN Cat"]
    names = {"Ours (L_simple)": "DDPM", "Ours (L_simple, large)": "DDPM, large"}
    assert list(published.TABLE_3) == [Lsun(names.get(name, name), *map(number, cells)) for _, name, cells in rows]


def test_table_4():
    columns, *rows = printed("Table 4")
    assert columns[1:] == ("Reverse process time (T - t + 1)", ["Rate (bits/dim)", "Distortion (RMSE [0, 255])"])
    assert list(published.TABLE_4) == [RateDistortion(int(steps), *map(number, cells)) for _, steps, cells in rows]


def test_the_numbers_in_the_text():
    numbers = [number(cell) for _, _, (cell,) in printed("Sections 4.1 and 4.3")]
    assert numbers == [
        published.FID_TEST, published.RATE_BPD, published.DISTORTION_BPD, published.DISTORTION_RMSE,
    ]  # fmt: skip


def test_the_text_agrees_with_the_tables():
    """As Section 4.3 relates them."""
    assert published.TABLE_1[-1].nll_test == pytest.approx(published.RATE_BPD + published.DISTORTION_BPD)
    last, *_ = published.TABLE_4
    assert (round(last.rate_bpd, 2), round(last.rmse, 2)) == (published.RATE_BPD, published.DISTORTION_RMSE)
