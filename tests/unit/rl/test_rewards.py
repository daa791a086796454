"""The reward is the evaluation's own grade: right AND well formed."""

import pytest

from frontload.eval.asking.generation import graded
from frontload.eval.suites import GenerateItem
from frontload.rl.rewards import compute_score

ROW = {"kind": "family", "question": "a question of nobody", "options": []}


def item() -> GenerateItem:
    return GenerateItem(
        id="x", benchmark="b", category="c", family="own", question=ROW["question"], trace="",
        answer="12", inside_shq=False, hard=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("response", "reward", "formed"),
    [
        ("so <|answer|> 12 <|end|>", 1.0, 1.0),
        ("<|answer|> 12.0 <|end|>", 1.0, 1.0),
        ("so <|answer|> 13 <|end|>", 0.0, 1.0),
        ("so 12 <|end|>", 0.0, 0.0),
        ("so <|answer|> 12", 0.0, 0.0),
        ("", 0.0, 0.0),
        ("<|answer|>" * 10_000, 0.0, 0.0),
    ],
)
def test_reward_is_accuracy_and_format(response: str, reward: float, formed: float) -> None:
    score = compute_score("own", response, "12", dict(ROW), layout="marks")
    assert (score["score"], score["format"]) == (reward, formed)
    assert score["score"] == float(graded(response, item(), tokens=1).correct)


def test_a_family_is_recomputed_from_its_question() -> None:
    """The gold answer of the row does not count where the question says what is right."""
    from frontload.data_tools.synthetic.families import generate
    from frontload.data_tools.synthetic.problem import random_stream

    family = "chain"
    problem = generate(random_stream(1, "t"), family, level=2, heldout=False)
    row = {**ROW, "question": problem.question}
    right = f"<|answer|> {problem.solution.answer} <|end|>"
    assert compute_score(family, right, "not the gold", row, layout="marks")["score"] == 1.0
    assert compute_score(family, "<|answer|> no <|end|>", "no", row, layout="marks")["score"] == 0.0
