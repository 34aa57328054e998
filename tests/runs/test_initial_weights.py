import json

import flax.linen as nn
import flax.traverse_util
import jax
import numpy as np
import pytest

import ddpm_jax
from configs import digits
from ddpm_jax import unet
from ddpm_jax.runs import trainer
from ddpm_jax.runs.initial_weights import Origin


def flat(params):
    return flax.traverse_util.flatten_dict(params, sep="/")


class OneLayer(unet.UNet):
    """Takes what the U-Net takes, and compiles in no time."""

    @nn.compact
    def __call__(self, x, t, cond=None, *, train=False):
        temb = nn.Dense(self.out_ch, name="temb")(unet.timestep_embedding(t, self.ch))
        if cond is not None:
            temb += nn.Dense(self.out_ch, use_bias=False, name="cond_proj")(cond)
        return nn.Dense(self.out_ch, name="out")(x) + temb[:, None, None, :]


@pytest.fixture(scope="module")
def donor(tmp_path_factory):
    """A run that is told no classes."""
    folder = tmp_path_factory.mktemp("runs") / "donor"
    jax.config.update("jax_disable_most_optimizations", True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unet, "UNet", OneLayer)
        ddpm_jax.train(settings(num_steps=3), folder)
        yield folder
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()  # of what was compiled so


def settings(num_steps, **model):
    config = digits.get_config()
    config.diffusion.num_timesteps = 10
    config.model.update(ch=32, ch_mult=(1,), num_res_blocks=1, attn_resolutions=(), **model)
    config.train.update(num_steps=num_steps, batch_size=8, log_every=2, checkpoint_every=1, steps_per_dispatch=1)
    config.optim.update(lr=0.0, warmup_steps=0)  # the weights stay what they were at the start
    return config


@pytest.mark.parametrize("weights", ["raw", "ema"])
def test_a_run_starts_from_the_weights_of_another(donor, tmp_path, weights):
    config = settings(1)
    config.train.seed, config.optim.ema_decay = 5, 0.5
    ddpm_jax.train(config, tmp_path / "run", init_from=Origin(donor, weights=weights))
    expected = ddpm_jax.load(donor, weights=weights).params
    for own in ("raw", "ema"):
        model = ddpm_jax.load(tmp_path / "run", weights=own)
        assert model.step == 1
        jax.tree.map(np.testing.assert_array_equal, model.params, expected)
    record = json.loads((tmp_path / "run/init_from.json").read_text())
    assert record["folder"] == str(donor)
    assert record["step"] == 3
    assert record["initialised anew"] == []


def test_what_does_not_fit_is_named_and_is_anew_only_if_asked_for(donor, tmp_path):
    config = settings(1, num_classes=10)
    with pytest.raises(ValueError, match=r"1 of the parameters .* cond_proj/kernel none -> \[10, 1\]. Give --init_re"):
        ddpm_jax.train(config, tmp_path / "run", init_from=Origin(donor))
    assert not (tmp_path / "run").exists()
    ddpm_jax.train(config, tmp_path / "run", init_from=Origin(donor, reinit=True))
    given, params = flat(ddpm_jax.load(donor).params), flat(ddpm_jax.load(tmp_path / "run").params)
    assert params.keys() - given.keys() == {"cond_proj/kernel"}
    for name, value in given.items():
        np.testing.assert_array_equal(params[name], value)
    assert np.std(params["cond_proj/kernel"]) > 0


@pytest.mark.slow
def test_the_run_goes_on_from_its_own_checkpoints(donor, tmp_path, capsys):
    through, resumed = tmp_path / "through", tmp_path / "resumed"
    config = settings(4)
    config.optim.lr = 1e-3
    trainer.train(config, through, init_from=Origin(donor))
    config.train.num_steps = 2
    trainer.train(config, resumed, init_from=Origin(donor))
    config.train.num_steps = 4
    trainer.train(config, resumed, init_from=Origin(donor))  # the same command again
    assert "Continuing from step 2" in capsys.readouterr().out
    trainer.train(config, resumed)
    assert "Continuing from step 4" in capsys.readouterr().out
    jax.tree.map(np.testing.assert_array_equal, *(ddpm_jax.load(folder).params for folder in (through, resumed)))
    with pytest.raises(ValueError, match="began with .*'--init_weights': ''.* not with .*'--init_weights': 'raw'"):
        trainer.train(config, resumed, init_from=Origin(donor, weights="raw"))
    with pytest.raises(ValueError, match="began with weights of its own"):
        trainer.train(settings(4), donor, init_from=Origin(resumed))


def test_a_run_that_was_killed_before_its_first_checkpoint_asks_for_its_start(donor, tmp_path):
    config, folder = settings(1), tmp_path / "run"
    trainer.train(config, folder, init_from=Origin(donor))
    (folder / "checkpoints/1").rename(tmp_path / "lost")
    with pytest.raises(ValueError, match="has no checkpoint yet: give --init_from again"):
        trainer.train(config, folder)
    trainer.train(config, folder, init_from=Origin(donor))


@pytest.mark.usefixtures("donor")
def test_learning_rate_and_batch_are_changed_on_purpose_in_config_json(tmp_path):
    folder = tmp_path / "run"
    ddpm_jax.train(settings(1), folder)
    changed = settings(2)
    changed.optim.lr, changed.train.batch_size = 1e-3, 4
    with pytest.raises(ValueError, match=r"optim.lr: 0.0 -> 0.001; train.batch_size: 8 -> 4.* edit .*config.json"):
        ddpm_jax.train(changed, folder)
    written = json.loads((folder / "config.json").read_text())
    written["optim"]["lr"], written["train"]["batch_size"] = 1e-3, 4
    (folder / "config.json").write_text(json.dumps(written))
    assert ddpm_jax.train(changed, folder).step == 2
