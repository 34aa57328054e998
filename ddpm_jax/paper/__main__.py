"""Runs ddpm-paper: `python -m ddpm_jax.paper --help` says what it does."""

from ddpm_jax.cli.paper import main

if __name__ == "__main__":
    main()
