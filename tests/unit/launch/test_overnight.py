"""Study `overnight`: its price, and its byte-level BPE from the corpus to the scores, tiny."""

import json
from pathlib import Path

import pytest

from frontload.data_tools.text.tokenizer import TextTokenizer
from frontload.launch import cli
from frontload.recipes.study.expand import load_study

TINY = """extends: overnight
seeds: [1]
rl: null
synthesis:
  base_tokens: 60_000
  ldq: {tokens: 24_000}
  shq: {tokens: 6_000}
  items_per_family: 4
  hard_items_per_family: 4
  choice_items: 8
  heldout_documents_per_family: 4
model: {hidden_size: 64, ffn_hidden_size: 96, kv_channels: 8, mamba_num_heads: 4}
pretraining: {tokens: 51_200, global_batch_sequences: 4}
sft: {tokens: 5_120, step_tokens: 512, global_batch_sequences: 4}
evaluation: {sft: {max_new_tokens: 32}}
"""
NIGHT_SECONDS = 8 * 3600


def test_a_night_on_two_cores_is_enough_at_stated_rates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["plan", "overnight", "--json", "--store", str(tmp_path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["price"]["cpu_seconds"] / 2 < NIGHT_SECONDS
    assert len(load_study("overnight").recipe.seeds) == 3


def test_byte_level_bpe_goes_from_the_corpus_to_the_scores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(TINY)
    words = ["run", "mine.yaml", "--only", "evaluate/ldq+shq-x1", "--workers", "1"]
    assert cli.main(words) == 0
    (tokenizer,) = (tmp_path / "store" / "tokenizer").iterdir()
    counts = json.loads((tokenizer / "counts.json").read_text())
    assert counts["kind"] == "byte_bpe"
    assert counts["vocab_size"] <= 512
    assert all(one["unknown_tokens"] == 0 for one in counts["unknown"].values())
    loaded = TextTokenizer.load(tokenizer)
    assert loaded.decode(loaded.encode("a word that no corpus holds: zyx")) == (
        "a word that no corpus holds: zyx"
    )
    (pack,) = (tmp_path / "store" / "pack").iterdir()
    stated = json.loads((pack / "pack.json").read_text())
    assert stated["budget_tokens"] == 5_120
    assert not stated["dropped"], "a row holds the longest worked answer in pieces of words"
    (scores,) = (tmp_path / "store" / "evaluate").iterdir()
    assert json.loads((scores / "scores.json").read_text())["gold_replay"]["accuracy"] == 1.0
    assert cli.main(["data", "verify", str(pack), "--tokenizer", str(tokenizer)]) == 0
