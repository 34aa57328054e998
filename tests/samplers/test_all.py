"""What holds for every sampler: the order of its error, how often it calls the network, and where that stands."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recorded import exact_network, process, states

from ddpm_jax import diffusion, samplers, sampling
from ddpm_jax.schedule import beta_schedule

SMALL = diffusion.make_process(beta_schedule("linear", 12, beta_end=0.3))
EIGHT = np.array([0, 1, 3, 4, 6, 8, 9, 11])
KNOWN = dict(known=np.zeros((3, 2, 3, 1), np.float32), mask=np.ones((1, 2, 3, 1), bool))
# For eight timesteps: the calls of the network that each takes.
CALLS = {
    "ancestral": (samplers.ancestral(SMALL), 12),
    "ancestral, some": (samplers.ancestral(SMALL, EIGHT), 8),
    "ddim": (samplers.ddim(SMALL, EIGHT, eta=0.5), 8),
    "ddim inversion": (samplers.ddim_inversion(SMALL, EIGHT), 8),
    "dpm_solver, multistep 2": (samplers.dpm_solver(SMALL, EIGHT, order=2), 8),
    "dpm_solver, multistep 3": (samplers.dpm_solver(SMALL, EIGHT, order=3), 8),
    "dpm_solver, singlestep 2": (samplers.dpm_solver(SMALL, EIGHT, order=2, method="singlestep"), 8),
    "dpm_solver, singlestep 3": (samplers.dpm_solver(SMALL, EIGHT, order=3, method="singlestep"), 8),
    "heun": (samplers.heun(SMALL, EIGHT), 2 * 8 - 1),
    "heun, stochastic": (samplers.heun(SMALL, EIGHT, churn=4.0), 2 * 8 - 1),
    "probability_flow": (samplers.probability_flow(SMALL, EIGHT), 4 * 7 + 1),
    "langevin": (samplers.langevin(SMALL, EIGHT, num_updates=3), 8 * 3 + 1),
    "predictor_corrector": (samplers.predictor_corrector(SMALL, EIGHT, num_corrections=2), 8 * 3),
    "repaint": (samplers.repaint(SMALL, samplers.ddim(SMALL, EIGHT), **KNOWN, jump_length=2, num_resamples=3), 20),
}


def occurrences(jaxpr, primitive):
    """Counts a primitive in a program and all that are inside it."""
    count = 0
    for equation in jaxpr.eqns:
        count += equation.primitive.name == primitive
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda v: hasattr(v, "eqns")):
            inner = getattr(value, "jaxpr", value)
            count += occurrences(inner, primitive) if hasattr(inner, "eqns") else 0
    return count


@pytest.mark.parametrize("name", CALLS)
def test_the_network_stands_in_the_program_once_and_is_called_as_often_as_is_said(name):
    sampler, calls = CALLS[name]
    called = []

    def denoise_fn(x, t):
        jax.debug.callback(called.append, t[0])
        return jnp.arctan2(x, 3.0 + jnp.abs(x))  # which nothing else computes

    draw = functools.partial(
        sampling.sample_loop, SMALL, denoise_fn, shape=(2, 3, 1), sampler=sampler,
        noise_fn=lambda keys, index, shape: jnp.full((3, *shape), 0.1),
    )  # fmt: skip
    keys = sampling.image_keys(0, np.arange(3))
    assert occurrences(jax.make_jaxpr(draw)(keys=keys).jaxpr, "atan2") == 1
    x_0 = jax.jit(draw)(keys=keys)
    jax.effects_barrier()
    assert np.isfinite(x_0).all()
    assert len(called) == calls


@pytest.mark.parametrize("name", ["dpm_solver, multistep 3", "predictor_corrector"])
def test_an_image_does_not_depend_on_the_batch_and_no_two_of_its_noises_are_one(name):
    """Nor is one x_T, where there are more steps than timesteps."""
    sampler, _ = CALLS[name]
    indices = []

    def noise_fn(keys, index, shape):
        jax.debug.callback(indices.append, index)
        return sampling.noise(keys, index, shape)

    exact = exact_network(SMALL, mean=[0.3], deviation=[0.5])
    draw = functools.partial(
        sampling.sample_loop, SMALL, exact, shape=(2, 3, 1), clip=False, sampler=sampler, noise_fn=noise_fn
    )
    together = jax.jit(draw)(keys=sampling.image_keys(0, np.arange(3)))
    jax.effects_barrier()
    numbers = [int(index) for index in indices]
    assert 12 in numbers
    assert len(numbers) == len(set(numbers)) == 1 + sampler.num_steps
    alone = jax.jit(draw)(keys=sampling.image_keys(0, np.array([2])))
    np.testing.assert_allclose(alone[0], together[2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "spacing", "counts", "order"),
    [
        (samplers.ddim, "logsnr", (49, 97), 1),
        (functools.partial(samplers.dpm_solver, order=2, lower_order_final=False), "logsnr", (49, 97), 2),
        (functools.partial(samplers.dpm_solver, order=2, method="singlestep"), "logsnr", (49, 97), 2),
        (functools.partial(samplers.dpm_solver, order=3, method="singlestep"), "karras", (97, 193), 3),
        (samplers.heun, "karras", (25, 49), 2),
        (samplers.probability_flow, "karras", (13, 25), 4),
    ],
)
def test_the_error_falls_with_the_order_as_steps_double(golden, make, spacing, counts, order):
    """Against the exact solution of the probability-flow ODE of Gaussian data, from t = T - 1 to t = 0."""
    oracle = golden("samplers")
    exact = exact_network(process(), mean=oracle["gaussian_oracle/mu"], deviation=oracle["gaussian_oracle/s"])
    x_t = np.random.default_rng(0).standard_normal((2, 3, 1, 3)).astype(np.float32)
    solution = oracle["gaussian_oracle/pf_ode/scale_to_t0"] * x_t + oracle["gaussian_oracle/pf_ode/shift_to_t0"]
    errors = []
    for count in counts:
        before_last = states(make(process(), samplers.spaced(process(), count, spacing)), exact, x_t)[-2]
        errors.append(np.abs(before_last - solution).max())
    np.testing.assert_allclose(np.log2(errors[0] / errors[1]), order, atol=0.3)
    assert errors[1] < {1: 0.05, 2: 0.02, 3: 1e-3, 4: 1e-3}[order]


@pytest.mark.parametrize("name", samplers.SAMPLERS)
def test_each_has_a_name(name):
    """With which it takes a noise to an image, by as many steps as it says."""
    sampler = samplers.by_name(name, SMALL, steps=5)
    exact, x_t = exact_network(SMALL, mean=[0.3], deviation=[0.1]), np.ones((1, 2, 2, 1), np.float32)
    made = states(sampler, exact, x_t, of=SMALL)
    np.testing.assert_allclose(made[-1], 0.3, atol=0.25)


def test_all_timesteps_are_the_default():
    for name in ("ancestral", "ddim", "dpm_solver_3m", "heun"):
        assert samplers.by_name(name, SMALL).num_steps == samplers.by_name(name, SMALL, steps=12).num_steps == 12


def test_a_name_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="Unknown sampler 'plms'; choose one of ancestral, ddim, dpm_solver_2m"):
        samplers.by_name("plms", SMALL)
