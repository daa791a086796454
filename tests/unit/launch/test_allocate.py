"""The command `allocate` before anything runs: prices, earlier cells, what is pinned, refusals."""

import json
from pathlib import Path
from typing import Any

import pytest

from frontload.eval.allocation.validate import Predicted, Registration
from frontload.launch import cli
from frontload.launch.allocate.beside import Beside
from frontload.launch.allocate.loop import Loop
from frontload.launch.allocate.plan import plan_lines, price_allocation, require_money, warnings
from frontload.launch.allocate.question import Allocation, digest_of, first_decision, look_up
from frontload.launch.shown.why import why_lines
from frontload.launch.store import Store, Ticket
from frontload.launch.study.crew import Crew
from frontload.launch.study.plan import store_of
from frontload.recipes.allocation.load import load_allocation
from frontload.recipes.artifact import write_json
from frontload.recipes.errors import RecipeError
from frontload.recipes.runs.allocation import Readings
from frontload.recipes.stage import Stage

CREW = Crew(workers=1)


def put(store: Store, stage: Stage, files: dict[str, Any] | None = None) -> None:
    """Publishes a stage with these files, as if it had been made."""
    ticket = Ticket.of(stage)
    folder = store.workspace(ticket) / "path"
    folder.mkdir(parents=True)
    for name, value in (files or {}).items():
        write_json(folder / name, value)
    store.publish(ticket)


def put_cells(store: Store, allocation: Allocation, cells: list[tuple[int, int]]) -> None:
    for cell in cells:
        put(store, allocation.graph.evaluation(*cell))


def decision(block: list[list[int]] | None, *, stop: str = "") -> dict[str, Any]:
    following = block and {"name": "a block", "price": 3.0, "cells": block}
    blocks = [{"name": "a block", "gain": 0.5, "price": 3.0}]
    return {"decision.json": {"next": following, "stop": stop, "blocks": blocks}}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_a_question_of_an_empty_store_has_no_data_and_every_price(store: Store) -> None:
    allocation = look_up("laptop", store)
    question = allocation.question
    assert allocation.prior == ()
    assert question.made == {}
    assert question.objectives[0].name == "average"
    half = question.candidates[10]
    assert set(half.parts) == {
        "blend/trunk",
        "pretrain/trunk",
        "blend/ldq",
        "pretrain/ldq",
        "pack/shq-x1",
        "sft/ldq+shq-x1",
        "evaluate/ldq+shq-x1",
    }
    trunk, branch = (half.parts[f"pretrain/{name}"] for name in ("trunk", "ldq"))
    assert trunk / branch == pytest.approx(1.5)
    prices = price_allocation(allocation, store)
    assert prices.data > 0
    assert trunk + 3 * branch < prices.first_block < 2 * (trunk + 3 * branch)
    assert prices.new_seed > trunk + 2 * branch
    assert prices.fresh_seed > trunk + 4 * branch
    assert prices.num_arms == int(2_500 / prices.arm)


def test_the_laptops_question_fits_an_hour_on_two_cores_at_stated_prices(store: Store) -> None:
    allocation = look_up("laptop", store)
    prices = price_allocation(allocation, store)
    total = prices.data + prices.explore + prices.validate + prices.readings
    assert total < 0.92 * 2 * 3600, "workers wait at the ends of blocks"
    assert prices.first_block < prices.explore / 2, "most of exploring goes where it teaches"
    assert prices.num_fresh_seeds >= prices.least_seeds
    lines = plan_lines(allocation, prices, explored=Loop(allocation, store, crew=CREW).progress())
    assert any(f"in all at most {total:,.0f} CPU s" in line for line in lines)


def test_readings_are_priced_beside_the_cells_that_they_share(store: Store) -> None:
    allocation = look_up("laptop", store)
    parts = allocation.question.candidates[1].parts
    tuning, evaluation = parts["sft/base+ldq-x2"], parts["evaluate/base+ldq-x2"]
    paid = price_allocation(allocation, store).readings
    exchange = tuning * (1 / 4 + 1 / 2 + 1 + 1 / 8 + 1 / 4 + 1 / 4) + 6 * evaluation
    rates = 2 * 2 * (tuning + evaluation)
    packs = sum(p for part, p in parts.items() if part.startswith("pack/"))
    assert 3 * (exchange + rates) < paid < 3 * (exchange + rates + 3 * packs)
    plain = look_up("laptop", store, overrides=["readings=null"])
    assert price_allocation(plain, store).readings == 0
    assert plain.question == allocation.question, "no decision sees what is read beside it"
    assert Beside.of(plain) is None


