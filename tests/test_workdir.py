import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax import checkpoint, experiment, parallel, sampling, training, workdir


@pytest.fixture
def run(tmp_path, tiny_config):
    """A work folder with one checkpoint, of step 0, whose averaged weights are the last ones plus 1."""
    made = experiment.make(tiny_config)
    optimizer = training.make_optimizer(lr=1e-3, warmup_steps=0, clip_norm=1.0)
    state = training.create_state(made.model, optimizer, rng=jax.random.key(0), image_shape=made.image_shape)
    state = state.replace(ema_params=jax.tree.map(lambda p: p + 1.0, state.params))
    workdir.claim(tmp_path / "run", tiny_config)
    saved = checkpoint.Checkpoints(tmp_path / "run" / workdir.CHECKPOINTS, keep=1, keep_period=0)
    saved.save(parallel.replicate(state))
    saved.close()
    return tmp_path / "run", state


def test_the_folder_alone_gives_a_sampler_for_the_reader_s_own_program(run):
    folder, state = run
    loaded = workdir.load(folder)
    assert loaded.step == 0
    jax.tree.map(np.testing.assert_array_equal, loaded.params, state.ema_params)
    x_0 = jax.jit(loaded.experiment.sample)(loaded.params, sampling.image_keys(0, jnp.arange(3)))
    assert x_0.shape == (3, 8, 8, 1)
    assert np.all(np.isfinite(x_0))


def test_the_weights_can_be_chosen(run, tiny_config):
    folder, state = run
    jax.tree.map(np.testing.assert_array_equal, workdir.load(folder, ema=False).params, state.params)
    tiny_config.sample.ema = False
    workdir.claim(folder, tiny_config)
    jax.tree.map(np.testing.assert_array_equal, workdir.load(folder).params, state.params)


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is no work folder: it has no config.json"):
        workdir.load(tmp_path)


def test_a_run_without_a_checkpoint_says_so(tmp_path, tiny_config):
    workdir.claim(tmp_path, tiny_config)
    with pytest.raises(FileNotFoundError, match="There is no checkpoint in .*: train first"):
        workdir.load(tmp_path)


def test_another_run_s_folder_is_refused_and_left_as_it_is(tmp_path, tiny_config):
    workdir.claim(tmp_path, tiny_config)
    before = (tmp_path / workdir.CONFIG).read_text()
    tiny_config.model.ch = 64
    with pytest.raises(ValueError, match=r"other settings: model.ch: 32 -> 64.*another --workdir"):
        workdir.claim(tmp_path, tiny_config)
    assert (tmp_path / workdir.CONFIG).read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == [workdir.CONFIG]


def test_a_folder_has_one_run_at_a_time(tmp_path):
    with workdir.locked(tmp_path / "run"):
        with (
            pytest.raises(ValueError, match=rf"run is in use by another run, process {os.getpid()} on .+: wait until"),
            workdir.locked(tmp_path / "run"),
        ):
            pass
        with workdir.locked(tmp_path / "other"):
            pass
    with workdir.locked(tmp_path / "run"):
        pass
