"""The rules of AdamW's numbers, the same for a study, a training recipe and a GRPO recipe."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

DECAYS = ("adam_beta1", "adam_beta2")
POSITIVE = {"learning_rate": "1.0e-3", "adam_epsilon": "1.0e-8", "clip_grad": "1.0"}
"""Field -> the value that a message proposes."""


@dataclass(frozen=True, kw_only=True)
class WrongValue:
    """One wrong value of a recipe: its path, and the last three parts of the message."""

    path: str
    found: str
    rule: str
    do: str


def adamw_problems(
    optimizer: Any, under: str, *, may_be_zero: tuple[str, ...] = ()
) -> Iterator[WrongValue]:
    """Every wrong number of AdamW among the fields of `optimizer`; `under` precedes their names.

    A caller states in `may_be_zero` the fields of POSITIVE for which 0 has a meaning of its own.
    """
    for name in DECAYS:
        value = getattr(optimizer, name)
        if not 0.0 <= value < 1.0:
            yield WrongValue(
                path=f"{under}{name}",
                found=f"is {value:g}",
                rule="a decay of Adam lies in [0, 1)",
                do="write e.g. 0.9",
            )
    stated = {field.name for field in fields(optimizer)}
    for name, usual in POSITIVE.items():
        if name not in stated:  # veRL's AdamW takes torch's epsilon
            continue
        value = getattr(optimizer, name)
        if not (value > 0.0 or (value == 0.0 and name in may_be_zero)):
            yield WrongValue(
                path=f"{under}{name}",
                found=f"is {value:g}",
                rule="it is 0 or more" if name in may_be_zero else "it is above 0",
                do=f"write e.g. {usual}",
            )
    if not optimizer.weight_decay >= 0.0:
        yield WrongValue(
            path=f"{under}weight_decay",
            found=f"is {optimizer.weight_decay:g}",
            rule="it is 0 or more",
            do="write e.g. 0.1",
        )
