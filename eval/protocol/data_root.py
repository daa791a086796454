"""Rows of benchmarks in a folder laid out as the hub has them, with a manifest that proves them.

ROOT/manifest.json                       rows, sha256 and origin of each file
ROOT/openai/gsm8k/README.md              which file is which split, as `datasets` reads it
ROOT/openai/gsm8k/main/test.jsonl        one row a line, in the fields that the hub has
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frontload.data_tools.disk.files import file_sha256, read_object
from frontload.recipes.errors import ArtifactError, RecipeError

MANIFEST = "manifest.json"
FORMAT = 1
MADE = "made"
"""Origin of rows that this project makes up in a benchmark's form: they test code, no model."""


@dataclass(frozen=True, kw_only=True, order=True)
class SplitName:
    """One split of one part of a data set."""

    dataset: str  # as openai/gsm8k
    part: str  # the hub calls it a configuration: main, anatomy, default
    split: str  # train, validation, dev or test

    @property
    def file(self) -> str:
        """Where its rows lie under the root."""
        return f"{self.dataset}/{self.part}/{self.split}.jsonl"


@dataclass(frozen=True, kw_only=True)
class SplitEntry:
    """What the manifest says of one split."""

    name: SplitName
    num_rows: int
    sha256: str
    origin: str  # file name, hub name and revision, or MADE


class DataRoot:
    """An opened root: its manifest is read now, a file when it is asked for."""

    def __init__(self, folder: Path, entries: Iterable[SplitEntry]) -> None:
        self.folder = folder
        self.entries: Mapping[SplitName, SplitEntry] = {one.name: one for one in entries}

    @classmethod
    def open(cls, folder: Path, *, proof: Path | None = None) -> "DataRoot":
        """Reads the manifest, or a copy of it that proves what the folder held then.

        Raises: RecipeError when the folder is none, ArtifactError when its manifest is damaged.
        """
        path = proof or folder / MANIFEST
        if not path.is_file():
            raise RecipeError(
                f"benchmark rows in {folder}",
                found=f"no {MANIFEST}" if folder.is_dir() else "no such folder",
                rule="a data root is made by `frontload eval data`, which proves its rows",
                do=f"run `frontload eval data --root {folder} --from LOCAL` (or --from hub; "
                "--from made writes made-up rows that try everything out)",
            )
        shape = {"dataset": str, "part": str, "split": str}
        whole = {**shape, "num_rows": int, "sha256": str, "origin": str}
        found = read_object(path, {"format": int, "splits": [whole]})
        return cls(folder, [_entry(one) for one in found["splits"]])

    def parts(self, dataset: str, *, split: str) -> list[str]:
        """The parts of a data set that have a split, by name."""
        return sorted(
            name.part for name in self.entries if (name.dataset, name.split) == (dataset, split)
        )

    def has(self, name: SplitName) -> bool:
        return name in self.entries

    def is_made(self, dataset: str) -> bool:
        """Whether any row of a data set is made up."""
        return any(
            entry.origin == MADE for name, entry in self.entries.items() if name.dataset == dataset
        )

    def sha256(self, dataset: str) -> dict[str, str]:
        """File -> digest, of every split of a data set."""
        return {
            name.file: entry.sha256
            for name, entry in sorted(self.entries.items())
            if name.dataset == dataset
        }

    def read(self, name: SplitName) -> list[dict[str, Any]]:
        """The rows of a split, in order; whole numbers of any size stay whole.

        Raises: ArtifactError when they are not those that the manifest proves.
        """
        entry, path = self.entries[name], self.folder / name.file
        if not path.is_file() or file_sha256(path) != entry.sha256:
            raise ArtifactError(
                f"benchmark rows {path}",
                found="other bytes than its manifest proves" if path.exists() else "no such file",
                rule=f"{entry.num_rows} rows with sha256 {entry.sha256[:12]}, from {entry.origin}",
                do="put the file back, or make the data root again with `frontload eval data`",
            )
        return [json.loads(line) for line in path.read_bytes().splitlines()]


def manifest_json(entries: Iterable[SplitEntry]) -> dict[str, Any]:
    """The form of the manifest."""
    splits = [
        {
            **vars(one.name),
            "num_rows": one.num_rows,
            "sha256": one.sha256,
            "origin": one.origin,
        }
        for one in sorted(entries, key=lambda one: one.name)
    ]
    return {"format": FORMAT, "splits": splits}


def hub_card(names: Iterable[SplitName]) -> str:
    """The README.md of a data set: which file is which split, for `datasets.load_dataset`."""
    parts: dict[str, list[str]] = {}
    for name in sorted(names):
        parts.setdefault(name.part, []).append(name.split)
    lines = ["---", "configs:"]
    for part, splits in parts.items():
        lines += [f"- config_name: {json.dumps(part)}", "  data_files:"]
        for split in splits:
            lines += [f"  - split: {split}", f"    path: {json.dumps(f'{part}/{split}.jsonl')}"]
    return "\n".join([*lines, "---", ""])


def _entry(found: Mapping[str, Any]) -> SplitEntry:
    name = SplitName(dataset=found["dataset"], part=found["part"], split=found["split"])
    return SplitEntry(
        name=name, num_rows=found["num_rows"], sha256=found["sha256"], origin=found["origin"]
    )
