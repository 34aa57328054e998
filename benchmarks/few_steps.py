"""How few steps a trained model needs: the distance of its samples to held-out images, and images/s.

python -m benchmarks.few_steps WORKDIR [--samplers=ancestral,ddim] [--steps=1000,100,10]

For each sampler and number of steps: the Frechet distance between the features of samples and of the split 'test', as
the classifier of the data set computes them, for several seeds. Each result is kept at once, so that the command can be
stopped and started again.
"""

import argparse
import datetime
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import command, hardware
from ddpm_jax import parallel, samplers
from ddpm_jax.evaluation import image_sets, quality, scoring
from ddpm_jax.runs import sample_files
from ddpm_jax.runs.trained_model import TrainedModel, load

_STEPS = (1000, 250, 100, 50, 20, 10, 5)
_ANCESTRAL = "ancestral"  # with all steps, what the others are compared with


def main() -> None:
    """Measures what is not yet measured, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path, help="of a trained model whose data set has labels and a split 'test'")
    parser.add_argument("--samplers", default=",".join(samplers.SAMPLERS), help="with commas between")
    parser.add_argument("--steps", default=",".join(map(str, _STEPS)), help="with commas between, and at most T")
    parser.add_argument("--num_samples", type=int, default=1000, help="a seed")
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--results", type=Path, help="JSON; default: benchmarks/results/few_steps/DATA.json")
    arguments = parser.parse_args()
    model = load(arguments.workdir)
    file = arguments.results or command.RESULTS / "few_steps" / f"{model.experiment.config.data.name}.json"
    settings = {
        "weights_sha256": model.fingerprint, "step": model.step, "weights": model.weights,
        "num_samples": arguments.num_samples, "seeds": arguments.seeds,
    }  # fmt: skip
    kept = _open(file, settings)
    measure = _measurement(model, arguments.num_samples, arguments.seeds)
    for name in arguments.samplers.split(","):
        for steps in map(int, arguments.steps.split(",")):
            chosen = model.sampling_with(sampler=name, steps=steps)
            key = f"{name} {steps}"
            if key in kept["results"]:
                continue
            kept["results"][key] = {**measure(chosen), **_conditions()}
            file.write_text(json.dumps(kept, indent=1) + "\n")
            print(f"{key}: {kept['results'][key]['distances']}", flush=True)
    print(markdown(kept))


def _open(file: Path, settings: dict[str, Any]) -> dict[str, Any]:
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        return {"settings": settings, "environment": hardware.describe(), "results": {}}
    kept = json.loads(file.read_text())
    if kept["settings"] != settings:
        sys.exit(f"{file} was measured with {kept['settings']}, not {settings}; take other --results.")
    return kept


def _conditions() -> dict[str, Any]:
    """Says when and with which code one result was measured."""
    return {"date": datetime.datetime.now(datetime.UTC).date().isoformat(), "commit": hardware.describe()["commit"]}


def _measurement(model: TrainedModel, num_samples: int, seeds: int) -> Callable[[TrainedModel], dict[str, list[float]]]:
    """Opens what samples are compared with; returns what measures them: distances and images/s, one a seed."""
    experiment, batch_size = model.experiment, model.experiment.config.sample.batch_size
    metric, name = "fd_classifier", f"{experiment.config.data.name}:test"
    held_out = image_sets.share(lambda: image_sets.from_source(experiment.load_data("test"), name))
    space = scoring.open_space("classifier", [metric], experiment=experiment, reference=held_out, batch_size=batch_size)
    batches = np.array_split(np.arange(num_samples), -(-num_samples // batch_size))

    def measure(chosen: TrainedModel) -> dict[str, list[float]]:
        sample = sample_files.mapped_sample(chosen.experiment)
        params = parallel.replicate(chosen.sampling_params)

        def draw(seed: int, indices: np.ndarray) -> np.ndarray:
            return sample(params, *chosen.experiment.inputs(seed, indices))

        for batch in {len(batch): batch for batch in batches}.values():
            draw(seeds, batch)  # compiles
        distances, rates = [], []
        for seed in range(seeds):
            begin = time.perf_counter()
            pixels = np.concatenate([draw(seed, batch) for batch in batches])
            rates.append(num_samples / (time.perf_counter() - begin))
            images = image_sets.from_array(pixels, {"images": "samples"})
            (score,) = quality.score_samples([metric], space, images, folder=None, batch_size=batch_size)
            distances.append(score.value)
        return {"distances": distances, "images_per_s": rates}

    return measure


def markdown(kept: dict[str, Any]) -> str:
    """Formats results as a table: a row a sampler, a column a number of steps; distance, deviation, images/s."""
    results = {tuple(key.split()): result for key, result in kept["results"].items()}
    names = dict.fromkeys(name for name, _ in results)
    steps = sorted({int(count) for _, count in results}, reverse=True)
    lines = ["| sampler | " + " | ".join(f"{count:,}" for count in steps) + " |", "|---|" + "---:|" * len(steps)]
    for name in names:
        cells = [_cell(results.get((name, str(count)))) for count in steps]
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    longest = results.get((_ANCESTRAL, str(steps[0])))
    if longest is not None:
        lines += ["", *_fewest(results, longest, steps)]
    return "\n".join(lines)


def _cell(result: dict[str, Any] | None) -> str:
    if result is None:
        return ""
    distances = result["distances"]
    return (
        f"{statistics.mean(distances):.3g} ± {statistics.stdev(distances):.2g}, "
        f"{statistics.median(result['images_per_s']):.3g}/s"
    )


def _fewest(results: dict[tuple[str, str], dict], longest: dict[str, Any], steps: list[int]) -> list[str]:
    """Names for each sampler the fewest steps within the spread of the longest ancestral chain."""
    limit = statistics.mean(longest["distances"]) + statistics.stdev(longest["distances"])
    lines = [
        f"Fewest steps whose mean distance is at most {limit:.3g}, that of {_ANCESTRAL} {steps[0]:,} and a deviation:"
    ]
    lines.append("")
    for name in dict.fromkeys(name for name, _ in results):
        within = [
            int(count)
            for (other, count), result in results.items()
            if other == name and statistics.mean(result["distances"]) <= limit
        ]
        lines.append(f"* `{name}`: {min(within):,}" if within else f"* `{name}`: none of these")
    return lines


if __name__ == "__main__":
    main()
