"""Verdicts by part: what they replace in a hypothesis, their signs, and when they disagree."""

from dataclasses import asdict

import numpy as np
import pytest

from frontload.eval.statistics.cells import Cells, Draws
from frontload.eval.tables.claims import judge
from frontload.eval.tables.paper import paper_claims
from frontload.eval.tables.text import views_text
from frontload.eval.tables.views import (
    VIEWS,
    ViewedHypothesis,
    disagreement,
    is_of_averages,
    judge_views,
)

HYPOTHESES = paper_claims()["hypotheses"]
INSIDE, OUTSIDE, LOSS, LOSS_INSIDE, LOSS_OUTSIDE = VIEWS


def cells(levels: dict[str, dict[str, float]], *, seeds: int = 3) -> Cells:
    """Metrics with a little noise over seeds."""
    rng = np.random.default_rng(0)

    def draws(level: float) -> Draws:
        values = (level + rng.normal(0, abs(level) / 1000, seeds))[:, None] * np.ones((1, 3))
        return Draws(
            draws_AB=values, seeds=tuple(range(seeds)), questions=frozenset(map(str, range(99)))
        )

    return Cells.of_metrics(
        {cell: {name: draws(one) for name, one in found.items()} for cell, found in levels.items()}
    )


def metrics(
    avg: float, *, inside: float, outside: float, losses: tuple[float, float, float]
) -> dict:
    """The metrics of a pretrained model that H04 asks for in any view."""
    whole, within, without = losses
    return {
        "pt.avg": avg,
        "pt.inside": inside,
        "pt.outside": outside,
        "heldout.loss": whole,
        "heldout.loss.inside": within,
        "heldout.loss.outside": without,
    }


def viewed(found: Cells) -> dict[str, ViewedHypothesis]:
    judged = judge(found, HYPOTHESES, min_effect=1.0)
    views = judge_views(found, HYPOTHESES, judged=judged, min_effect=1.0)
    return {one.id.partition("_")[0]: one for one in views}


SPLIT = {
    "pt:SHQ": metrics(40.0, inside=60.0, outside=20.0, losses=(3.0, 0.5, 5.0)),
    "pt:LDQ": metrics(45.0, inside=50.0, outside=40.0, losses=(2.0, 0.6, 3.0)),
}


def test_each_view_is_judged_in_its_own_metric_and_a_lower_loss_is_on_the_claims_side() -> None:
    found = viewed(cells(SPLIT))
    assert list(found) == ["H04"], "no other hypothesis has its cells"
    by_view = {one.view: one for one in found["H04"].views}
    assert list(by_view) == list(VIEWS)
    expected = {
        INSIDE: (-10.0, "contradicted"),
        OUTSIDE: (20.0, "supported"),
        LOSS: (1.0, "supported"),
        LOSS_INSIDE: (-0.1, "contradicted"),
        LOSS_OUTSIDE: (2.0, "supported"),
    }
    for view, (effect, verdict) in expected.items():
        assert by_view[view].effect.value == pytest.approx(effect, rel=0.02)
        assert by_view[view].verdict == verdict
    assert found["H04"].verdict == "supported"
    assert found["H04"].disagrees


def test_a_loss_has_no_smallest_effect_in_points() -> None:
    """0.4 nats is a large effect: with min_effect 1 it would read undecided."""
    found = viewed(
        cells(
            {
                "pt:SHQ": metrics(40.0, inside=40.0, outside=40.0, losses=(3.0, 3.0, 3.0)),
                "pt:LDQ": metrics(40.6, inside=40.6, outside=40.6, losses=(2.6, 2.6, 2.6)),
            }
        )
    )
    verdicts = {one.view: one.verdict for one in found["H04"].views}
    assert verdicts == dict.fromkeys(VIEWS, "undecided") | {
        LOSS: "supported",
        LOSS_INSIDE: "supported",
        LOSS_OUTSIDE: "supported",
    }
    assert disagreement([asdict(found["H04"])]) == ""


def test_the_headline_names_who_says_what() -> None:
    found = viewed(cells(SPLIT))["H04"]
    assert disagreement([asdict(found)]) == (
        "The measures disagree: H04 is supported by the Average, accuracy outside SHQ's families, "
        "held-out loss and loss outside and contradicted by accuracy inside SHQ's families and "
        "loss inside."
    )


def test_one_seed_has_effects_and_no_disagreement() -> None:
    found = viewed(cells(SPLIT, seeds=1))["H04"]
    assert {one.verdict for one in found.views} == {"one seed only"}
    assert not found.disagrees
    assert disagreement([asdict(found)]) == ""
    assert "only |" in views_text([found])
    assert "supported" not in views_text([found])


def test_a_hypothesis_of_one_category_or_of_points_has_no_views() -> None:
    kept = {row["id"].partition("_")[0] for row in HYPOTHESES if is_of_averages(row)}
    assert {"H01", "H02", "H03", "H04", "H05", "H06", "H07", "H10", "H11", "H13"} <= kept
    assert kept.isdisjoint({"H08", "H09", "H12", "H16", "H17"})


def test_a_view_without_its_metric_is_left_out() -> None:
    """A suite of choices alone has no answers inside or outside."""
    levels = {
        cell: {name: value for name, value in found.items() if name.startswith(("pt.avg", "held"))}
        for cell, found in SPLIT.items()
    }
    found = viewed(cells(levels))["H04"]
    assert [one.view for one in found.views] == [LOSS, LOSS_INSIDE, LOSS_OUTSIDE]
    assert "| - |" in " ".join(views_text([found]).split())