def test_readings_are_of_the_first_fresh_seeds_behind_the_answer(store: Store) -> None:
    allocation = look_up("laptop", store)
    loop = Loop(allocation, store, crew=CREW)
    beside = Beside.of(allocation)
    assert beside is not None
    registration = Registration(
        recommendation=10,
        comparisons=(Predicted(name="all in SFT", candidate=0, mean=1.0, error=1.0),),
        seeds=(4, 5, 6, 7),
        spread=1.0,
        seeds_wanted=4,
        seed_price=1.0,
    )
    explored = loop.progress()
    registered = loop.register(explored)
    answered = loop.answer(explored, registered, fresh=[])
    stage = beside.stage(registration, registered=registered, answered=answered)
    recipe: Readings = stage.recipe
    assert {one.seed for one in recipe.rated} == {4, 5, 6}
    assert {(one.candidate, one.sft_rate) for one in recipe.rated} == {
        (place, rate) for place in (10, 0) for rate in (0.5, 2.0)
    }
    assert recipe.exchange is not None
    assert len(recipe.exchange.cells) == 6 * 3
    assert stage.inputs["answer"].key == answered.key, "the verdict stands before it is read beside"
    half = stage.inputs["exchange rate, all in SFT, seed 5"]
    put(store, stage)
    (line,) = why_lines(store, half.key)
    assert line.endswith("reads it beside a verdict: exchange rate, all in SFT, seed 5")
    assert half.key in {allocation.graph.evaluation(p, 5).key for p in range(22)}


def test_what_the_deciding_objective_is_called_it_stands_first(store: Store) -> None:
    allocation = look_up("laptop", store, overrides=["decides=heldout_loss"])
    assert [one.name for one in allocation.question.objectives] == ["heldout_loss", "average"]


def test_cells_of_earlier_studies_are_data_and_a_lone_arm_is_left_out(store: Store) -> None:
    empty = look_up("laptop", store)
    put_cells(store, empty, [(0, 1), (10, 1), (0, 2), (1, 2)])
    found = look_up("laptop", store)
    assert found.prior == ((0, 1), (10, 1))
    assert found.num_unpaired == 2
    assert found.question.made["2"] == ("evaluate/base+ldq-x2", "evaluate/base+shq-x2")
    assert price_allocation(found, store).first_block < price_allocation(empty, store).first_block
    lines = plan_lines(
        found, price_allocation(found, store), explored=Loop(found, store, crew=CREW).progress()
    )
    assert any("2 cells of earlier studies" in line for line in lines)
    assert any("2 cells of the store are left out" in line for line in lines)


def test_what_was_there_and_its_prices_are_pinned_by_the_first_decision(store: Store) -> None:
    """The loop's own cells, and what they took, change no later decision's inputs."""
    allocation = look_up("laptop", store)
    loop = Loop(allocation, store, crew=CREW)
    block = [[0, 1], [10, 1]]
    put(store, loop.decision((), 0), decision(block))
    put_cells(store, allocation, [(0, 1), (10, 1), (20, 1)])
    evaluated = Ticket.of(allocation.graph.evaluation(0, 1))
    path = store.provenance_file(evaluated)
    path.parent.mkdir(parents=True)
    write_json(path, {"placement": {"gpus": None}, "work": 1.0, "cpu_seconds": 1e9})
    again = look_up("laptop", store)
    assert again.question == allocation.question
    assert again.prior == ()
    explored = Loop(again, store, crew=CREW).progress()
    assert explored.following is not None
    assert explored.following["cells"] == block
    cells = [again.asked_cell(*cell) for cell in ((0, 1), (10, 1))]
    assert Loop(again, store, crew=CREW).decision(cells, 1).key == loop.decision(cells, 1).key


def test_another_question_of_the_same_store_is_asked_anew(store: Store) -> None:
    allocation = look_up("laptop", store)
    put(store, Loop(allocation, store, crew=CREW).decision((), 0), decision([[0, 1]]))
    assert first_decision(store, allocation.question.asked) is not None
    other = look_up("laptop", store, overrides=["objectives.average.epsilon=3.0"])
    assert first_decision(store, other.question.asked) is None


