"""What a study of other data than the paper's asks of its cells, in the form of claims.json."""

from collections.abc import Iterable, Mapping
from typing import Any

from frontload.eval.statistics.cells import Cells
from frontload.eval.tables.build import label_of, study_mixes

PAPER_MIXES = ("SHQ", "LDQ", "LMQ")
HELDOUT, ACCURACY = "heldout.loss", "sft.avg"
LOWER, HIGHER = "has a lower loss", "has a higher loss"
MORE, FEWER = "answers more", "answers fewer"
"""What a statement claims, and what it would say of the opposite sign."""


def is_paper_study(cells: Iterable[str]) -> bool:
    """Whether a model of the study was pretrained on a reasoning set of the paper."""
    models = {name.removeprefix("pt:").partition(">")[0].partition("@")[0] for name in cells}
    return not models.isdisjoint(PAPER_MIXES)


def own_hypotheses(cells: Cells) -> list[Mapping[str, Any]]:
    """For each mix: the lead over M_base after the same SFT, over twice that SFT, and before it.

    In the loss on held-out worked answers and, after SFT, in accuracy. Only what the study has the
    cells for. The form is that of claims.json, with nothing of the paper's.
    """
    found: list[Mapping[str, Any]] = []
    names = set(cells.names)
    for mix in study_mixes(cells):
        tuned = [name.partition(">")[2] for name in cells.names if name.startswith(f"pt:{mix}>")]
        pairs = [
            (f"pt:{mix}>{sft}", f"pt:base>{sft}{times}")
            for sft in tuned
            if "*" not in sft and ">" not in sft
            for times in ("", "*2")
        ]
        for metric in (HELDOUT, ACCURACY):
            asked = [*pairs, (f"pt:{mix}", "pt:base")] if metric == HELDOUT else pairs
            found += [
                _hypothesis(ours, other, metric=metric)
                for ours, other in asked
                if {ours, other} <= names and metric in cells.metrics(ours)
            ]
    return [{"id": f"Q{place}", **row} for place, row in enumerate(found, start=1)]


def _hypothesis(ours: str, other: str, *, metric: str) -> Mapping[str, Any]:
    """`ours` stands better than `other`: in loss by any amount, in accuracy by min_effect."""
    first, second = (other, ours) if metric == HELDOUT else (ours, other)
    effect = f'c("{first}", "{metric}") - c("{second}", "{metric}")'
    if metric == HELDOUT:
        said = f"{LOWER} on held-out worked answers than"
    else:
        said = f"{MORE} questions than"
    return {
        "name": f"{label_of(ours)} {'loss' if metric == HELDOUT else 'accuracy'} "
        f"against {label_of(other)}",
        "statement": f"{label_of(ours)} {said} {label_of(other)}",
        "effect": effect,
        "predicate": f"{effect} > {'0' if metric == HELDOUT else 'eps'}",
        "paper_result": None,
        "paper_effect": None,
        "caveat": "",
    }
