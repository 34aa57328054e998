"""What every experiment is built on: all settings, with their defaults, from where the library has them too."""

from ddpm_jax.runs.defaults import get_config

__all__ = ["get_config"]
