"""What stands in the tables, counted by hand on a study of four models and two suites."""

from dataclasses import replace

import numpy as np
import pytest

from frontload.eval.results import ChoiceResult, ResultFile
from frontload.eval.statistics.cells import Cells, MissingCell
from frontload.eval.tables.build import (
    Table,
    build_tables,
    cell_order,
    difference,
    figure2,
    label_of,
    measured,
    number_json,
    sft_suffix,
    stage_gaps,
    study_mixes,
)
from frontload.eval.tables.paper import printed
from frontload.eval.tables.rl import RL_METRICS, rl_table
from tests.unit.eval.graded import one_file, replayed

SETS = {"base": ("math", "science", "code", "gpr"), "sft": ("math", "science", "code", "ins")}


def asked(suite: str, right: tuple[int, ...], *, loss: float = 2.0, seed: int = 1) -> ResultFile:
    """Ten questions of each of the suite's benchmarks, and two held-out documents of 40 tokens."""
    results = []
    for category, number in zip(SETS[suite], right, strict=True):
        golds = {f"{category}-{n}": float(n < number) for n in range(10)}
        file = one_file(golds, suite=suite, benchmark=f"{category} B", category=category, seed=seed)
        results += file.results
    results += [
        replayed("h0", loss=loss * 30, tokens=30, greedy=15),
        replayed("h1", loss=loss * 10, tokens=10, greedy=3),
    ]
    return ResultFile(protocol=file.protocol, results=tuple(results))


@pytest.fixture(scope="module")
def cells() -> Cells:
    return Cells(
        files={
            "pt:base": [asked("base", (2, 4, 2, 4), loss=2.0)],
            "pt:LDQ": [asked("base", (6, 4, 6, 4), loss=1.5)],
            "pt:LMQ@60-40": [asked("base", (9, 9, 9, 9), loss=1.0)],
            "pt:base>sft:SHQ": [asked("sft", (3, 3, 3, 7), loss=1.8)],
            "pt:LDQ>sft:SHQ": [asked("sft", (8, 5, 5, 2), loss=1.2)],
            "pt:base>sft:SHQ>rl:CrossThink": [asked("sft", (4, 4, 4, 4), loss=1.8)],
        }
    )


@pytest.fixture(scope="module")
def tables(cells: Cells) -> dict[str, Table]:
    return {table.id: table for table in build_tables(cells)}


def values(row) -> list[float | None]:
    return [None if number is None else round(number.value, 6) for number in row.ours]


def test_the_papers_tables_stand_first_and_ours_only_with_a_row(cells: Cells) -> None:
    ours = ["Grid", "Averages", "Cells", "Heldout", "Guessing"]
    assert [table.id for table in build_tables(cells)][-5:] == ours
    pretrained = Cells(files={"pt:base": [one_file({"q0": 1.0}, suite="base")]})
    names = [table.id for table in build_tables(pretrained)]
    assert names[0] == "T1"
    assert "Grid" not in names
    assert "Heldout" not in names
    assert names[-3:] == ["Averages", "Cells", "Guessing"]


def test_only_the_papers_tables_have_the_papers_numbers(tables: dict[str, Table]) -> None:
    own = {"Cells", "Heldout", "Guessing"}
    assert {name for name, table in tables.items() if not table.has_paper} == own
    assert {name for name, table in tables.items() if table.decimals != 1} == {"Heldout"}
    assert tables["Heldout"].decimals == 3, "a thousandth of a nat"
    with_failures = {n for n, table in tables.items() if "no answer %" in table.columns}
    assert with_failures == {"T1", "T2", "T4", "T5", "T6", "T7", "Ratio", "Cells"}, "not T3"
    for name in ("T1", "T4"):
        for row in tables[name].rows:
            assert len(row.ours) == len(row.paper) == len(tables[name].columns)


def test_the_grid_has_a_row_of_each_model_that_was_tuned(tables: dict[str, Table]) -> None:
    grid = {row.label: values(row) for row in tables["Grid"].rows}
    assert grid == {"M_base": [None, 40.0, None], "M_LDQ": [None, 50.0, None]}
    (base, _) = tables["Grid"].rows
    assert base.paper[1] == printed("pt:base>sft:SHQ", "sft.avg") == 29.92


def test_the_three_averages_of_every_cell(tables: dict[str, Table]) -> None:
    rows = {row.cell: values(row) for row in tables["Averages"].rows}
    assert rows["pt:base"] == [30.0, 30.0, 30.0]
    assert rows["pt:LDQ>sft:SHQ"] == [50.0, 60.0, 50.0], "flat 8 is without instruction following"
    assert len(rows) == 6
    (tuned,) = [r for r in tables["Averages"].rows if r.cell == "pt:LDQ>sft:SHQ"]
    assert tuned.paper[2] == 52.28, "Overall of arXiv Table 8"


