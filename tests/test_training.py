import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ddpm_jax import data, diffusion, parallel, sampling, timesteps, training, unet
from ddpm_jax.ops import convolution
from ddpm_jax.schedule import beta_schedule
from ddpm_jax.unet import UNet

SHAPE = (4, 6, 3)
POWER = 1.8262138  # gamma, of a relative deviation of 0.2
MODEL = UNet(
    3, ch=32, ch_mult=(1,), num_res_blocks=1, attn_resolutions=(), conv=convolution.conv_for_training
)  # fmt: skip
PROCESS = diffusion.make_process(beta_schedule("linear", 100))


def make_step(model=MODEL, **changes):
    optimizer = training.make_optimizer(lr=1e-3, warmup_steps=2, clip_norm=1.0)
    settings = dict(rng=jax.random.key(0), process=PROCESS, model=model, optimizer=optimizer, loss_type="mse",
                    ema_decay=0.9, ema_warmup=False, flip=True, axis_name=parallel.AXIS) | changes  # fmt: skip
    return functools.partial(training.train_step, **settings)


@functools.cache
def first_state(model):
    optimizer = training.make_optimizer(lr=1e-3, warmup_steps=2, clip_norm=1.0)
    return jax.device_get(training.create_state(model, optimizer, rng=jax.random.key(1), image_shape=SHAPE))


def make_state(model=MODEL):
    return parallel.replicate(first_state(model))


@functools.cache
def unflipped_steps():
    return parallel.pmap_train_steps(make_step(flip=False))


def random_batches(steps, batch_size=8):
    pixels = np.random.default_rng(0).integers(0, 256, (steps, batch_size, *SHAPE), dtype=np.uint8)
    return data.Batch(pixels, np.zeros((steps, batch_size), np.int32))


def part_of(batches, steps):
    """Takes some of the steps [K, ...] of batches."""
    return jax.tree.map(lambda array: array[steps], batches)


def assert_same_bits(a, b):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(a), jax.device_get(b))


@pytest.mark.parametrize("warmup", [0, 5])
def test_twelve_steps_equal_the_official_optimizer(golden, warmup):
    """Warm-up, clipping and Adam; a step moves by 2e-4, of which the place of Adam's epsilon may change 5 %.

    One curvature of 1e-8 is left out, where it changes all.
    """
    arrays = golden("optimizer")
    optimizer = training.make_optimizer(
        lr=float(arrays["max_lr"]), warmup_steps=warmup, clip_norm=float(arrays["grad_clip"])
    )
    schedule = training.learning_rate_schedule(float(arrays["max_lr"]), warmup)
    params = {"w1": jnp.asarray(arrays["w1_init"]), "w2": jnp.asarray(arrays["w2_init"])}
    state = optimizer.init(params)
    usual = arrays["curvature1"] > 1e-6, arrays["curvature2"] > 1e-6
    update = jax.jit(optimizer.update)
    for k in range(12):
        grads = {f"w{i}": jnp.asarray(arrays[f"warmup{warmup}/grad{i}"][k]) for i in (1, 2)}
        np.testing.assert_allclose(optax.tree.norm(grads), arrays[f"warmup{warmup}/gnorm"][k], rtol=1e-5)
        np.testing.assert_allclose(schedule(k), arrays[f"warmup{warmup}/lr"][k], rtol=1e-5)
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
        for i, mask in enumerate(usual, start=1):
            expected = arrays[f"warmup{warmup}/w{i}"][k]
            np.testing.assert_allclose(params[f"w{i}"][mask], expected[mask], rtol=0, atol=1e-5)


@pytest.mark.parametrize("warmup", [0, 5])
def test_the_average_equals_the_official_one(golden, warmup):
    arrays = golden("optimizer")
    ema = jnp.asarray(arrays["w1_init"])
    for k in range(12):
        params = jnp.asarray(arrays[f"warmup{warmup}/w1"][k])
        ema = training.ema_update(ema, params, step=jnp.array(k), decay=float(arrays["ema_decay"]))
        np.testing.assert_allclose(ema, arrays[f"warmup{warmup}/ema1_post"][k], rtol=1e-5, atol=1e-6)


def test_the_average_with_warmup_forgets_its_start():
    for step, decay in ((0, 0.1), (10, 11 / 20), (10**6, 0.999)):
        ema = training.ema_update(jnp.array(1.0), jnp.array(0.0), step=jnp.array(step), decay=0.999, warmup=True)
        np.testing.assert_allclose(ema, decay, rtol=1e-6)


