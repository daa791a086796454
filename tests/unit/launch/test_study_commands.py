"""One set of commands for every study: --only, --dry-run and JSON, here and as jobs."""

import json
import os
import shutil
from pathlib import Path

import pytest

from frontload.launch import cli
from frontload.launch.cluster.job_state import JobState
from frontload.launch.commands import load_named
from frontload.launch.shown.show import stage_state
from frontload.launch.stage.jobs import load_function
from frontload.launch.stage.registry import STAGES
from frontload.launch.stage.workspace import LiveWorkspace
from frontload.launch.store import Store, Ticket
from frontload.launch.study.crew import Crew
from frontload.launch.study.plan import plan_study
from frontload.recipes.machines.placement import Placement
from frontload.recipes.study.expand import load_study
from tests.paper_files import write_paper_files

Capture = pytest.CaptureFixture[str]


def call(capsys: Capture, *words: str) -> str:
    capsys.readouterr()
    assert cli.main(list(words)) == 0
    return capsys.readouterr().out


def refused(capsys: Capture, *words: str) -> str:
    capsys.readouterr()
    assert cli.main(list(words)) == 2
    return capsys.readouterr().err


def test_a_plan_as_json_has_every_stage_with_its_inputs_and_price(
    tmp_path: Path, capsys: Capture
) -> None:
    found = json.loads(call(capsys, "plan", "smoke", "--json", "--store", str(tmp_path)))
    study = load_study("smoke")
    assert [one["key"] for one in found["stages"]] == [stage.key for stage in study.stages]
    keys = {one["key"] for one in found["stages"]}
    assert all(set(one["inputs"].values()) <= keys for one in found["stages"])
    assert found["missing"] == len(study.stages)
    seconds = sum(one["price"]["seconds"] for one in found["stages"])
    assert found["price"]["cpu_seconds"] == pytest.approx(seconds)
    assert found["price"]["gpu_hours"] == 0
    paper = json.loads(call(capsys, "plan", "paper_8b", "--json", "--store", str(tmp_path)))
    assert paper["price"]["most_gpus_at_once"] > 512
    assert paper["price"]["dollars"] > 100_000


def test_a_status_as_json_says_the_state_of_every_stage(tmp_path: Path, capsys: Capture) -> None:
    found = json.loads(call(capsys, "status", "smoke", "--json", "--store", str(tmp_path)))
    states = {one["folder"].partition("/")[0]: one["state"] for one in found["stages"]}
    assert states["synthesize"] == "ready"
    assert states["tabulate"] == "blocked"
    assert all(one["job"] is None for one in found["stages"])


def test_only_some_stages_are_run_with_what_they_need(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = call(capsys, "run", "smoke", "--only", "tokenizer", "--workers", "1")
    assert "made 2 stages" in said
    kinds = sorted(path.name for path in (tmp_path / "store").iterdir() if path.name[0] != ".")
    assert kinds == ["provenance", "synthesize", "telemetry", "tokenizer"]
    assert not (tmp_path / "results").exists(), "a report is of a whole study"
    again = call(capsys, "run", "smoke", "--only", "tokenizer/word")
    assert "nothing to do, all 2 stages are built" in again
    assert "write 'tokenizer'" in refused(capsys, "run", "smoke", "--only", "tokeniser")


def write_files(folder: Path, kind: str) -> Path:
    """A study on files of a user, and one of these."""
    if kind == "import_raw":
        write_paper_files(folder)
        (folder / "mine.yaml").write_text("extends: paper_tiny\n")
        return folder / "raw" / "base.jsonl"
    rows = [{"question": f"{n} + 1 ?", "answer": f"{'add ' * 2_000}#### {n + 1}"} for n in range(9)]
    for name, lines in (("base", [{"text": "a b " * 5_000}] * 9), ("rows", rows)):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(text)
    (folder / "mine.yaml").write_text(
        "extends: own_data\nown: {base_files: [base.jsonl], reasoning_files: [rows.jsonl],"
        " heldout_files: [], heldout_rows: 2}\n"
    )
    return folder / "base.jsonl"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "own.heldout_files=[rows.jsonl]",
            "own.heldout_files: rows.jsonl: the bytes of rows.jsonl, which own.reasoning_files "
            "names; a question that scores the models is in no training file",
        ),
        ("own.heldout_files=[copy.jsonl]", "copy.jsonl: the bytes of rows.jsonl, which"),
        (
            "own.heldout_rows=9",
            "own.heldout_rows: is 9, and own.reasoning_files has 9 rows; each row that is held "
            "out is asked once, and one row at least is trained on; write at most 8",
        ),
        ("own.base_files=[folder]", "own.base_files: folder: a folder; inputs are files"),
        (
            "sft.max_epochs.own=2.0",
            "at most as many tokens, for 245_760 tokens of sft in at most 2 passes; a set is read "
            "at most sft.max_epochs times",
        ),
        ("sft.step_tokens=3_000", "sft.step_tokens: is 3_000 with budget_unit: read"),
    ],
)
def test_files_that_no_study_can_end_on_are_refused_by_its_plan(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, override: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path, "import_own")
    shutil.copy("rows.jsonl", "copy.jsonl")
    (tmp_path / "folder").mkdir()
    assert said in refused(capsys, "plan", "mine.yaml", override)
    assert refused(capsys, "run", "mine.yaml", override).startswith("frontload: ")
    assert not (tmp_path / "store").exists()
    assert "import_own" in call(capsys, "plan", "mine.yaml")


