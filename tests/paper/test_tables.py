"""Work folders with made-up scores: which of them land in which cell."""

import json

import pytest

from ddpm_jax.configs import cifar10, digits, lsun_bedroom_large, lsun_church, table2_xprev_kl
from ddpm_jax.evaluation import results
from ddpm_jax.evaluation.results import Score
from ddpm_jax.paper import published, report, tables
from ddpm_jax.runs import config as configs
from ddpm_jax.runs import workdir


def drawn(step, count=50_000, seed=0, reference="cifar10:train"):
    samples = {"images": "drawn", "step": step, "count": count, "seed": seed, "weights": "ema"}
    return {"samples": samples, "reference": {"name": reference}}


@pytest.fixture
def make(tmp_path):
    """`make("name", config, (score, settings), ...)` -> the run."""

    def make(name, config, *measured):
        workdir.write_config(tmp_path / name, config)
        for score, settings in measured:
            results.write(tmp_path / name / "tables" / "metrics.json", [score], settings=settings)
        return tables.read_run(tmp_path / name)

    return make


def row(table, name):
    (found,) = (cells for cells in table.rows if cells[0] == name)
    return dict(zip(table.columns, found, strict=True))


def test_without_runs_the_tables_are_the_paper_s():
    found = tables.all_tables([])
    assert len(found) == 4
    assert row(found[0], "DDPM, L_simple")["FID, paper"] == "3.17"
    assert row(found[0], "DDPM, L_simple")["IS, paper"] == "9.46 ± 0.11"
    assert row(found[1], "eps, L, learned diagonal Sigma")["FID, paper"] is None
    assert row(found[2], "DDPM, large")["bedroom, paper"] == "4.90"
    assert [cells[0] for cells in found[3].rows] == [r.reverse_steps for r in published.TABLE_4]
    for table in found:
        for cells in table.rows:
            assert all(cell is None for name, cell in zip(table.columns, cells, strict=True) if "ours" in name)


def test_a_cifar10_run_stands_in_tables_1_and_2(make):
    bpd = {"data": "cifar10", "split": "test", "num_images": 10_000, "step": 9}
    run = make(
        "mine", cifar10.get_config(),
        (Score("fid", "FID@1000", 40.0), drawn(9, count=1000)),
        (Score("fid", "FID", 3.3), drawn(9)),
        (Score("fid", "FID", 5.3), drawn(9, reference="cifar10:test")),
        (Score("fid", "FID", 2.0), drawn(8)),
        (Score("is", "IS", 9.4, 0.1, "deviation of 10 splits"), drawn(9)),
        (Score("bpd", "bits/dim", 3.75, 0.01, "standard error"), bpd),
    )  # fmt: skip
    first = row(tables.table_1([run]), "ours: mine")
    assert str(first["FID, ours"]) == "3.3 (50000 images, step 9)"
    assert str(first["IS, ours"]) == "9.4 ± 0.1 (50000 images, step 9)"
    assert str(first["NLL test, ours"]) == "3.75 ± 0.01 (10000 images, step 9)"
    assert first["NLL train, ours"] is None
    second = tables.table_2([run])
    assert row(second, "eps, L_simple")["FID, ours"].value == 3.3
    assert row(second, "eps, L_simple")["our run"] == "mine"
    assert row(second, "mu-tilde, L, fixed isotropic Sigma")["our run"] is None


def test_seeds_are_averaged_and_their_spread_is_the_error(make):
    scores = [(Score("fid", "FID", value), drawn(9, seed=seed)) for seed, value in enumerate((3.0, 3.2, 3.4))]
    cell = tables.find(make("seeds", table2_xprev_kl.get_config(), *scores), "fid", reference="train")
    assert (cell.value, cell.error, cell.error_name) == (
        pytest.approx(3.2), pytest.approx(0.2), "deviation of 3 seeds",
    )  # fmt: skip


