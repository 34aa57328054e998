import dataclasses

import pytest

from ddpm_jax.doctor import diagnosis
from ddpm_jax.doctor.diagnosis import Examined
from ddpm_jax.doctor.facts import Facts

VERSIONS = {"python": "3.11.7", "jax": "0.10.2"}


def host(process, *, skew_s=0.0, folder_problem="", **facts):
    known = dict(process=process, num_processes=3, host="abc"[process % 3], versions=VERSIONS, folder="", free_bytes=0)
    return Examined(Facts(**known | facts), skew_s=skew_s, folder_problem=folder_problem)


def problems(*examined):
    return diagnosis.problems(examined, num_processes=3, max_skew_s=2.0, meeting_place="a:1234")


def test_hosts_that_agree_have_no_problem():
    folder = dict(folder="/runs", free_bytes=2**40)
    assert problems(host(0, **folder), host(1, skew_s=1.9, **folder), host(2, skew_s=-1.9, **folder)) == []


def test_those_who_did_not_come_are_named_and_those_who_did():
    (problem,) = problems(host(0), host(2))
    assert problem.startswith("Process 1 is missing: not heard of at a:1234")
    assert "These came: process 0 (a), process 2 (c)" in problem
    (problem,) = problems(host(0))
    assert problem.startswith("Processes 1, 2 are missing")


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (
            host(1, versions=VERSIONS | {"jax": "0.12.0"}),
            "process 1 (b) has jax 0.12.0, process 0 (a) has 0.10.2.",
        ),
        (
            host(1, versions=VERSIONS | {"commit": "abc"}),
            "process 1 (b) has commit abc, process 0 (a) has none.",
        ),
        (host(1, versions={"python": "3.11.7"}), "process 1 (b) has jax none, process 0 (a) has 0.10.2."),
        (host(1, skew_s=-3.0), "The clock of process 1 (b) is -3.0 s off that of process 0 (a): use NTP."),
        (host(1, num_processes=4), "process 1 (b) was told of 4 processes, process 0 of 3."),
        (host(1, folder_problem="does not see x"), "process 1 (b): does not see x."),
        (host(1, folder="/runs", free_bytes=2**29), "process 1 (b) has 0.50 GiB free in /runs."),
    ],
)
def test_one_that_differs_is_named(other, expected):
    assert problems(host(0), other, host(2)) == [expected]


def test_two_that_claim_one_number_are_named():
    found = problems(host(0), host(1), dataclasses.replace(host(1), facts=dataclasses.replace(host(1).facts, host="z")))
    assert "Process 2 is missing" in found[0]
    assert [problem.split(": ")[1] for problem in found[1:]] == ["process 1 (b).", "process 1 (z)."]


def test_another_number_of_devices_is_named():
    assert diagnosis.device_problems({0: 4, 1: 4}, num_processes=2) == []
    assert diagnosis.device_problems({0: 4, 1: 3}, num_processes=3) == [
        "Process 1 has 3 devices, process 0 has 4.",
        "Process 2 has 0 devices, process 0 has 4.",
    ]
