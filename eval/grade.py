"""From the text of a generation to right or wrong. Pure: no model, no file."""

import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

ANSWER_MARK = "<|answer|>"
END_MARK = "<|end|>"

_NUMBER = re.compile(r"[-+]?(\d[\d,]*)?(\.\d+)?")
_TRAILING = ".,;:!"


@dataclass(frozen=True, kw_only=True)
class FinalAnswer:
    """What a generation answered. `format_failure` is "" when both marks are where they belong."""

    text: str
    format_failure: str  # "", "no answer mark" or "no end"


def final_answer(generation: str) -> FinalAnswer:
    """The text after the last answer mark, up to the end mark.

    A generation that was cut off before the end mark, or has no answer mark before it, is a format
    failure: it has no answer and counts as wrong.
    """
    body, end, _ = generation.partition(END_MARK)
    _, mark, answer = body.rpartition(ANSWER_MARK)
    if not mark:
        return FinalAnswer(text="", format_failure="no answer mark")
    if not end:
        return FinalAnswer(text="", format_failure="no end")
    return FinalAnswer(text=" ".join(answer.split()), format_failure="")


def is_correct(question: str, answer: str, *, gold: str, family: str) -> bool:
    """Whether a final answer is right.

    A synthetic family recomputes the answer from the question; for other items (a user's own data,
    whose family is not one of ours) the normalised answer must equal the normalised gold answer.
    """
    from frontload.data_tools.synthetic.families import FAMILIES, verify

    if family in FAMILIES:
        return verify(family, question, answer)
    return normalised(answer) == normalised(gold)


def normalised(answer: str) -> str:
    """A form in which equal answers are equal text.

    Spaces and case do not count; a number may carry thousands commas, a sign, a dollar or percent
    sign, trailing zeros and a final full stop: `$1,200.50.` is `1200.5`.
    """
    text = "".join(answer.split()).lower().rstrip(_TRAILING)
    bare = text.replace("$", "").removesuffix("%").rstrip(_TRAILING)
    if not bare or not _NUMBER.fullmatch(bare):
        return text
    try:
        value = Decimal(bare.replace(",", ""))
    except InvalidOperation:
        return text
    percent = "%" if text.endswith("%") else ""
    return f"{value.normalize() + 0:f}{percent}"
