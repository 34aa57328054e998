"""Runs `python -m ddpm_jax.data`; see `ddpm_jax.cli.data`."""

from ddpm_jax.cli.data import main

main()
