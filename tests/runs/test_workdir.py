import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax import load, parallel, sampling, training
from ddpm_jax.runs import checkpoint, workdir
from ddpm_jax.runs.experiment import make_experiment


@pytest.fixture
def run(tmp_path, tiny_config):
    """A work folder with one checkpoint, of step 0, whose averaged weights are the last ones plus 1."""
    made = make_experiment(tiny_config)
    params = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.01, leaf.dtype), made.abstract_params)
    ema_params = jax.tree.map(lambda p: p + 1.0, params)
    optimizer = training.make_optimizer(lr=1e-3, warmup_steps=0, clip_norm=1.0)
    state = training.TrainState(jnp.zeros((), jnp.int32), params, ema_params, optimizer.init(params))
    workdir.write_config(tmp_path / "run", tiny_config)
    saved = checkpoint.Checkpoints(tmp_path / "run" / workdir.CHECKPOINTS, keep=1, keep_period=0)
    saved.save(parallel.replicate(state))
    saved.close()
    return tmp_path / "run", state


def test_the_folder_alone_gives_a_sampler_for_the_reader_s_own_program(run):
    folder, state = run
    loaded = load(folder)
    assert loaded.step == 0
    jax.tree.map(np.testing.assert_array_equal, loaded.params, state.ema_params)
    x_0 = jax.jit(loaded.experiment.sample)(loaded.params, sampling.image_keys(0, jnp.arange(3)))
    assert x_0.shape == (3, 8, 8, 1)
    assert np.all(np.isfinite(x_0))


def test_the_weights_can_be_chosen(run, tiny_config):
    folder, state = run
    jax.tree.map(np.testing.assert_array_equal, load(folder, weights="raw").params, state.params)
    tiny_config.sample.weights = "raw"
    workdir.write_config(folder, tiny_config)
    jax.tree.map(np.testing.assert_array_equal, load(folder).params, state.params)


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is no work folder: it has no config.json"):
        load(tmp_path)


def rewrite(folder, *, without=(), **changes):
    """The config.json of a work folder, changed."""
    path = folder / workdir.CONFIG
    sections = json.loads(path.read_text())
    for name in without:
        section, field = name.split(".")
        del sections[section][field]
    for section, fields in changes.items():
        sections[section] = sections.get(section, {}) | fields if isinstance(fields, dict) else fields
    path.write_text(json.dumps(sections))


def test_a_folder_of_before_a_setting_has_its_default(run, tiny_config):
    folder, state = run
    rewrite(folder, without=["sample.weights", "train.profile", "model.remat", "data.memory_limit_gib"])
    loaded = load(folder)
    assert loaded.short_weights == "ema"
    jax.tree.map(np.testing.assert_array_equal, loaded.params, state.ema_params)
    workdir.check(folder, tiny_config)  # it can be continued, too
    tiny_config.model.remat = True
    with pytest.raises(ValueError, match="model.remat: False -> True"):
        workdir.check(folder, tiny_config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(model=dict(ch=10**9)), "model.ch=1000000000 must be at most"),
        (dict(diffusion=dict(num_timesteps=10**12)), "diffusion.num_timesteps=10+ must be at most"),
        (dict(model=dict(ch="32")), "model.ch='32' must be of type int"),
        (dict(model=dict(ch=None)), "model.ch=None must be of type int"),
        (dict(model=dict(ch_mult=[[1]])), "model.ch_mult"),
        (dict(model=dict(ch={"keys": {"a.b": 1}})), "model.ch={.* must be of type int"),
        (dict(model=[1]), "model.ch is missing; .*model is no setting"),
        (dict(optim={"lr.x": 1, "lock": 2}), "optim.lr.x is no setting; .*optim.lock is no setting"),
        (dict(surprise=3), "surprise is no setting"),
        (dict(surprise={"x" * 10_000: 3}), "surprise.xxx.* is no setting"),
        (dict(surprise={str(i): 0 for i in range(9000)}), "JSON"),
        (dict(diffusion=dict(schedule="cubic")), "Unknown schedule 'cubic'"),
        (dict(diffusion=dict(mean_type="x")), "mean_type"),
        (dict(data=dict(image_size=[9, 9]), model=dict(ch_mult=[1, 1])), "nearest size that can"),
    ],
)
def test_a_config_that_is_wrong_is_refused_in_a_sentence(tmp_path, tiny_config, changes, message):
    workdir.write_config(tmp_path, tiny_config)
    rewrite(tmp_path, **changes)
    with pytest.raises(ValueError, match=message) as refused:
        load(tmp_path)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 2000


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", "\x00", "[" * 60_000, '{"model": ' * 9000, "1" * 5000])
def test_a_config_that_is_none_is_refused_in_a_sentence(tmp_path, text):
    (tmp_path / workdir.CONFIG).write_text(text)
    with pytest.raises(ValueError, match=r"config.json: The config is .*\.$"):
        load(tmp_path)


def test_a_config_that_is_not_text_is_refused_in_a_sentence(tmp_path):
    (tmp_path / workdir.CONFIG).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"config.json: The config is no text \(.*decode.*\)\.$"):
        load(tmp_path)


