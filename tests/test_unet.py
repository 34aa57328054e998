import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from jax import export

from ddpm_jax import unet
from ddpm_jax.interop.tf1 import params_from_tf
from ddpm_jax.ops import convolution
from ddpm_jax.unet import UNet

TRAINED = dict(conv=convolution.conv_for_training)


def small(**changes):
    settings = dict(out_ch=3, ch=32, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(8,)) | changes
    return UNet(**settings)


apply_small = jax.jit(small().apply, static_argnames="train")  # compiled once for the tests that share a shape


def golden_params(arrays, prefix="params/"):
    return params_from_tf({key.removeprefix(prefix): arrays[key] for key in arrays.files if key.startswith(prefix)})


def random_params(model, x, t):
    """Draws parameters far from zero in every branch, which takes no compiling."""
    rng, shapes = np.random.default_rng(0), jax.eval_shape(model.init, jax.random.key(0), x, t)["params"]
    return jax.tree.map(lambda leaf: rng.normal(0.0, 0.1, leaf.shape).astype(leaf.dtype), shapes)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        pytest.param(dict(remat=True), marks=pytest.mark.slow),
        TRAINED,
        pytest.param(dict(remat=True, **TRAINED), marks=pytest.mark.slow),
    ],
)
def test_the_network_equals_the_official_one(golden, settings):
    """In training too: without dropout it is the same computation."""
    arrays = golden("unet_small")
    model, variables = small(**settings), {"params": golden_params(arrays)}
    apply = jax.jit(model.apply, static_argnames="train") if settings else apply_small
    output = apply(variables, arrays["input"], arrays["t"])
    assert output.dtype == jnp.float32
    np.testing.assert_allclose(output, arrays["output"], rtol=0, atol=1e-4)
    lowered = [apply.lower(variables, arrays["input"], arrays["t"], train=train).as_text() for train in (False, True)]
    assert lowered[0] == lowered[1]


def test_the_initializers_have_the_official_limits(golden):
    arrays = golden("unet_small")
    limits = dict(zip(arrays["variable_names"], arrays["init_limit"], strict=True))
    params = jax.jit(small().init)(jax.random.key(0), arrays["input"], arrays["t"])["params"]
    ours = flatten_dict(params)
    assert sum(array.size for array in ours.values()) == arrays["num_params"]
    paths = flatten_dict(params_from_tf({name: np.full(1, limit) for name, limit in limits.items()}))
    assert ours.keys() == paths.keys()
    for path, limit in paths.items():
        array = np.asarray(ours[path])
        if path[-1] == "scale":
            assert np.all(array == 1.0)
        elif path[-1] == "bias":
            assert np.all(array == 0.0)
        else:  # uniform in [-limit, limit]: its largest value and its deviation
            assert 0.97 * limit[0] < np.abs(array).max() <= limit[0] * (1 + 1e-6)
            np.testing.assert_allclose(array.std(), limit[0] / np.sqrt(3), rtol=0.1)


@pytest.mark.parametrize("shape", [(5, 7), (3, 3, 4, 8)])
def test_an_initializer_draws_what_flax_s_draws(shape):
    flax_s = nn.initializers.variance_scaling(0.3, "fan_avg", "uniform")
    key = jax.random.key(1)
    np.testing.assert_array_equal(unet._init(0.3)(key, shape, jnp.float32), flax_s(key, shape, jnp.float32))


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("attn_block", unet.AttnBlock),
        ("resnet_block", lambda: unet.ResnetBlock(96)),
        ("resnet_block_same", lambda: unet.ResnetBlock(64)),
        ("downsample_conv", unet.Downsample),
        ("upsample_conv", unet.Upsample),
    ],
)
def test_the_blocks_equal_the_official_ones(golden, name, make):
    arrays = golden("layers")
    prefix = f"params/{name}/"
    variables = {f"block/{key.removeprefix(prefix)}": arrays[key] for key in arrays.files if key.startswith(prefix)}
    params = params_from_tf(variables)["block"]
    temb = [arrays["temb"]] if name.startswith("resnet") else []
    output = jax.jit(make().apply)({"params": params}, arrays[f"{name}/x"], *temb)
    np.testing.assert_allclose(output, arrays[f"{name}/y"], rtol=0, atol=5e-5)


def test_group_norm_sees_the_official_epsilon(golden):
    arrays = golden("layers")
    params = {"scale": arrays["params/group_norm/gamma"], "bias": arrays["params/group_norm/beta"]}
    output = unet.GroupNorm().apply({"params": params}, arrays["group_norm/x"])
    np.testing.assert_allclose(output, arrays["group_norm/y"], rtol=0, atol=5e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("shape", [(3, 4, 6, 32), (2, 5, 3, 96), (1, 1, 1, 64)])
def test_group_norm_and_its_gradients_equal_flax_s(shape, dtype):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(2.0, 3.0, shape), dtype)
    params = {name: jnp.asarray(rng.normal(1.0, 0.5, shape[-1:]), jnp.float32) for name in ("scale", "bias")}
    cotangent = jnp.asarray(rng.standard_normal(shape), dtype)
    theirs = nn.GroupNorm(num_groups=32, epsilon=1e-6, use_fast_variance=False, dtype=dtype)

    @functools.partial(jax.jit, static_argnums=0)
    def value_and_gradients(norm):
        y, vjp = jax.vjp(lambda params, x: norm.apply({"params": params}, x), params, x)
        return y, vjp(cotangent)

    tolerance = dict(rtol=1e-5, atol=1e-5) if dtype == jnp.float32 else dict(rtol=0.02, atol=0.02)
    chex.assert_trees_all_close(value_and_gradients(unet.GroupNorm(dtype)), value_and_gradients(theirs), **tolerance)


