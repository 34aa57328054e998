"""score_sde's network `ddpm`, described once more with torch's layers: its modules, their order and their names."""

import jax
import numpy as np
import pytest

import ddpm_jax
from ddpm_jax.configs import digits
from ddpm_jax.runs import conversion

torch = pytest.importorskip("torch", reason="needs PyTorch, which make test-slow installs")
pytestmark = pytest.mark.slow
nn, functional = torch.nn, torch.nn.functional


class Nin(nn.Module):
    def __init__(self, width, out):
        super().__init__()
        self.W, self.b = nn.Parameter(torch.zeros(width, out)), nn.Parameter(torch.zeros(out))

    def forward(self, x):
        return torch.einsum("bchw,cd->bdhw", x, self.W) + self.b[:, None, None]


def norm(width):
    return nn.GroupNorm(32, width, eps=1e-6)


class Resnet(nn.Module):
    def __init__(self, width, out, temb):
        super().__init__()
        self.GroupNorm_0, self.GroupNorm_1 = norm(width), norm(out)
        self.Conv_0, self.Conv_1 = nn.Conv2d(width, out, 3, padding=1), nn.Conv2d(out, out, 3, padding=1)
        self.Dense_0 = nn.Linear(temb, out)
        if width != out:
            self.NIN_0 = Nin(width, out)

    def forward(self, x, temb):
        h = self.Conv_0(functional.silu(self.GroupNorm_0(x)))
        h = h + self.Dense_0(functional.silu(temb))[:, :, None, None]
        h = self.Conv_1(functional.silu(self.GroupNorm_1(h)))
        return h + (self.NIN_0(x) if hasattr(self, "NIN_0") else x)


class Attention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.GroupNorm_0 = norm(width)
        self.NIN_0, self.NIN_1, self.NIN_2, self.NIN_3 = (Nin(width, width) for _ in range(4))

    def forward(self, x):
        h = self.GroupNorm_0(x)
        q, k, v = (layer(h).flatten(2) for layer in (self.NIN_0, self.NIN_1, self.NIN_2))  # [B, C, H W]
        weights = torch.softmax(torch.einsum("bcq,bck->bqk", q, k) * x.shape[1] ** -0.5, dim=-1)
        return x + self.NIN_3(torch.einsum("bqk,bck->bcq", weights, v).reshape(x.shape))


class Resample(nn.Module):
    def __init__(self, width, stride):
        super().__init__()
        self.Conv_0 = nn.Conv2d(width, width, 3, stride=stride, padding=0 if stride == 2 else 1)

    def forward(self, x):
        if self.Conv_0.stride == (2, 2):
            return self.Conv_0(functional.pad(x, (0, 1, 0, 1)))
        return self.Conv_0(functional.interpolate(x, scale_factor=2, mode="nearest"))


class Ddpm(nn.Module):
    """Two resolutions of 32 and 64 channels, one residual block each, attention at 4x4."""

    def __init__(self):
        super().__init__()
        self.all_modules = nn.ModuleList([
            nn.Linear(32, 128), nn.Linear(128, 128), nn.Conv2d(1, 32, 3, padding=1),
            Resnet(32, 32, 128), Resample(32, 2), Resnet(32, 64, 128), Attention(64),
            Resnet(64, 64, 128), Attention(64), Resnet(64, 64, 128),
            Resnet(128, 64, 128), Resnet(96, 64, 128), Attention(64), Resample(64, 1),
            Resnet(96, 32, 128), Resnet(64, 32, 128), norm(32), nn.Conv2d(32, 1, 3, padding=1),
        ])  # fmt: skip

    def forward(self, x, t):
        layers = iter(self.all_modules)
        angles = t[:, None] * torch.exp(-np.log(10000.0) * torch.arange(16) / 15)
        temb = next(layers)(torch.cat([angles.sin(), angles.cos()], 1))
        temb = next(layers)(functional.silu(temb))
        skips = [next(layers)(x)]
        skips.append(next(layers)(skips[-1], temb))
        skips.append(next(layers)(skips[-1]))
        h = next(layers)(skips[-1], temb)
        skips.append(next(layers)(h))
        h = next(layers)(skips[-1], temb)
        h = next(layers)(h)
        h = next(layers)(h, temb)
        for attends in (True, False):
            for _ in range(2):
                h = next(layers)(torch.cat([h, skips.pop()], 1), temb)
            if attends:
                h = next(layers)(h)  # attention
                h = next(layers)(h)
        h = next(layers)(h)
        return next(layers)(functional.silu(h))


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("legacy", [False, True])
def test_a_checkpoint_of_score_sde_becomes_a_work_folder(legacy, tmp_path):
    torch.manual_seed(0)
    theirs = Ddpm()
    for weights in theirs.parameters():
        weights.data += 0.1 * torch.randn_like(weights)
    optimizer = torch.optim.Adam(theirs.parameters())
    sum(weights.sum() for weights in theirs.parameters()).backward()
    averages = [weights.detach() + 1.0 for weights in theirs.parameters()]
    state = {
        "optimizer": optimizer.state_dict(), "step": 5, "ema": {"decay": 0.9999, "shadow_params": averages},
        "model": {"module.sigmas": torch.ones(3)} | nn.DataParallel(theirs).state_dict(),
    }  # fmt: skip
    torch.save(state, tmp_path / "checkpoint_5.pth", _use_new_zipfile_serialization=not legacy)

    conversion.from_score_sde(tmp_path / "checkpoint_5.pth", tmp_path / "run", settings=digits.get_config())
    model, average = (ddpm_jax.load(tmp_path / "run", weights=weights) for weights in ("raw", "ema"))
    learned = jax.tree.map(lambda a, b: np.abs(a - b), average.params, model.params)
    learned["up_1_attn_0"] = jax.tree.map(lambda a: a + 1.0, learned["up_1_attn_0"])  # of ours alone, all zero
    jax.tree.map(lambda a: np.testing.assert_allclose(a, 1.0, rtol=1e-5), learned)

    x, t = np.random.default_rng(0).standard_normal((2, 8, 8, 1)).astype(np.float32), np.array([0, 999], np.int32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(x).permute(0, 3, 1, 2), torch.from_numpy(t).float()).permute(0, 2, 3, 1)
    output = jax.jit(model.experiment.denoise_fn(model.params))(x, t)
    np.testing.assert_allclose(output, expected, rtol=0, atol=1e-4)

    other = digits.get_config()
    other.model.attn_resolutions = (8, 4)
    with pytest.raises(ValueError, match="is no checkpoint of score_sde's network ddpm of this config"):
        conversion.from_score_sde(tmp_path / "checkpoint_5.pth", tmp_path / "other", settings=other)
