"""Loss and step accuracy on gold worked answers of questions that were never trained on."""

from collections.abc import Sequence

import numpy as np

from frontload.data_tools.text.render import encode_rows
from frontload.data_tools.text.tokenizer import TextTokenizer
from frontload.eval.asking.model import ScoringModel
from frontload.eval.results import HeldoutResult
from frontload.eval.suites import HeldoutDocument


def score_heldout(
    model: ScoringModel, tokenizer: TextTokenizer, documents: Sequence[HeldoutDocument]
) -> list[HeldoutResult]:
    """Teacher-forced loss in nats, and tokens ranked first, over each document's answer tokens.

    A document longer than the model's trained context is cut at its end and counted; one whose
    question alone fills the context has no scored token.
    """
    rendered = encode_rows(tokenizer, [document.conversation() for document in documents])
    limit = model.max_sequence_tokens
    sequences = [one.tokens_S[:limit].tolist() for one in rendered]
    scores = model.token_scores(sequences)
    results = []
    for place, document in enumerate(documents):
        target_S = rendered[place].loss_mask_S[1:limit].astype(bool)
        results.append(
            HeldoutResult(
                id=document.id,
                family=document.family,
                domain=document.domain,
                inside_shq=document.inside_shq,
                is_cut=len(rendered[place].tokens_S) > limit,
                num_tokens=int(target_S.sum()),
                loss_sum=float(-scores[place].log_probabilities_S[target_S].sum(dtype=np.float64)),
                num_greedy_tokens=int(scores[place].is_greedy_S[target_S].sum()),
            )
        )
    return results
