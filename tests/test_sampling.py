import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from denoise_fns import exact_denoise_fn, fixed_denoise_fn

from ddpm_jax import diffusion, sampling
from ddpm_jax.schedule import beta_schedule

MEAN, DEVIATION = 0.3, 0.5  # of the Gaussian data whose best denoiser is known
gaussian_denoise_fn = functools.partial(exact_denoise_fn, mean=MEAN, deviation=DEVIATION)


def test_noise_is_that_of_the_keys_folded_with_the_index():
    keys, shape = sampling.image_keys(3, np.array([7, 2])), (4, 6, 2)
    own = jnp.stack([jax.random.fold_in(jax.random.key(3), i) for i in (7, 2)])
    np.testing.assert_array_equal(jax.random.key_data(keys), jax.random.key_data(own))
    for index in (0, 5, np.array([5, 1000])):
        indices = np.broadcast_to(index, 2)
        folded = [jax.random.fold_in(key, int(i)) for key, i in zip(keys, indices, strict=True)]
        expected = jnp.stack([jax.random.normal(key, shape) for key in folded])
        np.testing.assert_array_equal(sampling.noise(keys, index, shape), expected)
        np.testing.assert_array_equal(sampling.noise(keys, index, shape, stream=sampling.CHAIN), expected)


def test_no_two_streams_share_a_number():
    """Neither with each other nor from one index to the next; an image's own numbers stay its own in each."""
    keys, shape = sampling.image_keys(0, np.arange(3)), (2, 3, 2)
    draw = jax.jit(sampling.noise, static_argnames=("shape", "stream"))
    drawn = np.stack([draw(keys, index, shape, stream=s) for s in range(4) for index in (0, 1, 2, 3, 1000)])
    assert len(np.unique(drawn)) == drawn.size
    np.testing.assert_array_equal(draw(keys[1:2], 1000, shape, stream=3)[0], drawn[-1, 1])
    many = np.asarray(draw(sampling.image_keys(1, np.arange(5000)), 0, shape, stream=1))
    assert abs(many.mean()) < 5 / np.sqrt(many.size)
    assert abs(many.std() - 1.0) < 5 / np.sqrt(2 * many.size)


@pytest.mark.parametrize("mean_type", ["xprev", "xstart", "eps"])
@pytest.mark.parametrize("var_type", ["learned", "fixedsmall", "fixedlarge"])
def test_one_step_equals_the_official_one(golden, mean_type, var_type):
    ops = golden("diffusion_ops")
    process = diffusion.make_process(ops["betas"], mean_type=mean_type, var_type=var_type)
    denoise_fn = fixed_denoise_fn(ops["denoise_coef"], learned=var_type == "learned")
    step = functools.partial(sampling.p_sample, process, denoise_fn)
    x_t, _ = jax.jit(step)(x_t=ops["q_sample"], t=ops["t"], eps=ops["step_noise"])
    np.testing.assert_allclose(x_t, ops[f"p_sample/{mean_type}/{var_type}"], rtol=0, atol=2e-5 * np.abs(x_t).max())


@pytest.mark.parametrize(("var_type", "official"), [("fixedlarge", "eps_fixedlarge"), ("fixedsmall", "old")])
def test_the_chain_with_known_noise_equals_the_official_one(golden, var_type, official):
    chain = golden("chain")
    process = diffusion.make_process(chain["betas"], var_type=var_type)
    denoise_fn = fixed_denoise_fn(chain["denoise_coef"])

    def step(x_t, inputs):
        t, eps = inputs
        x_t, x_0 = sampling.p_sample(process, denoise_fn, x_t=x_t, t=jnp.full(2, t), eps=eps)
        return x_t, (x_t, x_0)

    first, *noise = chain["noise_sequence"]
    x_0, (states, predicted) = jax.lax.scan(step, jnp.asarray(first), (jnp.arange(19, -1, -1), np.stack(noise)))
    np.testing.assert_allclose(x_0, chain[f"{official}/p_sample_loop"], rtol=0, atol=3e-5)
    if official == "eps_fixedlarge":
        np.testing.assert_allclose(states, chain[f"{official}/trajectory"], rtol=0, atol=3e-5)
        np.testing.assert_allclose(predicted, chain[f"{official}/trajectory_pred_xstart"], rtol=0, atol=3e-5)


