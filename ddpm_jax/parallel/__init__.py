"""Devices and processes: the one place that names meshes, devices and processes.

processes.py   how the processes of a run meet, and fail together
devices.py     how a state is replicated, a batch is split, and the train step is mapped over the devices
leading.py     how process 0 has others compute for it

`jax.pmap` is used as it is today, a `jit` of a `shard_map`: the state goes in and comes out whole and replicated,
with no leading device axis. Over several processes each runs the same program; a mapped train step takes the rows of
the local devices and computes with those of all.
"""

from ddpm_jax.parallel.devices import (
    AXIS,
    check_batch_size,
    describe,
    local_rows,
    lower_train_steps,
    pmap_train_steps,
    replicate,
    replicated,
    saveable,
)
from ddpm_jax.parallel.leading import on_primary, pmap_batches
from ddpm_jax.parallel.processes import (
    ProcessError,
    check_initialized,
    from_primary,
    initialize,
    is_primary,
    leave,
    own_folder,
    together,
)

__all__ = [
    "AXIS",
    "ProcessError",
    "check_batch_size",
    "check_initialized",
    "describe",
    "from_primary",
    "initialize",
    "is_primary",
    "leave",
    "local_rows",
    "lower_train_steps",
    "on_primary",
    "own_folder",
    "pmap_batches",
    "pmap_train_steps",
    "replicate",
    "replicated",
    "saveable",
    "together",
]
