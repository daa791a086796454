"""`frontload rl`: what it refuses before anything starts. Its runs are in tests/fault."""

from pathlib import Path

import pytest

from frontload.launch import cli


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("prompts.jsonl", "held.jsonl"):
        (tmp_path / name).touch()
    for name in ("checkpoint", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint" / "weights").mkdir()
    (tmp_path / "checkpoint" / "weights" / ".metadata").touch()
    return tmp_path


FILES = ("--prompts", "prompts.jsonl", "--validation", "held.jsonl")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("grpo_8b", "--model", "empty", *FILES), "it generates with vllm, which needs GPUs"),
        (("pretrain_tiny", "--model", "empty", *FILES), "frontload train pretrain_tiny"),
        (("grpo_tny", "--model", "empty", *FILES), "write 'grpo_tiny'"),
        (("grpo_tiny", "--model", "empty", *FILES[:2]), "--validation"),
        (("grpo_tiny", *FILES), "--model"),
        (("grpo_tiny", "--model", "none", *FILES), "rl --model none: no such folder"),
        (("grpo_tiny", "--model", "checkpoint", *FILES), "with --tokenizer"),
        (
            ("grpo_tiny", "--model", "empty", "--tokenizer", "prompts.jsonl", *FILES),
            "a model is a checkpoint or a Hugging Face folder",
        ),
        (
            ("grpo_tiny", "--model", "empty", "--prompts", "no", "--validation", "held.jsonl"),
            "--prompts no: no such file",
        ),
        (("grpo_tiny", "--model", "empty", *FILES, "mini_batch_prompts=3"), "mini_batch_prompts"),
        (
            ("grpo_tiny", "--model", "empty", *FILES, "placement.ranks_per_node=2"),
            "2 ranks for rollout frontload",
        ),
    ],
)
def test_wrong_input_is_refused_in_four_parts(
    home: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], told: str
) -> None:
    assert cli.main(["rl", *words, "--out", "out"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("frontload: ")
    assert err.count("; ") >= 2, err
    assert told in err
    assert not list(home.glob("out/[!.]*"))
