"""How long prompts are in a model's tokens, with its chat template around them.

veRL cuts the head off a longer prompt and says so in a log only: it is never given one.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import batched
from pathlib import Path
from typing import Any

from frontload.data_tools.text.chat import ANY_DAY, ChatTemplate, load_template
from frontload.data_tools.text.tokenizer import TextTokenizer
from frontload.recipes.errors import RecipeError

BATCH = 1024  # prompts that are encoded at once; ours: some MB of ids
Messages = Sequence[tuple[str, str]]
"""(role, text) of each message of a prompt."""


@dataclass(frozen=True, kw_only=True)
class PromptLimit:
    """The most tokens of a prompt, and what counts them."""

    tokenizer: TextTokenizer
    template: ChatTemplate
    tokens: int

    def misfits(self, prompts: Iterable[Messages]) -> Iterator[str]:
        """Why each prompt does not fit; "" where it does."""
        for batch in batched(prompts, BATCH):
            texts = [self.template.prompt(messages) for messages in batch]
            encoded = self.tokenizer.encode_batch([text or "" for text in texts])
            for text, ids in zip(texts, encoded, strict=True):
                if text is None:
                    yield "the chat template refuses the prompt, or leaves out a message"
                else:
                    yield f"over {self.tokens} tokens" if len(ids) > self.tokens else ""

    def describe(self) -> dict[str, Any]:
        """What prompts were measured with, for a manifest."""
        return {
            "prompt_tokens": self.tokens,
            "tokenizer_sha256": self.tokenizer.sha256(),
            "chat_template_sha256": self.template.sha256,
        }


def load_limit(tokenizer: Path, tokens: int) -> PromptLimit:
    """The limit for a tokenizer.json, or a folder with one and, unless it is ours, its template.

    Raises: RecipeError for no tokenizer or template, or a limit below 1.
    """
    if tokens < 1:
        raise RecipeError(
            f"--prompt-tokens {tokens}",
            found="no room for a prompt",
            rule="it is 1 or more, the prompt_tokens of the RL recipe",
            do="write that number",
        )
    library = TextTokenizer.load(tokenizer)
    return PromptLimit(
        tokenizer=library, template=load_template(None, library, day=ANY_DAY), tokens=tokens
    )