@pytest.mark.parametrize("offset", [0.0, 10.0, 100.0])
def test_group_norm_in_bfloat16_is_as_exact_as_its_output(offset):
    x = jnp.asarray(np.random.default_rng(0).normal(offset, 1.0, (2, 16, 16, 64)), jnp.bfloat16)
    groups = np.asarray(x, np.float64).reshape(2, 256, 32, 2)
    centred = groups - groups.mean((1, 3), keepdims=True)
    expected = (centred / np.sqrt((centred**2).mean((1, 3), keepdims=True) + 1e-6)).reshape(x.shape)
    params = {"scale": jnp.ones(64), "bias": jnp.zeros(64)}
    output = np.asarray(unet.GroupNorm(jnp.bfloat16).apply({"params": params}, x), np.float64)
    np.testing.assert_allclose(output, expected, rtol=2**-8, atol=2**-10)


@pytest.mark.parametrize("dim", [32, 128, 33])
def test_timestep_embedding_equals_the_official_one(golden, dim):
    arrays = golden("timestep_embedding")
    np.testing.assert_allclose(unet.timestep_embedding(arrays["t"], dim), arrays[f"dim{dim}"], rtol=0, atol=2e-4)


@pytest.mark.parametrize(("height", "width", "channels"), [(8, 12, 1), (16, 4, 4), (6, 2, 2)])
def test_any_size_that_halves_and_any_number_of_channels(height, width, channels):
    x, t = np.random.default_rng(1).standard_normal((2, height, width, channels), np.float32), np.array([0, 5])
    model = small(out_ch=channels)
    output = jax.jit(model.apply)({"params": random_params(model, x, t)}, x, t)
    assert output.shape == x.shape
    assert np.all(np.isfinite(output))


def test_images_in_a_batch_do_not_see_each_other(golden):
    arrays = golden("unet_small")
    variables = {"params": golden_params(arrays)}
    alone = jax.jit(small().apply)(variables, arrays["input"][1:], arrays["t"][1:])
    np.testing.assert_allclose(alone[0], arrays["output"][1], atol=1e-4)


def test_bfloat16_computes_near_float32_and_keeps_float32_parameters(golden):
    arrays = golden("unet_small")
    params, model = golden_params(arrays), small(dtype=jnp.bfloat16)
    output = jax.jit(model.apply)({"params": params}, arrays["input"], arrays["t"])
    assert output.dtype == jnp.float32
    error = np.abs(output - arrays["output"]).max() / np.abs(arrays["output"]).max()
    assert 1e-4 < error < 0.1  # bfloat16 has 8 bits: not exact, not far
    fresh = jax.eval_shape(model.init, jax.random.key(0), arrays["input"], arrays["t"])
    assert {leaf.dtype for leaf in jax.tree.leaves(fresh)} == {jnp.dtype(jnp.float32)}


def test_a_class_is_a_vector_added_to_the_embedded_timestep(golden):
    """A row of the projection acts as a change of the bias before it does; of no class there is none."""
    arrays = golden("unet_small")
    x, t, params, model = arrays["input"], arrays["t"], golden_params(arrays), small()
    rows = np.random.default_rng(0).standard_normal((5, 128), np.float32)
    labels = np.resize([3, -1, 5], len(x)).astype(np.int32)  # the two last are of no class
    cond = unet.class_condition(labels, 5)
    fresh = jax.eval_shape(model.init, jax.random.key(0), x, t, cond)["params"]
    assert fresh["cond_proj"]["kernel"].shape == rows.shape
    assert fresh.keys() - params.keys() == {"cond_proj"}
    told = params | {"cond_proj": {"kernel": rows}}
    output = jax.jit(model.apply)({"params": told}, x, t, cond)
    np.testing.assert_allclose(output[1:3], arrays["output"][1:3], atol=1e-4)
    bias = params["temb_dense1"]["bias"]
    moved = params | {"temb_dense1": params["temb_dense1"] | {"bias": bias + rows[3]}}
    np.testing.assert_allclose(output[0], apply_small({"params": moved}, x, t)[0], atol=1e-4)
    assert np.abs(output[0] - arrays["output"][0]).max() > 0.1


def test_dropout_acts_in_training_alone(golden):
    arrays = golden("unet_small")
    variables, model = {"params": golden_params(arrays)}, small(dropout=0.5)

    @jax.jit
    def train(seed):
        return model.apply(variables, arrays["input"], arrays["t"], train=True, rngs={"dropout": jax.random.key(seed)})

    np.testing.assert_array_equal(train(0), train(0))
    assert np.abs(train(0) - train(1)).max() > 0.1
    without, not_training = (
        make.lower(variables, arrays["input"], arrays["t"]) for make in (apply_small, jax.jit(model.apply))
    )
    assert not_training.as_text() == without.as_text()


