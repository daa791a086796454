"""What a user of `paper_tiny` brings: raw files, evaluation items, prompts and a tokenizer."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from frontload.data_tools.synthetic.corpus import write_corpus
from frontload.data_tools.text.train_tokenizer import train
from frontload.eval.protocol.gather import GatherRequest, gather
from frontload.recipes.schema import Tokenizer
from frontload.recipes.study.expand import load_study

PROMPTS = {"qa": 80, "math": 40}


def write_paper_files(folder: Path) -> None:
    """Writes `raw/` into the folder in which the study is run."""
    raw, corpus = folder / "raw", folder / "corpus"
    raw.mkdir(parents=True)
    corpus.mkdir()
    recipe = load_study("smoke").recipe
    assert recipe.synthesis is not None
    write_corpus(recipe.synthesis, corpus)
    ldq = list(_rows(corpus / "ldq.jsonl"))
    for name in ("ldq", "shq"):
        _write(raw / f"{name}.jsonl", map(_worked, _rows(corpus / f"{name}.jsonl")))
    base = (row for row in _rows(corpus / "base.jsonl") if "text" in row)
    _write(raw / "base.jsonl", base)
    for name in ("items", "heldout"):
        (raw / f"{name}.jsonl").write_bytes((corpus / f"{name}.jsonl").read_bytes())
    for name, count in PROMPTS.items():
        rows = [row for row in ldq if (row["domain"] == "math") == (name == "math")][:count]
        _write(raw / f"{name}.jsonl", (_prompt(row, at) for at, row in enumerate(rows)))
    files = [corpus / f"{name}.jsonl" for name in ("base", "ldq", "shq")]
    trained = train(Tokenizer(kind="word", vocab_size=256), files)
    (raw / "tokenizer").mkdir()
    (raw / "tokenizer" / "tokenizer.json").write_text(trained.tokenizer.to_json())
    gather(raw / "benchmarks", GatherRequest(sources=("made",), datasets=(), token=None))


def _rows(file: Path) -> Iterable[dict[str, Any]]:
    with open(file, encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def _write(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _worked(row: Mapping[str, Any]) -> dict[str, str]:
    return {"question": row["question"], "answer": f"{row['trace']}\n#### {row['answer']}"}


def _prompt(row: Mapping[str, Any], number: int) -> dict[str, Any]:
    return {
        "data_source": "tests",
        "prompt": [{"role": "user", "content": row["question"]}],
        "reward_model": {"ground_truth": row["answer"], "style": "rule"},
        "meta_data": {"index": number, "question": row["question"]},
    }
