"""A corpus on an S3 server goes to a verified blend and pack in the room's commands."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.data_command import run_data_command
from tests.unit.data_tools_stores.conftest import SECRET


def rows(count: int) -> list[dict[str, str]]:
    return [
        {"question": f"{n} boxes hold {n % 7} pens. How many pens?", "trace": "", "answer": f"{n}"}
        for n in range(count)
    ]


def put(s3: Any, name: str, lines: list[dict[str, str]]) -> None:
    s3.pipe_file(f"bucket/corpus/{name}", "".join(json.dumps(row) + "\n" for row in lines).encode())


BLEND = """
seed: 1
sequence_tokens: 64
global_batch_sequences: 2
sources:
  base: {reading: one_pass, max_epochs: 1, declared_tokens: 0, declared_samples: 0}
  math: {reading: repeatable, max_epochs: 4, declared_tokens: 0, declared_samples: 0}
mixes: {}
phases:
  first: {tokens: 2_560, shares: {base: 1}}
  second: {tokens: 1_280, shares: {base: 4/5, math: 1/5}}
"""


def test_a_corpus_on_s3_goes_to_a_verified_blend_and_pack(
    s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Path("blend.yaml").write_text(BLEND)
    words = ("ship", "day", "moon", "wind", "sail", "port", "rope")
    texts = [" ".join(words[(n * at + n) % 7] for at in range(60)) for n in range(200)]
    put(s3, "base.jsonl", [{"text": f"{text} {n}"} for n, text in enumerate(texts)])
    put(s3, "math.jsonl", [{"text": f"{row['question']} {row['answer']}"} for row in rows(200)])
    put(s3, "sft.jsonl", rows(60))
    at = "s3://bucket/corpus/"

    def run(*line: object) -> None:
        assert run_data_command(*line) == 0

    tokenizer = ("--tokenizer", "data/tokenizer")
    run("tokenizer", "--input", f"{at}base.jsonl", f"{at}math.jsonl", "--json-key", "text",
        "--vocab-size", 400, "--out", "data/tokenizer")  # fmt: skip
    for name in ("base", "math"):
        run("preprocess", "--input", f"{at}{name}.jsonl", "--output-prefix", f"data/{name}",
            *tokenizer, "--append-eod", "--workers", 1)  # fmt: skip
    indexes = ("--index", "base=data/base", "math=data/math")
    run("blend", "blend.yaml", *indexes, "--out", "data/blend")
    run("pack", f"{at}sft.jsonl", *tokenizer, "--sequence-tokens", 128, "--over-long", "drop",
        "--output", "data/pack")  # fmt: skip
    capsys.readouterr()
    run("verify", "data/blend", "data/base", "data/math", *tokenizer)
    assert "all statements hold" in capsys.readouterr().out
    run("verify", "data/pack", *tokenizer, "--input", f"{at}sft.jsonl")
    assert "all statements hold" in capsys.readouterr().out
    for file in Path("data").rglob("*.json"):
        assert SECRET not in file.read_text()
    manifest = json.loads(Path("data/base.manifest.json").read_text())
    assert manifest["inputs"][0]["name"] == "s3://bucket/corpus/base.jsonl"