def test_a_run_without_a_checkpoint_says_so(tmp_path, tiny_config):
    workdir.write_config(tmp_path, tiny_config)
    with pytest.raises(FileNotFoundError, match="There is no checkpoint in .*: train first"):
        load(tmp_path)


def test_another_run_s_folder_is_refused_and_left_as_it_is(tmp_path, tiny_config):
    workdir.write_config(tmp_path, tiny_config)
    before = (tmp_path / workdir.CONFIG).read_text()
    tiny_config.model.ch = 64
    with pytest.raises(ValueError, match=r"other settings: model.ch: 32 -> 64.*another --workdir"):
        workdir.write_config(tmp_path, tiny_config)
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


def test_checkpoints_without_their_config_are_refused_and_left_as_they_are(run, tiny_config):
    folder, _ = run
    (folder / workdir.CONFIG).unlink()
    before = sorted(path.name for path in (folder / "checkpoints").iterdir())
    tiny_config.model.ch = 64
    with pytest.raises(ValueError, match=r"checkpoints holds checkpoints, but config.json beside it is missing"):
        workdir.write_config(folder, tiny_config)
    assert not (folder / workdir.CONFIG).exists()
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == before


IMAGES = {"number of images": 1442, "contents": "b4ef"}


def test_a_run_continues_on_its_own_images_alone(tmp_path, tiny_config):
    workdir.write_config(tmp_path, tiny_config, fingerprint=IMAGES)
    tiny_config.train.keep = 9
    workdir.write_config(tmp_path, tiny_config, fingerprint=dict(IMAGES))
    before = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert json.loads(before["data.json"]) == IMAGES
    tiny_config.train.keep = 8
    message = (
        rf"^{tmp_path} holds a run on other images: number of images: 1442 -> 700\. Bring its own back, start in "
        rf"another --workdir, or, to go on with these images on purpose, delete {tmp_path}/data.json first\.$"
    )
    for refuse in (workdir.check, workdir.write_config):
        with pytest.raises(ValueError, match=message):
            refuse(tmp_path, tiny_config, fingerprint=IMAGES | {"number of images": 700})
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before
    (tmp_path / "data.json").unlink()  # on purpose; and so are the folders of before
    workdir.write_config(tmp_path, tiny_config, fingerprint=IMAGES | {"number of images": 700})
    assert json.loads((tmp_path / "data.json").read_text())["number of images"] == 700


def test_a_new_run_takes_no_notice_of_images_of_an_old_one(tmp_path, tiny_config):
    (tmp_path / "data.json").write_text("{}")
    workdir.check(tmp_path, tiny_config, fingerprint=IMAGES)
    workdir.write_config(tmp_path, tiny_config, fingerprint=IMAGES)
    assert json.loads((tmp_path / "data.json").read_text()) == IMAGES


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "\x00", '{"\\u001b": 1}'])
def test_images_that_are_not_known_are_not_those_of_the_run(tmp_path, tiny_config, text):
    workdir.write_config(tmp_path, tiny_config)
    (tmp_path / "data.json").write_text(text)
    with pytest.raises(ValueError, match="to go on with these images on purpose, delete .*data.json first") as refused:
        workdir.check(tmp_path, tiny_config, fingerprint=IMAGES)
    assert str(refused.value).isprintable()
    workdir.check(tmp_path, tiny_config)
