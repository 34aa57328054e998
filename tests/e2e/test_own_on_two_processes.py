"""A config file of one's own, with network, data and log, on two real processes and on one."""

import json

import numpy as np
import pytest

from e2e.test_sample import assert_same_images

pytestmark = pytest.mark.slow

FILE = '''
import json

import flax.linen as nn
import numpy as np

from ddpm_jax import data
from ddpm_jax.configs import default


def get_config():
    config = default.get_config()
    config.data.update(name="stripes", image_size=(8, 8), channels=1, flip=False)
    config.diffusion.num_timesteps = 10
    config.model.num_classes = 2
    config.optim.update(lr=1e-3, warmup_steps=4, ema_decay=0.9)
    config.train.update(num_steps=12, batch_size=8, log_every=2, checkpoint_every=4, sample_every=4)
    config.train.update(eval_every=4, eval_metrics=("bpd_fast",), eval_samples=8, steps_per_dispatch=1)
    config.sample.update(num_samples=7, batch_size=4)
    return config


def get_network(config):
    return Network()


def open_data(config, split):
    first = 0 if split == "train" else 60
    return data.from_sequence([striped(first + i) for i in range(60)], class_names=("horizontal", "vertical"))


def open_writer(config, workdir, start_step):
    return Lines(workdir / "own.jsonl")


def striped(i):
    stripes = np.uint8([[255 * ((x + i // 2) % 4 < 2) for x in range(8)]] * 8)
    return (stripes if i % 2 else stripes.T), i % 2


class Network(nn.Module):
    @nn.compact
    def __call__(self, x, t, labels):
        told = nn.Embed(10, 8)(t.astype(int)) + nn.Embed(3, 8)(labels + 1)
        h = nn.Conv(8, (3, 3))(x) + told[:, None, None, :]
        return nn.Conv(1, (3, 3))(nn.swish(h))


class Lines:
    """Writes what it is told into a new file: a second process that opened it would fail."""

    def __init__(self, path):
        self.file = path.open("x")

    def scalars(self, step, values):
        self.write(step=step, **values)

    def picture(self, step, name, pixels):
        self.write(step=step, picture=name, shape=pixels.shape)

    def close(self):
        self.write(closed=True)
        self.file.close()

    def write(self, **values):
        self.file.write(json.dumps(values) + "\\n")
'''


@pytest.fixture(scope="module")
def one_and_two(run, run_processes, tmp_path_factory):
    """The file, and the work folders of a run of one process and of the same by two."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "mine.py").write_text(FILE)
    command = ("train.py", f"--config={folder / 'mine.py'}")
    run(*command, f"--workdir={folder / 'one'}", devices=2)
    run_processes(*command, f"--workdir={folder / 'two'}", devices=1)
    return folder


def told(folder):
    rows = [json.loads(line) for line in (folder / "own.jsonl").read_text().splitlines()]
    assert rows.pop() == {"closed": True}
    return rows


def test_two_processes_tell_the_log_once_what_one_tells_it(one_and_two):
    one, two = (told(one_and_two / name) for name in ("one", "two"))
    for kind, steps in (("loss", [2, 4, 6, 8, 10, 12]), ("bpd_fast", [4, 8, 12])):
        ours, theirs = ({row["step"]: row[kind] for row in rows if kind in row} for rows in (one, two))
        assert list(ours) == steps
        assert len(set(ours.values())) == len(steps)
        assert theirs == pytest.approx(ours, rel=1e-5)
    for rows in (one, two):
        assert [row["step"] for row in rows if "picture" in row] == [4, 8, 12]


def test_two_processes_draw_the_images_of_one(one_and_two, run, run_processes, tmp_path):
    drawing = ("sample.py", f"--workdir={one_and_two / 'two'}", f"--own={one_and_two / 'mine.py'}", "--labels=all")
    run(*drawing, f"--out={tmp_path / 'one.npz'}")
    run_processes(*drawing, f"--out={tmp_path / 'two.npz'}", devices=1)
    one, two = (np.load(tmp_path / f"{name}.npz")["arr_0"] for name in ("one", "two"))
    assert one.std() > 10  # not blank
    assert_same_images(two, one)
