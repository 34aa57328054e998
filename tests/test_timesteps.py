import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax import sampling, timesteps
from ddpm_jax.timesteps import LossHistory


def keys_of(n, seed=0, prng_impl="threefry2x32"):
    return sampling.image_keys(seed, np.arange(n), prng_impl=prng_impl)


def sampler_and_state(name, num_timesteps=6, batch_size=12):
    """Makes a sampler that has learned, if it learns, that the losses of t are about t + 1."""
    sampler = timesteps.make_sampler(name, num_timesteps=num_timesteps, batch_size=batch_size)
    t = np.tile(np.arange(num_timesteps), 12)
    return sampler, jax.jit(sampler.update)(sampler.init(), t, np.float32(t + 1 + 0.1 * np.sin(np.arange(len(t)))))


def recorded_sampler(recorded, case):
    settings = {name: recorded[f"{case}/{name}"].item() for name in ("history_per_term", "uniform_prob")}
    share = settings["uniform_prob"]
    n = int(recorded[f"{case}/num_timesteps"])
    return timesteps.importance(n, history=settings["history_per_term"], uniform_share=share), share


@pytest.mark.parametrize("case", ["default", "other"])
def test_importance_equals_improved_ddpm_after_each_batch(golden, case):
    recorded = golden("importance")
    sampler, share = recorded_sampler(recorded, case)
    state, update = sampler.init(), jax.jit(sampler.update)
    probabilities = jax.jit(functools.partial(timesteps.probabilities, uniform_share=share))
    for i, (t, loss) in enumerate(zip(recorded[f"{case}/ts"], recorded[f"{case}/losses"], strict=True)):
        state = update(state, t, loss)
        np.testing.assert_array_equal(state.losses, recorded[f"{case}/loss_history"][i].astype(np.float32))
        np.testing.assert_allclose(probabilities(state), recorded[f"{case}/probabilities"][i], rtol=1e-6)
    assert recorded[f"{case}/warmed_up"].tolist().count(True) in range(1, 8)  # both kinds of batches were met
    np.testing.assert_array_equal(state.counts, recorded[f"{case}/loss_counts_final"])
    drawn, weight = sampler.draw(state, keys_of(200), jnp.arange(200))
    assert len(np.unique(drawn)) > 3
    np.testing.assert_allclose(weight, recorded[f"{case}/importance_weights_by_t"][drawn], rtol=1e-6)


def test_the_batches_of_two_devices_are_learned_one_after_the_other(golden):
    recorded = golden("importance")
    sampler = timesteps.importance(3, history=4)
    state = sampler.update(
        sampler.init(), recorded["two_ranks/ts"].reshape(-1), recorded["two_ranks/losses"].reshape(-1)
    )
    np.testing.assert_array_equal(state.losses, recorded["two_ranks/loss_history"].astype(np.float32))
    np.testing.assert_array_equal(state.counts, recorded["two_ranks/loss_counts"])


def test_a_batch_is_learned_like_its_images_one_by_one():
    """Also where a timestep is drawn more often than the history is long, which nothing recorded does."""
    rng = np.random.default_rng(0)
    sampler = timesteps.importance(5, history=3)
    update = jax.jit(sampler.update)
    together, one_by_one = sampler.init(), [[] for _ in range(5)]
    for size in (1, 4, 40, 2, 7):
        t, loss = rng.integers(0, 5, size) ** 2 // 5, rng.random(size).astype(np.float32)
        together = update(together, t, loss)
        for each, value in zip(t, loss, strict=True):
            one_by_one[each] = [*one_by_one[each], value][-3:]
        for losses, count, expected in zip(together.losses, together.counts, one_by_one, strict=True):
            assert count == len(expected)
            np.testing.assert_array_equal(losses, np.pad(np.float32(expected), (0, 3 - len(expected))))


