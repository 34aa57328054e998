from pathlib import Path

import flax.linen as nn
import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ddpm_jax import data, unet
from ddpm_jax.runs import experiment
from ddpm_jax.runs.own import LabelledNetwork, Own, from_file

NAMES = ("even", "odd")


def item(i):
    return np.full((8, 6), i, np.uint8), i % 2


class Labels(nn.Module):
    """Returns the label of each image as an image of it."""

    channels: int = 1

    @nn.compact
    def __call__(self, x, t, labels):
        scale = self.param("scale", nn.initializers.ones, ())
        shape = (*x.shape[:3], self.channels)
        return scale * jnp.broadcast_to(0.0 if labels is None else 1.0 * labels[:, None, None, None], shape)


@pytest.mark.parametrize(
    "items", [[item(i) for i in range(10)], grain.MapDataset.range(10).map(item)], ids=["list", "grain"]
)
@pytest.mark.parametrize("limit", [4.0, 0.0], ids=["memory", "streamed"])
def test_a_sequence_is_a_data_set(items, limit):
    source = data.from_sequence(items, class_names=NAMES, memory_limit_gib=limit)
    assert len(source) == 10
    assert source.image_shape == (8, 6, 1)
    assert source.class_names == NAMES
    images, labels = source.read(np.array([7, 2]))
    np.testing.assert_array_equal(images, np.stack([item(7)[0], item(2)[0]])[..., None])
    assert labels.tolist() == [1, 0]
    assert next(data.batches(source)).images.shape == (128, 8, 6, 1)
    assert source.fingerprint() == data.from_sequence(list(map(item, range(10))), class_names=NAMES).fingerprint()


def test_images_may_be_files_or_pillows_and_labels_without_names_are_none(tmp_path):
    pillow = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(8, 6)).convert("P")
    pillow.save(tmp_path / "image.png")
    expected = np.asarray(pillow.convert("RGB"))
    for image in (pillow, (tmp_path / "image.png").read_bytes()):
        images, labels = data.from_sequence([(image, 3)]).read(np.array([0]))
        np.testing.assert_array_equal(images[0], expected)
        assert labels.tolist() == [0]


@pytest.mark.parametrize(
    ("items", "problem"),
    [
        ([], "has no images"),
        ([np.zeros((8, 8), np.uint8)], r"must be \(image, label\).* first is array"),
        ([(np.zeros((8, 8), np.uint8), 2)], "label of image 0 is 2, of 2 classes"),
    ],
)
def test_what_is_no_data_set_is_refused(items, problem):
    with pytest.raises(ValueError, match=problem):
        data.from_sequence(items, class_names=NAMES)


def test_a_network_is_told_the_labels_and_whether_there_are_none():
    network, rng = LabelledNetwork(Labels(), 1), jax.random.key(0)
    cond = unet.class_condition(jnp.array([2, 0, -1]), 3)
    x, t = jnp.zeros((3, 8, 6, 1)), jnp.zeros(3, jnp.int32)
    output, _ = network.init_with_output(rng, x, t, cond)
    np.testing.assert_array_equal(output[:, 0, 0, 0], [2, 0, -1])
    assert network.init_with_output(rng, x, t)[0].shape == x.shape


FILE = """
import numpy as np

from ddpm_jax import data
from test_own import Labels


def get_network(config):
    return Labels(config.data.channels)


def open_data(config, split):
    return data.from_sequence([(np.full((8, 8), len(split), np.uint8), 0)] * 9)
"""


def test_a_file_gives_the_network_and_the_data(tiny_config, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    (tmp_path / "mine.py").write_text(FILE)
    made = experiment.make_experiment(tiny_config, from_file(str(tmp_path / "mine.py"), tiny_config))
    assert list(made.abstract_params["network"]) == ["scale"]
    assert made.load_data().images[0, 0, 0, 0] == len("train")
    assert made.load_data("test").images[0, 0, 0, 0] == len("test")


def test_a_file_need_not_define_either(tiny_config, tmp_path):
    (tmp_path / "mine.py").write_text("")
    assert from_file(str(tmp_path / "mine.py"), tiny_config) == Own()


def test_what_does_not_fit_the_config_is_refused(tiny_config):
    with pytest.raises(ValueError, match=r"Labels must return \[1, 8, 8, 1\] for .*, not \[1, 8, 8, 5\]"):
        experiment.make_experiment(tiny_config, Own(network=Labels(5)))
    source = data.from_sequence([item(0)])
    made = experiment.make_experiment(tiny_config, Own(open_data=lambda split: source))
    with pytest.raises(ValueError, match=r"open_data gives images of \(8, 6, 1\), and .* say \(8, 8, 1\)"):
        made.load_data()