def test_what_a_step_draws_is_uniform_in_t_and_normal_in_eps():
    @jax.jit
    def draw(rngs):
        t_rngs, eps, flipped = jax.vmap(lambda rng: training._draw(rng, (2, 2, 1)))(rngs)
        return timesteps.uniform(10).draw((), t_rngs, jnp.arange(4000))[0], eps, flipped

    t, eps, flipped = draw(jax.random.split(jax.random.key(0), 4000))
    counts = np.bincount(t, minlength=10)
    assert counts.shape == (10,)
    assert np.abs(counts - 400).max() < 5 * np.sqrt(400)
    assert abs(flipped.mean() - 0.5) < 5 * 0.5 / np.sqrt(4000)
    assert abs(eps.mean()) < 5 / np.sqrt(16000)
    assert abs(eps.std() - 1.0) < 5 / np.sqrt(32000)
    assert abs(np.corrcoef(t, eps[:, 0, 0, 0])[0, 1]) < 5 / np.sqrt(4000)


@pytest.mark.slow
def test_the_first_step_reports_the_loss_of_an_untrained_network_and_changes_nothing():
    """It predicts nearly 0 for the noise, so its loss is near 1; warm-up starts at learning rate 0."""
    before = first_state(MODEL)
    state, metrics, _ = unflipped_steps()(make_state(), random_batches(1, batch_size=32))
    assert int(state.step) == 1
    assert_same_bits(state.params, before.params)
    np.testing.assert_allclose(metrics.loss, [1.0], atol=0.1)
    np.testing.assert_allclose(metrics.quarter_count.sum(), 32)
    np.testing.assert_allclose(metrics.quarter_loss.sum() / 32, metrics.loss[0], rtol=1e-5)
    np.testing.assert_allclose(metrics.param_norm[0], optax.tree.norm(before.params), rtol=1e-6)


@pytest.mark.slow
def test_several_steps_a_dispatch_give_the_same_bits_and_compile_once():
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compiled.append(name) if name.endswith("backend_compile_duration") else None
    )
    batches, model = random_batches(6), MODEL.clone(dropout=0.5)
    singly, together = (parallel.pmap_train_steps(make_step(model)) for _ in range(2))
    first, losses = make_state(model), []
    for k in range(6):
        first, metrics, _ = singly(first, part_of(batches, slice(k, k + 1)))
        losses.append(np.asarray(metrics.loss)[0])
        if k == 0:
            compiled.clear()
    assert not compiled, "a later train step was compiled again"
    second, metrics, _ = together(make_state(model), part_of(batches, slice(3)))
    second, later, _ = together(second, part_of(batches, slice(3, 6)))
    assert_same_bits(first, second)
    np.testing.assert_array_equal(losses, np.concatenate([metrics.loss, later.loss]))


@pytest.mark.slow
def test_training_lowers_the_loss_of_one_repeated_batch():
    batch, state, losses = random_batches(1, batch_size=32), make_state(), []
    for _ in range(60):
        state, metrics, _ = unflipped_steps()(state, batch)
        losses.append(float(metrics.loss[0]))
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:3])


class Convolution(nn.Module):
    """The least that looks at an image's left and right differently."""

    out_ch: int = 3

    @nn.compact
    def __call__(self, x, t, *, train):
        return nn.Conv(self.out_ch, (1, 3))(x)


def smallest(optimizer, **changes):
    """Makes the model above and its first state."""
    model = Convolution(**changes)
    params = model.init(jax.random.key(0), np.zeros((1, *SHAPE)), None, train=True)["params"]
    return model, training.TrainState(jnp.zeros((), jnp.int32), params, params, optimizer.init(params))


@pytest.mark.parametrize("microbatches", [1, 2])
def test_a_step_outside_pmap_is_that_of_one_device(microbatches):
    assert jax.device_count() == 1
    optimizer, batches = optax.sgd(0.1), random_batches(3)
    model, state = smallest(optimizer)
    settings = dict(optimizer=optimizer, microbatches=microbatches)
    steps = parallel.pmap_train_steps(make_step(model, **settings))
    expected, reported, _ = steps(parallel.replicate(jax.device_get(state)), batches)
    step, start = jax.jit(make_step(model, axis_name=None, **settings)), state.params
    for k in range(3):
        state, metrics = step(state, part_of(batches, k))
        chex.assert_trees_all_close(metrics, part_of(reported, k), rtol=1e-5)
    chex.assert_trees_all_close(state, jax.device_get(expected), rtol=1e-5, atol=1e-6)
    assert np.abs(state.params["Conv_0"]["kernel"] - start["Conv_0"]["kernel"]).max() > 0.01  # far above the tolerance