@pytest.mark.parametrize("name", timesteps.CHOICES)
def test_weights_keep_the_mean_over_uniform_t(name):
    """Of any function of t, here t^2; and they vary less for what the sampler has learned."""
    sampler, state = sampler_and_state(name, batch_size=60_000)
    t, weight = jax.jit(sampler.draw)(state, keys_of(60_000), jnp.arange(60_000))
    assert t.dtype == jnp.int32
    assert (t.min(), t.max()) == (0, 5)
    terms = np.asarray(weight) * np.asarray(t) ** 2
    assert abs(terms.mean() - np.mean(np.arange(6) ** 2)) < 5 * terms.std() / np.sqrt(60_000)
    spread = np.std(np.asarray(weight) * (np.asarray(t) + 1))
    assert spread < 0.1 if name == "importance" else spread > 1.5


def test_importance_draws_timesteps_without_losses_at_the_uniform_rate():
    state = LossHistory(losses=jnp.ones((4, 10)).at[2].set(0.0), counts=jnp.full(4, 10))
    rare, usual = 0.001 / 4, 0.999 / 3 + 0.001 / 4
    np.testing.assert_allclose(
        timesteps.probabilities(state, uniform_share=0.001), [usual, usual, rare, usual], rtol=1e-6
    )
    t, weight = jax.jit(timesteps.importance(4).draw)(state, keys_of(400_000), jnp.arange(400_000))
    assert abs(np.sum(t == 2) - 100) < 5 * 10
    np.testing.assert_allclose(weight[t == 2], 1000.0, rtol=1e-6)


def test_importance_is_uniform_until_every_timestep_has_its_losses():
    sampler = timesteps.importance(3, history=2)
    update, draw = jax.jit(sampler.update), jax.jit(sampler.draw)
    probabilities = jax.jit(functools.partial(timesteps.probabilities, uniform_share=0.1))
    state = update(sampler.init(), np.array([0, 0, 1, 1, 2]), np.float32([9, 9, 1, 1, 1]))
    assert np.all(probabilities(state) == np.float32(1 / 3))
    np.testing.assert_allclose(draw(state, keys_of(5), jnp.arange(5))[1], 1.0, rtol=1e-6)
    state = update(state, np.array([2]), np.float32([1]))
    np.testing.assert_allclose(probabilities(state), 0.9 * np.array([9, 1, 1]) / 11 + 0.1 / 3, rtol=1e-6)


@pytest.mark.parametrize(("num_timesteps", "batch_size"), [(1000, 8), (10, 40), (10, 7)])
def test_each_image_draws_from_its_own_stratum(num_timesteps, batch_size):
    draw = jax.jit(timesteps.stratified(num_timesteps, batch_size=batch_size).draw)
    for seed in range(20):
        t, _ = draw((), keys_of(batch_size, seed), jnp.arange(batch_size))
        edges = np.arange(batch_size + 1) * num_timesteps / batch_size
        assert np.all(np.floor(edges[:-1]) <= t)
        assert np.all(t < np.ceil(edges[1:]))


@pytest.mark.parametrize("name", timesteps.CHOICES)
@pytest.mark.parametrize("prng_impl", sampling.PRNG_IMPLS)
def test_what_an_image_draws_depends_on_its_key_and_index_alone(name, prng_impl):
    sampler, state = sampler_and_state(name)
    keys, draw = keys_of(12, prng_impl=prng_impl), jax.jit(sampler.draw)
    t, weight = draw(state, keys, jnp.arange(12))
    for part in (slice(6), slice(6, 12)):
        some_t, some_weight = draw(state, keys[part], jnp.arange(12)[part])
        np.testing.assert_array_equal(some_t, t[part])
        np.testing.assert_array_equal(some_weight, weight[part])
    assert len(np.unique(t)) > 3


def test_an_unknown_choice_is_refused():
    with pytest.raises(ValueError, match="cannot be drawn by 'evenly'; choose one of uniform, stratified, importance"):
        timesteps.make_sampler("evenly", num_timesteps=4, batch_size=2)
