import functools

import jax
import numpy as np
import pytest
from draws import SHAPE, draws

from ddpm_jax import sampling

usual_draws = functools.cache(draws)


@pytest.mark.parametrize(
    "setting",
    [
        jax.enable_x64(True),
        pytest.param(jax.default_prng_impl("rbg"), marks=pytest.mark.slow),
        pytest.param(jax.threefry_partitionable(False), marks=pytest.mark.slow),
    ],
)
def test_no_setting_of_jax_changes_what_is_drawn(setting):
    usual = usual_draws()
    with setting:
        drawn = draws()
    assert drawn.keys() == usual.keys()
    for name, array in usual.items():
        assert drawn[name].dtype == array.dtype, name
        np.testing.assert_array_equal(drawn[name], array, err_msg=name)


@pytest.mark.parametrize("seed", [-1, 2**32, 2**32 + 1, np.int64(-1)])
def test_a_seed_that_has_another_s_key_is_refused(seed):
    with pytest.raises(ValueError, match=f"seed={seed} must be from 0 to 4294967295"):
        sampling.image_keys(seed, np.arange(2))


def test_the_largest_seed_is_one_of_its_own():
    last, first = (sampling.image_keys(seed, np.arange(2)) for seed in (2**32 - 1, 0))
    assert (jax.random.key_data(last) != jax.random.key_data(first)).all()


@pytest.mark.parametrize("prng_impl", sampling.PRNG_IMPLS)
def test_noise_does_not_depend_on_the_batch(prng_impl):
    keys = sampling.image_keys(0, np.arange(5), prng_impl=prng_impl)
    noise = jax.jit(sampling.noise, static_argnums=2)
    whole = noise(keys, np.array([3, 1, 4, 1, 5]), SHAPE)
    np.testing.assert_array_equal(noise(keys[1:4], np.array([1, 4, 1]), SHAPE), whole[1:4])
    np.testing.assert_allclose([whole.mean(), whole.std()], [0.0, 1.0], atol=0.2)


def test_generators_draw_different_numbers():
    usual, rbg = (sampling.image_keys(0, np.arange(2), prng_impl=impl) for impl in sampling.PRNG_IMPLS)
    assert np.max(np.abs(sampling.noise(usual, 0, SHAPE) - sampling.noise(rbg, 0, SHAPE))) > 0.1


def test_an_unknown_generator_is_refused():
    with pytest.raises(ValueError, match="prng_impl='unsafe_rbg' must be one of threefry2x32, rbg"):
        sampling.run_key(0, prng_impl="unsafe_rbg")
