import dataclasses

import pytest

from ddpm_jax.doctor import diagnosis
from ddpm_jax.doctor.report import Report

VERSIONS = {"python": "3.11.7", "jax": "0.10.2"}


def report(process, **fields):
    known = dict(process=process, num_processes=3, host="abc"[process % 3], versions=VERSIONS)
    return Report(**known | dict(facts={"code x.py": "abc"}, folder="", folder_problem="", free_bytes=0) | fields)


def problems(*reports):
    return diagnosis.problems(reports, max_skew_s=2.0, address="a:1234")


def test_hosts_that_agree_have_no_problem():
    folder = dict(folder="/runs", free_bytes=2**40)
    assert problems(report(0, **folder), report(1, skew_s=1.9, **folder), report(2, skew_s=-1.9, **folder)) == []


def test_missing_processes_are_named_and_connected_ones():
    (problem,) = problems(report(0), report(2))
    assert problem.startswith("Process 1 is missing: no connection to a:1234")
    assert "Connected: process 0 (a), process 2 (c)" in problem
    (problem,) = problems(report(0))
    assert problem.startswith("Processes 1, 2 are missing")


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (
            report(1, versions=VERSIONS | {"jax": "0.12.0"}),
            "process 1 (b) has jax 0.12.0, process 0 (a) has 0.10.2.",
        ),
        (
            report(1, versions=VERSIONS | {"commit": "abc"}),
            "process 1 (b) has commit abc, process 0 (a) has none.",
        ),
        (report(1, versions={"python": "3.11.7"}), "process 1 (b) has jax none, process 0 (a) has 0.10.2."),
        (
            report(1, facts={"code x.py": "def"}),
            "process 1 (b) has code x.py def, process 0 (a) has abc.",
        ),
        (report(1, skew_s=-3.0), "The clock of process 1 (b) is -3.0 s off that of process 0 (a): use NTP."),
        (report(1, num_processes=4), "process 1 (b) has --num_processes=4, process 0 (a) has 3."),
        (report(1, folder_problem="does not see x"), "process 1 (b): does not see x."),
        (report(1, folder="/runs", free_bytes=2**29), "process 1 (b) has 0.50 GiB free in /runs."),
    ],
)
def test_one_that_differs_is_named(other, expected):
    assert problems(report(0), other, report(2)) == [expected]


def test_two_that_claim_one_number_are_named():
    missing, *claimed = problems(report(0), report(1), dataclasses.replace(report(1), host="z"))
    assert "Process 2 is missing" in missing
    assert [problem.split(": ")[1] for problem in claimed] == ["process 1 (b).", "process 1 (z)."]


def test_another_number_of_devices_is_named():
    assert diagnosis.device_problems({0: 4, 1: 4}, num_processes=2) == []
    assert diagnosis.device_problems({0: 4, 1: 3}, num_processes=3) == [
        "Process 1 has 3 devices, process 0 has 4.",
        "Process 2 has 0 devices, process 0 has 4.",
    ]


def test_few_of_many_differences_are_told():
    other = report(1, facts={f"code {name}.py": "1" for name in "abcdefgx"})
    *told, rest = problems(report(0), other, report(2))
    assert told[0] == "process 1 (b) has code a.py 1, process 0 (a) has none."
    assert len(told) == 5
    assert rest == "process 1 (b) differs from process 0 (a) in 3 more."
