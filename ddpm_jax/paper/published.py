"""The paper's tables (Ho et al. 2020, arXiv:2006.11239v2), to stand beside our numbers. All of CIFAR-10."""

from typing import NamedTuple


class Nll(NamedTuple):
    """A row of Table 1: negative log-likelihood in bits/dim; of the diffusion models an upper bound."""

    test: float
    train: float | None = None


class RateDistortion(NamedTuple):
    """A row of Table 4: what progressive coding has sent after some reverse steps of 1000."""

    reverse_steps: int  # T - t + 1 with the paper's t, T - t with ours
    rate_bpd: float
    rmse: float  # of the predicted x_0, on 0..255


TABLE_1_NLL = {
    "Diffusion (original)": Nll(5.40),
    "Gated PixelCNN": Nll(3.03, 2.90),
    "Sparse Transformer": Nll(2.80),
    "Ours (L, fixed isotropic Sigma)": Nll(3.70, 3.69),
    "Ours (L_simple)": Nll(3.75, 3.72),
}

# Of the test set, with the model trained on L_simple.
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