def test_the_convolution_does_not_change_the_parameters_and_reaches_every_block(golden):
    arrays = golden("unet_small")
    seen = []

    def counted(x, kernel, *rest, **options):
        seen.append(kernel.shape)
        return convolution.conv(x, kernel, *rest, **options)

    variables = {"params": golden_params(arrays)}
    for remat in (False, True):
        seen.clear()
        model = small(remat=remat).clone(conv=counted)
        fresh = jax.eval_shape(model.init, jax.random.key(0), arrays["input"], arrays["t"])
        chex.assert_trees_all_equal_shapes(fresh, variables)
        seen.clear()
        jax.eval_shape(model.apply, variables, arrays["input"], arrays["t"])
        kernels = [leaf.shape for leaf in jax.tree.leaves(variables) if leaf.ndim == 4]
        assert sorted(seen) == sorted(kernels)


@pytest.mark.slow
def test_remat_keeps_the_gradients():
    x, t = np.random.default_rng(1).standard_normal((2, 4, 4, 3), np.float32), np.array([0, 5])
    plain, remat = (small(ch_mult=(1,), remat=remat, **TRAINED) for remat in (False, True))
    params = random_params(plain, x, t)

    def grads(model):
        return jax.jit(jax.grad(lambda p: model.apply({"params": p}, x, t, train=True).sum()))(params)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3), grads(plain), grads(remat))


@pytest.mark.slow
def test_the_network_can_be_differentiated_forwards(golden):
    """With the convolution that it has unless told otherwise; that of training is reverse-mode only."""
    arrays = golden("unet_small")
    variables, x, t = {"params": golden_params(arrays)}, arrays["input"], arrays["t"]
    direction = np.random.default_rng(0).standard_normal(x.shape).astype(np.float32)
    apply = jax.jit(lambda x: small().apply(variables, x, t))
    _, slope = jax.jvp(apply, (x,), (direction,))
    step = 1e-2
    ahead, behind = (apply(x + sign * step * direction) for sign in (1, -1))
    np.testing.assert_allclose(slope, (ahead - behind) / (2 * step), atol=0.02 * float(np.abs(slope).max()))


@pytest.mark.parametrize(
    ("settings", "size", "message"),
    [
        ({}, (9, 8), r"9x8 cannot be halved 1 times.*nearest size that can is 8x8.*data.image_size=\(8, 8\)"),
        (dict(ch_mult=(1, 1, 1, 1)), (28, 28), r"nearest size that can is 32x32"),
        (dict(ch=40), (8, 8), "model.ch=40 .* multiple of 32.*try ch=32"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(settings, size, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(small(**settings).init, jax.random.key(0), jnp.zeros((1, *size, 3)), jnp.zeros(1, jnp.int32))


def test_a_timestep_embedding_too_narrow_is_refused():
    with pytest.raises(ValueError, match="dim >= 4; got 3"):
        unet.timestep_embedding(jnp.zeros(1), 3)


def test_in_bfloat16_the_first_convolution_sees_x_t_in_float32():
    """Rounded to bfloat16, x_t at t = 0 would have lost 0.75 % of the variance of eps before the network saw it."""
    rng = np.random.default_rng(0)
    x_0, eps = rng.uniform(-1, 1, (2, 16, 16, 3)), rng.standard_normal((2, 16, 16, 3))
    x_t, t = np.float32(x_0 + 0.01 * eps), np.zeros(2, np.int32)
    rounded = jnp.asarray(x_t, jnp.bfloat16).astype(jnp.float32)
    assert 0.005 < np.var(rounded - x_t) / 0.01**2 < 0.01

    @functools.partial(jax.jit, static_argnums=0)
    def see(model, x_t):
        variables = {"params": random_params(model, x_t, t)}
        seen = lambda module, _: module.name == "conv_in"  # noqa: E731
        _, state = model.apply(variables, x_t, t, capture_intermediates=seen, mutable=["intermediates"])
        return state["intermediates"]["conv_in"]["__call__"][0]

    chex.assert_trees_all_equal(see(small(dtype=jnp.bfloat16), x_t), see(small(), x_t))


@pytest.mark.slow
def test_a_network_is_exported_for_any_batch():
    model, shape = small(out_ch=1, attn_resolutions=(4,)), (8, 8, 1)
    x, t = np.random.default_rng(0).standard_normal((3, *shape), np.float32), np.arange(3, dtype=np.int32)
    variables = {"params": random_params(model, x, t)}
    (b,) = export.symbolic_shape("b")
    run = jax.jit(lambda x, t: model.apply(variables, x, t))
    exported = export.export(run)(jax.ShapeDtypeStruct((b, *shape), x.dtype), jax.ShapeDtypeStruct((b,), t.dtype))
    np.testing.assert_allclose(exported.call(x, t), run(x, t), rtol=0, atol=1e-4)
