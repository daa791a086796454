"""The loss of a model on an SFT set that it has not learnt: over answers, evenly over the pack."""

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from frontload.eval.asking.set_loss import SetLoss, read_set_loss, score_set, write_set_loss
from frontload.eval.tables.forgetting import set_loss_table
from frontload.recipes.errors import ArtifactError, RecipeError
from frontload.recipes.study.expand import load_study
from tests.training_inputs import workspace, write_index

SIZES = "evaluation.set_loss_conversations=50"


@dataclass
class Given:
    """Scores of one text."""

    log_probabilities_S: np.ndarray
    is_greedy_S: np.ndarray


@dataclass
class CountingModel:
    """Gives the n-th next token of a text the log-probability -n / 10."""

    max_sequence_tokens: int = 8
    asked: list[list[int]] = field(default_factory=list)

    def token_scores(self, sequences: list[list[int]], **_: int) -> list[Given]:
        self.asked = sequences
        return [
            Given(
                log_probabilities_S=-np.arange(1, len(one)) / 10,
                is_greedy_S=np.zeros(len(one) - 1, bool),
            )
            for one in sequences
        ]


def pack_of(root: Path, lengths: list[int]) -> Path:
    """Conversations of these lengths whose last two tokens are the answer."""
    texts = [np.arange(length) + 100 * place for place, length in enumerate(lengths)]
    masks = [np.arange(length) >= length - 2 for length in lengths]
    rows = list(range(len(texts) + 1))
    write_index(root / "tokens", texts, rows, "uint16")
    write_index(root / "loss_mask", masks, rows, "uint8")
    return root


def test_only_answers_count_and_what_lies_behind_the_context_is_left_out(tmp_path: Path) -> None:
    model = CountingModel()
    found = score_set(model, pack_of(tmp_path, [4, 6, 9]), num_conversations=10)  # type: ignore[arg-type]
    # answers are tokens 2, 3 of the first, 4, 5 of the second; of the third only 7 is in reach
    assert found.loss == pytest.approx((0.2 + 0.3 + 0.4 + 0.5 + 0.7) / 5)
    assert (found.num_tokens, found.num_conversations, found.num_cut) == (5, 3, 1)
    assert found.se is not None
    assert found.se > 0.0


def test_a_sample_lies_evenly_over_the_pack(tmp_path: Path) -> None:
    model = CountingModel()
    score_set(model, pack_of(tmp_path, [4] * 9), num_conversations=3)  # type: ignore[arg-type]
    assert [text[0] // 100 for text in model.asked] == [0, 4, 8]


def test_a_set_whose_answers_no_context_holds_is_refused(tmp_path: Path) -> None:
    pack = pack_of(tmp_path, [12, 12])
    with pytest.raises(ArtifactError, match="no answer token within 8 tokens"):
        score_set(CountingModel(), pack, num_conversations=2)  # type: ignore[arg-type]


def test_perplexities_are_means_over_seeds_with_their_spread(tmp_path: Path) -> None:
    def one(loss: float) -> SetLoss:
        return SetLoss(loss=loss, se=0.01, num_tokens=9, num_conversations=3, num_cut=0)

    work = workspace(tmp_path)
    write_set_loss(one(0.5), work)
    assert read_set_loss(work.path) == one(0.5)
    table = set_loss_table(
        {"pt:LMQ": {"SHQ": [one(0.5), one(0.7)]}, "pt:base": {"LDQ": [one(2.0)]}}
    )
    assert table.columns == ("LDQ", "SHQ")
    (no, shq), (ldq, none) = (row.ours for row in table.rows)
    assert no is None
    assert none is None
    assert shq is not None
    assert ldq is not None
    assert shq.value == pytest.approx(math.exp(0.6))
    assert shq.se == pytest.approx(math.exp(0.6) * 0.1)  # two seeds 0.2 apart
    assert ldq.se == pytest.approx(math.exp(2.0) * 0.01)


def test_each_base_is_asked_each_set_once_a_seed() -> None:
    usual = load_study("laptop", overrides=["seeds=[1, 2]"])
    study = load_study("laptop", overrides=["seeds=[1, 2]", SIZES])
    losses = study.tabulate.recipe.set_losses
    assert set(losses) == {cell for cell in usual.tabulate.recipe.cells if ">" not in cell}
    assert set(losses["pt:base"]) == {"SHQ", "LDQ", "LMQ", "ALF", "ALF'"}
    roles = losses["pt:LMQ@60-40"]["SHQ"]
    stages = [study.tabulate.inputs[role] for role in roles]
    assert [stage.inputs["pack"].label for stage in stages] == ["shq-x1-seed1", "shq-x1-seed2"]
    assert {stage.recipe.num_conversations for stage in stages} == {50}
    assert {stage.key for stage in usual.stages} - {usual.tabulate.key} < {
        stage.key for stage in study.stages
    }
    with pytest.raises(RecipeError, match="set_loss_conversations"):
        load_study("laptop", overrides=[SIZES.replace("50", "-1")])
