"""A prompt's length is the one that veRL finds, for our models and others: it cuts none."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf
from transformers import AutoTokenizer
from verl.utils.dataset.rl_dataset import RLHFDataset

from frontload.data_tools.prompts.length import load_limit
from frontload.data_tools.prompts.rl_parquet import (
    Prompt,
    check_prompts,
    read_messages,
    write_prompts,
)
from frontload.megatron_ext.hf.tokenizer import write_tokenizer
from frontload.recipes.errors import RecipeError
from frontload.rl.cluster import preflight
from frontload.rl.cluster.need import Need
from tests.unit.data_tools.prompt_model import write_model_tokenizer
from tests.unit.megatron_ext.convert_inputs import write_tokenizer_file
from tests.unit.rl.cluster_recipes import recipe_of

QUESTIONS = [" ".join(["what is 3 + 4"] * times) for times in (1, 2, 3, 5, 8)]


@pytest.fixture(params=["ours", "another's"])
def model(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The tokenizer and the template of a model folder: an export of ours, or any other."""
    folder = tmp_path / "model"
    if request.param == "another's":
        return write_model_tokenizer(folder)
    folder.mkdir()
    file = write_tokenizer_file(tmp_path / "words.json")
    write_tokenizer(file, folder, max_sequence_tokens=8192)
    return folder


def write_questions(file: Path, questions: list[str] = QUESTIONS) -> Path:
    prompts = [
        Prompt(
            data_source="own", messages=(("user", text),), ability="math", ground_truth="7",
            kind="answer", question=text, options=(), source_index="",
        )
        for text in questions
    ]  # fmt: skip
    write_prompts(file, prompts, split="train")
    return file


def verl_keeps(model: Path, file: Path, tokens: int) -> list[str]:
    """The questions that veRL's own filter leaves, which the rendered settings switch off."""
    config = {"max_prompt_length": tokens, "filter_overlong_prompts": True}
    config |= {"filter_overlong_prompts_workers": 1, "cache_dir": str(file.parent / "cache")}
    tokenizer = AutoTokenizer.from_pretrained(model)
    data = RLHFDataset(str(file), tokenizer, OmegaConf.create(config))
    return [row["extra_info"]["question"] for row in data.dataframe]


@pytest.mark.parametrize("tokens", [16, 17, 44, 45])
def test_what_fits_is_what_verl_would_keep(tmp_path: Path, model: Path, tokens: int) -> None:
    """Around the third question's length of 17 in our words, and the second's 45 in bytes."""
    file = write_questions(tmp_path / "p.parquet")
    misfits = load_limit(model, tokens).misfits(read_messages(file))
    kept = [text for text, why in zip(QUESTIONS, misfits, strict=True) if not why]
    assert kept == verl_keeps(model, file, tokens)


def test_lengths_are_those_of_the_tokenizer_and_the_template(model: Path) -> None:
    """To the token: the shortest limit that a prompt fits is its length for transformers."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    for text in QUESTIONS:
        chat = [{"role": "user", "content": text}]
        size = len(
            tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        )
        prompt = (("user", text),)
        assert list(load_limit(model, size).misfits([prompt])) == [""]
        assert list(load_limit(model, size - 1).misfits([prompt])) == [f"over {size - 1} tokens"]


def test_a_message_that_our_template_leaves_out_is_no_fit(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    write_tokenizer(write_tokenizer_file(tmp_path / "w.json"), folder, max_sequence_tokens=64)
    prompt = (("system", "what is"), ("user", "3 + 4"))
    (why,) = load_limit(folder, 64).misfits([prompt])
    assert "leaves out a message" in why


def test_a_file_made_with_another_tokenizer_is_refused_with_its_counts(
    tmp_path: Path, model: Path
) -> None:
    file = write_questions(tmp_path / "p.parquet")
    check_prompts(file, load_limit(model, 200))
    with pytest.raises(RecipeError) as caught:
        check_prompts(file, load_limit(model, 17))
    assert "of 5 over 17 tokens" in caught.value.found
    assert f"--tokenizer {model} --prompt-tokens 17" in caught.value.do
    with pytest.raises(RecipeError, match="5 of 5 over 3 tokens"):
        check_prompts(file, load_limit(model, 3))


def need_of(model: Path, file: Path, tokens: int) -> Need:
    recipe = recipe_of("grpo_8b", prompt_tokens=tokens)
    return Need(
        actor=recipe.actor,
        rollout=recipe.rollout,
        is_hybrid=recipe.is_hybrid,
        gpus=0,
        context_tokens=recipe.context_tokens,
        prompt_tokens=recipe.prompt_tokens,
        model=model,
        files=(file,),
    )


def test_every_node_measures_before_ray_starts(tmp_path: Path, model: Path) -> None:
    file = write_questions(tmp_path / "p.parquet")
    assert list(preflight.prompt_problems(need_of(model, file, 200))) == []
    (problem,) = preflight.prompt_problems(need_of(model, file, 3))
    assert problem.exit_code == 2
    assert "5 of 5 over 3 tokens" in problem.found
    (model / "tokenizer.json").unlink()
    (problem,) = preflight.prompt_problems(need_of(model, file, 200))
    assert "tokenizer.json" in problem.found


@pytest.mark.parametrize("kind", ["text", "columns", "types"])
def test_a_file_that_holds_no_prompts_is_told(tmp_path: Path, model: Path, kind: str) -> None:
    file = tmp_path / "p.parquet"
    if kind == "text":
        file.write_text(json.dumps({"prompt": "q"}))
    elif kind == "columns":
        pq.write_table(pa.table({"question": ["q"]}), file)
    else:
        pq.write_table(pa.table({"prompt": ["q"]}), file)
    (problem,) = preflight.prompt_problems(need_of(model, file, 64))
    assert problem.exit_code == 2
    assert "no prompts as veRL reads them" in problem.found
