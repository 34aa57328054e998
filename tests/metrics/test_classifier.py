import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from ddpm_jax import data
from ddpm_jax.metrics import classifier, moments, scores

DIGITS = dict(image_size=(8, 8), channels=1, memory_limit_gib=1.0)


@pytest.fixture(scope="module")
def trained():
    """Trains with the default settings, in some seconds."""
    return classifier.train(data.load("digits", **DIGITS), name="digits")


@pytest.fixture(scope="module")
def held_out():
    return data.load("digits", split="test", **DIGITS)


def test_it_knows_digits_that_it_has_not_seen(trained, held_out):
    features = jax.jit(trained.apply)(trained.params, held_out.images)
    assert trained.name == "classifier-digits"
    assert (features.pool.shape, features.logits.shape) == ((355, 64), (355, 10))
    assert features.pool.dtype == features.logits.dtype == np.float32
    assert np.mean(np.argmax(features.logits, axis=1) == held_out.labels) > 0.97


def test_its_frechet_distance_rises_with_damage(trained, held_out):
    rng = np.random.default_rng(0)
    blurred = ndimage.gaussian_filter(held_out.images.astype(np.float64), (0, 0.5, 0.5, 0))
    noise = rng.normal(size=held_out.images.shape)
    noised = [np.clip(held_out.images + sigma * noise, 0, 255) for sigma in (30, 60)]
    uniform = rng.integers(0, 256, held_out.images.shape)
    apply = jax.jit(trained.apply)

    def statistics(pixels):
        pool = apply(trained.params, np.round(pixels).astype(np.uint8)).pool
        return moments.from_features(np.asarray(pool)).statistics()

    real = statistics(data.load("digits", **DIGITS).images)
    shown = [
        scores.frechet_distance(real, statistics(x)).distance for x in (held_out.images, blurred, *noised, uniform)
    ]
    test, blur, noise_30, noise_60, nothing = shown
    assert test < blur < nothing
    assert test < noise_30 < noise_60 < nothing
    assert 1.3 * test < min(blur, noise_30)
    assert nothing > 10 * test


def test_it_comes_back_from_a_file(trained, held_out, tmp_path):
    classifier.save(trained, tmp_path / "classifier.npz")
    again = classifier.load(tmp_path / "classifier.npz")
    assert (again.name, again.fingerprint) == (trained.name, trained.fingerprint)
    jax.tree.map(np.testing.assert_array_equal, again.params, trained.params)
    name, params = classifier.read(tmp_path / "classifier.npz")  # as process 0 reads it for the others
    assert classifier.from_params(name, jax.tree.map(jnp.asarray, params)).fingerprint == trained.fingerprint
    ours, theirs = (one.apply(one.params, held_out.images[:3]) for one in (trained, again))
    np.testing.assert_array_equal(ours.pool, theirs.pool)
    assert [file.name for file in tmp_path.iterdir()] == ["classifier.npz"]


def test_the_fingerprint_is_of_the_weights(trained):
    assert len(trained.fingerprint) == 16
    int(trained.fingerprint, 16)
    bias = trained.params["Dense_0"]["bias"]
    params = trained.params | {"Dense_0": trained.params["Dense_0"] | {"bias": np.nextafter(bias, np.float32(9))}}
    assert classifier.from_params(trained.name, params).fingerprint != trained.fingerprint


def test_other_files_are_refused(tmp_path, trained):
    path = tmp_path / "classifier.npz"
    with pytest.raises(FileNotFoundError):
        classifier.load(path)
    path.write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match="does not hold a classifier"):
        classifier.load(path)
    np.savez(path, mu=np.zeros(3))
    with pytest.raises(ValueError, match="does not hold a classifier"):
        classifier.load(path)
    kernel = trained.params["Conv_1"]["kernel"][:, :, :5]
    params = trained.params | {"Conv_1": trained.params["Conv_1"] | {"kernel": kernel}}
    classifier.save(trained._replace(params=params), path)
    with pytest.raises(ValueError, match="another classifier than this version's"):
        classifier.load(path)


def test_other_images_are_refused(trained, held_out):
    with pytest.raises(ValueError, match=r"takes images \[B, H, W, 1\] uint8; got \[355, 8, 8, 1\] float32"):
        trained.apply(trained.params, held_out.images.astype(np.float32))
    with pytest.raises(ValueError, match=r"got \[2, 8, 8, 3\] uint8"):
        trained.apply(trained.params, np.zeros((2, 8, 8, 3), np.uint8))


def test_a_data_set_without_labels_is_refused(tmp_path):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "one.png")
    source = data.load("image_folder", data_dir=str(tmp_path), **DIGITS)
    with pytest.raises(ValueError, match="labels of 2 classes or more; the data set 'folder' has none"):
        classifier.train(source, name="folder")


@pytest.mark.slow
def test_it_is_the_same_on_any_number_of_devices():
    """Trains in another process, on images of another shape: bit for bit the same, unless the seed is another."""
    script = """if True:
        import jax
        from ddpm_jax import data
        from ddpm_jax.metrics import classifier
        source = data.load("digits", image_size=(12, 10), channels=3, memory_limit_gib=1.0)
        trained = classifier.train(source, name="digits", seed=1, num_steps=3)
        print(jax.device_count(), trained.fingerprint)
    """
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "4"}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=True)
    source = data.load("digits", image_size=(12, 10), channels=3, memory_limit_gib=1.0)
    one, other = (classifier.train(source, name="digits", seed=seed, num_steps=3).fingerprint for seed in (1, 0))
    assert done.stdout.split() == ["4", one]
    assert one != other


@pytest.mark.slow  # a compilation
def test_a_loss_that_is_not_finite_is_said():
    with pytest.raises(FloatingPointError, match="The loss of the classifier is nan after 2 steps"):
        classifier.train(data.load("digits", **DIGITS), name="digits", num_steps=2, learning_rate=np.inf)