@pytest.mark.parametrize(("kind", "section"), [("import_own", "own"), ("import_raw", "raw")])
def test_files_that_changed_after_they_were_read_are_named_by_the_plan(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, kind: str, section: str
) -> None:
    """Their bytes are in no key: with the same size, a plan would say that all is as it was."""
    monkeypatch.chdir(tmp_path)
    file, store = write_files(tmp_path, kind), Store(tmp_path / "store")
    study = load_named("mine.yaml", seeds=None, overrides=[])
    (stage,) = (one for one in study.stages if one.kind == kind)
    ticket = Ticket.of(stage)
    work = LiveWorkspace(store, ticket, placement=Placement(), report=lambda *_: None)
    load_function(STAGES[kind])(stage.recipe, {}, work)
    made = store.publish(ticket)
    listing = made / ("raw.json" if kind == "import_raw" else "inputs.json")
    assert "changed since" not in call(capsys, "plan", "mine.yaml")
    after = listing.stat().st_mtime_ns + 10**9
    os.utime(file, ns=(after, after))
    name = file.relative_to(tmp_path).as_posix()
    said = call(capsys, "plan", "mine.yaml")
    assert f"changed since this study read them: {name}. What" in said
    assert f"another {section}.revision makes it anew" in said
    assert json.loads(call(capsys, "plan", "mine.yaml", "--json"))["changed_files"] == [name]


def test_a_dry_run_starts_nothing_and_writes_nothing(tmp_path: Path, capsys: Capture) -> None:
    store = tmp_path / "store"
    said = call(capsys, "run", "smoke", "--dry-run", "--store", str(store))
    assert "ready   synthesize/corpus-" in said
    jobs = call(capsys, "run", "paper_8b", "--dry-run", "--store", str(store))
    lines = {line.partition("-seed1")[0]: line for line in jobs.splitlines()}
    assert "64 x 8 ranks of paper_tp8pp8, after blend/trunk-seed1-" in lines["pretrain/trunk"]
    assert "1 x 1 ranks of slurm_one_gpu" in lines["benchmarks/ldq+shq-x1"]
    script = call(
        capsys, "run", "paper_8b", "--dry-run", "--only", "index/shq", "--store", str(store)
    )
    assert "--gpus" not in script, "data needs no GPU"
    assert f"{store}/.jobs/index/shq-" in script
    assert not store.exists()


def test_a_study_is_run_and_one_recipe_is_launched(capsys: Capture) -> None:
    assert "no such recipe" in refused(capsys, "launch", "paper_8b", "--placement", "slurm")


def test_the_state_of_a_job_is_that_of_its_stage(tmp_path: Path) -> None:
    store = Store(tmp_path)
    plan = plan_study(load_study("smoke"), store, crew=Crew(workers=1))
    entry = plan.entries[0]
    running = JobState(number="7", state="RUNNING", step=30, steps=40, tokens_per_second=5120.0)
    assert stage_state(entry, store, running) == (
        "running",
        "  job 7, step 30 of 40, 5.12 k tokens/s",
    )
    assert stage_state(entry, store, JobState(number="7", state="PENDING"))[0] == "pending"
    ended = stage_state(entry, store, JobState(number="7", state="TIMEOUT"))
    assert ended == ("ready", "  job 7 ended (TIMEOUT)")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("placements.sft=cpu", "run on this machine, or as jobs of one cluster"),
        ("placements.gropo=cpu", "write 'grpo'"),
        ("rl.rollout=frontload", "GRPO computes on a CPU with rollout frontload"),
        ("raw.revision=''", "raw.revision: is empty"),
        ("raw.prompts=[]", "raw.prompts: 0 files"),
        ("arms=[base, alf]", "raw.curation.sets.alf: has no text_copy"),
        ("arms=[base, shp]", "'shp' is not known"),
        ("raw.over_long=cut", "raw.over_long"),
        ("tokenizer={kind: word, vocab_size: 8}", "is stated beside raw.tokenizer"),
        ("mixes={ldq: {members: [ldq], min_answer_tokens: 0, share_of_member: {}}}", "mixes: is"),
    ],
)
def test_a_study_on_raw_files_that_cannot_be_made_is_refused_in_its_place(
    tmp_path: Path, capsys: Capture, override: str, said: str
) -> None:
    assert said in refused(capsys, "plan", "paper_8b", override, "--store", str(tmp_path))
