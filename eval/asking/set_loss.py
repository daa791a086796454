"""Loss of a model on the conversations of an SFT set, before any of them is learnt."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from frontload.data_tools.disk.files import read_json
from frontload.data_tools.disk.indexed import IndexedReader
from frontload.eval.asking.model import ScoringModel
from frontload.eval.statistics.stats import ratio
from frontload.recipes.artifact import Workspace, write_json
from frontload.recipes.errors import ArtifactError

SET_LOSS = "set_loss.json"


@dataclass(frozen=True, kw_only=True)
class SetLoss:
    """Answer tokens of one SFT set under one model."""

    loss: float  # nats a token
    se: float | None  # over conversations; None of one
    num_tokens: int
    num_conversations: int
    num_cut: int  # longer than the model's trained context: their end is not scored


def score_set(model: ScoringModel, pack: Path, *, num_conversations: int) -> SetLoss:
    """The loss on conversations that lie evenly over the pack, whose rows are sorted by nothing.

    Raises: ArtifactError where none of them has an answer token in the trained context.
    """
    tokens, masks = IndexedReader(pack / "tokens"), IndexedReader(pack / "loss_mask")
    count = min(num_conversations, tokens.num_sequences)
    chosen = np.unique(np.linspace(0, tokens.num_sequences - 1, count).round().astype(int))
    limit = model.max_sequence_tokens
    texts = [tokens.sequence(int(one)) for one in chosen]
    scores = model.token_scores([text[:limit].astype(int).tolist() for text in texts])
    losses, counts = [], []
    for place, number in enumerate(chosen):
        answer_S = masks.sequence(int(number))[1:limit].astype(bool)
        sum_ = -scores[place].log_probabilities_S[answer_S].sum(dtype=np.float64)
        losses.append(float(sum_))
        counts.append(int(answer_S.sum()))
    if not any(counts):
        raise ArtifactError(
            f"the loss on pack {pack}",
            found=f"no answer token within {limit} tokens, of {len(chosen)} conversations",
            rule="a set's loss is over answers that the model can read",
            do="pack shorter conversations, or train on a longer context",
        )
    found = ratio(losses, counts)
    return SetLoss(
        loss=found.value,
        se=found.se,
        num_tokens=sum(counts),
        num_conversations=len(chosen),
        num_cut=sum(len(text) > limit for text in texts),
    )


def write_set_loss(found: SetLoss, work: Workspace) -> None:
    """Writes set_loss.json."""
    write_json(work.path / SET_LOSS, asdict(found))


def read_set_loss(folder: Path) -> SetLoss:
    """What `write_set_loss` wrote."""
    return SetLoss(**read_json(folder / SET_LOSS))
