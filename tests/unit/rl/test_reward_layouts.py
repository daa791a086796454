r"""Answers of every layout through veRL's own reward worker, with the settings that a recipe gets.

The tokenizer holds any text, with the marks of the template and the think tags as special tokens,
which is the hard case: veRL's own manager leaves such tokens out of what it grades.
"""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module
from tensordict import TensorDict
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from verl import DataProto
from verl.experimental.reward_loop.reward_loop import RewardLoopWorker

from frontload.eval.grading.layout import AnswerLayout
from frontload.megatron_ext.hf.tokenizer import write_tokenizer
from frontload.recipes.errors import RecipeError
from frontload.recipes.grammar.load import RECIPES, load_recipe
from frontload.recipes.runs.grpo import REWARD_LAYOUTS, GrpoRecipe
from frontload.recipes.runs.grpo_checks import check_grpo
from frontload.rl.trainer.settings import verl_settings
from tests.unit.megatron_ext.convert_inputs import SPECIAL_TOKENS
from tests.unit.rl.cluster_recipes import FILES, placement_of, recipe_of

RIGHT = {
    "marks": "3 + 4 = 7 <|answer|> 7 <|end|>",
    "think_boxed": "<think>3 + 4 = 7</think> It is \\boxed{7}.<|end|>",
    "prompted_think_boxed": "3 + 4 = 7</think> It is \\boxed{7}.<|end|>",
    "boxed": "3 + 4 = 7, so it is \\boxed{7}.<|end|>",
}
"""Layout -> a right answer in it, as a model writes it: with the token that ends it."""

OTHERS = {
    ("boxed", "think_boxed"),
    ("boxed", "prompted_think_boxed"),
    ("prompted_think_boxed", "think_boxed"),  # the tag that the prompt has, once more
}
"""(layout of the recipe, layout of the answer) that gets 1 all the same: rl/cluster/README.md."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tokenizer of a model folder: bytes, and the special tokens."""
    folder = tmp_path_factory.mktemp("model")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = [*SPECIAL_TOKENS, "<think>", "</think>"]
    vocabulary = {word: number for number, word in enumerate([*special, *letters])}
    library = Tokenizer(models.BPE(vocabulary, []))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens([AddedToken(token, special=True) for token in special])
    library.save(str(folder / "trained.json"))
    write_tokenizer(folder / "trained.json", folder, max_sequence_tokens=8192)
    return folder


def worker_of(recipe: GrpoRecipe, model: Path, placement: str = "slurm") -> RewardLoopWorker:
    """veRL's worker as its trainer starts it on the rendered settings."""
    settings = verl_settings(recipe, placement_of(placement), replace(FILES, model=model))
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides=list(settings.overrides))
    return RewardLoopWorker(config)


def graded(
    worker: RewardLoopWorker, answers: list[str], *, split: str = "train"
) -> list[dict[str, Any]]:
    """veRL's own grades of answers to `What is 3 + 4?`, in a batch padded as veRL's."""
    encoded = [worker.input_tokenizer(text)["input_ids"] for text in answers]
    width = max(map(len, encoded))
    responses = torch.zeros(len(answers), width, dtype=torch.long)
    mask = torch.zeros(len(answers), 3 + width, dtype=torch.long)
    for row, ids in enumerate(encoded):
        responses[row, : len(ids)] = torch.tensor(ids)
        mask[row, : 3 + len(ids)] = 1
    truth: dict[str, Any] = {"style": "rule", "ground_truth": "7"}
    asked = {"kind": "answer", "question": "What is 3 + 4?", "options": [], "split": split}
    asked |= {"index": 5, "source_index": "math-12"}
    columns = {"data_source": "crossthink", "reward_model": truth, "extra_info": asked}
    batch = DataProto(
        batch=TensorDict(
            {"responses": responses, "attention_mask": mask}, batch_size=[len(answers)]
        ),
        non_tensor_batch={
            name: np.array([value] * len(answers), dtype=object) for name, value in columns.items()
        },
    )

    async def score() -> list[dict[str, Any]]:
        worker.reward_manager.loop = asyncio.get_running_loop()
        return await worker.compute_score_batch(batch)

    return asyncio.run(score())


def rewards(worker: RewardLoopWorker, answers: list[str]) -> list[float]:
    return [found["reward_score"] for found in graded(worker, answers)]


@pytest.mark.parametrize("layout", REWARD_LAYOUTS)
def test_right_is_1_and_wrong_0_in_each_layout_and_others_are_as_the_page_says(
    model: Path, layout: str
) -> None:
    worker = worker_of(recipe_of("grpo_8b", reward_layout=layout), model)
    right = dict(zip(RIGHT, rewards(worker, list(RIGHT.values())), strict=True))
    assert right == {other: float(other == layout or (layout, other) in OTHERS) for other in RIGHT}
    wrong = [text.replace("7", "8") for text in RIGHT.values()]
    cut = [RIGHT["marks"].removesuffix("<|end|>"), RIGHT["boxed"].partition("}")[0], ""]
    assert rewards(worker, [*wrong, *cut]) == [0.0] * 7


def test_the_recipes_that_ship_reward_what_their_models_write(model: Path) -> None:
    """A model that was tuned by our template on answers with a box, and the laptop's."""
    mine = "3 + 4 = 7 <|answer|> It is \\boxed{7}. <|end|>"
    assert rewards(worker_of(recipe_of("grpo_8b"), model), [mine]) == [1.0]
    tiny = worker_of(recipe_of("grpo_tiny"), model, "cpu")
    assert rewards(tiny, [RIGHT["marks"]]) == [1.0]


def test_of_a_validation_the_whole_text_and_its_prompt_are_noted(model: Path) -> None:
    """veRL's own file of a validation has neither; of training nothing more is kept."""
    worker = worker_of(recipe_of("grpo_8b", reward_layout="marks"), model)
    answers = [RIGHT["marks"], RIGHT["think_boxed"], ""]
    found = [one["reward_extra_info"] for one in graded(worker, answers, split="validation")]
    for answer, noted in zip(answers, found, strict=True):
        assert noted["answer"] == answer
        assert [noted[name] for name in ("place", "prompt", "family", "question")] == [
            *("5", "math-12", "crossthink", "What is 3 + 4?")
        ]
    assert [noted["score"] for noted in found] == [1.0, 0.0, 0.0]
    (one,) = graded(worker, answers[:1])
    assert one["reward_extra_info"].keys() == {"score", "acc", "format"}


def test_the_layouts_of_a_recipe_are_those_of_the_grader() -> None:
    assert set(REWARD_LAYOUTS) == set(AnswerLayout)


def test_an_unknown_layout_is_refused_in_four_parts() -> None:
    path = RECIPES / "training" / "grpo_8b.yaml"
    loaded = load_recipe(path, GrpoRecipe, overrides=["reward_layout=think_box"])
    with pytest.raises(RecipeError) as caught:
        check_grpo(loaded)
    error = caught.value
    assert error.exit_code == 2
    assert error.asked.endswith("reward_layout")
    assert (error.found, error.do) == ("'think_box' is not known", "write 'think_boxed'")
    assert "one of marks, think_boxed" in error.rule