def test_only_what_was_measured_in_the_same_way_with_the_same_weights_is_averaged(make):
    """Of several models of a step the config's weights count, then the newest measured."""

    def measured(value, *, seed, extractor="inception", **of_samples):
        settings = drawn(9, seed=seed) | {"extractor": {"name": extractor}}
        settings["samples"] |= {"sha256": f"of seed {seed}", **of_samples}
        return Score("fid", "FID", value), settings

    scores = [
        measured(9.0, seed=0), measured(9.0, seed=1),  # of before weights were noted
        measured(7.0, seed=0, weights_sha256="aa"), measured(7.2, seed=1, weights_sha256="aa"),
        measured(3.0, seed=0, weights_sha256="bb"), measured(3.4, seed=1, weights_sha256="bb"),
        measured(5.0, seed=2, weights_sha256="bb", clip=False),
        measured(3.2, seed=2, weights_sha256="bb"),
        measured(30.0, seed=0, weights_sha256="cc", weights="raw"),
    ]  # fmt: skip
    cell = tables.find(make("retrained", cifar10.get_config(), *scores), "fid", reference="train")
    assert (cell.value, cell.error_name) == (pytest.approx(3.2), "deviation of 3 seeds")
    cell = tables.find(make("once more", cifar10.get_config(), *scores[:4]), "fid", reference="train")
    assert (cell.value, cell.error_name) == (pytest.approx(7.1), "deviation of 2 seeds")
    custom = measured(8.0, seed=3, weights_sha256="aa", extractor="inception-custom")
    cell = tables.find(make("other features", cifar10.get_config(), *scores[:4], custom), "fid", reference="train")
    assert (cell.value, cell.error) == (8.0, None)


def test_given_samples_are_no_result_of_the_model(make):
    settings = {"samples": {"images": "other.npz", "count": 50_000}, "reference": {"name": "cifar10:train"}}
    run = make("given", cifar10.get_config(), (Score("fid", "FID", 1.0), settings))
    assert row(tables.table_1([run]), "ours: given")["FID, ours"] is None
    (cells,) = tables.other_scores([run]).rows
    assert (cells[1], cells[2].value, cells[3]) == ("FID", 1.0, "other.npz")


def test_lsun_and_a_folder_whose_name_says_what_it_is(make):
    config = lsun_bedroom_large.get_config()
    config.data.update(name="image_folder", data_dir="/data/lsun_bedroom.tar")
    run = make("large", config, (Score("fid", "FID", 4.9), drawn(9, reference="lsun_bedroom.tar:train")))
    cells = row(tables.table_3([run]), "ours: large, large")
    assert cells["bedroom, ours"].value == 4.9
    assert cells["church, ours"] is None


@pytest.mark.parametrize(
    ("name", "data_dir", "size", "images"),
    [
        ("cifar10", "", 32, "cifar10"),
        ("cifar10", "", 16, None),
        ("cifar100", "", 32, None),
        ("image_folder", "/data/cifar10.tar", 32, "cifar10"),
        ("image_folder", "/data/CIFAR-10-png", 32, "cifar10"),
        ("image_folder", "/data/cifar100", 32, None),
        ("image_folder", "/cifar10/mine", 32, None),
        ("lsun/church_outdoor", "", 256, "lsun/church"),
        ("image_folder", "/data/lsun_cats_of_mine", 256, None),
        ("image_folder", "/data/lsun_cat", 256, "lsun/cat"),
        ("image_folder", "/data/vacation", 256, None),
    ],
)
def test_the_paper_s_images_are_known_by_name_and_size(name, data_dir, size, images):
    config = cifar10.get_config()
    config.data.update(name=name, data_dir=data_dir, image_size=(size, size))
    assert published.images_of(config.data) == images
    config.data.update(image_size=(size,))  # a square
    assert published.images_of(config.data) == images


def test_church_stands_in_table_3_under_tfds_s_name(make):
    church = lsun_church.get_config()
    run = make("church", church, (Score("fid", "FID", 7.9), drawn(9, reference="lsun/church_outdoor:train")))
    assert row(tables.table_3([run]), "ours: church")["church, ours"].value == 7.9


def test_distances_to_other_images_do_not_stand_beside_the_paper_s(make):
    scores = [(Score("fid", "FID", 1.0), drawn(9, reference=name)) for name in ("cifar100:train", "cifar10:test")]
    run = make("mine", cifar10.get_config(), *scores, (Score("fid", "FID", 2.0), drawn(9)))
    assert row(tables.table_1([run]), "ours: mine")["FID, ours"].value == 2.0
    assert [cells[3] for cells in tables.other_scores([run]).rows] == [
        "drawn, against cifar100:train", "drawn, against cifar10:test"
    ]  # fmt: skip
    run = make("small", digits.get_config(), *scores, (Score("fid", "FID", 2.0), drawn(9, reference="digits:train")))
    assert tables.other_scores([run]).rows[-1][3] == "drawn"


