"""Each hypothesis judged again by part: inside and outside SHQ's families, and in held-out loss.

SHQ has a few families only. What the paper says of LDQ and SHQ hangs on how much of a suite lies
inside them, so the two halves have a column each. The loss on held-out worked answers is the same
documents for every cell, before SFT and after.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from frontload.eval.statistics.cells import Cells
from frontload.eval.tables.claims import judge
from frontload.eval.tables.verdicts import CONTRADICTED, SUPPORTED, Shown, Verdict

AVERAGE = re.compile(r"c\((?P<cell>'[^']+'|\"[^\"]+\"),'(?P<suite>pt|sft|rl|flat8)\.avg'\)")
CONSTANT = re.compile(r"(?<![\w.'@>*\"])\d+(\.\d+)?(?![\w'\"])")  # a threshold in points
INSIDE, OUTSIDE, LOSS = "inside", "outside", "held-out loss"
VIEWS = (INSIDE, OUTSIDE, LOSS, "loss inside", "loss outside")
VIEWS_TEXT = (
    "The same comparisons on parts of the questions: inside SHQ's families and outside them, where "
    "every question weighs the same; and in the loss on held-out worked answers, in nats per "
    "token, turned so that a positive number is on the claim's side."
)


@dataclass(frozen=True, kw_only=True)
class View:
    """One hypothesis in one view."""

    view: str
    effect: Shown
    verdict: str


@dataclass(frozen=True, kw_only=True)
class ViewedHypothesis:
    """One hypothesis as it is judged, and in each view that the study has the cells for."""

    id: str
    name: str
    verdict: str
    views: tuple[View, ...]

    @property
    def disagrees(self) -> bool:
        """Whether it is supported in one view, or as judged, and contradicted in another."""
        return {SUPPORTED, CONTRADICTED} <= {self.verdict, *(one.verdict for one in self.views)}


def judge_views(
    cells: Cells,
    hypotheses: Sequence[Mapping[str, Any]],
    *,
    judged: Sequence[Verdict],
    min_effect: float,
) -> list[ViewedHypothesis]:
    """Every hypothesis whose comparisons are of Averages alone; `judged`: their verdicts."""
    asked = [
        (row, whole)
        for row, whole in zip(hypotheses, judged, strict=True)
        if whole.effect is not None and is_of_averages(row)
    ]
    by_view = {
        view: judge(cells, [restated(row, view) for row, _ in asked], min_effect=min_effect)
        for view in VIEWS
    }
    return [
        ViewedHypothesis(
            id=whole.id,
            name=whole.name,
            verdict=whole.verdict,
            views=tuple(
                View(view=view, effect=found.effect, verdict=found.verdict)
                for view in VIEWS
                for found in [by_view[view][place]]
                if found.effect is not None
            ),
        )
        for place, (_, whole) in enumerate(asked)
    ]


def is_of_averages(row: Mapping[str, Any]) -> bool:
    """Whether a hypothesis compares averages with each other, by no number of points."""
    rest = [AVERAGE.sub("", row[name]) for name in ("predicate", "effect")]
    return not any("c(" in text or CONSTANT.search(text) for text in rest)


def restated(row: Mapping[str, Any], view: str) -> dict[str, Any]:
    """A hypothesis with each Average replaced by the metric of a view; a loss has no min_effect."""

    def replaced(found: re.Match[str]) -> str:
        cell, suite = found["cell"], "pt" if found["suite"] == "pt" else "sft"
        if view in (INSIDE, OUTSIDE):
            return f"c({cell},'{suite}.{view}')"
        part = view.removeprefix(LOSS).removeprefix("loss ")
        return f"(-1*c({cell},'heldout.loss{'.' * bool(part)}{part}'))"

    stated = {name: AVERAGE.sub(replaced, row[name]) for name in ("predicate", "effect")}
    if view not in (INSIDE, OUTSIDE):
        stated["predicate"] = re.sub(r"\beps\b", "0", stated["predicate"])
    return {**row, **stated, "paper_result": None, "paper_effect": None, "caveat": ""}


SPOKEN = {
    INSIDE: "accuracy inside SHQ's families",
    OUTSIDE: "accuracy outside SHQ's families",
}


def disagreement(found: Sequence[Mapping[str, Any]]) -> str:
    """A sentence that names each hypothesis whose views contradict each other; "" without.

    `found` is in the form of verdicts.json.
    """
    said = []
    for row in found:
        by_verdict = {
            verdict: [
                SPOKEN[one["view"]] if one["view"] in SPOKEN else one["view"]
                for one in row["views"]
                if one["verdict"] == verdict
            ]
            for verdict in (SUPPORTED, CONTRADICTED)
        }
        if row["verdict"] in by_verdict:
            by_verdict[row["verdict"]].insert(0, "the Average")
        if all(by_verdict.values()):
            sides = [f"{verdict} {_by(views)}" for verdict, views in by_verdict.items()]
            said.append(f"{row['id'].partition('_')[0]} is {' and '.join(sides)}")
    return f"The measures disagree: {'; '.join(said)}." if said else ""


def _by(views: Sequence[str]) -> str:
    return f"by {' and '.join([', '.join(views[:-1]), views[-1]] if len(views) > 1 else views)}"