@pytest.mark.parametrize("var_type", ["fixedsmall", "fixedlarge"])
def test_the_chain_with_the_exact_denoiser_returns_the_gaussian(var_type):
    process = diffusion.make_process(beta_schedule("linear", 1000), var_type=var_type)
    keys, shape = sampling.image_keys(0, np.arange(200)), (8, 8, 2)
    x_0 = sampling.sample_loop(process, gaussian_denoise_fn(process), keys=keys, shape=shape, clip=False)
    n = x_0.size
    # A thousand steps are not infinitely many: the chain's own deviation is within 1 % of the data's.
    np.testing.assert_allclose(x_0.mean(), MEAN, atol=5 * DEVIATION / np.sqrt(n))
    np.testing.assert_allclose(x_0.std(), DEVIATION, rtol=0.01 + 5 / np.sqrt(2 * n))


def test_the_chain_is_the_loop_of_its_steps():
    """Compares with Algorithm 2 written as a Python loop over `p_sample`, with the noise drawn as documented."""
    process = diffusion.make_process(beta_schedule("linear", 5, beta_end=0.5))
    denoise_fn, shape, keys = gaussian_denoise_fn(process), (4, 6, 1), sampling.image_keys(3, np.array([7, 2]))

    def noise(index):
        return jnp.stack([jax.random.normal(jax.random.fold_in(key, index), shape) for key in keys])

    x_t = noise(5)
    for t in (4, 3, 2, 1, 0):
        x_t, _ = sampling.p_sample(process, denoise_fn, x_t=x_t, t=jnp.full(2, t), eps=noise(t))
    x_0 = sampling.sample_loop(process, denoise_fn, keys=keys, shape=shape)
    np.testing.assert_allclose(x_0, x_t, rtol=1e-5, atol=1e-6)


def test_the_whole_chain_is_one_scan():
    process = diffusion.make_process(beta_schedule("linear", 1000))
    draw = functools.partial(sampling.sample_loop, process, gaussian_denoise_fn(process), shape=(4, 4, 1))
    scans = [
        equation.params["length"]
        for equation in jax.make_jaxpr(draw)(keys=sampling.image_keys(0, np.arange(2))).eqns
        if equation.primitive.name == "scan"
    ]
    assert scans == [1000]


def test_an_image_does_not_depend_on_the_batch_it_is_drawn_in():
    process = diffusion.make_process(beta_schedule("linear", 10))
    draw = functools.partial(sampling.sample_loop, process, gaussian_denoise_fn(process), shape=(4, 4, 1), clip=False)
    together = draw(keys=sampling.image_keys(0, np.arange(5)))
    alone = draw(keys=sampling.image_keys(0, np.array([3])))
    np.testing.assert_allclose(alone[0], together[3], rtol=1e-6, atol=1e-6)
    other = draw(keys=sampling.image_keys(1, np.array([3])))
    assert np.abs(other[0] - together[3]).max() > 0.1
    assert len(np.unique(together)) == together.size  # no two pixels, so no two images, share their noise


def test_the_chain_can_be_jitted_inside_a_larger_function_and_vmapped():
    process = diffusion.make_process(beta_schedule("linear", 10))
    draw = functools.partial(sampling.sample_loop, process, gaussian_denoise_fn(process), shape=(4, 4, 1))

    @jax.jit
    def brightness(seed):
        return draw(keys=sampling.image_keys(seed, jnp.arange(3))).mean(axis=(1, 2, 3))

    plain = [draw(keys=sampling.image_keys(seed, np.arange(3))).mean(axis=(1, 2, 3)) for seed in (0, 1)]
    np.testing.assert_allclose(jax.vmap(brightness)(jnp.arange(2)), np.stack(plain), rtol=1e-4, atol=1e-6)


def test_clipping_keeps_the_predicted_image_in_range():
    process = diffusion.make_process(beta_schedule("linear", 10))
    x_t, t = 5.0 * jnp.ones((1, 2, 2, 1)), jnp.array([9])
    for clip, largest in ((True, 1.0), (False, 5.0)):
        _, x_0 = sampling.p_sample(process, lambda x, t: jnp.zeros_like(x), x_t=x_t, t=t, eps=x_t, clip=clip)
        assert np.abs(x_0).max() == 1.0 if clip else np.abs(x_0).max() > largest


def official_loop(chain, kept, **settings):
    """Runs the whole chain of the reference vectors through `kept`, a loop of ours, with the official noise."""
    first, *steps = chain["noise_sequence"]
    sequence = jnp.asarray(np.stack([*steps[::-1], first]))  # [21, 2, 8, 8, 3], by timestep; x_T last
    process = diffusion.make_process(chain["betas"])
    settings |= dict(shape=(8, 8, 3), noise_fn=lambda keys, index, shape: sequence[index])
    denoise_fn, keys = fixed_denoise_fn(chain["denoise_coef"]), sampling.image_keys(0, np.arange(2))
    return jax.jit(functools.partial(kept, process, denoise_fn, **settings))(keys=keys)


