"""One device and four: each in a process of its own, as JAX fixes their number when it starts."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax import parallel
from ddpm_jax.parallel import processes

PROGRAM = """
import functools, sys
import flax.linen as nn, jax, numpy as np, optax
from ddpm_jax import data, diffusion, parallel, timesteps, training
from ddpm_jax.schedule import beta_schedule
from ddpm_jax.unet import UNet

jax.config.update("jax_numpy_rank_promotion", "raise")
model, optimizer = UNet(3, ch=32, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(4,)), optax.sgd(1.0)
state = training.create_state(model, optimizer, rng=jax.random.key(1), image_shape=(8, 4, 3))
start = jax.tree.map(lambda p: np.array(p + 0.03), state.params)  # away from zero: every branch has a gradient
step = parallel.pmap_train_steps(functools.partial(
    training.train_step, rng=jax.random.key(0), process=diffusion.make_process(beta_schedule("linear", 100)),
    model=model, optimizer=optimizer, loss_type="mse", ema_decay=0.9, ema_warmup=False, flip=True,
    axis_name=parallel.AXIS))
pixels = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 4, 3), dtype=np.uint8)
batch = data.Batch(pixels, np.zeros((1, 8), np.int32))
state, metrics, _ = step(parallel.replicate(state.replace(params=start)), batch)
draw = parallel.map_batches(lambda params, keys: jax.vmap(lambda key: params + jax.random.normal(key, (2, 3)))(keys))
arrays = {"/".join(str(k.key) for k in path): before - np.asarray(after) for (path, before), after in
          zip(jax.tree.leaves_with_path(start), jax.tree.leaves(state.params))}

class Dense(nn.Module):
    @nn.compact
    def __call__(self, x, t, *, train=False):
        return nn.Dense(3)(x)

sampler = timesteps.importance(4, history=2)
state = training.create_state(
    Dense(), optimizer, rng=jax.random.key(1), image_shape=(8, 4, 3), timestep_sampler=sampler)
step = parallel.pmap_train_steps(functools.partial(
    training.train_step, rng=jax.random.key(0), process=diffusion.make_process(beta_schedule("linear", 4)),
    model=Dense(), optimizer=optax.sgd(1e-3), loss_type="mse", ema_decay=0.9, ema_warmup=False, flip=True,
    axis_name=parallel.AXIS, timestep_sampler=sampler, microbatches=2))
batches = data.Batch(np.repeat(pixels, 6, axis=0), np.zeros((6, 8), np.int32))
learned = step(parallel.replicate(jax.device_get(state)), batches)[0].timestep_state
np.savez(sys.argv[1], devices=jax.device_count(), loss=metrics.loss, quarters=metrics.quarter_loss,
         learned=learned.losses, learned_counts=learned.counts,
         drawn=draw(parallel.replicate(jax.numpy.ones((2, 3))), jax.random.split(jax.random.key(5), 6)), **arrays)
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    def run(devices):
        path = tmp_path_factory.mktemp("devices") / f"{devices}.npz"
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
        subprocess.run([sys.executable, "-c", PROGRAM, str(path)], env=environment, check=True, timeout=300)
        return np.load(path)

    return run(1), run(4)


@pytest.mark.slow
def test_four_devices_compute_the_loss_and_gradients_of_one(results):
    one, four = results
    assert (one["devices"], four["devices"]) == (1, 4)
    np.testing.assert_allclose(four["loss"], one["loss"], rtol=1e-5)
    np.testing.assert_allclose(four["quarters"], one["quarters"], rtol=1e-5, atol=1e-6)
    others = ("devices", "loss", "quarters", "drawn", "learned", "learned_counts")
    names = [name for name in one.files if name not in others]
    assert len(names) > 100
    largest = max(np.abs(one[name]).max() for name in names)
    assert largest > 0.1
    for name in names:  # each is the difference of two parameters near 0.03, so good to their rounding
        atol = 1e-6 + 2e-5 * np.abs(one[name]).max()
        np.testing.assert_allclose(four[name], one[name], rtol=0, atol=atol, err_msg=name)


@pytest.mark.slow
def test_four_devices_draw_what_one_draws_also_where_they_cannot_share_equally(results):
    one, four = results
    assert one["drawn"].shape == (6, 2, 3)
    np.testing.assert_array_equal(four["drawn"], one["drawn"])


@pytest.mark.slow
def test_four_devices_learn_the_importance_of_timesteps_as_one_does(results):
    one, four = results
    np.testing.assert_array_equal(one["learned_counts"], [2, 2, 2, 2])
    np.testing.assert_array_equal(four["learned_counts"], one["learned_counts"])
    np.testing.assert_allclose(four["learned"], one["learned"], rtol=1e-5)


def test_replicated_arrays_are_whole():
    array = parallel.replicate(jnp.arange(3.0))
    assert array.is_fully_replicated
    assert array.shape == (3,)


def test_a_batch_that_the_devices_cannot_share_is_refused(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    with pytest.raises(ValueError, match="train.batch_size=100 must be a multiple of 8 devices; try 96"):
        parallel.check_batch_size("train.batch_size", 100)
    expected = "train.batch_size=40 must be a multiple of 8 devices x 4 microbatches = 32; try 32"
    with pytest.raises(ValueError, match=expected):
        parallel.check_batch_size("train.batch_size", 40, microbatches=4)
    parallel.check_batch_size("train.batch_size", 64, microbatches=4)


def test_each_process_reads_its_own_rows(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    rows = []
    for process in range(4):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        rows += range(24)[parallel.local_rows(24)]
    assert rows == list(range(24))


def test_each_of_several_processes_has_a_folder_of_its_own(monkeypatch, tmp_path):
    assert parallel.own_folder(tmp_path) == tmp_path
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    folders = set()
    for process in range(2):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        folders.add(parallel.own_folder(tmp_path))
    assert folders == {tmp_path / "process_0", tmp_path / "process_1"}


@pytest.mark.parametrize(
    ("environment", "several"),
    [
        ({}, False),
        ({"SLURM_NTASKS": "4"}, False),  # a batch script that starts one process by itself
        ({"SLURM_NTASKS": "4", "SLURM_STEP_NODELIST": "node[1-4]"}, True),
        ({"SLURM_NTASKS": "1", "SLURM_STEP_NODELIST": "node1"}, False),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:1"}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"TPU_WORKER_HOSTNAMES": "host-0,host-1"}, True),
        ({"MEGASCALE_NUM_SLICES": "2"}, True),
    ],
)
def test_one_of_several_tasks_is_told_from_a_process_alone(environment, several):
    assert processes._several_tasks(environment) is several


def test_one_of_several_that_was_not_told_is_refused(monkeypatch):
    parallel.check_initialized()
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    with pytest.raises(ValueError, match="one of 4 processes; start each with --distributed=on"):
        parallel.check_initialized()
