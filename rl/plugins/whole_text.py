"""veRL's reward manager, handing over a response with its special tokens written out.

veRL's own (experimental/reward_loop/reward_manager/naive.py:62) leaves them out, and with them the
marks of our template, and `<think>` where a tokenizer has it as a special token.
"""

from typing import Any

import torch
from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager


class WholeTextRewardManager(NaiveRewardManager):
    """Found by `reward.reward_manager`, source importlib; everything but the text is veRL's."""

    def __init__(self, config: Any, tokenizer: Any, compute_score: Any, **options: Any) -> None:
        whole: Any = _WholeText(tokenizer)
        super().__init__(config, whole, compute_score, **options)


class _WholeText:
    """A tokenizer that never leaves out a token of what it is asked to decode."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def decode(self, ids: torch.Tensor, *, skip_special_tokens: bool) -> str:
        del skip_special_tokens
        return self._tokenizer.decode(ids, skip_special_tokens=False)