def test_every_cell_by_category_inside_and_outside(tables: dict[str, Table]) -> None:
    rows = {row.cell: values(row) for row in tables["Cells"].rows}
    assert rows["pt:LDQ>sft:SHQ"] == [50.0, 80.0, 50.0, 50.0, 20.0, 50.0, None, 0.0]
    assert rows["pt:LDQ"] == [50.0, 60.0, 40.0, 60.0, 40.0, 50.0, None, 0.0]
    assert len(rows) == 6


def test_held_out_numbers_weigh_tokens(tables: dict[str, Table]) -> None:
    rows = {row.cell: values(row) for row in tables["Heldout"].rows}
    assert rows["pt:LDQ"] == [1.5, 1.5, None, 45.0, 45.0, None]
    assert len(rows) == 6


def test_guessing_stands_beside_the_lowest_and_the_highest_cell(tables: dict[str, Table]) -> None:
    rows = {row.label: values(row) for row in tables["Guessing"].rows}
    expected = {f"{name} B ({suite} suite)" for suite, names in SETS.items() for name in names}
    assert set(rows) == expected, "benchmarks, and no average"
    assert rows["math B (base suite)"] == [10.0, 20.0, 90.0], "every gold answer is another"
    assert rows["ins B (sft suite)"] == [10.0, 20.0, 70.0]
    guess = tables["Guessing"].rows[0].ours[0]
    assert (guess.se, guess.num_seeds, guess.num_items) == (None, 0, 10)


def test_a_benchmark_that_some_cells_were_not_asked_has_the_others_ends() -> None:
    files = {
        "pt:base": [asked("base", (2, 4, 2, 4))],
        "pt:LDQ": [one_file({"q0": 1.0}, suite="base", benchmark="other")],
    }
    (table,) = [one for one in build_tables(Cells(files=files)) if one.id == "Guessing"]
    rows = {row.label: values(row) for row in table.rows}
    assert rows["math B (base suite)"] == [10.0, 20.0, 20.0]


def test_the_lead_at_each_stage_is_in_points_and_in_nats_that_the_loss_is_lower(
    cells: Cells,
) -> None:
    assert study_mixes(cells) == ["LDQ"], "at the study's own ratio, base apart"
    gaps = {(gap["stage"], gap["measure"]): gap for gap in stage_gaps(cells)}
    assert set(gaps) == {(0, "accuracy"), (0, "heldout"), (1, "accuracy"), (1, "heldout")}
    found = {name: gap["value"] for name, gap in gaps.items()}
    assert found == {
        (0, "accuracy"): pytest.approx(20.0),
        (0, "heldout"): pytest.approx(0.5),
        (1, "accuracy"): pytest.approx(10.0),
        (1, "heldout"): pytest.approx(0.6),
    }
    first = gaps[0, "accuracy"]
    assert (first["mix"], first["sft"], first["num_seeds"]) == ("LDQ", "", 1)
    assert gaps[1, "accuracy"]["sft"] == ">sft:SHQ"


def test_the_set_of_the_second_stage_is_shq_or_the_first_that_base_was_tuned_on() -> None:
    def suffix(*names: str) -> str:
        return sft_suffix(Cells(files=dict.fromkeys(names, ())))

    assert suffix("pt:base", "pt:base>sft:OWN", "pt:base>sft:SHQ") == ">sft:SHQ"
    assert suffix("pt:LDQ>sft:ALF", "pt:base>sft:OWN", "pt:base>sft:LDQ") == ">sft:OWN"
    assert suffix("pt:base", "pt:LDQ>sft:SHQ") == ""


def test_a_difference_is_the_first_less_the_second(cells: Cells) -> None:
    found = difference(cells, ("pt:LDQ", "pt:base"), "pt.math")
    assert found.value == pytest.approx(40.0)
    assert number_json(found) == {
        "value": found.value,
        "se": found.se,
        "num_seeds": 1,
        "num_items": 10,
    }
    assert number_json(None) is None
    assert difference(cells, ("pt:LDQ", "pt:SHQ"), "pt.math") is None
    assert measured(cells, "pt:SHQ", "pt.math") is None


def test_figure_2_has_our_bars_and_the_papers(cells: Cells) -> None:
    form = figure2(cells)
    assert form["categories"] == ["math", "science", "code", "ins"]
    bars = {bar["label"]: bar for bar in form["bars"]}
    ours = [number["value"] for number in bars["M_base + SFT[SHQ]"]["ours"]]
    assert ours == pytest.approx([30.0, 30.0, 30.0, 70.0])
    assert bars["M_SHQ + SFT[SHQ]"]["ours"] == [None] * 4
    assert bars["M_base + SFT[SHQ]"]["paper"][0] == printed("pt:base>sft:SHQ", "sft.math")


