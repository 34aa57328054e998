"""Runs ddpm-evaluate from a checkout: python evaluate.py --help says what it does."""

from ddpm_jax.cli.evaluate import main

if __name__ == "__main__":
    main()
