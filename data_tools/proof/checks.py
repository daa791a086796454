"""One statement about an artifact, what was counted for it, and the place of the first fault."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Check:
    """One proven or refuted statement; `where` names file and byte, row or field of a fault."""

    claim: str
    found: str
    holds: bool
    where: str = ""

    def to_text(self) -> str:
        """One line for people."""
        place = f"  [{self.where}]" if self.where and not self.holds else ""
        return f"{'ok   ' if self.holds else 'WRONG'} {self.claim}: {self.found}{place}"


def check(claim: str, found: object, holds: bool | np.bool_, *, where: object = "") -> Check:
    """A statement whose truth was found out."""
    return Check(claim=claim, found=str(found), holds=bool(holds), where=str(where))


def equal(claim: str, found: object, stated: object, *, where: object = "") -> Check:
    """The statement that a count is the one that the artifact states."""
    shown = str(found) if found == stated else f"{found}; the artifact states {stated}"
    return Check(claim=claim, found=shown, holds=found == stated, where=str(where))


def wrong(checks: list[Check]) -> list[Check]:
    """The statements that do not hold."""
    return [one for one in checks if not one.holds]


def array_place(file: Path, array: np.ndarray, differs: np.ndarray) -> str:
    """Place of the first true row of `differs` in a .npy file: its row and its byte."""
    if not differs.any():
        return str(file)
    row = int(np.argmax(differs))
    data_starts = file.stat().st_size - array.nbytes
    return f"{file} byte {data_starts + row * array.strides[0]}, row {row}"
