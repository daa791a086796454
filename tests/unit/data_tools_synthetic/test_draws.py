"""Another draw of the corpus: other text of the same words, and no question that scores models."""

import json
from dataclasses import replace
from pathlib import Path

from frontload.data_tools.synthetic.corpus import write_corpus
from frontload.recipes.study.expand import load_study


def questions(file: Path) -> set[str]:
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return {" ".join(row["question"].split()) for row in rows if row.get("question")}


def words(file: Path) -> set[str]:
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    fields = ("text", "question", "trace", "answer")
    return {word for row in rows for name in fields for word in row.get(name, "").split()}


def test_the_questions_of_the_first_draw_train_in_no_other(tmp_path: Path) -> None:
    synthesis = load_study("smoke").recipe.synthesis
    assert synthesis is not None
    for seed in (1, 2):
        (tmp_path / str(seed)).mkdir()
        write_corpus(replace(synthesis, seed=seed), tmp_path / str(seed))
    asked = questions(tmp_path / "1" / "items.jsonl") | questions(tmp_path / "1" / "heldout.jsonl")
    assert len(asked) > 50
    first, other = (
        [tmp_path / str(seed) / f"{name}.jsonl" for name in ("base", "ldq", "shq")]
        for seed in (1, 2)
    )
    for one, another in zip(first, other, strict=True):
        assert one.read_bytes() != another.read_bytes()
        assert words(another) <= set().union(*map(words, first)), "one tokenizer serves all draws"
    assert not asked & (questions(other[1]) | questions(other[2]))
    base = " | ".join(" ".join(line.split()) for line in other[0].read_text().splitlines())
    assert not [question for question in asked if f" {question} " in base]
