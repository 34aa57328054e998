"""Runs ddpm-train from a checkout: python train.py --help says what it does."""

from ddpm_jax.cli.train import main

if __name__ == "__main__":
    main()
