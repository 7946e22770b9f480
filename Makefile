# Two targets are all a newcomer needs: `make demo` and `make test`. Each creates what it lacks.
PYTHON ?= python3
BIN := .venv/bin
NATIVE := $(wildcard cpp/include/equibit/*.h $(foreach part,src src/kernels src/layers bindings ort,cpp/$(part)/*.h cpp/$(part)/*.cpp)) CMakeLists.txt

.PHONY: demo test test-slow test-recipes test-gpu lint format docs install clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.venv/installed: pyproject.toml constraints.txt $(NATIVE)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

install: .venv/installed  ## create .venv with everything the project needs

demo: .venv/installed  ## train, compare, draw, pack, export and verify 1-bit networks on the embedded digits
	$(BIN)/equibit demo --out demo

test: .venv/installed  ## run the fast tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow and not gpu" -n 2

test-slow: .venv/installed  ## run the slow tests
	$(BIN)/python -m pytest -m "slow and not gpu"

test-recipes: .venv/installed  ## train, pack, export and verify every shipped recipe, two steps each
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/test_recipe_training.py tests/test_shipped_recipes.py -n 2

test-gpu: .venv/installed  ## run the tests that need a CUDA device
	$(BIN)/python -m pytest -m gpu

lint: .venv/installed  ## check style, types, import directions and C++ format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/clang-format --dry-run --Werror $(filter %.h %.cpp,$(NATIVE))

format: .venv/installed  ## rewrite the sources in the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(filter %.h %.cpp,$(NATIVE))

docs: .venv/installed  ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:  ## remove everything that was built
	rm -rf .venv build dist site .mypy_cache .pytest_cache .ruff_cache
