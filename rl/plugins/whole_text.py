"""veRL's reward manager, handing over a response with its special tokens written out.

veRL's own (experimental/reward_loop/reward_manager/naive.py:55) leaves them out, and with them the
marks of our template, and `<think>` where a tokenizer has it as a special token. The file that veRL
writes of a validation has neither such tokens nor the prompt's name: both are noted here.
"""

from typing import Any

import torch
from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager

from frontload.rl.plugins.validation import described


class WholeTextRewardManager(NaiveRewardManager):
    """Found by `reward.reward_manager`, source importlib; everything but the text is veRL's."""

    def __init__(self, config: Any, tokenizer: Any, compute_score: Any, **options: Any) -> None:
        self._whole: Any = _WholeText(tokenizer)
        super().__init__(config, self._whole, compute_score, **options)

    async def run_single(self, data: Any) -> dict[str, Any]:
        """veRL's reward, and what is noted of an answer of a validation."""
        found = await super().run_single(data)  # pyright: ignore[reportAbstractUsage]
        last = data[-1:][0]  # of several sequences veRL grades the last one
        known = last.non_tensor_batch.get("extra_info", {})
        if known.get("split") != "train":
            ids = last.batch["responses"]
            length = int(last.batch["attention_mask"][-len(ids) :].sum())
            text = self._whole.decode(ids[:length], skip_special_tokens=False)
            family = str(last.non_tensor_batch["data_source"])
            found["reward_extra_info"] |= described(family, known, text)
        return found


class _WholeText:
    """A tokenizer that never leaves out a token of what it is asked to decode."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def decode(self, ids: torch.Tensor, *, skip_special_tokens: bool) -> str:
        del skip_special_tokens
        return self._tokenizer.decode(ids, skip_special_tokens=False)
