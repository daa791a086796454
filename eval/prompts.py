"""Prompts that fit the model's context, and what was left out to make them fit."""

from collections.abc import Sequence
from dataclasses import dataclass

from frontload.data_tools.document import Conversation
from frontload.data_tools.render import encode_prompts, generation_prompt, response
from frontload.data_tools.tokenizer import TextTokenizer
from frontload.eval.suites import FewShotItem
from frontload.recipes.errors import RecipeError


@dataclass(frozen=True, kw_only=True)
class Room:
    """Where a prompt has to fit: the context less the answer."""

    max_sequence_tokens: int
    max_new_tokens: int

    @property
    def prompt_tokens(self) -> int:
        return self.max_sequence_tokens - self.max_new_tokens


@dataclass(frozen=True, kw_only=True)
class FewShotPrompt:
    """A prompt as text (lm-eval hands texts to a model) and the worked examples in it."""

    text: str
    num_shots: int


def question_prompts(
    tokenizer: TextTokenizer, questions: Sequence[str], *, room: Room
) -> list[list[int]]:
    """Token ids of each question's generation prompt.

    Raises: RecipeError when a question leaves no room for the answer.
    """
    prompts = encode_prompts(tokenizer, questions)
    for question, prompt in zip(questions, prompts, strict=True):
        _refuse_if_long(len(prompt), question=question, room=room)
    return prompts


def few_shot_prompt(
    tokenizer: TextTokenizer, item: FewShotItem, *, num_shots: int, room: Room
) -> FewShotPrompt:
    """The item's first `num_shots` examples, or as many of them as fit, then the question.

    The text encodes to the ids of `encode_few_shot_prompt`: markers cut a text into pieces that are
    encoded apart, and whole documents end in one.
    """
    shots: tuple[Conversation, ...] = item.exemplars[:num_shots]
    while True:
        documents = [generation_prompt(s.question) + response(s.trace, s.answer) for s in shots]
        text = "".join(documents) + generation_prompt(item.question)
        num_tokens = len(tokenizer.encode(text))
        if num_tokens <= room.prompt_tokens:
            return FewShotPrompt(text=text, num_shots=len(shots))
        if not shots:
            _refuse_if_long(num_tokens, question=item.question, room=room)
        shots = shots[:-1]


def _refuse_if_long(num_tokens: int, *, question: str, room: Room) -> None:
    if num_tokens > room.prompt_tokens:
        raise RecipeError(
            "evaluate.max_new_tokens",
            found=f"{room.max_new_tokens}, and the prompt of {question[:60]!r} has {num_tokens}",
            rule=f"prompt and answer fit in max_sequence_tokens = {room.max_sequence_tokens}",
            do="lower evaluate.max_new_tokens, or raise model.max_sequence_tokens",
        )
