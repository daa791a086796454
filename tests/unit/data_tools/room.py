"""A hand-made corpus, and the stages of the data room run one by one in plain folders."""

import json
import random
from dataclasses import dataclass, field
from pathlib import Path

from frontload.data_tools import stages
from frontload.recipes.machines.placement import Placement
from frontload.recipes.schema import Index, Mix, Tokenizer

DOMAINS = ("math", "code", "science", "general")


@dataclass
class FolderWorkspace:
    """The Workspace protocol over plain folders."""

    path: Path
    scratch: Path
    placement: Placement = field(default_factory=Placement)
    key: str = "0123456789ab"

    def log(self, step: int, **metrics: float) -> None: ...
    def rewind(self, step: int) -> None: ...
    def progress(self, done: int, total: int, *, note: str = "") -> None: ...


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def conversation(rng: random.Random, *, name: str, long: bool) -> dict:
    first, second = rng.randrange(50), rng.randrange(50)
    steps = " ; ".join(f"{first} plus {k} is {first + k}" for k in range(rng.randrange(1, 6)))
    domain = rng.choice(DOMAINS)
    return {
        "id": name,
        "question": f"what is {first} plus {second} ?",
        "trace": steps if long else "",
        "answer": str(first + second),
        "family": f"{domain}_add",
        "domain": domain,
    }


def hand_made_corpus(folder: Path) -> Path:
    """base, ldq, shq, items and heldout files, about 30k words."""
    rng = random.Random(5)
    words = [f"w{number}" for number in range(40)]
    base = [
        {"id": f"base-{i}", "text": " ".join(rng.choices(words, k=rng.randrange(5, 90)))}
        for i in range(400)
    ]
    ldq = [conversation(rng, name=f"ldq-{i}", long=rng.random() < 0.4) for i in range(300)]
    shq = [conversation(rng, name=f"shq-{i}", long=True) for i in range(80)]
    heldout = [conversation(rng, name=f"heldout-{i}", long=True) for i in range(10)]
    write_jsonl(folder / "base.jsonl", base)
    write_jsonl(folder / "ldq.jsonl", ldq)
    write_jsonl(folder / "shq.jsonl", shq)
    write_jsonl(folder / "heldout.jsonl", [row | {"inside_shq": True} for row in heldout])
    items = [
        {"id": row["id"], "kind": "generate", "benchmark": "sum", "category": "math"}
        | {name: row[name] for name in ("question", "trace", "answer", "family")}
        for row in heldout
    ]
    write_jsonl(folder / "items.jsonl", items)
    return folder


class Room:
    """Runs stages of the data room one by one under a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.corpus = hand_made_corpus(folder / "corpus")

    def workspace(self, name: str) -> FolderWorkspace:
        work = FolderWorkspace(self.folder / name, self.folder / "scratch" / name)
        work.path.mkdir(parents=True, exist_ok=True)
        work.scratch.mkdir(parents=True, exist_ok=True)
        return work

    def run(self, stage: str, recipe: object, *, name: str, **inputs: Path) -> Path:
        work = self.workspace(name)
        getattr(stages, stage)(recipe, inputs, work)
        return work.path

    def tokenizer(self) -> Path:
        recipe = Tokenizer(kind="word", vocab_size=512)
        return self.run("train_tokenizer", recipe, name="tokenizer", corpus=self.corpus)

    def mix(self, name: str, *members: str, min_answer_tokens: int = 0) -> Path:
        recipe = Mix(
            name=name,
            members=members,
            min_answer_tokens=min_answer_tokens,
            share_of_member={},
            seed=3,
        )
        inputs = {"corpus": self.corpus, "tokenizer": self.folder / "tokenizer"}
        return self.run("curate", recipe, name=f"mix-{name}", **inputs)

    def index(self, name: str) -> Path:
        inputs = {
            "documents": self.folder / f"mix-{name}",
            "tokenizer": self.folder / "tokenizer",
        }
        return self.run("index", Index(append_eod=True), name=f"index-{name}", **inputs)
