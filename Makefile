# make study   the whole study on this machine (SEEDS=3 for error bars over seeds)
# make test    everything CI runs: lint, types, import contracts, tests with the smoke study
# make bench   paired timings against the peers, printed as ratios
# make check   the same as test without the smoke study; golden rewrites the pinned keys and losses
STUDY ?= laptop
SEEDS ?= 1
STORE ?= store
OUT ?= results/$(STUDY)
PYTHON ?=
BIN := .venv/bin
# One thread a process: two processes side by side beat two threads in one, and cannot fight.
export OMP_NUM_THREADS := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: study plan test check lint bench golden environment clean

environment:
	@PYTHON="$(PYTHON)" sh launch/environment.sh

study: environment
	@$(BIN)/frontload run $(STUDY) --seeds $(SEEDS) --store $(STORE) --out $(OUT)

plan: environment
	@$(BIN)/frontload plan $(STUDY) --seeds $(SEEDS) --store $(STORE)

lint: environment
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/basedpyright
	@PYTHONPATH=.imports $(BIN)/lint-imports --no-cache

check: lint
	@$(BIN)/python -m pytest -n 2 --dist worksteal -m "not smoke"

test: lint
	@$(BIN)/python -m pytest -n 2 --dist worksteal

bench: environment
	@for bench in tests/bench/bench_*.py; do echo "== $$bench"; PYTHONPATH=.imports $(BIN)/python $$bench || exit 1; done

golden: environment
	@FRONTLOAD_GOLDEN=write $(BIN)/python -m pytest tests/golden

clean:
	rm -rf store results .pytest_cache .ruff_cache .hypothesis
