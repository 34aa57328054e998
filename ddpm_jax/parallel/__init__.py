"""Devices and processes: the one place that names meshes, devices and processes.

processes.py   how the processes of a run meet, fail together, and share what one of them knows
watch.py       how a process that is lost is noticed
devices.py     how a state is replicated, a batch is split, and work is mapped over the devices
targets.py     TPUs that are not here, to compile for

Every process runs the same program and makes the same calls, as JAX's multi-controller runtime wants it. Process 0
reads and writes the work folder; what only it can know reaches the others through `agree`, arrays through `broadcast`.

`jax.pmap` is used as it is today, a `jit` of a `shard_map`: the state goes in and comes out whole and replicated,
with no leading device axis. Over several processes a mapped function takes the rows of the local devices and computes
with those of all.
"""

from ddpm_jax.parallel.devices import (
    AXIS,
    check_batch_size,
    describe,
    local_rows,
    lower_chain,
    lower_train_steps,
    map_batches,
    map_chain,
    pmap_train_steps,
    replicate,
    replicated,
    saveable,
)
from ddpm_jax.parallel.processes import (
    ProcessError,
    agree,
    broadcast,
    check_initialized,
    check_same,
    initialize,
    is_of_a_collective,
    is_primary,
    leave,
    own_folder,
    raise_on_all,
    read_on_primary,
    watch_peers,
)
from ddpm_jax.parallel.targets import Chip, chip, tpu_devices
from ddpm_jax.parallel.watch import PeerWatch

__all__ = [
    "AXIS",
    "Chip",
    "PeerWatch",
    "ProcessError",
    "agree",
    "broadcast",
    "check_batch_size",
    "check_initialized",
    "check_same",
    "chip",
    "describe",
    "initialize",
    "is_of_a_collective",
    "is_primary",
    "leave",
    "local_rows",
    "lower_chain",
    "lower_train_steps",
    "map_batches",
    "map_chain",
    "own_folder",
    "pmap_train_steps",
    "raise_on_all",
    "read_on_primary",
    "replicate",
    "replicated",
    "saveable",
    "tpu_devices",
    "watch_peers",
]
