"""The paper's tables (Ho et al. 2020, arXiv:2006.11239v2), to stand beside our numbers."""

import re
from pathlib import Path
from typing import NamedTuple

import ml_collections


class Value(NamedTuple):
    """Holds a number, and the deviation that is printed with it."""

    value: float
    deviation: float | None = None


class Model(NamedTuple):
    """Holds a row of Table 1: CIFAR-10. None where the paper prints nothing."""

    name: str
    inception_score: Value | None = None
    fid: float | None = None  # of 50,000 samples against the training set
    nll_test: float | None = None  # bits/dim; for the diffusion models an upper bound
    nll_train: float | None = None


class Objective(NamedTuple):
    """Holds a row of Table 2, and the settings that produce it; no scores where training was unstable."""

    name: str
    mean_type: str
    var_type: str
    loss_type: str
    inception_score: Value | None = None
    fid: float | None = None


class Lsun(NamedTuple):
    """Holds a row of Table 3: FID at 256x256."""

    name: str
    bedroom: float | None = None
    church: float | None = None
    cat: float | None = None


class RateDistortion(NamedTuple):
    """Holds a row of Table 4: the bits that progressive coding has sent after some of 1000 reverse steps."""

    reverse_steps: int  # T - t + 1 with the paper's t, T - t with ours
    rate_bpd: float
    rmse: float  # of the predicted x_0, on 0..255


TABLE_1 = (
    Model("EBM (conditional)", Value(8.30), 37.9),
    Model("JEM (conditional)", Value(8.76), 38.4),
    Model("BigGAN (conditional)", Value(9.22), 14.73),
    Model("StyleGAN2 + ADA (v1, conditional)", Value(10.06), 2.67),
    Model("Diffusion (original)", nll_test=5.40),
    Model("Gated PixelCNN", Value(4.60), 65.93, 3.03, 2.90),
    Model("Sparse Transformer", nll_test=2.80),
    Model("PixelIQN", Value(5.29), 49.46),
    Model("EBM", Value(6.78), 38.2),
    Model("NCSNv2", fid=31.75),
    Model("NCSN", Value(8.87, 0.12), 25.32),
    Model("SNGAN", Value(8.22, 0.05), 21.7),
    Model("SNGAN-DDLS", Value(9.09, 0.10), 15.42),
    Model("StyleGAN2 + ADA (v1)", Value(9.74, 0.05), 3.26),
    Model("DDPM, L, fixed isotropic Sigma", Value(7.67, 0.13), 13.51, 3.70, 3.69),
    Model("DDPM, L_simple", Value(9.46, 0.11), 3.17, 3.75, 3.72),
)
FID_TEST = 5.24  # of the last row's samples against the test set (Section 4.1)

TABLE_2 = (
    Objective("mu-tilde, L, learned diagonal Sigma", "xprev", "learned", "kl", Value(7.28, 0.10), 23.69),
    Objective("mu-tilde, L, fixed isotropic Sigma", "xprev", "fixedlarge", "kl", Value(8.06, 0.09), 13.22),
    Objective("mu-tilde, mean squared error", "xprev", "fixedlarge", "mse"),
    Objective("eps, L, learned diagonal Sigma", "eps", "learned", "kl"),
    Objective("eps, L, fixed isotropic Sigma", "eps", "fixedlarge", "kl", Value(7.67, 0.13), 13.51),
    Objective("eps, L_simple", "eps", "fixedlarge", "mse", Value(9.46, 0.11), 3.17),
)

TABLE_3 = (
    Lsun("ProgressiveGAN", 8.34, 6.42, 37.52),
    Lsun("StyleGAN", 2.65, 4.21, 8.53),
    Lsun("StyleGAN2", None, 3.86, 6.93),
    Lsun("DDPM", 6.36, 7.89, 19.75),
    Lsun("DDPM, large", 4.90),
)

# On the test set, with the model trained on L_simple.
TABLE_4 = (
    RateDistortion(1000, 1.77581, 0.95136),
    RateDistortion(900, 0.11994, 12.02277),
    RateDistortion(800, 0.05415, 18.47482),
    RateDistortion(700, 0.02866, 24.43656),
    RateDistortion(600, 0.01507, 30.80948),
    RateDistortion(500, 0.00716, 38.03236),
    RateDistortion(400, 0.00282, 46.12765),
    RateDistortion(300, 0.00081, 54.18826),
    RateDistortion(200, 0.00013, 60.97170),
    RateDistortion(100, 0.00000, 67.60125),
)

# Section 4.3: the bound of the same model, split into rate L_1 + ... + L_T and distortion L_0.
RATE_BPD = 1.78
DISTORTION_BPD = 1.97
DISTORTION_RMSE = 0.95

# What its tables are of: how data sets and folders of these images are called, and their sides.
_IMAGES = {
    "cifar10": (r"(?<![a-z0-9])cifar[-_]?10(?![0-9])", 32),
    "lsun/bedroom": (r"lsun.*bedroom", 256),
    "lsun/church": (r"lsun.*church", 256),
    "lsun/cat": (r"lsun.*cat(?![a-z])", 256),
}


def own_name(settings: ml_collections.ConfigDict) -> str:
    """Returns the name of the data set, the folder or the tar that the settings `data` name."""
    return Path(settings.data_dir).name if settings.name == "image_folder" else settings.name


def images_named(name: str) -> str | None:
    """Returns which of the paper's images a data set, a folder or a tar of this name holds; None: others."""
    return next((images for images, (pattern, _) in _IMAGES.items() if re.search(pattern, name.lower())), None)


def images_of(settings: ml_collections.ConfigDict) -> str | None:
    """Returns which of the paper's images the settings `data` give, in the paper's size; None: others."""
    images = images_named(own_name(settings))
    same_size = images and {*settings.image_size} == {_IMAGES[images][1]} and settings.channels == 3
    return images if same_size else None
