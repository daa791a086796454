"""Few-shot prompts: as many worked examples as the trained context holds."""

from dataclasses import dataclass

from frontload.data_tools.text.document import Conversation
from frontload.data_tools.text.render import generation_prompt, response
from frontload.data_tools.text.tokenizer import TextTokenizer
from frontload.eval.suites import FewShotItem


@dataclass(frozen=True, kw_only=True)
class FewShotPrompt:
    """A prompt as text (lm-eval hands texts to a model) and the worked examples in it."""

    text: str
    num_tokens: int
    num_shots: int


def few_shot_prompt(
    tokenizer: TextTokenizer, item: FewShotItem, *, num_shots: int, max_tokens: int
) -> FewShotPrompt:
    """The item's first `num_shots` examples, or as many of them as fit, then the question.

    The number that fitted is stored with the result. A question that does not fit alone is asked
    all the same: our models have no position embedding, so a longer text is only unlike training.

    The text encodes to the ids of `encode_few_shot_prompt`: markers cut a text into pieces that are
    encoded apart, and whole documents end in one.
    """
    shots: tuple[Conversation, ...] = item.exemplars[:num_shots]
    while True:
        documents = [generation_prompt(s.question) + response(s.trace, s.answer) for s in shots]
        text = "".join(documents) + generation_prompt(item.question)
        num_tokens = len(tokenizer.encode(text))
        if num_tokens <= max_tokens or not shots:
            return FewShotPrompt(text=text, num_tokens=num_tokens, num_shots=len(shots))
        shots = shots[:-1]