def test_cells_are_ordered_and_named_as_in_the_paper() -> None:
    assert cell_order("pt:base") < cell_order("pt:SHQ") < cell_order("pt:LMQ@60-40")
    assert cell_order("pt:LMQ@60-40") < cell_order("pt:AAA"), "a mix of one's own comes last"
    assert cell_order("pt:AAA") < cell_order("pt:base>sft:SHQ")
    assert label_of("pt:base>sft:SHQ*2>rl:CrossThink") == "M_base + SFT[2 x SHQ] + RL[CrossThink]"


def test_rl_stands_beside_its_start_and_the_change_is_paired(cells: Cells) -> None:
    table = rl_table(cells)
    before, after, change = table.rows
    names = list(RL_METRICS)
    assert not table.has_paper
    assert [before.cell, after.cell] == ["pt:base>sft:SHQ", "pt:base>sft:SHQ>rl:CrossThink"]
    average = names.index("Avg.")
    assert (values(before)[average], values(after)[average]) == (30.0, 40.0)
    assert values(change)[average] == pytest.approx(10.0)
    assert values(change)[names.index("ins")] == pytest.approx(-30.0)
    assert change.ours[average].se < after.ours[average].se, "the same questions"
    assert rl_table(Cells(files={"pt:base": ()})).rows == ()


def two_seeds() -> Cells:
    """One benchmark of two samples, and documents inside and outside SHQ's families."""
    files = []
    for seed, tokens in ((1, 10), (2, 10)):
        file = one_file({"q0": 1.0, "q1": 0.5, "q2": 0.0}, num_samples=2, seed=seed, suite="base")
        choice = ChoiceResult(
            id="c0", benchmark="box", category="gpr", prompt_tokens=4, gold=1,
            log_likelihoods=(-2.0, -1.0),
        )  # fmt: skip
        cut = replace(file.results[2].samples[1], format_failure="no end")
        unsure = replace(file.results[2], samples=(file.results[2].samples[0], cut))
        held = (
            replayed("h0", loss=5.0 * seed, tokens=tokens, greedy=5),
            replayed("h1", loss=90.0, tokens=30, greedy=3, inside=False),
        )
        files.append(
            ResultFile(protocol=file.protocol, results=(*file.results[:2], unsure, choice, *held))
        )
    return Cells(files={"pt:a": files})


def number(metric: str, *, seed: int | None = None) -> float:
    draws = two_seeds().draws("pt:a", metric)
    values_A = draws.draws_AB[:, 0]
    return float(values_A.mean() if seed is None else values_A[draws.seeds.index(seed)])


def test_a_cells_metrics_counted_by_hand() -> None:
    assert number("bench.chain") == number("pt.math") == 50.0
    assert number("pt.pass_at_k") == pytest.approx(200 / 3), "of three questions two have one right"
    assert number("pt.format_failure") == pytest.approx(100 / 6), "one of six samples"
    assert number("pt.inside") == 50.0
    assert number("bench.box") == 100.0
    assert number("pt.avg") == 75.0
    with pytest.raises(MissingCell):
        number("pt.outside")
    with pytest.raises(MissingCell):
        number("rl.avg")  # the paper's T3 is of the SFT suite


def test_held_out_groups_are_told_apart_and_seeds_keep_their_numbers() -> None:
    assert number("heldout.loss", seed=1) == pytest.approx(95 / 40)
    assert number("heldout.loss", seed=2) == pytest.approx(100 / 40)
    assert number("heldout.loss.inside", seed=2) == pytest.approx(1.0)
    assert number("heldout.loss.outside") == pytest.approx(3.0)
    assert number("heldout.loss.math") == pytest.approx(97.5 / 40)
    assert number("heldout.step_accuracy") == pytest.approx(100 * 8 / 40)
    assert number("heldout.step_accuracy.inside") == pytest.approx(50.0)


def test_the_questions_error_is_that_of_questions_drawn_again() -> None:
    """A share of 60 questions: the bootstrap's error is the binomial's, on 1000 draws."""
    golds = {f"q{n}": float(n < 15) for n in range(60)}
    draws = Cells(files={"pt:a": [one_file(golds, suite="base")]}).draws("pt:a", "pt.avg")
    assert draws.draws_AB.shape == (1, 1001)
    assert draws.estimate().se == pytest.approx(100 * np.sqrt(0.25 * 0.75 / 60), rel=0.1)
