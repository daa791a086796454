"""Verdicts as the page draws them: one axis a measure, the verdict's own interval."""

import json
from dataclasses import asdict

import pytest

from frontload.eval.statistics.cells import Cells
from frontload.eval.tables.claims import judge
from frontload.eval.tables.paper import paper_claims
from frontload.eval.tables.verdict_rows import cards, verdict_groups
from tests.unit.eval.graded import exact

LEVELS = {
    "pt:LDQ>sft:ALF": [60.0, 61.0, 65.0],
    "pt:LDQ>sft:ALF'": [52.0, 50.0, 54.0],
    "pt:LDQ>sft:LDQ": [40.0, 42.0, 41.0],
    "pt:base>sft:SHQ*2": [34.0, 31.0, 37.0],
    "pt:SHQ>sft:SHQ": [30.0, 40.0, 38.0],
    "pt:LDQ>sft:SHQ": [38.0, 33.0, 40.0],
    "pt:LMQ>sft:SHQ": [40.0, 38.0, 31.0],
}


def rows(cells: Cells) -> list[dict]:
    """Verdicts as verdicts.json gives them."""
    return json.loads(
        json.dumps(
            [asdict(one) for one in judge(cells, paper_claims()["hypotheses"], min_effect=1.0)]
        )
    )


def by_id(found: list[dict]) -> dict:
    return {
        row.row["id"][:3]: (group, row) for group in verdict_groups(found) for row in group.rows
    }


def test_measures_share_no_axis_and_every_hypothesis_stands_once() -> None:
    groups = verdict_groups(rows(exact(LEVELS)))
    measures = [group.measure for group in groups]
    assert len(set(measures)) == len(measures) > 4
    ids = [row.row["id"] for group in groups for row in group.rows]
    assert sorted(ids) == sorted(row["id"] for row in paper_claims()["hypotheses"])
    for group in groups:
        assert {row.row["measure"] for row in group.rows} == {group.measure}


def test_the_bar_is_the_interval_that_the_verdict_uses() -> None:
    group, row = by_id(rows(exact(LEVELS)))["H10"]
    effect = row.row["effect"]
    assert effect["critical"] > 2
    middle = 0.5 + 0.48 * effect["value"] / group.reach
    half = 0.48 * effect["critical"] * effect["se"] / group.reach
    assert row.mark.point == pytest.approx(middle)
    assert (row.mark.low, row.mark.high) == (
        pytest.approx(middle - half),
        pytest.approx(middle + half),
    )
    assert row.mark.paper == pytest.approx(0.5 + 0.48 * 9.82 / group.reach)
    assert row.mark.zero == 0.5, "0 is in the middle"
    assert not row.mark.questions_only
    assert row.judged == row.row["parts"][0]
    assert row.parts == ()
    ends = [one.mark.high for one in group.rows] + [one.mark.low for one in group.rows]
    ends += [part.mark.high for one in group.rows for part in one.parts if part.mark]
    assert max(end for end in ends if end is not None) <= 0.98
    assert min(end for end in ends if end is not None) >= 0.02


def test_the_axis_reaches_as_far_as_its_longest_bar_or_the_papers_largest_effect() -> None:
    groups = {group.measure: group for group in verdict_groups(rows(exact(LEVELS)))}
    reaches = []
    for row in groups["Average, SFT suite"].rows:
        for one in [row.row["effect"], *[part["value"] for part in row.row["parts"]]]:
            if one:
                reaches.append(abs(one["value"]) + one["critical"] * one["se"])
        reaches.append(abs(row.row["paper_effect"]))
    assert groups["Average, SFT suite"].reach == max(reaches)
    assert groups["flat 8"].reach == pytest.approx(18.74), "only the paper's"


def test_a_part_that_reaches_further_than_its_effect_is_on_the_axis() -> None:
    """H03: one arm of three is 200 points above the rival, the weakest of them 2."""
    group, row = by_id(rows(exact(LEVELS | {"pt:SHQ>sft:SHQ": [230.0, 240.0, 238.0]})))["H03"]
    furthest = row.row["parts"][0]["value"]
    assert group.reach == furthest["value"] + furthest["critical"] * furthest["se"]
    assert row.parts[0].mark.high == pytest.approx(0.98)


def test_an_effect_that_the_paper_does_not_print_is_drawn_by_our_own_reach() -> None:
    small = {"pt:LDQ>sft:ALF": [0.1, 0.2, 0.15], "pt:LDQ>sft:LDQ": [0.0, 0.0, 0.0]}
    (row,) = [row for row in rows(exact(small)) if row["id"].startswith("H10")]
    (group,) = verdict_groups([dict(row, paper_effect=None)])
    effect = row["effect"]
    assert group.reach == effect["value"] + effect["critical"] * effect["se"]
    assert group.reach < 1
    assert group.rows[0].mark.paper is None
    (empty,) = verdict_groups([dict(row, paper_effect=None, effect=None, parts=[])])
    assert empty.reach == 1.0
    assert empty.rows[0].mark.low is empty.rows[0].mark.high is None


def test_parts_have_rows_of_their_own_and_a_bar_only_on_their_own_axis() -> None:
    found = by_id(rows(exact(LEVELS)))
    _, row = found["H03"]
    assert row.judged is None
    assert [part.name for part in row.parts] == ["1 of 3", "2 of 3", "3 of 3"]
    assert all(part.mark is not None for part in row.parts)
    both = {f"pt:{arm}": [50.0, 52.0, 51.0] for arm in ("LMQ", "LDQ")}
    base = exact(both, metric="pt.avg")
    cells = exact(LEVELS)
    known = {name: base.metrics(name) for name in both}
    known |= {name: cells.metrics(name) for name in cells.names}
    group, row = by_id(rows(Cells.of_metrics(known)))["H08"]
    assert group.measure == "Average, SFT suite and Average, base suite"
    assert [part.mark for part in row.parts] == [None, None, None]


def test_one_seed_has_hatched_bars_and_no_tone_of_a_verdict() -> None:
    group, row = by_id(rows(exact({cell: values[:1] for cell, values in LEVELS.items()})))["H10"]
    assert row.mark.questions_only
    assert (row.tone, row.row["verdict"]) == ("open", "one seed only")
    assert {part.tone for one in group.rows for part in one.parts} <= {"open"}


def test_without_effects_of_ours_the_papers_are_not_all_at_the_end() -> None:
    groups = verdict_groups(rows(Cells(files={})))
    for group in groups:
        places = [row.mark.paper for row in group.rows]
        assert max(abs(place - 0.5) for place in places) == pytest.approx(0.48)
        assert all(row.mark.point is None and row.mark.low is None for row in group.rows)
    assert {row.tone for group in groups for row in group.rows} == {"none"}


def test_a_card_shows_the_number_that_its_verdict_judges() -> None:
    found = rows(exact(LEVELS))
    third = next(row for row in found if row["id"].startswith("H03"))
    made = {card.statement: card for card in cards(found)}
    card = made["Twice the SFT does not catch up"]
    effect = third["effect"]
    assert card.number == f"{effect['value']:+.1f} +- {effect['se']:.1f}"
    assert card.named == "points of Average, SFT suite"
    assert card.verdict == third["verdict"] == "undecided"
    other = dict(third, judges_effect=False, decided_by=1)
    (card,) = cards([other])
    part = other["parts"][1]
    assert card.number == f"{part['value']['value']:+.1f} +- {part['value']['se']:.1f}"
    assert card.named.endswith(part["label"])
    assert made["Broad LDQ beats narrow SHQ in pretraining"].number == "-"
    assert len(made) == 4