def test_the_loop_with_known_noise_equals_the_official_one(golden):
    chain = golden("chain")
    x_0 = official_loop(chain, sampling.sample_loop)
    np.testing.assert_allclose(x_0, chain["eps_fixedlarge/p_sample_loop"], rtol=0, atol=3e-5)


@pytest.mark.parametrize("frequency", [5, 6, 50])
def test_predictions_on_the_way_equal_the_official_ones(golden, frequency):
    chain = golden("chain")
    timesteps = range(0, 20 // frequency * frequency, frequency)
    x_0, predicted = official_loop(chain, sampling.progressive_loop, timesteps=timesteps)
    np.testing.assert_allclose(x_0, chain["eps_fixedlarge/p_sample_loop"], rtol=0, atol=3e-5)
    np.testing.assert_allclose(predicted, chain[f"eps_fixedlarge/progressive_freq{frequency}"], rtol=0, atol=3e-5)


def test_latents_on_the_way_equal_the_official_trajectory(golden):
    chain = golden("chain")
    x_0, x_t = official_loop(chain, sampling.latents_loop, timesteps=range(19, -1, -1))
    states = np.concatenate([chain["noise_sequence"][:1], chain["eps_fixedlarge/trajectory"]])  # of 20..0 steps
    np.testing.assert_allclose(x_0, states[-1], rtol=0, atol=3e-5)
    np.testing.assert_allclose(x_t.swapaxes(0, 1), states[:-1], rtol=0, atol=3e-5)


def short_chain(num_timesteps=10):
    """Makes a process, its exact denoiser, and keys of three images, whose sides all differ."""
    process = diffusion.make_process(beta_schedule("linear", num_timesteps, beta_end=0.4))
    return process, gaussian_denoise_fn(process), sampling.image_keys(5, np.arange(3)), (4, 6, 2)


def test_what_is_kept_is_in_the_order_asked_for_and_does_not_change_the_image():
    process, denoise_fn, keys, shape = short_chain()
    draw = functools.partial(sampling.progressive_loop, process, denoise_fn, keys=keys, shape=shape)
    x_0, every = draw(timesteps=range(10))
    np.testing.assert_array_equal(x_0, sampling.sample_loop(process, denoise_fn, keys=keys, shape=shape))
    np.testing.assert_array_equal(every[:, 0], x_0)  # of the last step, t = 0
    _, some = draw(timesteps=(9, 0, 4))
    np.testing.assert_array_equal(some, every[:, [9, 0, 4]])
    _, none = draw(timesteps=())
    assert none.shape == (3, 0, *shape)


def test_only_what_was_asked_for_is_stored():
    """The scan carries x_t and K predictions, and stacks nothing."""
    process, denoise_fn, keys, shape = short_chain(num_timesteps=50)
    loop = functools.partial(sampling.progressive_loop, process, denoise_fn, shape=shape, timesteps=(40, 10))
    (scan,) = (eqn for eqn in jax.make_jaxpr(lambda keys: loop(keys=keys))(keys).eqns if eqn.primitive.name == "scan")
    assert scan.params["length"] == 50
    sizes = sorted(out.aval.size for out in scan.outvars)
    assert sizes[-2:] == [3 * 4 * 6 * 2, 2 * 3 * 4 * 6 * 2]
    assert sum(sizes[:-2]) <= 2  # loop counters


@pytest.mark.parametrize("timesteps", [(10,), (-1,), (3, 3)])
def test_impossible_timesteps_are_refused(timesteps):
    process, denoise_fn, keys, shape = short_chain()
    with pytest.raises(ValueError, match=r"must be different integers in 0..9"):
        sampling.progressive_loop(process, denoise_fn, keys=keys, shape=shape, timesteps=timesteps)


@pytest.mark.parametrize("traced", [False, True])
def test_a_frozen_latent_continues_to_the_image_it_was_taken_from(traced):
    process, denoise_fn, keys, shape = short_chain()
    x_0, x_t = sampling.latents_loop(process, denoise_fn, keys=keys, shape=shape, timesteps=(9, 6, 0))
    decode = functools.partial(sampling.decode, process, denoise_fn)
    decode = jax.jit(decode) if traced else decode
    for i, t in enumerate((9, 6, 0)):
        continued = decode(x_t=x_t[:, i], num_steps=t + 1, keys=keys)
        np.testing.assert_allclose(continued, x_0, rtol=1e-5, atol=1e-6)
        if t:
            others = decode(x_t=x_t[:, i], num_steps=t + 1, keys=sampling.image_keys(6, np.arange(3)))
            assert np.abs(others - x_0).max() > 0.1
    np.testing.assert_array_equal(decode(x_t=x_0, num_steps=0, keys=keys), x_0)


@pytest.mark.parametrize("num_steps", [250, 500])
def test_latents_of_images_decode_to_the_distribution_of_images(num_steps):
    """Gaussian data, encoded by q and decoded by p with the exact denoiser, is the same Gaussian again."""
    process = diffusion.make_process(beta_schedule("linear", 1000))
    shape, keys = (8, 8, 2), sampling.image_keys(0, np.arange(100))
    x_0 = MEAN + DEVIATION * np.random.default_rng(0).standard_normal((100, *shape), np.float32)
    x_t = diffusion.q_sample(
        process, x_0=x_0, t=jnp.full(100, num_steps - 1), eps=sampling.noise(keys, process.num_timesteps, shape)
    )
    decoded = jax.jit(functools.partial(sampling.decode, process, gaussian_denoise_fn(process), clip=False))(
        x_t=x_t, num_steps=num_steps, keys=keys
    )
    n = decoded.size
    np.testing.assert_allclose(decoded.mean(), MEAN, atol=5 * DEVIATION / np.sqrt(n))
    np.testing.assert_allclose(decoded.std(), DEVIATION, rtol=0.01 + 5 / np.sqrt(2 * n))
    # x_0 and its decoding are independent given x_t, so the correlation of the two is that of x_0 and x_t, squared.
    correlation = np.corrcoef(x_0.ravel(), decoded.ravel())[0, 1]
    alpha_cumprod = np.prod(1.0 - np.linspace(1e-4, 0.02, 1000)[:num_steps])
    signal = alpha_cumprod * DEVIATION**2
    np.testing.assert_allclose(correlation, signal / (signal + 1.0 - alpha_cumprod), atol=0.06)


@functools.cache
def interpolation():
    """Makes `interpolate(weight, num_steps)` between three pairs and `decode`, jitted; their process, and the pairs."""
    process, denoise_fn, keys, shape = short_chain()
    x_0_a, x_0_b, eps_a, eps_b = np.random.default_rng(0).standard_normal((4, 3, *shape), np.float32)
    pairs = dict(x_0_a=np.tanh(x_0_a), x_0_b=np.tanh(x_0_b), eps_a=eps_a, eps_b=eps_b)
    between, decode = (
        jax.jit(functools.partial(function, process, denoise_fn, keys=keys), static_argnames="num_steps")
        for function in (sampling.interpolate, sampling.decode)
    )

    def interpolate(weight, num_steps, **changed):
        return between(**(pairs | changed), weight=np.full(3, weight, np.float32), num_steps=num_steps)

    return interpolate, decode, process, pairs


@pytest.mark.parametrize("num_steps", [1, 5, 10])
def test_the_ends_of_an_interpolation_are_the_images_decoded_alone(num_steps):
    interpolate, decode, process, pairs = interpolation()
    for weight, side in ((0.0, "a"), (1.0, "b")):
        t = jnp.full(3, num_steps - 1)
        x_t = diffusion.q_sample(process, x_0=pairs[f"x_0_{side}"], t=t, eps=pairs[f"eps_{side}"])
        alone = decode(x_t=x_t, num_steps=num_steps)
        np.testing.assert_allclose(interpolate(weight, num_steps), alone, rtol=1e-5, atol=1e-6)


def test_an_interpolation_mixes_latents_and_is_the_same_from_either_side():
    interpolate, decode, process, pairs = interpolation()
    swapped = {f"{name}_{side}": pairs[f"{name}_{other}"] for name in ("x_0", "eps") for side, other in ("ab", "ba")}
    np.testing.assert_allclose(interpolate(0.3, 5), interpolate(0.7, 5, **swapped), rtol=1e-5, atol=1e-6)
    # q is linear: mixing latents is encoding mixed images with mixed noises.
    x_0, eps = (0.7 * pairs[f"{name}_a"] + 0.3 * pairs[f"{name}_b"] for name in ("x_0", "eps"))
    x_t = diffusion.q_sample(process, x_0=x_0, t=jnp.full(3, 4), eps=eps)
    np.testing.assert_allclose(interpolate(0.3, 5), decode(x_t=x_t, num_steps=5), rtol=1e-4, atol=1e-5)


def test_without_steps_the_images_themselves_are_mixed():
    interpolate, _, _, pairs = interpolation()
    with jax.disable_jit():  # compiled, a sum of products is rounded once
        np.testing.assert_array_equal(interpolate(0.0, 0), pairs["x_0_a"])
        np.testing.assert_array_equal(interpolate(0.25, 0), 0.75 * pairs["x_0_a"] + 0.25 * pairs["x_0_b"])
