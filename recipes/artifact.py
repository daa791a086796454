"""What a stage function receives, the file names inside finished folders, the form of their JSON.

A stage function is `def pretrain(recipe: Pretrain, inputs: Inputs, work: Workspace) -> None`. It
writes its outputs under `work.path`; the folder is published by one rename when it returns.
"""

import json
import os
from collections.abc import Mapping
from enum import IntEnum, unique
from pathlib import Path
from typing import Protocol

from frontload.recipes.machines.placement import Placement

Inputs = Mapping[str, Path]
"""Role -> finished artifact folder."""


@unique
class Part(IntEnum):
    """What the main thread of a rank is at. In all but the first two a long stay is honest."""

    STEP = 0  # its own part of a step
    EXCHANGE = 1  # waits for the other ranks' gradients and flags; the update
    START = 2  # imports, process groups, model, data, first weights or those of a checkpoint
    FIRST_STEP = 3  # since the start: kernels are compiled, buffers are made
    SAVE = 4
    PUBLISH = 5
    END = 6


class Workspace(Protocol):
    """The one place a stage may write, and what it may say while it runs."""

    path: Path
    """Outputs. Survives a crash; published as the artifact. Only deterministic bytes go here."""
    scratch: Path
    """Survives a crash, never published: checkpoints of an unfinished run. Removed on publish."""
    placement: Placement
    key: str
    """The stage's own key, for messages and checkpoints."""

    def log(self, step: int, **metrics: float) -> None:
        """Appends one JSON line to `metrics.jsonl` in `path`. Keys are `group/name` with `/`
        written as `__` (`train__loss` is logged as `train/loss`). Keys of the group `system` go to
        the store's telemetry instead: the artifact's bytes never depend on a clock."""
        ...

    def log_rank(self, step: int, **metrics: float) -> None:
        """Appends one line to this rank's own log, which is never published. Keys as in `log`."""
        ...

    def mark(self, part: Part, *, step: int | None = None) -> None:
        """Says what this rank begins, so that one that stands still is found. Costs nothing."""
        ...

    def stop_asked(self) -> bool:
        """Whether this process was asked to end: the loop then saves and raises Stopped."""
        ...

    def rewind(self, step: int) -> None:
        """Drops logged lines with a step above `step`: called when resuming from a checkpoint."""
        ...

    def progress(self, done: int, total: int, *, note: str = "") -> None:
        """Reports progress to whoever watches. Cheap; call it at will."""
        ...


def write_json(path: Path, value: object, *, is_synced: bool = False) -> None:
    """Writes the one form of JSON in artifacts: sorted, indented, with a final line break.

    The file appears by a rename, so it is whole or not there; `is_synced`: also after a power cut.
    """
    aside = path.with_name(path.name + ".partial")
    try:
        with open(aside, "w", encoding="utf-8") as stream:
            stream.write(json.dumps(value, sort_keys=True, indent=1) + "\n")
            if is_synced:
                stream.flush()
                os.fsync(stream.fileno())
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def sync_path(path: Path) -> None:
    """Waits until a file or a folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


CORPUS_SETS = ("base", "ldq", "shq", "own")
ITEMS, HELDOUT, PROMPTS = "items", "heldout", "prompts"
"""Groups of raw files, beside `base` and `source/NAME` of each source of a curation."""
FAMILIES = (
    *("chain", "add", "story", "var", "stack", "queue", "branch"),
    *("ladder", "boxes", "two_hop", "compare", "sort", "brackets", "table", "path", "format"),
)
"""Names of the reasoning families, in the order of data_tools/synthetic/families.py."""

PACK_STEPS = "steps.npy"
"""Of a pack whose budget is in real tokens: the place in order.npy where each step begins, and the
number of rows that are read."""

# Corpus (`synthesize`, `import_own`)
#   base.jsonl                    {"id", "text"}
#   ldq.jsonl shq.jsonl own.jsonl {"id", "question", "trace", "answer", "family", "domain"}
#   items.jsonl                   evaluation items, see frontload.eval.suites
#   heldout.jsonl                 as ldq.jsonl: gold long traces of questions never trained on
#   counts.json                   rows, tokens, drops by reason
#   inputs.json                   `import_own`: name, size, revision and sha256 of the user's files
# Raw files (`import_raw`)        raw.json (names and sizes by use), items.jsonl, heldout.jsonl
# Sets (`curate_sets`)            sets/, as `frontload data curate` writes it
# Documents (`curate`)            documents.jsonl (rows as in the corpus), composition.json
# Tokenizer (`tokenizer`)         tokenizer.json (Hugging Face `tokenizers`), counts.json
# Token index (`index`)           documents.bin documents.idx, index.json
# Blend (`blend`)                 plan.json, samples.npy, <source>.order.npy, <source>.offsets.npy
# Pack (`pack`)                   tokens.bin/.idx, loss_mask.bin/.idx, order.npy, origin.npy,
#                                 pack.json, steps.npy (PACK_STEPS)
# Prompts (`rl_prompts`)          prompts.jsonl (rows as in the corpus, no trace), counts.json
# Prompts (`crossthink`)          prompts.train.parquet, prompts.validation.parquet
# Exported (`convert`)            model/, a Hugging Face folder
# Checkpoint (`pretrain`, `sft`)  weights/ (Megatron distributed checkpoint), model.json,
#                                 training_state.json, metrics.jsonl
# Documents (`own_samples`)       documents.jsonl, samples.json: what was asked and kept, by reason
# Checkpoint (`grpo`)             as above, and validation.jsonl: answers at the start and the end,
#                                 {"step", "prompt", "family", "question", "gold", "sample",
#                                 "answer", "reward", "accuracy"}
# Scores (`evaluate`)             items.jsonl, scores.json
# Allocation (`decide`)           decision.json: the next block, or why exploring ended
# Allocation (`register`)         registration.json: what fresh seeds will compare
# Allocation (`conclude`)         answer.json, answer.md
# Rows (`import_benchmarks`)      proof.json (manifest of a data root), rows.json: where it lies
# Scores (`benchmarks`)           as of `evaluate`, samples.jsonl (answers), questions.jsonl,
#                                 evaluation.json
# Tables (`tabulate`)             tables.json, tables.md, verdicts.json, cells.json


def corpus_set(folder: Path, name: str) -> Path:
    return folder / f"{name}.jsonl"


def raw_listing(folder: Path) -> Path:
    return folder / "raw.json"


def curated_sets(folder: Path) -> Path:
    return folder / "sets"


def train_prompts(folder: Path) -> Path:
    return folder / "prompts.train.parquet"


def validation_prompts(folder: Path) -> Path:
    return folder / "prompts.validation.parquet"


def exported_model(folder: Path) -> Path:
    return folder / "model"


def corpus_items(folder: Path) -> Path:
    return folder / "items.jsonl"


def corpus_heldout(folder: Path) -> Path:
    return folder / "heldout.jsonl"


def documents_file(folder: Path) -> Path:
    return folder / "documents.jsonl"


def tokenizer_file(folder: Path) -> Path:
    return folder / "tokenizer.json"


def prompts_file(folder: Path) -> Path:
    return folder / "prompts.jsonl"


def index_prefix(folder: Path) -> Path:
    return folder / "documents"


def scores_file(folder: Path) -> Path:
    return folder / "scores.json"


def benchmark_questions(folder: Path) -> Path:
    """The multiple-choice questions of an evaluation on benchmarks, as people read them."""
    return folder / "questions.jsonl"


def item_results_file(folder: Path) -> Path:
    return folder / "items.jsonl"