@pytest.mark.slow
def test_several_averages_are_kept_beside_each_other():
    names, batches = ("ema_0.9", "ema_0.5", "power_0.2"), random_batches(4)
    model, state = smallest(optax.sgd(0.1))
    plain = state
    state = state.replace(averages=dict.fromkeys(names, state.params))
    step = jax.jit(make_step(model, optimizer=optax.sgd(0.1), axis_name=None, ema_decay=0.9))
    expected = dict.fromkeys(names, state.params)
    for k in range(4):
        plain, _ = step(plain, part_of(batches, k))
        state, _ = step(state, part_of(batches, k))
        for name, decay in (("ema_0.9", 0.9), ("ema_0.5", 0.5), ("power_0.2", (k / (k + 1)) ** (POWER + 1))):
            mix = lambda old, new, decay=decay: decay * old + (1 - decay) * new  # noqa: E731
            expected[name] = jax.tree.map(mix, expected[name], state.params)
    chex.assert_trees_all_close(state.averages, expected, rtol=1e-5)
    chex.assert_trees_all_close(state.averages["ema_0.9"], state.ema_params, rtol=1e-6)
    chex.assert_trees_all_close(state.replace(averages={}), plain, rtol=1e-5)


class Told(nn.Module):
    """Predicts the same for all pixels, from the condition alone."""

    @nn.compact
    def __call__(self, x, t, cond, *, train):
        return nn.Dense(3, use_bias=False, kernel_init=nn.initializers.zeros)(cond)[:, None, None, :] + 0.0 * x


@pytest.mark.parametrize(("of_classes", "splits"), [pytest.param(True, (1, 4), marks=pytest.mark.slow), (False, (1,))])
def test_labels_are_dropped_at_random_and_nothing_else_changes(of_classes, splits):
    """Image i has label i: the gradient of row i is that of its own eps, or 0 where its label was dropped."""
    count, model, optimizer = 400, Told(), optax.sgd(1.0)
    pixels, labels = np.zeros((count, *SHAPE), np.uint8), np.arange(count, dtype=np.int32)
    told = functools.partial(unet.class_condition, num_classes=count) if of_classes else lambda vectors: vectors
    batch = data.Batch(pixels, labels if of_classes else np.eye(count, dtype=np.float32))
    params = {"Dense_0": {"kernel": jnp.zeros((count, 3))}}
    state = training.TrainState(jnp.zeros((), jnp.int32), params, params, optimizer.init(params))
    gradients = []
    for microbatches in splits:
        step = make_step(
            model, optimizer=optimizer, axis_name=None, microbatches=microbatches, condition_fn=told, label_dropout=0.25
        )
        after, _ = jax.jit(step)(state, batch)
        gradients.append(-after.params["Dense_0"]["kernel"])
    np.testing.assert_allclose(gradients[0], gradients[-1], rtol=1e-5)
    image_rng, _ = jax.random.split(jax.random.fold_in(jax.random.key(0), 0))
    rngs = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(image_rng, jnp.arange(count))
    _, eps, flipped = jax.vmap(lambda rng: training._draw(rng, SHAPE))(rngs)
    dropped = (gradients[0] == 0.0).all(axis=1)
    expected = -2.0 / (3 * count) * eps.mean((1, 2))
    np.testing.assert_allclose(gradients[0], np.where(dropped[:, None], 0.0, expected), rtol=1e-4)
    assert abs(dropped.mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / count)
    assert abs(np.corrcoef(dropped, flipped)[0, 1]) < 5 / np.sqrt(count)


@pytest.mark.parametrize("loss_type", diffusion.LOSS_TYPES)
def test_a_step_reports_the_loss_that_it_is_given(loss_type):
    batch, optimizer = part_of(random_batches(1), 0), optax.sgd(0.1)
    process = PROCESS
    if loss_type == "hybrid":
        process = diffusion.make_process(beta_schedule("linear", 100), var_type="learned_range")
    model, state = smallest(optimizer, out_ch=3 * process.outputs_per_channel)
    step = make_step(model, process=process, optimizer=optimizer, flip=False, axis_name=None, loss_type=loss_type)
    _, metrics = jax.jit(step)(state, batch)
    image_rng, _ = jax.random.split(jax.random.fold_in(jax.random.key(0), 0))
    rngs = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(image_rng, jnp.arange(8))
    t_rngs, eps, _ = jax.vmap(lambda rng: training._draw(rng, SHAPE))(rngs)
    t, _ = timesteps.uniform(PROCESS.num_timesteps).draw((), t_rngs, jnp.arange(8))
    denoise_fn = functools.partial(model.apply, {"params": state.params}, train=True)
    x_0 = batch.images / np.float32(127.5) - 1
    losses = diffusion.training_losses(process, denoise_fn, x_0=x_0, t=t, eps=eps, loss_type=loss_type)
    np.testing.assert_allclose(metrics.loss, losses.mean(), rtol=1e-4)


