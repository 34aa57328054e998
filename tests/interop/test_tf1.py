import jax
import numpy as np
import pytest

from ddpm_jax.interop.tf1 import params_from_tf
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
        "conv_in/bias has shape (5,), the model wants (32,)",
    ):
        assert problem in str(error.value)


def test_what_is_no_weight_is_refused():
    with pytest.raises(ValueError, match="'global_step' is not a variable of the official U-Net"):
        params_from_tf({"global_step": np.zeros(())})
