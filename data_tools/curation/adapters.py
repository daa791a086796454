"""Rows of the public data sets as examples. One function a schema: a row in, an example or a drop.

The schemas were read from public loaders and data cards. Where two spellings are about (re-uploads
of OpenThoughts3 have `messages`), both are read; what a loader does not show is not guessed.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from frontload.data_tools.preprocess.vocabulary import Spellings
from frontload.data_tools.prompts.crossthink import GENERAL, MATH, Kept, read_row
from frontload.data_tools.text.example import (
    ASSISTANT,
    SYSTEM,
    THINK,
    THINK_END,
    UNCLOSED_THINK,
    UNSPLIT,
    USER,
    Drop,
    Example,
    Turn,
    has_unclosed_think,
)
from frontload.data_tools.text.messages import Misfit, message_text, read_dialogue
from frontload.data_tools.text.turns import is_dialogue, split_turns
from frontload.recipes.errors import RecipeError
from frontload.recipes.runs.curation import Policy, Source

ROLES = {
    "human": USER,
    "user": USER,
    "gpt": ASSISTANT,
    "assistant": ASSISTANT,
    "system": SYSTEM,
}
BASE = "base"  # domain and family of base text that states none
WORKED = "worked_answer"
ROWS = "rows"  # the adapter that reads what this project wrote

Converted = Example | Drop


def special_token_drop(example: Example, special: Spellings) -> Drop | None:
    """Content never spells a special token of the tokenizer: it would pose as structure."""
    if found := special.first_in(example.document):
        return Drop(reason="spells a special token", detail=found)
    return None


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What a source's recipe says about its rows."""

    domain: str
    text_field: str
    unsplit: str
    truncated: str
    question_field: str = "question"
    answer_field: str = "answer"
    separator: str = "####"  # GSM8K's README: steps, then #### and the final answer

    @classmethod
    def of(cls, source: Source, policy: Policy) -> "Rules":
        """The source's own words, and the recipe's policy where it has none."""
        return cls(
            domain=source.domain,
            text_field=source.text_field,
            unsplit=source.unsplit or policy.unsplit,
            truncated=source.truncated or policy.truncated,
            question_field=source.question_field,
            answer_field=source.answer_field,
            separator=source.separator,
        )


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """One schema: the fields that a row must have, those that are read, and the conversion."""

    needs: tuple[tuple[str, ...], ...]  # each: one of these names
    also: tuple[str, ...]  # read where they are there
    has_domain: bool  # a row says its own domain; else the recipe has to
    convert: Callable[[dict[str, Any], Rules], Converted]

    named: tuple[str, ...] = ()  # the rules that name fields, where a recipe may choose them
    reads_all: bool = False  # a row is kept as it is, so no column is left out

    @property
    def columns(self) -> tuple[str, ...]:
        """Every field that is read."""
        return (*(name for names in self.needs for name in names), *self.also)


def _nemotron_sft(row: dict[str, Any], rules: Rules) -> Converted:
    """Nemotron-Pretraining-SFT-v1: one text, split by its markers only."""
    text = row.get("text")
    if not isinstance(text, str):
        return _no_text(row, "text")
    if not text.strip():
        return Drop(reason="empty text")
    split = split_turns(text)
    if split is not None:
        marker, turns = split
        return _checked_example(row, turns, domain=rules.domain, family=marker)
    if rules.unsplit == "drop":
        return Drop(reason="no marker shows where the answer begins")
    return Example(
        text=text, name=_name(row), domain=rules.domain, family=UNSPLIT, flags=(UNSPLIT,)
    )