def test_where_a_question_is_asked_is_no_part_of_it() -> None:
    plain, moved = (
        load_allocation("laptop", overrides=more).value
        for more in ([], ["study.placement.threads_per_rank=2"])
    )
    assert digest_of(plain) == digest_of(moved)
    other = load_allocation("laptop", overrides=["study.sft.learning_rate=2.0e-3"]).value
    assert digest_of(plain) != digest_of(other)


def test_the_chain_of_decisions_is_read_up_to_where_it_stops(store: Store) -> None:
    allocation = look_up("laptop", store)
    loop = Loop(allocation, store, crew=CREW)
    put(store, loop.decision((), 0), decision([[0, 1], [10, 1]]))
    cells = [allocation.asked_cell(*cell) for cell in ((0, 1), (10, 1))]
    put(store, loop.decision(cells, 1), decision(None, stop="enough"))
    explored = loop.progress()
    assert [stage.label for stage in explored.decisions] == ["laptop-0", "laptop-1"]
    assert explored.stop == "enough"
    assert list(explored.cells) == cells


def test_a_cell_says_which_decision_asked_for_it_and_what_was_expected(store: Store) -> None:
    allocation = look_up("laptop", store)
    loop = Loop(allocation, store, crew=CREW)
    put(store, loop.decision((), 0), decision([[0, 1], [10, 1]]))
    cells = [allocation.asked_cell(*cell) for cell in ((0, 1), (10, 1))]
    put(store, loop.decision(cells, 1), decision(None, stop="enough"))
    (line,) = why_lines(store, allocation.graph.evaluation(10, 1).key)
    assert "asked for it: a block, price 3.0, expected gain 0.5" in line
    assert loop.decision((), 0).key in line
    assert why_lines(store, allocation.graph.evaluation(10, 2).key) == []


def test_more_factors_than_the_money_pays_are_said_before_anything_runs(store: Store) -> None:
    onset = "factors.onset={least: 0.2, most: 0.8, steps: 3}"
    one = look_up("laptop", store)
    two = look_up("laptop", store, overrides=[onset, "money.explore=6_000"])
    said = [
        [text for text in warnings(each, price_allocation(each, store)) if "money pays" in text]
        for each in (one, two)
    ]
    assert said[0] == []
    assert "2 ordered factors" in said[1][0]


def test_a_small_model_calls_its_answer_a_check_of_the_machinery(store: Store) -> None:
    allocation = look_up("laptop", store)
    assert any(
        "check of the machinery" in t
        for t in warnings(allocation, price_allocation(allocation, store))
    )


@pytest.mark.parametrize(
    ("override", "asked", "do"),
    [
        ("money.explore=100", "money.explore", "write at least 76"),
        ("money.validate=1_000", "money.validate", "write at least 2_71"),
    ],
)
def test_money_below_one_block_or_one_interval_is_refused(
    store: Store, override: str, asked: str, do: str
) -> None:
    allocation = look_up("laptop", store, overrides=[override])
    with pytest.raises(RecipeError) as caught:
        require_money(allocation, price_allocation(allocation, store))
    assert caught.value.asked.endswith(f": {asked}")
    assert do in caught.value.do
    assert not store.root.exists()


@pytest.mark.parametrize("metric", ["sft.average", "pt.avg", "loss"])
def test_an_objective_that_no_suite_has_is_refused(store: Store, metric: str) -> None:
    with pytest.raises(RecipeError) as caught:
        look_up("laptop", store, overrides=[f"objectives.average.weights={{{metric}: 1.0}}"])
    assert caught.value.asked.endswith(f"objectives.average.weights.{metric}")
    assert "sft.avg" in caught.value.rule


GPU_QUESTION = """
extends: laptop
study: single_gpu
budget: {tokens: 6_553_600}
sft_max_epochs: {shq: 16.0, ldq: 1.0, lmq: 1.0}
competitors:
  the paper's 80/20 and SHQ: {windows: {ldq: 3_276_800}, sft: {mix: shq, tokens: 3_276_800}}
  all in pretraining: {windows: {ldq: 6_553_600}, sft: {mix: shq, tokens: 0}}
  all in SFT: {windows: {}, sft: {mix: shq, tokens: 6_553_600}}
  a uniform split: {windows: {ldq: 3_276_800}, sft: {mix: lmq, tokens: 3_276_800}}
money: {explore: 6.0, validate: 6.0, unit: gpu_hours}
readings: null
"""
TREND = ("trend_500k", "trend_1300k", "trend_half", "trend_quarter")
"""With `laptop`: three sizes at one budget, three budgets at one size."""


