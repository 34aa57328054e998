"""Tables of one model for the terminal, with the paper's numbers beside them."""

from pathlib import Path
from typing import Any

from ddpm_jax.configs import cifar10
from ddpm_jax.evaluation import results
from ddpm_jax.paper import published, track
from ddpm_jax.runs import workdir
from ddpm_jax.runs.trained_model import TrainedModel


def bits_per_dim(table: dict[str, Any]) -> str:
    """Formats Table 1's NLL, and the sums that it consists of."""
    lines = ["Bound on the negative log-likelihood   bits/dim"]
    for name, value in table["bits_per_dim"].items():
        lines.append(f"  {name:<24} {value['mean']:14.7f} ± {value['standard_error']:.7f}")
    return "\n".join(lines)


def estimate(table: dict[str, Any]) -> str:
    """Formats the estimated total."""
    return _total(table, f"Bound, estimated from {table['timesteps_per_image']} timesteps an image")


def ode(table: dict[str, Any]) -> str:
    """Formats the likelihood under the ODE."""
    return _total(table, f"Negative log-likelihood under the probability-flow ODE, in {table['solver_steps']} steps")


def _total(table: dict[str, Any], title: str) -> str:
    total = table["bits_per_dim"]["total"]
    return f"{title}   bits/dim\n  {'total':<24} {total['mean']:14.7f} ± {total['standard_error']:.7f}"


def rate_distortion(table: dict[str, Any]) -> str:
    """Formats Table 4; of CIFAR-10, which it is about, with the paper's numbers."""
    beside = table["settings"]["data"] == "cifar10"
    heads = _beside("rate, bits/dim", "paper", beside) + _beside("RMSE, 0-255", "paper", beside)
    lines = ["Progressive coding (Table 4)", f"  reverse steps     {heads}".rstrip()]
    for ours, theirs in zip(table["rate_distortion"], published.TABLE_4, strict=True):
        rate = f"{ours['rate_bpd']:.5f} ± {ours['rate_standard_error']:.5f}"
        rmse = f"{ours['rmse']:.3f} ± {ours['rmse_standard_error']:.3f}"
        cells = _beside(rate, f"{theirs.rate_bpd:.5f}", beside) + _beside(rmse, f"{theirs.rmse:.3f}", beside)
        lines.append(f"  {ours['reverse_steps']:<17} {cells}".rstrip())
    sums, last = table["bits_per_dim"], table["rate_distortion"][0]
    paper = f" (paper: {published.RATE_BPD} + {published.DISTORTION_BPD}, {published.DISTORTION_RMSE})"
    lines.append(
        f"  rate {sums['rate L_1 + ... + L_T']['mean']:.2f} + distortion {sums['L_0']['mean']:.2f} bits/dim, RMSE "
        f"{last['rmse']:.2f}" + paper * beside
    )
    return "\n".join(lines)


def _beside(ours: str, paper: str, shown: bool) -> str:
    return f"{ours:<22}" + f"{paper:>9}    " * shown


def predictions(table: dict[str, Any]) -> str:
    """Formats the numbers of Figure 10."""
    lines = ["Predicted x_0 (Figure 10)", "  reverse steps     distance     Inception score"]
    for row in table["rows"]:
        score = f"{row['inception_score']:.4g} ± {row['deviation']:.2g}"
        lines.append(f"  {row['reverse_steps']:<14} {row['distance']:11.6g}     {score}")
    return "\n".join(lines)


LIKELIHOOD = {"bpd": bits_per_dim, "bpd_fast": estimate, "bpd_ode": ode, "rd": rate_distortion}


def on_track(model: TrainedModel, folder: Path, tables: Path) -> str | None:
    """Says whether a run of the paper's CIFAR-10 model is where it should be; None for a run of another model."""
    config, paper = model.experiment.config, cifar10.get_config()
    network = {name: value for name, value in config.model.items() if name not in ("dtype", "remat")}
    same = (
        all(config[section] == paper[section] for section in ("diffusion", "optim"))
        and all(paper.model[name] == value for name, value in network.items())
        and config.train.batch_size == paper.train.batch_size
        and published.images_of(config.data) == "cifar10"
    )
    if not same:
        return None
    fids = [
        entry["value"] for entry in results.read(tables / results.FILE)
        if entry["name"] == "FID" and entry["settings"]["samples"].get("step") == model.step
        and entry["settings"]["samples"]["weights"] == "ema"
    ]  # fmt: skip
    loss = workdir.recent_loss(folder, model.step)
    return track.verdict(step=model.step, loss=loss, fid=fids[-1] if fids else None)
