"""Checks whether hosts can train together: `check_hosts`, called on all of them at once, returns what is wrong.

report.py        one process -> its report about itself
rendezvous.py    sends the reports to process 0, over plain TCP, which works where JAX does not
diagnosis.py     reports -> problems
jax_runtime.py   starts JAX's runtime on all processes -> problems
"""

import functools
import logging
import types
from collections.abc import Mapping

from ddpm_jax.doctor import diagnosis, jax_runtime, rendezvous
from ddpm_jax.doctor.report import make_report

_log = logging.getLogger(__name__)
TIMEOUT_S = 60.0
MAX_SKEW_S = 2.0


def check_hosts(
    *,
    coordinator_address: str = "",
    num_processes: int = 1,
    process_id: int = 0,
    workdir: str = "",
    facts: Mapping[str, str] = types.MappingProxyType({}),
    timeout_s: float = TIMEOUT_S,
    max_skew_s: float = MAX_SKEW_S,
) -> list[str]:
    """Checks whether the processes of a run can train together; all of them call it at the same time.

    Args:
        coordinator_address: HOST:PORT of process 0, with a free port; not needed by a single process.
        num_processes: the number of processes.
        process_id: the number of this process, from 0.
        workdir: the folder that all processes should share; '' to leave that unchecked.
        facts: what else all must have in common, by names for people: settings, data.
        timeout_s: the time for all processes to connect, and again for JAX to start.
        max_skew_s: the allowed difference between clocks.

    Returns:
        The problems, a sentence each; none if all is well. If JAX hangs, so does a thread of this process.
    """
    own = make_report(process=process_id, num_processes=num_processes, workdir=workdir, facts=facts)
    _log.info(own.describe())
    diagnose = functools.partial(diagnosis.problems, max_skew_s=max_skew_s, address=coordinator_address)
    try:
        if num_processes == 1:
            problems = diagnose([own])
        elif process_id == 0:
            problems = rendezvous.serve(own, address=coordinator_address, timeout_s=timeout_s, diagnose=diagnose)
        else:
            problems = rendezvous.join(own, address=coordinator_address, timeout_s=timeout_s)
    except (OSError, ValueError) as error:
        problems = [str(error)]
    return problems or jax_runtime.start(own, address=coordinator_address, timeout_s=timeout_s)