def _openthoughts3(row: dict[str, Any], rules: Rules) -> Converted:
    """OpenThoughts3-1.2M: `conversations` of {from, value}, or `messages` of {role, content}."""
    listed = row.get("conversations")
    names = ("from", "value")
    if listed is None:
        listed, names = row.get("messages"), ("role", "content")
    if not isinstance(listed, list):
        return Drop(reason="no list of messages")
    turns: list[Turn] = []
    for message in listed:
        role, text = (message.get(name) if isinstance(message, dict) else None for name in names)
        if not isinstance(role, str) or role not in ROLES or not isinstance(text, str):
            return Drop(reason="a message without a known role and a text", detail=repr(role)[:80])
        if text.strip() or ROLES[role] != SYSTEM:
            turns.append(Turn(role=ROLES[role], text=text))
    domain = rules.domain or row.get("domain")
    if not isinstance(domain, str) or not domain:
        return Drop(reason="no domain")
    origin = row.get("source")
    family = origin if isinstance(origin, str) and origin else "openthoughts3"
    example = _checked_example(row, tuple(turns), domain=domain, family=family)
    if isinstance(example, Drop) or not has_unclosed_think(example):
        return example
    if rules.truncated == "drop":
        return Drop(reason="<think> is never closed")
    return Example(
        turns=example.turns,
        name=example.name,
        domain=domain,
        family=family,
        flags=(UNCLOSED_THINK,),
    )


def _plain_text(row: dict[str, Any], rules: Rules, *, field: str = "") -> Converted:
    """Rows with one text field: Nemotron-CC-v2, Nemotron-CC-Math-v1 and anybody's own."""
    field = field or rules.text_field
    text = row.get(field)
    if not isinstance(text, str):
        return _no_text(row, field)
    if not text.strip():
        return Drop(reason="empty text")
    return Example(text=text, name=_name(row), domain=rules.domain, family="text")


def _nemotron_cc(row: dict[str, Any], rules: Rules) -> Converted:
    return _plain_text(row, rules, field="text")


def _crossthink(row: dict[str, Any], rules: Rules) -> Converted:
    """Nemotron-CrossThink: the prompt and its short gold answer, by the rules of `crossthink`."""
    domain = MATH if rules.domain == "math" else GENERAL
    try:
        outcome = read_row(row, domain=domain, where="row")
    except RecipeError as error:
        return Drop(reason="not a row of Nemotron-CrossThink", detail=str(error)[:200])
    if not isinstance(outcome, Kept):
        return Drop(reason=outcome.reason)
    prompt = outcome.prompt
    turns = (
        *(Turn(role=role, text=text) for role, text in prompt.messages),
        Turn(role=ASSISTANT, text=prompt.ground_truth),
    )
    return _checked_example(row, turns, domain=rules.domain, family=prompt.data_source)


def _gsm8k(row: dict[str, Any], rules: Rules) -> Converted:
    return _worked_answer(row, rules, family="gsm8k")


def _worked_answer(row: dict[str, Any], rules: Rules, *, family: str = WORKED) -> Converted:
    """A question and its worked answer, which a separator parts: the steps become the trace."""
    question, worked = row.get(rules.question_field), row.get(rules.answer_field)
    if not isinstance(question, str) or not isinstance(worked, str):
        return Drop(reason="question and answer are not both text")
    steps, final = "", worked
    if rules.separator:
        steps, separator, final = worked.rpartition(rules.separator)
        if not separator or not final.strip():
            return Drop(reason=f"no final answer after {rules.separator}")
    trace = re.sub(r"[ \t]+\n", "\n", steps).strip()
    said = _thought(ASSISTANT, final.strip(), trace)
    turns = (Turn(role=USER, text=question.strip()), Turn(role=ASSISTANT, text=said))
    return _checked_example(row, turns, domain=rules.domain, family=family)


