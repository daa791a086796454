"""The plan: states, the field that changed, prices, and the wall time of a schedule."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from frontload.launch.shown.show import print_plan
from frontload.launch.stage.jobs import Finished
from frontload.launch.stage.provenance import write_provenance
from frontload.launch.store import Store, Ticket
from frontload.launch.study.crew import Crew
from frontload.launch.study.plan import (
    BLOCKED,
    BUILT,
    READY,
    Plan,
    most_gpus,
    plan_study,
    schedule_seconds,
)
from frontload.launch.study.price import price_stages, read_measured, work_of
from frontload.launch.study.settle import settle
from frontload.launch.text.words import show_count
from frontload.recipes.errors import RecipeError
from frontload.recipes.machines.placement import Placement, Placements
from frontload.recipes.schema import Tokenizer
from frontload.recipes.stage import REVISION, Stage
from frontload.recipes.study.expand import Study, load_study, with_seeds

CPU = Placements(default=Placement())


def build(store: Store, stage: Stage) -> None:
    """Publishes an empty artifact for a stage."""
    ticket = Ticket.of(stage)
    (store.workspace(ticket) / "path").mkdir(parents=True)
    (store.workspace(ticket) / "path" / "x").write_text("x")
    store.publish(ticket)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Study]:
    store, study = Store(tmp_path_factory.mktemp("store")), load_study("smoke")
    for stage in study.stages:
        build(store, stage)
    return store, study


def test_a_fresh_store_has_only_the_corpus_ready(tmp_path: Path) -> None:
    plan = plan_study(load_study("smoke"), Store(tmp_path), crew=Crew(workers=2))
    states = {entry.stage.kind: entry.state for entry in plan.entries}
    assert states.pop("synthesize") == READY
    assert set(states.values()) == {BLOCKED}
    assert all(entry.reason == "first of its kind" for entry in plan.entries)
    assert not list(tmp_path.iterdir()), "planning writes nothing"


def test_a_built_store_has_nothing_missing(built: tuple[Store, Study]) -> None:
    store, study = built
    plan = plan_study(study, store, crew=Crew(workers=2))
    assert {entry.state for entry in plan.entries} == {BUILT}
    assert plan.wall_seconds == 0.0


def changed(built: tuple[Store, Study], *overrides: str) -> Plan:
    return plan_study(load_study("smoke", overrides=overrides), built[0], crew=Crew(workers=2))


def test_a_new_key_names_the_field_that_changed_against_its_own_label(
    built: tuple[Store, Study],
) -> None:
    plan = changed(built, "sft.weight_decay=0.2")
    reasons = {entry.stage.folder: entry for entry in plan.missing}
    tuned = [entry for entry in reasons.values() if entry.stage.kind == "sft"]
    assert len(tuned) == 16
    for entry in tuned:
        assert "training.optimizer.weight_decay: 0.01 -> 0.2" in entry.reason
        assert f"against {entry.stage.label}-" in entry.reason
        assert entry.state == READY
    scores = [entry for entry in reasons.values() if entry.stage.kind == "evaluate"]
    assert {entry.reason.split(" (")[0] for entry in scores} == {"new input checkpoint"}
    assert {entry.stage.kind for entry in reasons.values()} == {"sft", "evaluate", "tabulate"}


def test_a_revision_that_was_raised_is_named(
    built: tuple[Store, Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(REVISION, "pack", 3)
    reasons = [entry for entry in changed(built).missing if entry.stage.kind == "pack"]
    assert reasons
    assert all("revision: 2 -> 3" in entry.reason for entry in reasons)


def test_begun_work_is_said_to_go_on(tmp_path: Path) -> None:
    store, study = Store(tmp_path), load_study("smoke")
    (store.workspace(Ticket.of(study.stages[0])) / "path").mkdir(parents=True)
    plan = plan_study(study, store, crew=Crew(workers=2))
    assert "goes on" in plan.entries[0].reason


# ---------------------------------------------------------------- prices


def test_training_is_priced_by_tokens_and_flops() -> None:
    study = load_study("laptop")
    prices = price_stages(study.stages, {}, placements=CPU)
    pretraining = sum(prices[s.key].tokens for s in study.stages if s.kind == "pretrain")
    tokens, arms = study.recipe.pretraining.tokens, 5
    assert pretraining == round(tokens * 0.6) + arms * round(tokens * 0.4)
    trunk = next(s for s in study.stages if s.label == "trunk-seed1" and s.kind == "pretrain")
    price = prices[trunk.key]
    projections = 2 * 64 * 192 * 2 + 4 * 64 * 64  # of the MLP and attention layers alone
    assert price.flops > 6 * projections * price.tokens
    assert not price.is_measured


def test_grpo_is_priced_with_the_start_of_its_processes() -> None:
    stage = next(s for s in load_study("laptop").stages if s.kind == "grpo")
    half = replace(stage, recipe=replace(stage.recipe, steps=stage.recipe.steps // 2))
    whole_seconds, half_seconds = (
        price_stages([one], {}, placements=CPU)[one.key].seconds for one in (stage, half)
    )
    assert 120 < whole_seconds < 600
    assert half_seconds - whole_seconds / 2 == pytest.approx(30)  # half a start


def test_prices_follow_what_earlier_runs_measured(tmp_path: Path) -> None:
    store, study = Store(tmp_path), load_study("smoke")
    corpus = study.stages[0]
    price = price_stages([corpus], {}, placements=CPU)[corpus.key]
    end = Finished(cpu_seconds=12.5, wall_seconds=13.0, error=None)
    ticket = Ticket.of(corpus)
    write_provenance(store, ticket, end=end, placement=CPU.default, work=price.work)
    measured = price_stages([corpus], read_measured(store, CPU), placements=CPU)[corpus.key]
    assert measured.seconds == pytest.approx(12.5)
    assert measured.is_measured
    twice = load_study("smoke", overrides=["synthesis.base_tokens=150_000"]).stages[0]
    more = price_stages([twice], read_measured(store, CPU), placements=CPU)[twice.key]
    assert more.seconds == pytest.approx(12.5 * more.tokens / measured.tokens)
    large = load_study("laptop").stages[0]
    assert not price_stages([large], read_measured(store, CPU), placements=CPU)[
        large.key
    ].is_measured, "too unlike"


def test_the_schedule_respects_inputs_and_workers() -> None:
    def stage(label: str, **inputs: Stage) -> Stage:
        recipe = Tokenizer(kind=label, vocab_size=1)
        return Stage(kind="tokenizer", label=label, recipe=recipe, inputs=inputs)

    a = stage("a")
    b, c = stage("b", a=a), stage("c", a=a)
    d = stage("d", b=b)
    seconds = {a.key: 10.0, b.key: 4.0, c.key: 6.0, d.key: 5.0}
    stages = [a, b, c, d]
    assert schedule_seconds(stages, seconds, workers=1) == 25.0
    assert schedule_seconds(stages, seconds, workers=2) == 19.0
    assert schedule_seconds([c, d], seconds, workers=2) == 6.0


def test_gpu_stages_wait_for_a_gpu_in_the_schedule_too() -> None:
    def stage(kind: str, label: str, **inputs: Stage) -> Stage:
        return Stage(
            kind=kind, label=label, recipe=Tokenizer(kind=label, vocab_size=1), inputs=inputs
        )

    a = stage("index", "a")
    b, c = stage("sft", "b", a=a), stage("evaluate", "c", a=a)
    d = stage("pack", "d", a=a)
    seconds = {a.key: 10.0, b.key: 4.0, c.key: 6.0, d.key: 5.0}
    stages = [a, b, c, d]
    assert schedule_seconds(stages, seconds, workers=8, gpus=1) == 20.0
    assert schedule_seconds(stages, seconds, workers=8, gpus=2) == 16.0
    assert schedule_seconds(stages, seconds, workers=8) == 16.0


def test_the_gpu_study_is_priced_by_its_flops_near_an_hour(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = load_study("single_gpu")
    plan = plan_study(study, Store(tmp_path), crew=Crew(workers=15))
    gpu = [entry.price for entry in plan.entries if entry.price.on_gpu]
    assert len(gpu) == 5 * (6 + 16 + 21 + 5), "trunk, branches, cells and evaluations of five seeds"
    hours = sum(price.seconds for price in gpu) / 3600
    flops = sum(price.flops for price in gpu)
    assert flops / (0.06 * 989.4e12) / 3600 < hours < 1.3
    assert hours > 0.7
    assert plan.wall_seconds > 3600 * hours, "one GPU, after the corpus"
    text = shown(capsys, plan, Store(tmp_path))
    assert "GPU-hours" in text
    assert "1 GPU worker and 15 workers" in text
    assert "h100_sxm computes at 6% of 989 TFLOP/s in bf16" in text
    assert "(a guess: placement.gpus.source names no run)" in text
    assert "no communication is overlapped" in text
    assert "hours leave out saves, restarts, queueing" in text
    assert "no price per GPU-hour" in text
    dear = load_study("single_gpu", overrides=["placement.gpus.dollars_per_hour=3.0"])
    plan = plan_study(dear, Store(tmp_path), crew=Crew(workers=15, gpus=("0", "1")))
    price = 3.0 * sum(entry.price.gpu_hours for entry in plan.entries)
    assert f"{price:.2f} dollars" in shown(capsys, plan, Store(tmp_path))


def test_a_rate_measured_on_one_kind_of_hardware_prices_no_other(tmp_path: Path) -> None:
    store = Store(tmp_path)
    gpu, cpu = load_study("single_gpu"), load_study("single_gpu", overrides=["placement=cpu"])
    tuned = next(stage for stage in gpu.stages if stage.kind == "sft")
    price = price_stages([tuned], {}, placements=gpu.placements)[tuned.key]
    end = Finished(cpu_seconds=90.0, wall_seconds=33.0, error=None)
    place = gpu.placements.default
    write_provenance(store, Ticket.of(tuned), end=end, placement=place, work=price.work)
    here = price_stages([tuned], read_measured(store, gpu.placements), placements=gpu.placements)
    assert (here[tuned.key].seconds, here[tuned.key].is_measured) == (pytest.approx(33.0), True)
    there = price_stages([tuned], read_measured(store, cpu.placements), placements=cpu.placements)
    assert not there[tuned.key].is_measured
    assert not there[tuned.key].on_gpu


def test_the_printed_plan_has_a_line_a_stage_and_the_total(
    built: tuple[Store, Study], capsys: pytest.CaptureFixture[str]
) -> None:
    plan = changed(built, "sft.weight_decay=0.2")
    text = shown(capsys, plan, built[0], is_verbose=True)
    for entry in plan.missing:
        assert entry.stage.folder in text
    assert "16" in text
    assert "price:" in text


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "0"),
        (999, "999"),
        (999_600, "1 M"),
        (4_096_000, "4.1 M"),
        (1.2e13, "12 T"),
        (2.72e16, "27.2 P"),
        (2.64e23, "264 Z"),
    ],
)
def test_counts_are_short(number: float, shown: str) -> None:
    assert show_count(number) == shown


Capture = pytest.CaptureFixture[str]


def shown(capsys: Capture, plan: Plan, store: Store, *, is_verbose: bool = False) -> str:
    capsys.readouterr()
    print_plan(plan, store, is_verbose=is_verbose)
    return capsys.readouterr().out


def total(capsys: Capture, tmp_path: Path, study: str, workers: int = 1) -> str:
    store = Store(tmp_path / "store")
    return shown(capsys, plan_study(load_study(study), store, crew=Crew(workers=workers)), store)


def test_the_total_says_what_is_a_guess_and_counts_in_words(
    tmp_path: Path, capsys: Capture
) -> None:
    assert "on 1 worker\n" in total(capsys, tmp_path, "smoke")
    assert "on 2 workers\n" in total(capsys, tmp_path, "smoke", workers=2)
    assert "your files are taken for 1 M tokens, whatever they hold" in total(
        capsys, tmp_path, "own_data"
    )


def test_the_price_comes_first_and_the_stages_when_they_are_asked_for(
    tmp_path: Path, capsys: Capture
) -> None:
    study, store = load_study("smoke"), Store(tmp_path)
    plan = plan_study(study, store, crew=Crew(workers=2))
    short, whole = (shown(capsys, plan, store, is_verbose=verbose) for verbose in (False, True))
    assert short.splitlines()[1].startswith("price: ")
    assert "add -v" in short
    assert len(short.splitlines()) < 30
    assert not any(entry.stage.folder in short for entry in plan.missing)
    assert all(entry.stage.folder in whole for entry in plan.missing)


def test_the_paper_is_priced_with_what_it_assumes_and_holds_at_once(
    tmp_path: Path, capsys: Capture
) -> None:
    store = Store(tmp_path)
    plan = plan_study(load_study("paper_8b"), store, crew=Crew(workers=0))
    text = shown(capsys, plan, store)
    assert plan.are_jobs
    trained = [entry.price for entry in plan.entries if entry.stage.kind in ("pretrain", "sft")]
    assert all(price.gpus == 512 and price.memory_gib > 1 for price in trained)
    assert most_gpus(plan.missing) >= 12 * 512, "the SFT cells run side by side"
    assert f"{most_gpus(plan.missing):,} GPUs at once" in text
    assert "2.5 dollars per GPU-hour" in text
    assert "grpo on GPUs is a guess" in text


def test_a_plan_of_ten_thousand_stages_costs_seconds_not_minutes(tmp_path: Path) -> None:
    store, began = Store(tmp_path), time.process_time()
    study = load_study("laptop", overrides=["rl=null"])
    study = with_seeds(study, range(1, 181))
    plan = plan_study(study, store, crew=Crew(workers=2))
    assert len(plan.entries) > 10_000
    assert time.process_time() - began < 60, "linear: 4 s on the machine where it was written"


def test_an_evaluation_is_priced_for_no_more_tokens_than_the_model_can_write() -> None:
    def price(*overrides: str) -> float:
        stages = load_study("smoke", overrides=overrides).stages
        return sum(work_of(stage)[0] for stage in stages if stage.kind == "evaluate")

    context = "evaluation.sft.max_new_tokens=128"
    assert price("evaluation.sft.max_new_tokens=100_000") == price(context) > price()


def test_provenance_is_json_a_person_can_read(tmp_path: Path) -> None:
    store, stage = Store(tmp_path), load_study("smoke").stages[0]
    end = Finished(cpu_seconds=1.0, wall_seconds=2.0, error=None)
    write_provenance(store, Ticket.of(stage), end=end, placement=Placement(), work=3.0)
    found = json.loads(store.provenance_file(Ticket.of(stage)).read_text())
    assert (found["key"], found["work"], found["wall_seconds"]) == (stage.key, 3.0, 2.0)


OWN_ROW = {"question": "How many are 2 and 3?", "answer": "2 + 3 = 5.\n#### 5"}


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that recipes/studies/own_data.yaml names, large enough for its budgets."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/base").mkdir(parents=True)
    (tmp_path / "data/reasoning").mkdir()
    (tmp_path / "data/base/a.txt").write_text("some words\n" * 20_000)
    for name, rows in (("train", 2_000), ("test", 300)):
        lines = [
            json.dumps(OWN_ROW | {"question": f"How many are {n} and 3?"}) for n in range(rows)
        ]
        (tmp_path / f"data/reasoning/{name}.jsonl").write_text("\n".join(lines))
    return tmp_path


@pytest.mark.usefixtures("own_folder")
def test_own_files_that_suffice_are_planned() -> None:
    assert len(load_study("own_data", settle=settle).stages) > 20


def test_a_wrong_field_is_refused_by_plan(own_folder: Path) -> None:
    with pytest.raises(RecipeError, match="prompt"):
        load_study("own_data", overrides=["own.question_field=prompt"], settle=settle)


@pytest.mark.parametrize("field", ["reasoning_files", "base_files"])
def test_files_too_small_for_the_budget_are_refused_by_plan(own_folder: Path, field: str) -> None:
    small = {"reasoning_files": "reasoning/train.jsonl", "base_files": "base/a.txt"}[field]
    path = own_folder / "data" / small
    path.write_text(json.dumps(OWN_ROW) if path.suffix == ".jsonl" else "few words")
    with pytest.raises(RecipeError, match=rf"own_data.yaml:\d+: own.{field}: \d+ bytes, at most"):
        load_study("own_data", settle=settle)
