"""Recipes of the laptop's form, and one corpus as large as the laptop's reasoning sets."""

import json
from pathlib import Path

import pytest

from frontload.data_tools.synthetic.corpus import write_corpus
from frontload.recipes.schema import ReasoningWriter, Synthesis

LDQ_SHARES = {
    **{"chain": 0.12, "add": 0.12, "story": 0.10, "var": 0.10, "compare": 0.09},
    **{"sort": 0.03, "stack": 0.05, "queue": 0.04, "branch": 0.04, "brackets": 0.04},
    **{"ladder": 0.05, "boxes": 0.05, "two_hop": 0.04, "table": 0.04, "path": 0.04},
    **{"format": 0.05},
}
SHQ_SHARES = {"chain": 0.40, "add": 0.31, "stack": 0.21, "boxes": 0.05, "format": 0.03}


def synthesis(*, base_tokens: int, ldq_tokens: int, shq_tokens: int, seed: int = 1) -> Synthesis:
    """A recipe of the laptop's form with sets of other sizes."""
    return Synthesis(
        seed=seed,
        base_tokens=base_tokens,
        ldq=ReasoningWriter(
            families=LDQ_SHARES,
            long_share=0.4,
            short_share=0.3,
            wrong_share=0.05,
            level_low=0.0,
            level_high=0.8,
            tokens=ldq_tokens,
        ),
        shq=ReasoningWriter(
            families=SHQ_SHARES,
            long_share=1.0,
            short_share=0.0,
            wrong_share=0.0,
            level_low=0.15,
            level_high=1.0,
            tokens=shq_tokens,
        ),
        items_per_family=60,
        hard_items_per_family=60,
        choice_items=100,
        heldout_documents_per_family=20,
    )


def read_jsonl(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


class Corpus:
    """The rows of a written corpus."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base = read_jsonl(folder / "base.jsonl")
        self.ldq = read_jsonl(folder / "ldq.jsonl")
        self.shq = read_jsonl(folder / "shq.jsonl")
        self.items = read_jsonl(folder / "items.jsonl")
        self.heldout = read_jsonl(folder / "heldout.jsonl")
        self.counts = json.loads((folder / "counts.json").read_text())

    def conversations(self) -> list[dict]:
        return [row for row in (*self.base, *self.ldq, *self.shq) if "question" in row]

    def kind(self, kind: str) -> list[dict]:
        return [item for item in self.items if item["kind"] == kind]


@pytest.fixture(scope="session")
def recipe() -> Synthesis:
    return synthesis(base_tokens=200_000, ldq_tokens=400_000, shq_tokens=50_000)


@pytest.fixture(scope="session")
def corpus(recipe: Synthesis, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(recipe, folder)
    return Corpus(folder)
