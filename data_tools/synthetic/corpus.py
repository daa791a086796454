"""The procedural corpus as files: base text, two reasoning sets, items, held-out answers."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from frontload.data_tools.disk.files import replacing
from frontload.data_tools.synthetic.base_text import write_base
from frontload.data_tools.synthetic.items import write_heldout, write_items
from frontload.data_tools.synthetic.writers import conversation_tokens, write_reasoning
from frontload.data_tools.text.document import BaseText, Conversation, Row, write_rows
from frontload.recipes.artifact import corpus_heldout, corpus_items, corpus_set, write_json
from frontload.recipes.schema import Synthesis


@dataclass(kw_only=True)
class _Tally:
    """Rows and tokens of one set, by domain and family, counted while it is written."""

    rows: int = 0
    tokens: int = 0
    domains: dict[str, int] = field(default_factory=dict)
    families: dict[str, int] = field(default_factory=dict)
    questions: set[str] = field(default_factory=set)

    def counted(self, rows: Iterable[Row]) -> Iterator[Row]:
        for row in rows:
            self.rows += 1
            if isinstance(row, BaseText):
                tokens, domain, family = len(row.text.split()), "base", "base"
            else:
                tokens, domain, family = conversation_tokens(row), row.domain, row.family
                self.questions.add(row.question)
            self.tokens += tokens
            self.domains[domain] = self.domains.get(domain, 0) + tokens
            self.families[family] = self.families.get(family, 0) + tokens
            yield row

    def to_json(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "tokens": self.tokens,
            "tokens_by_domain": self.domains,
            "tokens_by_family": self.families,
            "different_questions": len(self.questions),
        }


def write_corpus(recipe: Synthesis, folder: Path) -> None:
    """Writes the corpus of a recipe into `folder`: same recipe, same bytes.

    Units: sizes in word tokens (markers not counted), each set exact to within one document.
    Raises: RecipeError for shares that do not sum to 1, unknown families, or more evaluation items
        than a family has held-out questions.
    """
    sets: dict[str, Iterator[Row]] = {
        "base": write_base(tokens=recipe.base_tokens, seed=recipe.seed),
        "ldq": _rows(write_reasoning(recipe.ldq, name="ldq", seed=recipe.seed)),
        "shq": _rows(write_reasoning(recipe.shq, name="shq", seed=recipe.seed)),
    }
    counts: dict[str, Any] = {"format": 1, "sets": {}, "dropped": {}}
    for name, rows in sets.items():
        tally = _Tally()
        write_rows(corpus_set(folder, name), tally.counted(rows))
        counts["sets"][name] = tally.to_json()
    asked: set[str] = set()
    items, heldout = write_items(recipe, asked), write_heldout(recipe, asked)
    counts["items"] = _write_objects(corpus_items(folder), items, by="benchmark")
    counts["heldout"] = _write_objects(corpus_heldout(folder), heldout, by="family")
    write_json(folder / "counts.json", counts)


def _rows(rows: Iterator[Conversation]) -> Iterator[Row]:
    yield from rows


def _write_objects(path: Path, rows: Iterable[dict[str, Any]], *, by: str) -> dict[str, int]:
    """Writes objects as JSONL and counts them by one of their fields."""
    counts: dict[str, int] = {}
    with replacing(path, "w") as stream:
        for row in rows:
            stream.write(json.dumps(row) + "\n")
            counts[row[by]] = counts.get(row[by], 0) + 1
    return counts
