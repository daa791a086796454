"""Where the final answer stands in a response, and whether the response has the asked-for format.

Everything here is one pass over the text: its cost grows with the length, whatever the text holds.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"

_BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", re.DOTALL)
_TAGS = re.compile(re.escape(THINK_OPEN) + "|" + re.escape(THINK_CLOSE))


class AnswerLayout(StrEnum):
    """What a response must look like to be formatted."""

    MARKS = "marks"
    r"""`steps <|answer|> answer <|end|>`: the chat template of this project."""
    THINK_BOXED = "think_boxed"
    r"""`<think>steps</think> ... \boxed{answer} ...`: Nemotron-CrossThink's R_format."""
    PROMPTED_THINK_BOXED = "prompted_think_boxed"
    r"""The same where the prompt already ends with `<think>`."""
    BOXED = "boxed"
    r"""`... \boxed{answer} ...`: no thinking asked for; where there is some, it holds no answer."""


class FormatProblem(StrEnum):
    """Why a response is not formatted."""

    NO_ANSWER_MARK = "no answer mark"
    NO_END = "no end"
    NO_ANSWER = "no answer"
    NO_THINK = "no think"
    UNCLOSED_THINK = "unclosed think"
    EXTRA_THINK = "extra think"
    TEXT_BEFORE_THINK = "text before think"


@dataclass(frozen=True, kw_only=True)
class Found:
    """The final answer of a response, "" when it has none, and what is wrong with its format."""

    answer: str
    problem: FormatProblem | None


def find_boxed(response: str, layout: AnswerLayout) -> Found:
    r"""The content of the last balanced `\boxed{}` after the thinking.

    A response that is still thinking when it ends has no answer; one without any think tag has the
    answer of its last box, and a format problem where thinking is asked for.
    """
    problem, rest = _after_thinking(response, prompted=layout == AnswerLayout.PROMPTED_THINK_BOXED)
    if problem == FormatProblem.UNCLOSED_THINK:
        return Found(answer="", problem=problem)
    if layout == AnswerLayout.BOXED:
        problem = None  # with or without thinking
    answer = last_boxed(rest).strip()
    if not answer:
        return Found(answer="", problem=problem or FormatProblem.NO_ANSWER)
    return Found(answer=answer, problem=problem)


def _after_thinking(response: str, *, prompted: bool) -> tuple[FormatProblem | None, str]:
    """What is wrong with the think tags, and the text after the last of them."""
    tags = list(_TAGS.finditer(response))
    if not tags:
        # where the prompt opened the block, a response without the closing tag is still thinking
        return (FormatProblem.UNCLOSED_THINK if prompted else FormatProblem.NO_THINK), response
    if tags[-1][0] == THINK_OPEN:
        return FormatProblem.UNCLOSED_THINK, ""
    rest = response[tags[-1].end() :]
    names = [tag[0] for tag in tags]
    if names == [THINK_CLOSE]:
        return (None if prompted else FormatProblem.NO_THINK), rest
    if names != [THINK_OPEN, THINK_CLOSE]:
        return FormatProblem.EXTRA_THINK, rest
    if response[: tags[0].start()].strip():
        return FormatProblem.TEXT_BEFORE_THINK, rest
    return None, rest


def last_boxed(text: str) -> str:
    r"""The content of the balanced `\boxed{...}` that starts last, "" when there is none.

    Escaped braces (`\{`) do not count; a box that never closes is no box.
    """
    opened: list[tuple[int, bool]] = []  # (where the content starts, is it a box's)
    last_start, last_end = -1, -1
    for token in _BRACES.finditer(text):
        if token[0] == "{" or (token[0][0] == "\\" and token[0][-1] == "{" and len(token[0]) > 2):
            opened.append((token.end(), len(token[0]) > 1))
        elif token[0] == "}" and opened:
            start, is_box = opened.pop()
            if is_box and start > last_start:
                last_start, last_end = start, token.start()
    return text[last_start:last_end] if last_start >= 0 else ""