def test_flipping_mirrors_some_images_from_left_to_right():
    """Whether flipped or not, symmetric images give the same loss; others do not."""
    model, state = smallest(training.make_optimizer(lr=1e-3, warmup_steps=2, clip_norm=1.0))
    asymmetric, labels = random_batches(1)
    symmetric = np.concatenate([asymmetric[..., :3, :], asymmetric[..., 2::-1, :]], axis=3)
    both = data.Batch(np.concatenate([symmetric, asymmetric]), np.concatenate([labels, labels]))  # one step of each
    losses = []
    for flip in (False, True):
        steps = parallel.pmap_train_steps(make_step(model, flip=flip))
        _, metrics, _ = steps(parallel.replicate(jax.device_get(state)), both)  # copied, as it is donated
        losses.append(np.asarray(metrics.loss))
    assert losses[0][0] == losses[1][0]
    assert losses[0][1] != losses[1][1]


@pytest.mark.slow
def test_microbatches_give_the_step_of_the_whole_batch():
    """The same images, timesteps and noise, with parameters away from zero, so that every branch has a gradient."""
    sgd = optax.sgd(1.0)
    results = []
    for parts in (1, 4):
        state = training.create_state(MODEL, sgd, rng=jax.random.key(1), image_shape=SHAPE)
        state = state.replace(params=jax.tree.map(lambda p: p + 0.03, state.params))
        steps = parallel.pmap_train_steps(make_step(optimizer=sgd, microbatches=parts))
        results.append(jax.device_get(steps(parallel.replicate(state), random_batches(1))[:2]))
    (whole, metrics), (split, split_metrics) = results
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=2e-5), whole.params, split.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5), metrics, split_metrics)
    assert metrics.grad_norm[0] > 0.1


@pytest.mark.parametrize("clip_norm", [0.0, -1.0, float("nan")])
def test_a_norm_that_lets_nothing_through_is_refused(clip_norm):
    with pytest.raises(ValueError, match=f"clip_norm={clip_norm} must be above 0"):
        training.make_optimizer(lr=1e-3, warmup_steps=0, clip_norm=clip_norm)


@pytest.mark.slow
@pytest.mark.parametrize("prng_impl", sampling.PRNG_IMPLS)
def test_what_an_image_draws_depends_on_its_place_in_the_global_batch_alone(prng_impl):
    batch, state = part_of(random_batches(1), 0), first_state(MODEL)
    losses = []
    for microbatches in (1, 2, 4):
        step = make_step(axis_name=None, rng=sampling.run_key(0, prng_impl=prng_impl), microbatches=microbatches)
        losses.append(float(jax.jit(step)(state, batch)[1].loss))
    np.testing.assert_allclose(losses, losses[0], rtol=1e-5)


@pytest.mark.parametrize("microbatches", [1, 2])
def test_the_timestep_sampler_learns_the_losses_of_the_whole_batch_in_order(microbatches):
    """Step by step as by hand: drawn by what was learned, weighted in the loss, learned unweighted."""
    optimizer, process = optax.sgd(0.0), diffusion.make_process(beta_schedule("quad", 4, beta_end=0.9))
    sampler = timesteps.importance(4, history=2)
    model, state = smallest(optimizer)
    state, learned = state.replace(timestep_state=sampler.init()), sampler.init()
    settings = dict(process=process, optimizer=optimizer, flip=False, axis_name=None, timestep_sampler=sampler)
    step = jax.jit(make_step(model, microbatches=microbatches, **settings))
    weights = []

    @jax.jit
    def by_hand(learned, params, pixels, number):
        image_rng, _ = jax.random.split(jax.random.fold_in(jax.random.key(0), number))
        rngs = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(image_rng, jnp.arange(8))
        t_rngs, eps, _ = jax.vmap(lambda rng: training._draw(rng, SHAPE))(rngs)
        t, weight = sampler.draw(learned, t_rngs, jnp.arange(8))
        denoise_fn = functools.partial(model.apply, {"params": params}, train=True)
        losses = diffusion.training_losses(process, denoise_fn, x_0=pixels / 127.5 - 1, t=t, eps=eps)
        return sampler.update(learned, t, losses), (weight * losses).mean(), weight

    for number in range(8):
        batch = part_of(random_batches(8), number)
        learned, loss, weight = by_hand(learned, state.params, batch.images, number)
        state, metrics = step(state, batch)
        np.testing.assert_allclose(metrics.loss, loss, rtol=1e-5)
        np.testing.assert_allclose(metrics.quarter_loss.sum() / 8, loss, rtol=1e-5)
        chex.assert_trees_all_close(state.timestep_state, learned, rtol=1e-5)
        weights.append(weight)
    assert np.std(weights[0]) < 1e-6
    assert np.std(weights[-1]) > 0.03
