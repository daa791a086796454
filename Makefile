# make study   the whole study on this machine (SEEDS=3 for error bars over seeds)
# make test    everything CI runs: lint, types, import contracts, tests with the smoke study; says the same
#              every time, as drawn examples come from a fixed seed
# make explore new examples for the tests that draw theirs (SECONDS=600, SEED, SUITE); prints cases to add
# make bench   paired timings against the peers, printed as ratios
# make gpu     what one GPU can show in 560 s, from a folder of carried packages (make gpu-wheels); its set-up and
#              processes on a CPU: make gpu-rehearsal
# make slurm   a real Slurm of two nodes, fetched into .slurm/ by apt, and the tests on it
# make soak    20 training jobs that meet a drawn fault each (ROUNDS, SEED), against undisturbed ones;
#              SLURM=1: one job on the real Slurm that meets 12
# make mutants N=60 random changes of a room, and which of them its tests do not notice (ROOM, SEED,
#              FILES="eval/statistics/score.py ..." for some modules, GOLDEN=1: survivors meet the smoke study)
# make pages   writes the tables of RESULTS.md and the numbers of README from eval/log; with
#              ARTIFACT=store/tabulate/STUDY-KEY REGIME= MADE= DATE= first publishes that study's numbers
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

.PHONY: study plan test check lint style types contracts suite explore bench slurm soak mutants golden \
	pages environment clean gpu gpu-wheels gpu-rehearsal

environment:
	@PYTHON="$(PYTHON)" sh launch/environment.sh

study: environment
	@$(BIN)/frontload run $(STUDY) --seeds $(SEEDS) --store $(STORE) --out $(OUT)

plan: environment
	@$(BIN)/frontload plan $(STUDY) --seeds $(SEEDS) --store $(STORE)

lint: environment
	@$(MAKE) --no-print-directory -j style types contracts

style: environment
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .

types: environment
	@$(BIN)/basedpyright

contracts: environment
	@PYTHONPATH=.imports $(BIN)/lint-imports --no-cache

# Two workers; a file stays with one of them, so that what its tests share is made once. In the order of
# the folders: the runs of many processes come first, and what ends a worker's turn is short.
suite: environment
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --ignore=tests/slurm $(SUITE)

# The linters take a core for a minute: beside the tests, not before them.
check: environment
	@$(MAKE) --no-print-directory -j style types contracts suite SUITE='-m "not smoke"'

test: environment
	@$(MAKE) --no-print-directory -j style types contracts suite
	@$(MAKE) --no-print-directory slurm

bench: environment
	@for bench in tests/bench/bench_*.py; do echo "== $$bench"; PYTHONPATH=.imports:. $(BIN)/python $$bench || exit 1; done

# After the suite, not beside it: its jobs have time limits. `make check` needs no network.
slurm: environment
	@$(BIN)/python -m pytest -n 2 --dist loadfile -rs tests/slurm

ROUNDS ?= $(if $(SLURM),12,20)
SLURM ?=
SEED ?= 1
soak: environment
	@PYTHONPATH=.imports:. $(BIN)/python -m $(if $(SLURM),tests.soak.slurm_faults,tests.soak.faults) \
		--rounds $(ROUNDS) --seed $(SEED)

# SEED: of the first round, drawn and printed when it is not given. Python draws its order of sets anew too.
SECONDS ?= 600
explore: environment
	@PYTHONPATH=.imports:. $(BIN)/python -m tests.explore --seconds $(SECONDS) \
		$(if $(filter-out file,$(origin SEED)),--seed $(SEED)) $(SUITE)

ROOM ?= eval
N ?= 60
FILES ?=
GOLDEN ?=
mutants: environment
	@PYTHONPATH=.imports:. $(BIN)/python -m tests.mutants --room $(ROOM) --number $(N) --seed $(SEED) \
		$(if $(FILES),--files $(FILES)) $(if $(GOLDEN),--golden)

# GPU_BUDGET: seconds of set-up and checks together; GPU_CHECKS: some of the names in tests/gpu/proof.py.
# First all of it, then what failed again: GPU_BUDGET=150 GPU_CHECKS="slice_8b" GPU_LOG=.gpu/second.jsonl
WHEELS ?= .wheels
GPU_BUDGET ?= 560
GPU_CHECKS ?=
GPU_LOG ?= .gpu/proof.jsonl
GPU_TORCH ?=
GPU_ARCH ?=
gpu:
	@began=$$(date +%s); \
	PYTHON="$(PYTHON)" WHEELS="$(WHEELS)" sh launch/gpu_environment.sh && \
	PYTHONUNBUFFERED=1 .gpu/python -m tests.gpu.proof \
		--budget $(GPU_BUDGET) --spent $$(($$(date +%s) - began)) --log "$(GPU_LOG)" \
		--checks $(GPU_CHECKS)

# Where there is a package index: what `make gpu` installs; GPU_TORCH and GPU_ARCH are those of the GPU machine.
gpu-wheels: environment
	@WHEELS="$(WHEELS)" GPU_TORCH="$(GPU_TORCH)" GPU_ARCH="$(GPU_ARCH)" sh launch/gpu_wheels.sh

# The same set-up and processes on a CPU, at tiny size, with torch in place of kernels.
gpu-rehearsal: environment
	@WHEELS="$(WHEELS)" GPU_LOG=.gpu/rehearsal.jsonl PYTHONPATH=.imports:. $(BIN)/python -m tests.gpu.rehearsal

ARTIFACT ?=
REGIME ?=
MADE ?=
DATE ?=
pages: environment
	@PYTHONPATH=.imports:. $(BIN)/python -m tests.pages \
		$(if $(ARTIFACT),--artifact "$(ARTIFACT)" --regime "$(REGIME)" --made "$(MADE)" --date "$(DATE)")

golden: environment
	@FRONTLOAD_GOLDEN=write $(BIN)/python -m pytest tests/golden

clean:
	rm -rf store results .pytest_cache .ruff_cache .hypothesis
