import concurrent.futures
import dataclasses
import time

import numpy as np
import pytest

from ddpm_jax.evaluation import image_sets, quality
from ddpm_jax.metrics import moments
from ddpm_jax.metrics.features import Extractor, Features


def brightness(params, pixels):
    """Extracts the means of both halves of an image, and no logits worth a name."""
    halves = pixels.reshape(len(pixels), 2, -1).mean(axis=2) * params["scale"]
    return Features(halves, halves)


def extractor(scale=1.0):
    return Extractor("brightness", f"of scale {scale}", {"scale": np.float32(scale)}, brightness)


def images(seed, count=40):
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 1), dtype=np.uint8)
    return image_sets.from_array(pixels, {"images": f"random {seed}"})


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A file of ours: of the statistics of 40 images."""
    monkeypatch.setenv("DDPM_JAX_CACHE", str(tmp_path / "cache"))
    quality.reference_from_images(extractor(), images(0), batch_size=20)
    (file,) = tmp_path.glob("cache/references/*.npz")
    return file


def test_a_reference_that_another_command_is_computing_is_waited_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DDPM_JAX_CACHE", str(tmp_path / "cache"))
    ours, read, others = images(0), [], []

    def measure(read):
        return quality.reference_from_images(extractor(), dataclasses.replace(ours, read=read), batch_size=20)

    def read_while_another_waits(indices):
        if not read:
            others.append(thread.submit(measure, None))
            while not others[0].done() and "waiting until it ends" not in capsys.readouterr().out:
                time.sleep(0.01)
        read.extend(indices)
        return ours.read(indices)

    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        first = measure(read_while_another_waits)
    assert read == list(range(40))
    np.testing.assert_array_equal(others[0].result().pool, first.pool)
    np.testing.assert_array_equal(others[0].result().statistics.covariance, first.statistics.covariance)


def test_statistics_of_these_features_are_a_reference(file, capsys):
    capsys.readouterr()
    reference = quality.reference_from_statistics(file, extractor())
    assert (reference.metadata["count"], reference.pool) == (40, None)
    assert "Warning" not in capsys.readouterr().out


def test_statistics_of_other_features_are_refused(file):
    message = "is of the features of brightness of scale 1.0, not brightness of scale 2.0: give the images"
    with pytest.raises(ValueError, match=message):
        quality.reference_from_statistics(file, extractor(2.0))


def test_statistics_that_do_not_say_what_they_are_of_come_with_a_warning(tmp_path, capsys):
    moments.save(tmp_path / "theirs.npz", moments.Statistics(np.zeros(2), np.eye(2)))
    assert quality.reference_from_statistics(tmp_path / "theirs.npz", extractor()).metadata["count"] is None
    said = capsys.readouterr().out
    assert said.count("Warning") == 1
    assert "theirs.npz does not say whose features it is of; only those of brightness can be compared." in said
    assert "pytorch-fid's are others" in said


def test_label_accuracy_is_how_often_the_classifier_sees_the_class_asked_for():
    """The extractor above sees class 0 where the upper half is the brighter one."""
    pixels = np.zeros((8, 4, 4, 1), np.uint8)
    pixels[:5, :2] = pixels[5:, 2:] = 200  # seen: 0 0 0 0 0 1 1 1
    labels = np.array([0, 0, 0, 1, -1, 1, 1, 0])
    samples = image_sets.from_array(pixels, {"images": "drawn"})
    space = quality.FeatureSpace(extractor(), None)
    labelled = dataclasses.replace(samples, read_labels=lambda indices: labels[indices])
    (score,) = quality.score_samples(["label_accuracy"], space, labelled, folder=None, batch_size=4)
    assert (score.name, score.value, score.error_name) == ("label_accuracy@8", 5 / 8, "standard error")
    assert score.error == pytest.approx(np.sqrt(5 / 8 * 3 / 8 / 8))
    with pytest.raises(ValueError, match="label_accuracy needs the classes of the images, and 'drawn' have none"):
        quality.score_samples(["label_accuracy"], space, samples, folder=None, batch_size=4)


def test_a_kernel_distance_of_whole_sets_comes_without_an_error(file):
    space = quality.FeatureSpace(extractor(), quality.reference_from_images(extractor(), images(0), batch_size=20))
    (score,) = quality.score_samples(["kid"], space, images(1), folder=None, batch_size=20)
    assert score.error is None
    assert "±" not in str(score)


def test_an_extrapolated_distance_says_how_many_samples_it_needs(file):
    space = quality.FeatureSpace(extractor(), quality.reference_from_images(extractor(), images(0), batch_size=20))
    (score,) = quality.score_samples(["fid_infinity"], space, images(1, count=8), folder=None, batch_size=20)
    assert score.name == "FID_infinity@8"
    for metric, other in (("fid_infinity", "kid"), ("fd_infinity_classifier", "kd_classifier")):
        with pytest.raises(ValueError, match=f"{metric} needs 8 samples at least, not 7: {other} has no bias"):
            quality.score_samples([metric], space, images(1, count=7), folder=None, batch_size=20)
