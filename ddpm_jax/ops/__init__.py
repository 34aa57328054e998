"""Convolutions that are fast where XLA's own are not."""
