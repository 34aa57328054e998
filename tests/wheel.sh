#!/bin/sh
# Installs the wheel alone in a clean environment and runs every command outside of the checkout: sh tests/wheel.sh
# PYTHON is the Python whose setuptools builds the wheel; versions are those of requirements.txt.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=${PYTHON:-$root/.venv/bin/python}
say() { printf '%s\n' "wheel: $*"; }
fail() { say "$*" >&2; exit 1; }
expect() { grep -q -- "$1" "$work/output" || { cat "$work/output"; fail "no '$1' in the output of: $2"; }; }
run() { "$@" >"$work/output" 2>&1 || { cat "$work/output"; fail "failed: $*"; }; }

say "building"
mkdir "$work/source"
for part in ddpm_jax configs setup.cfg pyproject.toml README.md LICENSE; do
    cp -RP "$root/$part" "$work/source"  # a build leaves files beside its source
done
run "$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation -w "$work" "$work/source"
say "installing"
"$python" -m venv "$work/venv"
run "$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check -c "$root/requirements.txt" "$work"/ddpm_jax-*.whl
mkdir "$work/elsewhere"
cd "$work/elsewhere"
PATH=$work/venv/bin:$PATH
unset PYTHONPATH
export JAX_PLATFORMS=cpu DDPM_JAX_CACHE="$work/cache"

for command in train sample evaluate paper doctor data convert; do
    run "ddpm-$command" --help
    expect "ddpm-$command" "ddpm-$command --help"
done
tiny='--config.diffusion.num_timesteps=10 --config.model.ch_mult=(1,) --config.model.num_res_blocks=1
    --config.model.attn_resolutions=() --config.train.batch_size=8 --config.train.log_every=2
    --config.train.checkpoint_every=4 --config.sample.num_samples=4 --config.sample.batch_size=4'
# shellcheck disable=SC2086
run ddpm-train --config=digits $tiny --config.train.num_steps=4 --workdir=run
expect "Finished at step 4" ddpm-train
cat >mine.py <<'CONFIG'
from ddpm_jax.configs import digits


def get_config():
    config = digits.get_config()
    config.optim.lr = 5e-4
    return config
CONFIG
# shellcheck disable=SC2086
run ddpm-train --config=mine.py $tiny --config.train.num_steps=4 --workdir=mine --dry_run
expect '"lr": 0.0005' "ddpm-train --config=mine.py"
run ddpm-sample --workdir=run
expect "Images: run/samples/step4_ema_seed0_4.npz" ddpm-sample
run ddpm-evaluate --workdir=run --metrics=bpd_fast,fd_classifier --num_images=8 --num_samples=8
expect "fd_classifier@8" ddpm-evaluate
run ddpm-paper run
expect "Written to run/report/tables.md" ddpm-paper
run ddpm-doctor
expect "Healthy" ddpm-doctor
! ddpm-data prepare no_such_set >"$work/output" 2>&1 || fail "ddpm-data prepared a set that does not exist"
expect "no_such_set" ddpm-data
run python -c '
import ddpm_jax, jax, jax.numpy as jnp
assert "elsewhere" not in ddpm_jax.__file__
model = ddpm_jax.load("run")
x_0 = jax.jit(model.experiment.sample)(model.params, ddpm_jax.image_keys(0, jnp.arange(2)))
assert x_0.shape == (2, 8, 8, 1) and bool(jnp.isfinite(x_0).all())
print("from Python", x_0.shape)'
expect "from Python (2, 8, 8, 1)" python
say "a pipeline that diffusers wrote, in and out"
mkdir pipeline
cp "$root"/tests/data/diffusers/*config.json pipeline
run python -c '
import json, sys
import numpy as np
from safetensors.numpy import save_file
rng, shapes = np.random.default_rng(0), json.load(open(sys.argv[1]))
weights = {name: (0.1 * rng.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()}
save_file(weights, "pipeline/diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
' "$root/tests/data/diffusers/shapes.json"
run ddpm-convert --from=pipeline --workdir=converted
run ddpm-sample --workdir=converted --num_samples=2
expect "Images: converted/samples/step0_ema_seed0_2.npz" ddpm-sample
run ddpm-convert --workdir=converted --to=diffusers --out=back
run python -c '
from safetensors.numpy import load_file
before, after = (load_file(f"{folder}/diffusion_pytorch_model.safetensors") for folder in ("pipeline", "back/unet"))
assert before.keys() == after.keys() and all((before[name] == after[name]).all() for name in before)
print("the same", len(after), "weights")'
expect "the same 1[0-9]* weights" "ddpm-convert --to=diffusers"
say "all commands work, installed from $(basename "$work"/ddpm_jax-*.whl) alone"
