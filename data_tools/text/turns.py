"""Turns of a conversation that is one text: by markers that can be relied on, or not at all.

Nemotron-Pretraining-SFT-v1 has one field, `text`. A text is split where it begins with a marker, or
has a blank line before a closed <think>; an `Answer:` in the middle of a text proves nothing.
"""

import re

from frontload.data_tools.text.example import ASSISTANT, SYSTEM, USER, Turn

# The template of NVIDIA's older instruct models. A text without one at its beginning has none.
_MARKED = re.compile(r"<extra_id_\d+>(System|User|Assistant)(?:\n|$)")
_THINK = re.compile(r"\A(?!\s*<think>)(.+?)\n\n(<think>.*?</think>.*)\Z", re.DOTALL)
_QUESTION = re.compile(
    r"\A\s*(?:Question|Problem)\s*:\s*(.+?)\n\s*(?:Answer|Solution)\s*:\s*(.+)\Z", re.DOTALL
)
_INPUT = re.compile(r"\A\s*input\s*:\s*(.+?)\n\s*output\s*:\s*(.+)\Z", re.DOTALL | re.IGNORECASE)

MARKERS = (("think", _THINK), ("question_answer", _QUESTION), ("input_output", _INPUT))
ROLES = {"System": SYSTEM, "User": USER, "Assistant": ASSISTANT}


def split_turns(text: str) -> tuple[str, tuple[Turn, ...]] | None:
    """(marker, turns) of a text, or None when no marker shows where the answer begins."""
    if text.lstrip().startswith("<extra_id_"):
        turns = _marked_turns(text.lstrip())
        return ("extra_id", turns) if is_dialogue(turns) else None
    for name, pattern in MARKERS:
        if found := pattern.match(text):
            question, answer = (part.strip() for part in found.groups())
            if question and answer:
                turns = (Turn(role=USER, text=question), Turn(role=ASSISTANT, text=answer))
                return name, turns
    return None


def is_dialogue(turns: tuple[Turn, ...]) -> bool:
    """User and assistant in turns, ended by the assistant, with at most one system turn before."""
    spoken = turns[1:] if turns and turns[0].role == SYSTEM else turns
    wanted = (USER, ASSISTANT) * (len(spoken) // 2)
    return bool(spoken) and tuple(turn.role for turn in spoken) == wanted


def _marked_turns(text: str) -> tuple[Turn, ...]:
    """The turns between the markers; an empty system turn says nothing and is left out."""
    parts = _MARKED.split(text)
    turns = [
        Turn(role=ROLES[role], text=content.strip())
        for role, content in zip(parts[1::2], parts[2::2], strict=True)
    ]
    return tuple(turn for turn in turns if turn.text or turn.role != SYSTEM)
