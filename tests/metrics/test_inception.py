import jax
import numpy as np
import pytest

from ddpm_jax.metrics import inception
from ddpm_jax.runtime import download

jitted = jax.jit(inception.apply)


@pytest.fixture(scope="module")
def custom(random_weights, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "random.npz"
    np.savez(path, **random_weights)
    return inception.extractor(path)


def test_features_are_those_that_torch_fidelity_gave(custom, golden):
    recorded = golden("inception")
    features = jitted(custom.params, recorded["pixels"])
    for name, ours in features._asdict().items():
        np.testing.assert_allclose(ours, recorded[name], rtol=0, atol=1e-5 * np.abs(recorded[name]).max())


def test_grey_is_the_same_in_three_channels(custom, golden):
    grey = golden("inception")["pixels"][..., :1]
    thrice = jitted(custom.params, np.repeat(grey, 3, axis=-1))
    np.testing.assert_allclose(jitted(custom.params, grey).pool, thrice.pool, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pixels", [np.zeros((1, 8, 8, 2), np.uint8), np.zeros((1, 8, 8, 3), np.float32)])
def test_other_images_are_refused(pixels):
    with pytest.raises(ValueError, match=rf"uint8 images of 1 or 3 channels; got {pixels.dtype}"):
        inception.apply({}, pixels)


@pytest.mark.parametrize(("height", "width"), [(1, 2), (8, 300), (299, 32), (613, 401)])
def test_resize_is_the_formula_of_tensorflow_1(height, width):
    pixels = np.random.default_rng([height, width]).integers(0, 256, (2, height, width, 3)).astype(np.float32)
    rows, cols = (np.arange(299) * size / 299 for size in (height, width))  # the upper left corner, not the centre
    hats = [
        np.maximum(0, 1 - np.abs(np.minimum(at, size - 1)[:, None] - np.arange(size)))
        for at, size in ((rows, height), (cols, width))
    ]
    expected = np.einsum("ih,jw,bhwc->bijc", *hats, pixels, optimize=True)
    np.testing.assert_allclose(inception.resize(pixels), expected, atol=0.02)  # of 255: float32 positions up to 400


def test_an_explicit_file_is_called_custom_and_known_by_its_fingerprint(custom, random_weights, tmp_path):
    assert custom.name == "inception-custom"
    again = inception.from_params(custom.name, jax.device_put(custom.params))  # as other processes receive them
    assert (again.name, again.fingerprint) == (custom.name, custom.fingerprint)
    np.savez(tmp_path / "other.npz", **random_weights | {"fc.weight": random_weights["fc.weight"] + 1})
    assert inception.extractor(tmp_path / "other.npz").fingerprint != custom.fingerprint


def test_weights_that_do_not_fit_are_named(random_weights):
    wrong = random_weights | {"fc.bias": np.zeros(1000), "Mixed_5b.branch1x1.bn.bias": np.full(64, np.nan)}
    wrong["AuxLogits.fc.bias"] = wrong.pop("Conv2d_1a_3x3.conv.weight")
    with pytest.raises(ValueError, match="not the weights of Inception") as error:
        inception.params_from_state_dict(wrong)
    for problem in (
        "missing: Conv2d_1a_3x3.conv.weight",
        "left over: AuxLogits.fc.bias",
        "fc.bias has shape [1000], not [1008]",
        "Mixed_5b.branch1x1.bn.bias is not finite",
    ):
        assert problem in str(error.value)


def test_a_counter_of_steps_is_no_weight(random_weights):
    counted = random_weights | {"Conv2d_1a_3x3.bn.num_batches_tracked": np.array(7)}
    assert "Conv2d_1a_3x3" in inception.params_from_state_dict(counted)


def test_without_the_file_the_message_says_how_to_get_it(tmp_path, monkeypatch):
    def no_network(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setenv("DDPM_JAX_CACHE", str(tmp_path))
    monkeypatch.setattr(download.urllib.request, "urlopen", no_network)
    with pytest.raises(FileNotFoundError, match="no route to host") as error:
        inception.extractor()
    for part in (
        str(tmp_path / "pt_inception-2015-12-05-6726825d.pth"),
        "https://github.com/mseitzer/pytorch-fid/releases/",
        "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    ):
        assert part in str(error.value)


def test_a_file_in_the_cache_that_is_not_the_published_one_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("DDPM_JAX_CACHE", str(tmp_path))
    (tmp_path / "pt_inception-2015-12-05-6726825d.pth").write_bytes(b"something else")
    with pytest.raises(ValueError, match="damaged, or another file"):
        inception.extractor()


def test_a_damaged_npz_is_refused(tmp_path):
    (tmp_path / "w.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(ValueError, match="w.npz' is not an .npz of weights"):
        inception.extractor(tmp_path / "w.npz")
