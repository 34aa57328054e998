"""What is said of arguments that do not fit: which, what it is, and what would be right."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax import diffusion, gaussian, likelihood, sampling, schedule, unet
from ddpm_jax.arguments import ArgumentError, listed

PROCESS = diffusion.make_process(schedule.beta_schedule("linear", 10))
X, T = np.zeros((2, 4, 4, 3), np.float32), np.array([0, 9])
KEYS = sampling.image_keys(0, np.arange(2))
UNET = unet.UNet(3, ch=32, ch_mult=(1,), num_res_blocks=1, attn_resolutions=())


def denoise_fn(x_t, t):
    return x_t


def sample(**changes):
    return sampling.sample_loop(PROCESS, denoise_fn, **{"keys": KEYS, "shape": (4, 4, 3)} | changes)


def apply_unet(x, t):
    return jax.eval_shape(UNET.init, jax.random.key(0), x, t)


def q_sample(**changes):
    return diffusion.q_sample(PROCESS, **{"x_0": X, "t": T, "eps": X} | changes)


CALLS = [
    (lambda: sample(keys=0), "keys must be an array [B], one an image, as image_keys(seed, indices) makes them;"),
    (lambda: sample(keys=T), "keys must be as image_keys(seed, indices) makes them; got an array of int64"),
    (lambda: sample(shape=(4, 4)), "shape must be (height, width, channels) of one image; got (4, 4)"),
    (lambda: sampling.image_keys(0, 5), "indices must be an array [N]; got int 5"),
    (lambda: q_sample(eps=X[:1]), "eps must be an array [2, 4, 4, 3], shaped like x_0; got float32 [1, 4, 4, 3]"),
    (lambda: q_sample(x_0=X[0], eps=X[0]), "x_0 must be an array [B, H, W, C]; got float32 [4, 4, 3]"),
    (lambda: q_sample(t=5), "t must be an array [2], one of 0..9 for each image; got int 5"),
    (
        lambda: diffusion.q_mean_variance(PROCESS, x_0=X, t=T / 9.0),
        "t must be integers, one of 0..9 for each image; got float64 [2]",
    ),
    (lambda: q_sample(t=T / 9.0 + 9), "t must be from 0 to 9; got 10.0"),
    (lambda: q_sample(t=T + 1), "t must be from 0 to 9; got 10"),
    (lambda: diffusion.q_mean_variance(PROCESS, x_0=X, t=jnp.array([-1, 0])), "t must be from 0 to 9; got -1"),
    (lambda: diffusion.q_posterior(PROCESS, x_0=X, x_t=X, t=T - 1), "t must be from 0 to 9; got -1"),
    (lambda: diffusion.p_mean_variance(PROCESS, model_output=X[..., :2], x_t=X, t=T), "model_output must be an array "),
    (lambda: sampling.p_sample(PROCESS, denoise_fn, x_t=X, t=T + 5, eps=X), "t must be from 0 to 9; got 14"),
    (lambda: sampling.decode(PROCESS, denoise_fn, x_t=X, num_steps=11, keys=KEYS), "num_steps must be from 0 to 10;"),
    (lambda: likelihood.bpd_loop(PROCESS, denoise_fn, x_0=X, keys=KEYS[:1]), "keys must be an array [2], one an image"),
    (lambda: gaussian.discretized_gaussian_log_likelihood(X, mean=X, log_scale=0.0), "log_scale must be an array "),
    (lambda: apply_unet(X[0], T), "x must be an array [B, H, W, C]; got float32 [4, 4, 3]"),
    (lambda: apply_unet(X, T[:1]), "t must be an array [2], one for each image; got int32 [1]"),
]


@pytest.mark.parametrize(("call", "said"), CALLS, ids=[said.split(";")[0] for _, said in CALLS])
def test_what_does_not_fit_is_named_with_what_would_be_right(call, said):
    with pytest.raises(ArgumentError, match=f"^{re.escape(said)}"):
        call()


def test_the_error_is_a_value_error_and_still_what_chex_raised():
    assert issubclass(ArgumentError, ValueError)
    assert issubclass(ArgumentError, AssertionError)


def test_a_timestep_that_is_not_known_is_not_looked_at():
    drawn = jax.jit(diffusion.q_sample)(PROCESS, x_0=X, t=T + 5, eps=X + 1.0)
    assert drawn.shape == X.shape


def test_of_many_problems_the_first_are_listed_and_the_others_counted():
    problems = ["missing: a", "left over: b", "missing: c"]
    assert listed(problems, 3) == "missing: a; left over: b; missing: c"
    assert listed(problems, 1) == "missing: a; and 2 more"
