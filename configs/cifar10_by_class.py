"""CIFAR-10 by class: cifar10.py, with the class told to the network, and guidance without a classifier.

Not in the paper. Ten classes; of one image in ten the class is kept from the network while it learns, so that it can be
guided (Ho and Salimans 2022, arXiv:2207.12598). Not trained yet; a step takes as long as one of cifar10.py.

Run: ddpm-train --config=cifar10_by_class --workdir=runs/cifar10_by_class
     ddpm-sample --workdir=runs/cifar10_by_class --labels=3 --guidance=1
The data: as of cifar10.py, with classes: ddpm-data prepare cifar10, or a folder with a folder a class
"""

import ml_collections

from ddpm_jax.configs import cifar10


def get_config() -> ml_collections.ConfigDict:
    config = cifar10.get_config()
    config.model.num_classes = 10
    return config
