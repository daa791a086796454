"""`frontload rl`: what it refuses before anything starts. Its runs are in tests/fault."""

from dataclasses import replace
from pathlib import Path

import pytest

from frontload.data_tools.prompts.rl_parquet import Prompt, write_prompts
from frontload.launch import cli
from frontload.megatron_ext.hf.convert import export_hf
from frontload.recipes.grammar.load import find_recipe, load_recipe
from frontload.recipes.runs.grpo import GrpoRecipe
from tests.unit.megatron_ext.convert_inputs import write_checkpoint, write_tokenizer_file


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


def test_prompts_of_another_tokenizer_are_refused_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """70 words, where the recipe has room for 64 tokens: the whole file is too long."""
    path = find_recipe("training", "grpo_tiny")
    assert path is not None
    model = replace(load_recipe(path, GrpoRecipe).value.model, vocab_size=16)
    (tmp_path / "start").mkdir()
    write_checkpoint(tmp_path / "start", model)
    tokenizer = write_tokenizer_file(tmp_path / "tokenizer.json")
    export_hf(tmp_path / "start", tmp_path / "hf", tokenizer=tokenizer)
    prompt = Prompt(
        data_source="own",
        messages=(("user", "what " * 70),),
        ability="math",
        ground_truth="7",
        kind="answer",
        question="what",
        options=(),
        source_index="",
    )
    write_prompts(tmp_path / "p.parquet", [prompt] * 8, split="train")
    files = ("--prompts", str(tmp_path / "p.parquet"), "--validation", str(tmp_path / "p.parquet"))
    words = ("rl", "grpo_tiny", "--model", str(tmp_path / "hf"), *files, "model.vocab_size=16")
    assert cli.main([*words, "--out", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert "p.parquet: 8 of 8 over 64 tokens, by " in err
    assert "`frontload data crossthink --tokenizer " in err
    assert not list(tmp_path.glob("out/**/metrics.jsonl"))
