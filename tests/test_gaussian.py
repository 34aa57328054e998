import numpy as np
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from ddpm_jax import gaussian


def test_the_discretized_gaussian_equals_the_official_one(golden):
    ops = golden("diffusion_ops")
    actual = gaussian.discretized_gaussian_log_likelihood(
        ops["dgll/x"], mean=ops["dgll/means"], log_scale=ops["dgll/log_scales"]
    )
    np.testing.assert_allclose(actual, ops["dgll/log_probs"], rtol=1e-3, atol=1e-3)


def test_the_distribution_function_equals_the_official_one_and_nearly_the_true_one(golden):
    ops = golden("diffusion_ops")
    actual = gaussian.approx_standard_normal_cdf(ops["approx_cdf/x"])
    np.testing.assert_allclose(actual, ops["approx_cdf/y"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(actual, scipy.stats.norm.cdf(ops["approx_cdf/x"]), rtol=0, atol=4e-4)


def test_the_divergence_equals_the_official_one(golden):
    ops = golden("diffusion_ops")
    mean1, log_variance1, mean2, log_variance2 = ops["normal_kl/inputs"]
    actual = gaussian.normal_kl(mean1=mean1, log_variance1=log_variance1, mean2=mean2, log_variance2=log_variance2)
    np.testing.assert_allclose(actual, ops["normal_kl/kl"], rtol=1e-4, atol=1e-5)


@given(st.floats(-1.5, 1.5), st.floats(-4, 1))
def test_the_probabilities_of_all_256_pixels_add_up_to_1(mean, log_scale):
    x = np.arange(256, dtype=np.float32) / 127.5 - 1
    log_likelihood = gaussian.discretized_gaussian_log_likelihood(
        x, mean=np.full(256, mean, np.float32), log_scale=np.full(256, log_scale, np.float32)
    )
    np.testing.assert_allclose(np.exp(log_likelihood).sum(), 1.0, atol=1e-4)
