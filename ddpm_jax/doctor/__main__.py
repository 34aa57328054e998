"""Runs `python -m ddpm_jax.doctor`; see `ddpm_jax.cli.doctor`."""

from ddpm_jax.cli.doctor import main

main()
