# make demo: trains a DDPM on handwritten digits and draws 100 of them. make test: passes the tests.
# make showcase: trains one on emoji, by class, and draws what it can do.
# All make their own environment in .venv first. PYTHON=/path/to/python chooses the Python to make it from.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo showcase test test-slow test-order test-wheel bench docs lint format clean

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
PARITY := $(VENV)/parity
BENCH := $(VENV)/bench
DOCS := $(VENV)/docs
DEMO := runs/demo
# Of the JAX that make bench installs where there is an NVIDIA GPU; CUDA=12 for drivers before 580.
CUDA := $(if $(shell command -v nvidia-smi 2>/dev/null),13)
EMOJI := runs/emoji
EMOJI_IMAGES := runs/emoji-images

help:
	@echo 'make demo       train on handwritten digits and draw 100 of them: a few minutes on 2 cores'
	@echo 'make showcase   train on emoji by class, and draw pictures of all it can do; run again, it continues'
	@echo 'make test       the tests, but for the slow ones'
	@echo 'make test-slow  the slow ones, some beside PyTorch or with the TPU compiler, which it installs'
	@echo 'make test-order SEQUENCES=100 of commands, kills and damage in any order: about an hour on 2 idle cores'
	@echo 'make test-wheel installs the wheel in a clean environment, and runs every command'
	@echo 'make bench      how fast it is beside PyTorch, which it installs: most of an hour on 2 idle cores'
	@echo 'make docs       the documentation as a site, in build/docs; a broken link or docstring is an error'
	@echo 'make lint       what CI checks of the style; make format mends most of it'
	@echo 'make clean      remove $(VENV) and caches; runs/ stays'

# Two devices of one core each: XLA does not keep two cores busy with convolutions as small as these.
demo: export JAX_NUM_CPU_DEVICES = 2
demo: $(INSTALLED)
	@rm -rf $(DEMO)
	@$(BIN)/python train.py --config=configs/digits.py --workdir=$(DEMO)
	@$(BIN)/python sample.py --workdir=$(DEMO) --num_samples=100 --out=$(DEMO)/samples/digits.npz
	@echo 'Look at the digits: $(CURDIR)/$(DEMO)/samples/digits.png'

showcase: export JAX_NUM_CPU_DEVICES = 2
# Else XLA ends a run in which one device waits a minute for the other, as on a busy machine.
showcase: export XLA_FLAGS = --xla_cpu_collective_call_terminate_timeout_seconds=86400
showcase: $(INSTALLED) $(EMOJI_IMAGES)
	$(BIN)/python train.py --config=configs/emoji.py --workdir=$(EMOJI) --config.train.sample_every=0
	$(BIN)/python examples/emoji/showcase.py --workdir=$(EMOJI)
	@echo 'Look at the pictures: $(CURDIR)/$(EMOJI)/showcase/'

$(EMOJI_IMAGES): | $(INSTALLED)
	@rm -rf $@.unfinished
	$(BIN)/python examples/emoji/make_images.py --out=$@.unfinished
	@mv $@.unfinished $@

test: $(INSTALLED)
	$(BIN)/python -m pytest -q -m 'not slow'

test-slow: $(PARITY)
	$(BIN)/python -m pytest -q -m slow

test-order: export DDPM_JAX_SEQUENCES = $(or $(SEQUENCES),100)
test-order: $(INSTALLED)
	$(BIN)/python -m pytest -q -n 0 -s tests/e2e/test_any_order.py

test-wheel: $(INSTALLED)
	PYTHON=$(abspath $(BIN)/python) sh tests/wheel.sh

bench: $(BENCH)
	$(BIN)/python -m benchmarks

docs: export JAX_PLATFORMS = cpu
docs: $(DOCS)
	$(BIN)/python -m sphinx -q -E -W --keep-going -b html docs build/docs
	@echo 'Read it: $(CURDIR)/build/docs/index.html'

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis *.egg-info build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): requirements.txt setup.cfg pyproject.toml make_venv.sh
	@PYTHON='$(PYTHON)' sh make_venv.sh $(VENV)
	@touch $@

$(PARITY): $(INSTALLED) requirements-parity.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-parity.txt
	@touch $@

$(BENCH): $(INSTALLED) requirements-bench.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-bench.txt \
		$(if $(CUDA),-c requirements.txt 'jax[cuda$(CUDA)]')
	@touch $@

$(DOCS): $(INSTALLED) requirements-docs.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-docs.txt
	@touch $@
