"""Runs ddpm-sample from a checkout: python sample.py --help says what it does."""

from ddpm_jax.cli.sample import main

if __name__ == "__main__":
    main()
