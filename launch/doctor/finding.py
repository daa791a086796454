"""A finding of the doctor, and how findings are shown."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

OK, NOTE, WRONG = "ok", "note", "WRONG"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing looked at. WRONG keeps the CPU study, or the job that asked, from running."""

    name: str
    state: str  # OK, NOTE or WRONG
    found: str
    do: str = ""  # the command or change that mends it


def shown(findings: Sequence[Finding], *, is_brief: bool) -> list[str]:
    """One line a finding, and one below it that says what to do. Brief: what is wrong alone."""
    listed = [one for one in findings if not is_brief or one.state == WRONG]
    width = max((len(one.name) for one in listed), default=0)
    lines: list[str] = []
    for one in listed:
        lines.append(f"{one.state:<5} {one.name:<{width}}  {one.found}")
        if one.do:
            lines.append(f"{'':<5} {'':<{width}}  -> {one.do}")
    return lines


def to_json(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Findings for a program."""
    return [asdict(one) for one in findings]


def is_fit(findings: Sequence[Finding]) -> bool:
    """Whether nothing is wrong."""
    return all(one.state != WRONG for one in findings)