def coded(run, *, data, split="test", step=9, rate=2.0, steps=None):
    """Writes a table of the bound into a run's folder."""
    ours = [
        dict(reverse_steps=n, rate_bpd=rate, rate_standard_error=0.1, rmse=1.0, rmse_standard_error=0)
        for n in steps or [row.reverse_steps for row in published.TABLE_4]
    ]
    settings = dict(step=step, split=split, num_images=9, data=data)
    sums = {"rate L_1 + ... + L_T": {"mean": 2.0}, "L_0": {"mean": 1.5}}
    table = {"settings": settings, "rate_distortion": ours, "bits_per_dim": sums}
    path = run.folder / "tables" / f"bpd_step{step}_ema_{split}_9_seed0.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(table))
    return table


def test_a_run_on_other_images_has_its_own_numbers_and_none_of_the_paper_s(make):
    bpd = {"data": "digits", "split": "train", "num_images": 1797, "step": 9}
    run = make("mine", digits.get_config(), (Score("bpd", "bits/dim", 4.67, 0.01, "standard error"), bpd))
    coded(run, data="digits", steps=range(10, 0, -1))
    coding, others = tables.all_tables([run])
    assert coding.title == "Progressive coding: mine, digits test, 9 images, step 9"
    assert coding.columns == ("reverse steps", "rate, ours (bits/dim)", "RMSE, ours (0-255)")
    assert coding.rows[0] == [10, "2.00000 ± 0.10000", "1.00000 ± 0.00000"]
    assert others.rows[0][1] == "bits/dim"


@pytest.mark.parametrize(
    ("config", "titles"), [(cifar10, ["Table 1", "Table 2", "Table 4"]), (lsun_bedroom_large, ["Table 3"])]
)
def test_of_the_paper_s_tables_those_come_that_are_about_a_run_s_images(make, config, titles):
    found = tables.all_tables([make("mine", config.get_config())])
    assert [table.title.partition(":")[0] for table in found] == titles


@pytest.mark.parametrize("data", ["cifar10", "digits"])
def test_the_terminal_shows_the_paper_s_table_4_beside_runs_on_its_images_alone(make, data):
    run = make("mine", digits.get_config())
    text = report.rate_distortion(coded(run, data=data))
    assert "2.00000 ± 0.10000" in text
    assert "rate 2.00 + distortion 1.50 bits/dim" in text
    assert ("1.77581" in text, "(paper: 1.78 + 1.97, 0.95)" in text) == (data == "cifar10",) * 2
    assert ("paper" in text) == (data == "cifar10")


def test_table_4_takes_the_newest_table_of_the_test_set(make):
    run = make("rd", cifar10.get_config())
    for step, split, rate in ((9, "train", 1.0), (9, "test", 2.0), (8, "test", 3.0)):
        coded(run, data="cifar10", step=step, split=split, rate=rate)
    (found,) = tables.table_4([run])
    assert found.title.endswith("ours: rd, cifar10 test, 9 images, step 9")
    assert found.rows[0][1:] == ["1.77581", "0.95136", "2.00000 ± 0.10000", "1.00000 ± 0.00000"]


def test_markdown_and_json_hold_the_same(make):
    run = make("both", cifar10.get_config(), (Score("fid", "FID", 3.3), drawn(9)))
    table = tables.table_1([run])
    lines = table.as_markdown().splitlines()
    assert lines[2].count("|") == lines[-1].count("|") == len(table.columns) + 1
    assert "| 3.3 (50000 images, step 9) |" in lines[-1]
    assert json.loads(json.dumps(table.as_json()))["rows"][-1][6] == {
        "value": 3.3, "error": None, "error_name": "", "count": 50_000, "step": 9,
    }  # fmt: skip


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no work folder"):
        tables.read_run(tmp_path)


def test_the_config_of_a_run_comes_back(make):
    run = make("same", cifar10.get_config())
    assert configs.to_json(run.config) == configs.to_json(cifar10.get_config())
