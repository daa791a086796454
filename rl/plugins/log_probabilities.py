"""Log-probabilities of an update's tokens, all at once; to the bit what veRL computes one by one.

veRL saves memory that a vocabulary of 256 does not need: verl/utils/torch_functional.py:197 takes
`logsumexp` of every token by itself, which is most of what its actor does with a small model.
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

Scorer = Callable[..., Tensor]


def score_tokens_at_once() -> None:
    """Puts `log_probabilities` before veRL's own, which `logprobs_from_logits` looks up by name."""
    from verl.utils import torch_functional

    own = torch_functional.logprobs_from_logits_v2
    torch_functional.logprobs_from_logits_v2 = functools.partial(log_probabilities, otherwise=own)


def log_probabilities(logits: Tensor, labels: Tensor, *, otherwise: Scorer) -> Tensor:
    """The labels' log-probabilities; from `otherwise` where equal bits are not known.

    Shapes: logits_TV, labels_T; T = all tokens of a micro-batch, without padding.
    """
    if not is_known(logits, labels):
        return otherwise(logits, labels)
    chosen_T = torch.gather(logits, dim=-1, index=labels.unsqueeze(-1)).squeeze(-1)
    return chosen_T - torch.logsumexp(logits, dim=-1)


def is_known(logits: Tensor, labels: Tensor) -> bool:
    """Whether these are rows of float32 logits on a CPU, one after the other, each with a label."""
    return (
        logits.dim() == 2
        and logits.shape[0] > 0
        and logits.dtype == torch.float32
        and logits.device.type == "cpu"
        and logits.is_contiguous()
        and labels.shape == logits.shape[:1]
    )
