"""Handwritten digits by class: digits.py, with the digit told to the network and guidance without a classifier.

Not in the paper. Ten classes; of one image in ten the class is kept from the network while it learns, so that it can be
guided (Ho and Salimans 2022, arXiv:2207.12598). A few minutes on two CPU cores.

Run: ddpm-train --config=digits_by_class --workdir=runs/digits_by_class
     ddpm-sample --workdir=runs/digits_by_class --labels=3 --guidance=1
     ddpm-evaluate --workdir=runs/digits_by_class --metrics=label_accuracy --guidance=1 --num_samples=500
"""

import ml_collections

from ddpm_jax.configs import digits


def get_config() -> ml_collections.ConfigDict:
    config = digits.get_config()
    config.model.num_classes = 10
    return config
