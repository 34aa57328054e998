import sys

import jax
import numpy as np
import pytest

import ddpm_jax
from ddpm_jax.configs import digits
from ddpm_jax.interop import tf1
from ddpm_jax.interop.tf1 import params_from_tf
from ddpm_jax.runs import conversion
from ddpm_jax.unet import UNet


@pytest.fixture
def official(golden):
    arrays = golden("unet_small")
    return {str(name): arrays[f"params/{name}"] for name in arrays["variable_names"]}


@pytest.fixture
def like(golden):
    arrays = golden("unet_small")
    model = UNet(3, ch=32, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(8,))
    return jax.eval_shape(model.init, jax.random.key(0), arrays["input"], arrays["t"])["params"]


def test_every_official_variable_has_its_place(official, like):
    params = params_from_tf({f"{name}:0": array for name, array in official.items()}, like)
    assert jax.tree.map(np.shape, params) == jax.tree.map(lambda leaf: leaf.shape, like)
    np.testing.assert_array_equal(
        params["up_1_block_1"]["nin_shortcut"]["kernel"], official["model/up_1/block_1/nin_shortcut/W"]
    )
    np.testing.assert_array_equal(params["temb_dense1"]["bias"], official["model/temb/dense1/b"])


def test_what_is_missing_left_over_or_misshapen_is_named(official, like):
    del official["model/mid/attn_1/q/W"]
    official["model/down_7/block_0/conv1/W"] = np.zeros(3)
    official["model/conv_in/b"] = np.zeros(5)
    with pytest.raises(ValueError, match="do not fit") as error:
        params_from_tf(official, like)
    for problem in (
        "missing: mid_attn_1/q/kernel",
        "left over: down_7_block_0/conv1/kernel",
        "conv_in/bias has shape [5], not [32]",
    ):
        assert problem in str(error.value)


def test_what_is_no_weight_is_refused():
    with pytest.raises(ValueError, match="'global_step' is not a variable of the official U-Net"):
        params_from_tf({"global_step": np.zeros(())})


def write_checkpoint(tf, path, variables):
    """Writes variables as TensorFlow 1 does during training: with Adam's slots, averages (here + 1) and the step."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        made = [v1.get_variable(name, initializer=array) for name, array in variables.items()]
        step = v1.train.get_or_create_global_step()
        train = v1.train.AdamOptimizer().minimize(sum(tf.reduce_sum(each) for each in made), global_step=step)
        average = tf.train.ExponentialMovingAverage(0.9999)
        with tf.control_dependencies([train]):
            average.apply(made)
        session.run(v1.global_variables_initializer())
        session.run([v1.assign(average.average(each), each + 1.0) for each in made])
        session.run(v1.assign(step, 790_000))
        v1.train.Saver().save(session, str(path), global_step=790_000)


@pytest.mark.filterwarnings("default")  # of TensorFlow
def test_a_checkpoint_of_tensorflow_becomes_a_work_folder(official, golden, tmp_path):
    tf = pytest.importorskip("tensorflow", reason="needs TensorFlow, of the extra 'prepare'")
    write_checkpoint(tf, tmp_path / "official" / "model.ckpt", official)
    arrays = golden("unet_small")
    settings = digits.get_config()
    settings.data.update(image_size=arrays["input"].shape[1:3], channels=3)
    settings.model.update(ch=32, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(8,))
    checkpoint = tmp_path / "official" / "model.ckpt-790000"
    conversion.from_tf1(checkpoint, tmp_path / "run", settings=settings)
    raw, average = (ddpm_jax.load(tmp_path / "run", weights=weights) for weights in ("raw", "ema"))
    assert raw.step == average.step == 790_000
    jax.tree.map(np.testing.assert_array_equal, raw.params, params_from_tf(official))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b + 1.0), average.params, raw.params)
    assert tf1.is_checkpoint(tmp_path / "official")
    assert tf1.read_checkpoint(tmp_path / "official").step == 790_000

    index = checkpoint.with_name("model.ckpt-790000.index")
    index.write_bytes(index.read_bytes()[:100])
    with pytest.raises(ValueError, match="is no checkpoint of the official U-Net"):
        tf1.read_checkpoint(checkpoint)


def test_a_checkpoint_of_tensorflow_needs_a_config_and_tensorflow(tmp_path, monkeypatch):
    (tmp_path / "model.ckpt-1.index").write_bytes(b"")
    with pytest.raises(ValueError, match="name it with --config"):
        conversion.from_tf1(tmp_path / "model.ckpt-1", tmp_path / "run")
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(ModuleNotFoundError, match="pip install 'ddpm_jax\\[prepare\\]'"):
        conversion.from_tf1(tmp_path / "model.ckpt-1", tmp_path / "run", settings=digits.get_config())
