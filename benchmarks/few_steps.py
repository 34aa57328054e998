"""How few steps a trained model needs: the distance of its samples to held-out images, and images/s.

python -m benchmarks.few_steps WORKDIR [--samplers=ancestral,ddim] [--steps=1000,100,10]

For each sampler and number of steps: the Frechet distance between the features of samples and of the split 'test', as
the classifier of the data set computes them, for several seeds. A model with classes draws each as often as the split
has it. Each result is kept at once, so that the command can be stopped and started again.
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
    held_out, split_name = image_sets.named_split(model.experiment, "test")
    file = arguments.results or command.RESULTS / "few_steps" / f"{split_name.removesuffix(':test')}.json"
    settings = {
        "weights_sha256": model.fingerprint, "step": model.step, "weights": model.weights,
        "num_samples": arguments.num_samples, "seeds": arguments.seeds,
    }  # fmt: skip
    kept = _open(file, settings)
    reference = image_sets.from_source(held_out, split_name)
    if model.experiment.config.model.num_classes:
        model = model.sampling_with(labels=_classes_of(reference))
    measure = _measurement(model, reference, arguments.num_samples, arguments.seeds)
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


def _classes_of(reference: image_sets.ImageSet) -> str:
    """Lists the classes of images in random order, as sample.labels: samples then have each class as often."""
    labels = reference.read_labels(np.arange(len(reference)))
    return ",".join(map(str, np.random.default_rng(0).permutation(labels)))


def _measurement(
    model: TrainedModel, reference: image_sets.ImageSet, num_samples: int, seeds: int
) -> Callable[[TrainedModel], dict[str, list[float]]]:
    """Returns what measures a model's samples: distances and images/s, one a seed."""
    metric, batch_size = "fd_classifier", model.experiment.config.sample.batch_size
    space = scoring.open_space(
        "classifier", [metric], experiment=model.experiment, reference=reference, batch_size=batch_size
    )
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
        lines += ["", *_fewest(results, longest, steps[0])]
    return "\n".join(lines)


def _cell(result: dict[str, Any] | None) -> str:
    if result is None:
        return ""
    distances, rate = result["distances"], statistics.median(result["images_per_s"])
    digits = f"{rate:.3g}" if rate < 100 else f"{rate:,.0f}"
    return f"{statistics.mean(distances):.3g} ± {statistics.stdev(distances):.2g}, {digits}/s"


def _fewest(results: dict[tuple[str, str], dict], longest: dict[str, Any], most: int) -> list[str]:
    """Names for each sampler the fewest steps within the spread of the longest ancestral chain, and of its own most."""
    lines = [
        "The fewest steps whose mean distance is at most the mean and a deviation of",
        "",
        f"| sampler | `{_ANCESTRAL}` with {most:,}, {_limit(longest):.3g} | "
        "the same sampler with the most steps measured |",
        "|---|---:|---:|",
    ]
    for name in dict.fromkeys(name for name, _ in results):
        own = {int(count): result for (other, count), result in results.items() if other == name}
        limits = _limit(longest), _limit(own[max(own)])
        within = [[n for n, result in own.items() if statistics.mean(result["distances"]) <= x] for x in limits]
        lines.append(f"| `{name}` | " + " | ".join(f"{min(found):,}" if found else "none" for found in within) + " |")
    return lines


def _limit(result: dict[str, Any]) -> float:
    return statistics.mean(result["distances"]) + statistics.stdev(result["distances"])


if __name__ == "__main__":
    main()
