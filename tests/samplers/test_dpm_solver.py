import jax.numpy as jnp
import numpy as np
import pytest
from recorded import error, exact_network, network, process, states

from ddpm_jax import diffusion, samplers, sampling
from ddpm_jax.schedule import beta_schedule


@pytest.mark.parametrize(
    "chain",
    [
        "K10/order2/lower_order_final0/karras0/zero",
        "K10/order2/lower_order_final1/karras0/zero",
        "K10/order3/lower_order_final1/karras0/zero",
        "K20/order3/lower_order_final0/karras0/zero",
        "K10/order3/lower_order_final0/karras0/sigma_min",
        "K10/order2/trailing/zero",
    ],
)
def test_the_multisteps_equal_those_of_diffusers(golden, chain):
    recorded, folder = golden("samplers"), f"diffusers/dpmpp_multi/{chain}"
    timesteps = recorded[f"{folder}/timesteps"][::-1]
    if chain.endswith("sigma_min"):  # which ends at t = 0, where ours takes another step
        timesteps = np.append(0, timesteps)
    final = False if "final0" in chain else None
    sampler = samplers.dpm_solver(process(), timesteps, order=int(chain[9]), lower_order_final=final)
    x = recorded[f"{folder}/x"]
    assert error(states(sampler, network(recorded), x[0])[: len(x)], x) < 2e-5


@pytest.mark.parametrize("count", [10, 13])
def test_the_singlesteps_of_second_order_equal_those_of_diffusers(golden, count):
    """Those of third order differ: diffusers makes their second stage by its formula for whole steps."""
    recorded, folder = golden("samplers"), f"diffusers/dpmpp_single/K{count}/order2/lower_order_final1/karras0/zero"
    sampler = samplers.dpm_solver(
        process(), recorded[f"{folder}/timesteps"][::-1], order=2, method="singlestep"
    )  # fmt: skip
    orders = np.append(recorded[f"{folder}/orders"], 1)
    x = recorded[f"{folder}/x"][orders == 1]  # what a step begins with, and the end
    assert error(states(sampler, network(recorded), x[0]), x) < 1e-5


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("chain", ["multistep/K10/{}/time_uniform", "multistep/K20/{}/logSNR"])
def test_the_multisteps_equal_those_of_its_authors(golden, chain, order):
    equals_that_of_the_authors(golden("samplers"), chain.format(f"order{order}"), order)


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("chain", ["singlestep/K10/{}/time_uniform", "singlestep/K20/{}/logSNR"])
def test_the_singlesteps_equal_those_of_its_authors(golden, chain, order):
    equals_that_of_the_authors(golden("samplers"), chain.format(f"order{order}"), order)


def test_the_step_to_x_0_equals_that_of_its_authors(golden):
    equals_that_of_the_authors(golden("samplers"), "multistep/K10/order2/time_uniform_denoise_to_zero", 2)


def equals_that_of_the_authors(recorded, chain, order):
    """Ends at t = 0 where they do; their t is rounded away from whole numbers by 1e-10."""
    folder = f"dpm_solver/dpmsolver++/{chain}"
    timesteps, x = recorded[f"{folder}/network_t"][::-1].clip(0.0, 999.0), recorded[f"{folder}/x"]
    if "denoise_to_zero" not in chain:
        timesteps = np.append(0.0, timesteps)
    method = chain.split("/")[0]
    sampler = samplers.dpm_solver(process(), timesteps, order=order, method=method, lower_order_final=False)
    made = states(sampler, network(recorded), recorded["dpm_solver/x_T"])
    made = made[1:] if method == "singlestep" else made
    assert error(made[: len(x)], x) < 1e-5


def test_of_first_order_it_is_ddim():
    timesteps, rng = samplers.spaced(process(), 7, "logsnr"), np.random.default_rng(0)
    x_t, exact = rng.standard_normal((2, 3, 4, 1), np.float32), exact_network(process(), mean=[0.3], deviation=[0.5])
    expected = states(samplers.ddim(process(), timesteps), exact, x_t)
    for method in ("multistep", "singlestep"):
        made = states(samplers.dpm_solver(process(), timesteps, order=1, method=method), exact, x_t)
        np.testing.assert_allclose(made, expected, atol=1e-5)


def test_begun_in_the_middle_it_has_no_earlier_predictions():
    timesteps, keys = samplers.spaced(process(), 9, "trailing"), sampling.image_keys(0, np.arange(2))
    exact = exact_network(process(), mean=[0.3], deviation=[0.5])
    x_t = np.random.default_rng(0).standard_normal((2, 3, 4, 1), np.float32)
    for order in (2, 3):
        drawn, expected = (
            sampling.decode(
                process(), exact, x_t=x_t, num_steps=4, keys=keys, clip=False,
                sampler=samplers.dpm_solver(process(), part, order=order),
            )
            for part in (timesteps, timesteps[:4])
        )  # fmt: skip
        np.testing.assert_allclose(drawn, expected, atol=1e-6)


def test_what_it_cannot_do_is_refused():
    timesteps = np.array([0, 5, 9])
    with pytest.raises(ValueError, match="order=4 must be 1, 2 or 3"):
        samplers.dpm_solver(process(), timesteps, order=4)
    with pytest.raises(ValueError, match="Unknown method 'adaptive'; choose one of multistep, singlestep"):
        samplers.dpm_solver(process(), timesteps, method="adaptive")
    of = diffusion.make_process(beta_schedule("jsd", 10), mean_type="v")
    for make in (samplers.dpm_solver, samplers.heun, samplers.probability_flow, samplers.langevin):
        with pytest.raises(ValueError, match="needs a schedule that does not end in pure noise"):
            make(of, timesteps)
    sampler = samplers.dpm_solver(of, np.array([0.0, 4.5, 8.0]))  # which stops before
    made = states(sampler, lambda x, t: jnp.zeros_like(x), np.ones((1, 2, 2, 1)), of=of)
    assert np.isfinite(made).all()
