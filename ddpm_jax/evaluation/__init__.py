"""Measures a trained model, or any images, and writes the scores down with all that they depend on.

scoring.py        `evaluate`, which the command line, training and the paper's tables call; `prepare` for training
image_sets.py     samples, data sets, folders and files as images to be measured
selection.py      images of a data set under a model, and numbers of each of them
bits_per_dim.py   bits/dim and rate-distortion of a model (Tables 1 and 4)
quality.py        features of images, reference statistics, FID and its like (Tables 1 to 3)
progressive.py    quality of the predicted x_0 against reverse steps (Figure 10)
results.py        scores, and tables/metrics.json
"""

from ddpm_jax.evaluation.results import Score
from ddpm_jax.evaluation.scoring import evaluate, prepare

__all__ = ["Score", "evaluate", "prepare"]
