# Two commands: `make demo` shows the whole idea on real images, `make test` checks everything that needs no GPU.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin

.PHONY: demo test check docs space test-space reports test-slow test-attack fuzz test-lowest test-torchvision benchmark bench-certification gpu clone-check dist wheel-check
.DELETE_ON_ERROR:

# Exact tested versions. torch comes first, by its exact version, so that no newer and much larger build is taken.
$(VENV)/installed: constraints.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("hf_smoothing needs Python 3.11 or newer, got " + sys.version.split()[0] + ". Try: make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	test -x $(RUN)/python || $(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --disable-pip-version-check $$(grep '^torch==' constraints.txt)
	$(RUN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/installed
	$(RUN)/hf-smoothing demo --backbones model_cards/resnet-mixture-small model_cards/resnet-clean-small --dataset examples/data $(DEMO)

check: $(VENV)/installed
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy

# The documentation site, docs/_build/index.html, made anew: pages show cards, signatures and tests, whose changes an old build does not see.
# Warnings are errors; links inside are checked.
docs: $(VENV)/installed
	$(RUN)/python -m sphinx --fresh-env --fail-on-warning --keep-going -q -b html docs docs/_build

test: $(VENV)/installed
	$(MAKE) --jobs 2 check docs
	$(RUN)/python -m pytest -n 2 -m "not slow and not gpu"

# Minutes, not seconds: long statistical checks, kills at random moments, the examples end to end.
test-slow: $(VENV)/installed
	$(RUN)/python -m pytest -m slow

# Finetune the embedded backbone, certify 500 images, attack inside every certified radius: some minutes.
test-attack: $(VENV)/installed
	$(RUN)/python -m pytest -m slow tests/test_attacked_certificates.py -s

# Nearly valid files for every parser, written to docs/results/guarantee.json: half an hour for ten million, fewer with INPUTS=200000.
fuzz: $(VENV)/installed
	$(RUN)/python tests/benchmarks/fuzzed_parsers.py $(if $(INPUTS),--inputs $(INPUTS))

# The oldest versions that pyproject.toml admits, in an environment of their own.
test-lowest:
	test -x .venv-lowest/bin/python || $(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check --constraint .ci/lowest.txt $$(grep '^torch==' .ci/lowest.txt)
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check --constraint .ci/lowest.txt --editable '.[dev]'
	.venv-lowest/bin/python -m pytest -n 2 -m "not slow and not gpu" -W default

# Gradio does not take the pillow of constraints.txt, so the demo page has an environment of its own.
.venv-space/installed: constraints.txt pyproject.toml
	test -x .venv-space/bin/python || $(PYTHON) -m venv .venv-space
	grep -v '^pillow==' constraints.txt > .venv-space/constraints.txt
	.venv-space/bin/python -m pip install --quiet --disable-pip-version-check $$(grep '^torch==' constraints.txt)
	.venv-space/bin/python -m pip install --quiet --disable-pip-version-check --constraint .venv-space/constraints.txt --editable '.[space]'
	touch $@

# The demo page on this machine, examples/space/README.md; no network but for the installation.
space: .venv-space/installed
	HF_HUB_OFFLINE=1 .venv-space/bin/python -m examples.space.app $(if $(PORT),--port $(PORT))

# Its tests, those in Chromium too, which must be installed (apt install chromium).
test-space: .venv-space/installed
	.venv-space/bin/python -m pip install --quiet --disable-pip-version-check --constraint .venv-space/constraints.txt hypothesis playwright pytest
	.venv-space/bin/python -m pytest tests/space

# Where torchvision is installed as well: image processors then run on it. No CPU build of torch has a torchvision that fits it here, so this takes
# a CUDA build of several GB.
test-torchvision:
	test -x .venv-torchvision/bin/python || $(PYTHON) -m venv .venv-torchvision
	.venv-torchvision/bin/python -m pip install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1
	grep -v '^torch==' constraints.txt > .venv-torchvision/constraints.txt
	.venv-torchvision/bin/python -m pip install --quiet --disable-pip-version-check --constraint .venv-torchvision/constraints.txt --editable '.[dev]'
	.venv-torchvision/bin/python -m pytest -n 2 -m "not slow and not gpu"

# What a few minutes of one GPU are best spent on, resumable: make gpu DATA=path/to/data MINUTES=15. DRY=1: in miniature on a CPU.
gpu: $(VENV)/installed
	$(RUN)/python -m examples.gpu run --minutes $(or $(MINUTES),15) --output-dir $(or $(OUTPUT),runs/gpu$(if $(DRY),-dry)) $(if $(DRY),--dry,$(if $(DATA),--data $(DATA)))

# Every study page, table and figure again, from the committed records of docs/results; leaves no difference.
reports: $(VENV)/installed
	$(RUN)/python -m examples.studies.reports
	$(RUN)/python -m examples.studies.hardware
	$(RUN)/python -m model_cards.records write

# Ratios against a stated baseline, written to docs/results/main_job.json.
benchmark: $(VENV)/installed
	$(RUN)/python tests/benchmarks/main_job.py

# Figures of certification, written to docs/results/certification.json; an hour on two CPU cores, and ART is installed into .venv-art for one of
# them. QUICK=--quick: a few minutes, nothing written, nothing installed.
bench-certification: $(VENV)/installed
	$(RUN)/python tests/benchmarks/certification.py $(QUICK)

# The sdist, and the wheel from it, in dist/. Those of a release are built by its workflow (RELEASE.md).
dist: $(VENV)/installed
	$(RUN)/python -m build --no-isolation

# What sdist and wheel hold; the wheel in a fresh environment, used in an empty folder, offline: two minutes.
wheel-check: $(VENV)/installed
	$(RUN)/python -m pytest -m slow tests/repository/test_wheel.py

# Both commands in a fresh clone and a fresh environment.
clone-check:
	bash .ci/fresh_clone