def _rows(row: dict[str, Any], rules: Rules) -> Converted:
    """Rows of this project, of a corpus or an earlier curation: they stay as they are."""
    domain = str(row.get("domain") or rules.domain or BASE)
    family = str(row.get("family") or BASE)
    if row.get("messages") is not None:
        dialogue = read_dialogue(row)
        if isinstance(dialogue, Misfit):
            return Drop(reason=dialogue.reason, detail=dialogue.detail)
        if dialogue.tools or dialogue.untrained:
            return Drop(reason="tools, or turns without loss, which a curated row has no field for")
        turns = tuple(
            Turn(
                role=one["role"],
                text=_thought(one["role"], message_text(one), one.get("reasoning_content", "")),
            )
            for one in dialogue.messages
        )
        found = _checked_example(row, turns, domain=domain, family=family)
    elif row.get("question") is not None:
        texts = [row["question"], row.get("trace", ""), row.get("answer")]
        if not all(isinstance(text, str) for text in texts):
            return Drop(reason="question, trace and answer are not all text")
        question, trace, answer = texts
        if not answer.strip():
            return Drop(reason="empty answer")
        said = _thought(ASSISTANT, answer, trace)
        turns = (Turn(role=USER, text=question), Turn(role=ASSISTANT, text=said))
        found = _checked_example(row, turns, domain=domain, family=family)
    else:
        found = _plain_text(row, rules, field="text")
    if isinstance(found, Drop):
        return found
    return replace(found, domain=domain, family=family, as_read=row)


def _thought(role: str, content: str, reasoning_content: str = "") -> str:
    """What an assistant says, with its trace in front as a <think>."""
    if not reasoning_content.strip():
        return content
    return f"{THINK}{reasoning_content}{THINK_END}\n\n{content}"


def _checked_example(
    row: dict[str, Any], turns: tuple[Turn, ...], *, domain: str, family: str
) -> Converted:
    """The conversation, where it is one: user and assistant in turns, each with something said."""
    if not is_dialogue(turns):
        roles = " ".join(turn.role for turn in turns)
        return Drop(reason="user and assistant do not take turns", detail=roles[:80])
    for turn in turns:
        if not turn.text.strip():
            return Drop(reason="empty question" if turn.role == USER else "empty answer")
    return Example(turns=turns, name=_name(row), domain=domain, family=family)


def _name(row: dict[str, Any]) -> str:
    """The row's own id: `uuid` or `id`, where it is text or a number."""
    for field in ("uuid", "id"):
        value = row.get(field)
        if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
            return str(value)
    return ""


def _no_text(row: dict[str, Any], field: str) -> Drop:
    if row.get(field) is None:
        return Drop(reason=f"field {field} is null" if field in row else f"no field {field}")
    return Drop(reason=f"field {field} is no text")


_IDS = ("uuid", "id")

ADAPTERS: dict[str, Adapter] = {
    "nemotron_pretraining_sft": Adapter(
        needs=(("text",),), also=_IDS, has_domain=False, convert=_nemotron_sft
    ),
    "openthoughts3": Adapter(
        needs=(("conversations", "messages"),),
        also=("domain", "source", *_IDS),
        has_domain=True,
        convert=_openthoughts3,
    ),
    "nemotron_cc_v2": Adapter(
        needs=(("text",),), also=_IDS, has_domain=False, convert=_nemotron_cc
    ),
    "nemotron_cc_math": Adapter(
        needs=(("text",),), also=_IDS, has_domain=False, convert=_nemotron_cc
    ),
    "crossthink": Adapter(
        needs=(("prompt",), ("reward_model",), ("meta_data",)),
        also=("data_source",),
        has_domain=False,
        convert=_crossthink,
    ),
    "gsm8k": Adapter(
        needs=(("question",), ("answer",)), also=_IDS, has_domain=False, convert=_gsm8k
    ),
    ROWS: Adapter(
        needs=(("text", "question", "messages"),),
        also=(),
        has_domain=True,
        convert=_rows,
        reads_all=True,
    ),
    "plain_text": Adapter(
        needs=(), also=_IDS, has_domain=False, convert=_plain_text, named=("text_field",)
    ),
    WORKED: Adapter(
        needs=(),
        also=_IDS,
        has_domain=False,
        convert=_worked_answer,
        named=("question_field", "answer_field"),
    ),
}
