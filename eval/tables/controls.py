"""Controls of the paper's hypotheses: what each found, and what that means for a verdict."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from frontload.eval.statistics.cells import Cells
from frontload.eval.tables.claims import judge
from frontload.eval.tables.paper import paper_controls
from frontload.eval.tables.verdicts import ONE_SEED, Verdict


@dataclass(frozen=True, kw_only=True)
class Control:
    """One control with its verdict and how that reads."""

    verdict: Verdict
    bears_on: tuple[str, ...]  # H04, H07
    reading: str  # "" with one seed, of which there is no verdict

    def to_json(self) -> dict[str, Any]:
        """The form of a control in verdicts.json."""
        return asdict(self.verdict) | {"bears_on": list(self.bears_on), "reading": self.reading}


def judge_controls(cells: Cells, *, min_effect: float) -> list[Control]:
    """The controls that a study has the cells for."""
    rows = paper_controls()
    verdicts = judge(cells, rows, min_effect=min_effect)
    return [
        Control(
            verdict=verdict,
            bears_on=tuple(row["bears_on"]),
            reading="" if verdict.verdict == ONE_SEED else row["reads"][verdict.verdict],
        )
        for row, verdict in zip(rows, verdicts, strict=True)
        if verdict.effect is not None
    ]


def with_controls(verdicts: Sequence[Verdict], controls: Sequence[Control]) -> list[Verdict]:
    """Hypotheses that say what the controls that bear on them found."""
    return [_with_controls(verdict, controls) for verdict in verdicts]


def _with_controls(verdict: Verdict, controls: Sequence[Control]) -> Verdict:
    number = verdict.id.partition("_")[0]
    said = [
        f"control {control.verdict.id} {control.verdict.verdict}: {control.reading}"
        for control in controls
        if number in control.bears_on and control.reading
    ]
    if not said or verdict.effect is None:
        return verdict
    return replace(verdict, detail="; ".join([verdict.detail, *said]))