def put_answer(store: Store, name: str, *, best: int) -> None:
    """An answer as the loop leaves it: `best` has most of the chance."""
    allocation = look_up(name, store)
    loop = Loop(allocation, store, crew=CREW)
    put(store, loop.decision((), 0), decision(None, stop="enough"))
    registered = loop.register(loop.progress())
    put(store, registered, {"registration.json": {"cells": [[0, 1]]}})
    question, recipe = allocation.question, allocation.recipe
    answer = {
        "budget": {"tokens": recipe.budget.tokens, "unit": "read", "fixed": "pretraining"},
        "objective": {"weights": {"sft.avg": 1.0}},
        "best_place": {"factors": {one: [0.0, 1.0] for one in question.factors}},
        "candidates": [
            {
                "pretraining_tokens": one.pretraining_tokens,
                "chance_best": 0.9 if place == best else 0.1 / (len(question.candidates) - 1),
                "sets": list(one.sets),
            }
            for place, one in enumerate(question.candidates)
        ],
    }
    fresh = [allocation.asked_cell(0, 1)]
    put(store, loop.answer(loop.progress(), registered, fresh=fresh), {"answer.json": answer})


def test_a_trend_is_read_from_the_answers_of_a_store(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--store", str(store.root)]
    for name in ("laptop", *TREND[:3]):
        put_answer(store, name, best=10)
    assert cli.main(["allocate", "laptop", *words, "--trend", *TREND]) != 0
    said = capsys.readouterr().err
    assert "trend with trend_quarter" in said
    assert "run `frontload allocate trend_quarter` first" in said
    put_answer(store, "trend_quarter", best=0)
    assert cli.main(["allocate", "laptop", *words, "--json", "--trend", *TREND]) == 0
    size, budget = json.loads(capsys.readouterr().out)
    assert (size["least"], size["most"]) == (145_432, 1_272_500)
    assert (budget["least"], budget["most"]) == (184_320, 737_280)
    assert budget["change"] > 0.2 > abs(size["change"])
    assert cli.main(["allocate", "laptop", *words, "--trend", *TREND]) == 0
    printed = capsys.readouterr().out
    assert "With the model size, from 145,432 to 1,272,500" in printed
    assert "0.73 at 1M parameters" in printed


def test_a_question_is_planned_on_a_cluster_and_priced_on_one_gpu_alike(
    store: Store, tmp_path: Path
) -> None:
    """Where stages run is in no key: the same question, cells and decisions."""
    here = look_up("laptop", store)
    there = look_up("laptop", store, overrides=["study.placement=slurm_cpu"])
    assert there.are_jobs
    assert not here.are_jobs
    assert there.question == here.question
    loops = [Loop(each, store, crew=CREW).decision((), 0).key for each in (here, there)]
    assert loops[0] == loops[1]
    shared = tmp_path / "shared"
    placement = load_allocation(
        "laptop",
        overrides=["study.placement=slurm_cpu", f"study.placement.slurm.shared_folder={shared}"],
    ).value.study.placement
    assert store_of(placement, None).root == shared / "store"
    assert store_of(here.recipe.study.placement, None).root == Path("store")
    assert store_of(placement, tmp_path).root == tmp_path


def test_a_question_on_one_gpu_is_priced_in_its_hours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`laptop` asked of the model, the budgets and the placement of `single_gpu`."""
    path = tmp_path / "mine.yaml"
    path.write_text(GPU_QUESTION)
    store = tmp_path / "store"
    assert cli.main(["allocate", str(path), "--plan", "--store", str(store)]) == 0
    said = capsys.readouterr().out
    assert "6,553,600 read tokens of reasoning" in said
    assert " GPU hours" in said
    assert "check of the machinery" not in said, "26 million parameters are above Olmix's limit"
    assert not store.exists()


def test_the_plan_as_json_names_every_candidate_and_price(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    assert cli.main(["allocate", "laptop", "--plan", "--json", "--store", str(store)]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert len(plan["candidates"]) == 22
    assert plan["prices"]["num_fresh_seeds"] == 3
    assert plan["stop"] == ""
    assert not store.exists()
