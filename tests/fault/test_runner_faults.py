"""Faults of a run: crashes, kills, a full disk, two runs, torn artifacts."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from toy_stages import REGISTRY, diamond, toy  # noqa: E402

from frontload.launch.origins.machine_kind import machine_kind  # noqa: E402
from frontload.launch.shown.show import summary_lines  # noqa: E402
from frontload.launch.stage.jobs import Finished, Tick  # noqa: E402
from frontload.launch.store import Store, Ticket, check_content  # noqa: E402
from frontload.launch.study import workers  # noqa: E402
from frontload.launch.study.runner import Settings, Summary, run_stages  # noqa: E402
from frontload.recipes.errors import ArtifactError, RecipeError, StageError  # noqa: E402
from frontload.recipes.machines.placement import Placement, Placements  # noqa: E402
from frontload.recipes.stage import Stage  # noqa: E402


class Silent:
    """A watcher that keeps the order in which stages started."""

    def __init__(self) -> None:
        self.order: list[str] = []

    def started(self, stage: Stage) -> None:
        self.order.append(stage.label)

    def ticked(self, stage: Stage, tick: Tick) -> None: ...
    def finished(self, stage: Stage, end: Finished) -> None: ...
    def waited(self) -> None: ...


def run(stages: Sequence[Stage], root: Path, *, workers: int = 2) -> Summary:
    settings = Settings(
        placements=Placements(default=Placement()), workers=workers, registry=REGISTRY, preload=()
    )
    return run_stages(stages, Store(root), settings=settings, watcher=Silent())


def artifact_bytes(root: Path) -> dict[str, bytes]:
    """Every byte of every finished artifact."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted((root / "tokenizer").rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    root = tmp_path_factory.mktemp("clean")
    run(diamond(), root)
    return artifact_bytes(root)


@pytest.mark.parametrize("workers", [1, 3])
def test_bytes_do_not_depend_on_the_number_of_workers(
    tmp_path: Path, workers: int, clean: dict[str, bytes]
) -> None:
    summary = run(diamond(), tmp_path, workers=workers)
    assert len(summary.made) == 5
    assert artifact_bytes(tmp_path) == clean


def test_a_second_run_does_nothing_and_is_quick(tmp_path: Path) -> None:
    run(diamond(), tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    begin = time.monotonic()
    assert run(diamond(), tmp_path).made == ()
    assert time.monotonic() - begin < 0.5
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_nothing_of_a_clock_or_host_is_in_an_artifact_but_provenance_has_it(tmp_path: Path) -> None:
    run(diamond(), tmp_path)
    text = b"".join(artifact_bytes(tmp_path).values())
    assert b"system/" not in text
    assert str(tmp_path).encode() not in text
    told = json.loads(next((tmp_path / "provenance").rglob("a-*.json")).read_text())
    assert told["cpu_seconds"] > 0
    assert told["placement"]["name"] == "cpu"
    assert told["made_on"]["cpu"] == machine_kind().cpu
    assert told["made_on"].keys() == asdict(machine_kind()).keys()
    lines = next((tmp_path / "telemetry").rglob("a-*.jsonl")).read_text().splitlines()
    assert len(lines) == 12
    assert "system/seconds" in lines[0]


# ---------------------------------------------------------------- a stage fails


@pytest.mark.parametrize(
    ("does", "said"),
    [("raise", "ValueError: a planted error"), ("SIGSEGV", "SIGSEGV"), ("SIGKILL", "SIGKILL")],
)
def test_a_failed_stage_blocks_what_needs_it_and_nothing_else(
    tmp_path: Path, does: str, said: str
) -> None:
    stages = diamond(does=does)
    summary = run(stages, tmp_path)
    (error,) = summary.failed.values()
    assert isinstance(error, StageError)
    assert said in error.found
    assert [stage.label for stage in summary.blocked] == ["d"]
    assert sorted(stage.label for stage in summary.made) == ["a", "c", "e"]
    assert Store(tmp_path).find("tokenizer", stages[1].key) is None
    assert "b-" in error.do, "the message names the stage's own log"


def test_every_worker_may_die_and_the_run_still_ends(tmp_path: Path) -> None:
    deaths = [toy(f"x{n}", does="SIGKILL", size=n + 1) for n in range(3)]
    summary = run([*deaths, toy("y", size=9)], tmp_path, workers=1)
    assert len(summary.failed) == 3
    assert [stage.label for stage in summary.made] == ["y"]


def test_a_full_disk_publishes_nothing_and_the_run_goes_on_afterwards(
    tmp_path: Path, clean: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = diamond(does="full")
    summary = run(stages, tmp_path)
    (error,) = summary.failed.values()
    assert isinstance(error, StageError)
    assert "is full" in error.found
    assert "free space" in error.do
    assert not list((tmp_path / "tokenizer").glob("b-*"))
    run(diamond(), tmp_path)
    made = artifact_bytes(tmp_path)
    assert {name: made[name] for name in clean} == clean


def test_a_disk_that_fills_while_publishing_leaves_no_artifact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, stage = Store(tmp_path), toy("a")
    ticket = Ticket.of(stage)
    (store.workspace(ticket) / "path").mkdir(parents=True)
    (store.workspace(ticket) / "path" / "x").write_text("x")

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("frontload.launch.store.os.fsync", full)
        with pytest.raises(OSError):
            store.publish(ticket)
    assert store.find(stage.kind, stage.key) is None
    assert store.publish(ticket) == store.find(stage.kind, stage.key)


# ---------------------------------------------------------------- the run is killed


def start(root: Path, does: str = "write") -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, str(HERE / "toy_run.py"), str(root), does],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_random_moments_a_run_ends_with_the_same_bytes(
    tmp_path: Path, seed: int, clean: dict[str, bytes]
) -> None:
    draw = random.Random(seed)
    for _ in range(4):
        process = start(tmp_path)
        time.sleep(0.3 + draw.random())
        process.kill()
        process.wait()
    last = start(tmp_path)
    _, told = last.communicate(timeout=60)
    assert last.returncode == 0, told.decode()
    assert artifact_bytes(tmp_path) == clean
    assert not list((tmp_path / ".work").rglob("path")), "no workspace is left behind"


def test_a_resumed_stage_goes_on_from_its_checkpoint_and_logs_every_step_once(
    tmp_path: Path, clean: dict[str, bytes]
) -> None:
    stage = diamond()[0]
    work = Store(tmp_path).workspace(Ticket.of(stage))
    (work / "path").mkdir(parents=True)
    (work / "scratch").mkdir()
    name = f"tokenizer/{stage.label}-{stage.key}/metrics.jsonl"
    lines = clean[name].decode().splitlines(keepends=True)
    (work / "path" / "metrics.jsonl").write_text("".join(lines[:7]) + lines[7][:9])  # torn
    run([stage], tmp_path)
    assert artifact_bytes(tmp_path)[name] == clean[name]


def test_workers_leave_when_the_runner_is_killed(tmp_path: Path) -> None:
    process = start(tmp_path, "wait")
    children: list[int] = []
    end = time.monotonic() + 20
    while time.monotonic() < end and not list((tmp_path / ".work").glob("*/b-*")):
        time.sleep(0.05)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == process.pid:
            children.append(int(stat.parent.name))
    assert children
    process.kill()
    process.wait()
    time.sleep(2.0)
    assert not [pid for pid in children if alive(pid)]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_a_run_leaves_it_to_be_resumed(
    tmp_path: Path, number: signal.Signals, clean: dict[str, bytes]
) -> None:
    process = start(tmp_path)
    time.sleep(0.8)
    process.send_signal(number)
    process.wait(timeout=20)
    last = start(tmp_path)
    assert last.wait(timeout=60) == 0
    assert artifact_bytes(tmp_path) == clean


# ---------------------------------------------------------------- two runs, torn artifacts


def test_a_second_run_on_a_busy_store_is_refused(tmp_path: Path) -> None:
    with Store(tmp_path).lock("run"), pytest.raises(RecipeError) as caught:
        run(diamond(), tmp_path)
    assert "another run" in caught.value.found
    assert str(os.getpid()) in caught.value.found
    assert not (tmp_path / "tokenizer").exists()


def test_the_lock_of_a_dead_run_is_free(tmp_path: Path) -> None:
    process = start(tmp_path, "wait")
    end = time.monotonic() + 20
    while time.monotonic() < end and not list((tmp_path / ".work").glob("*/b-*")):
        time.sleep(0.05)
    process.kill()
    process.wait()
    with Store(tmp_path).lock("run", wait_seconds=5.0):
        pass


@pytest.mark.parametrize("harm", ["shorten", "remove", "manifest", "other"])
def test_a_torn_artifact_is_refused_with_its_file(tmp_path: Path, harm: str) -> None:
    stage = diamond()[0]
    run([stage], tmp_path)
    folder = tmp_path / stage.folder
    victim = folder / "deep" / "0.bin"
    if harm == "shorten":
        victim.write_bytes(victim.read_bytes()[:-1])
    elif harm == "remove":
        victim.unlink()
    elif harm == "manifest":
        (folder / "manifest.json").write_text("{")
    else:
        other = folder.with_name(f"a-{'0' * 12}")
        shutil.copytree(folder, other)
        folder = other
    with pytest.raises(ArtifactError) as caught:
        Store(tmp_path).find(stage.kind, "0" * 12 if harm == "other" else stage.key)
    assert str(folder) in caught.value.do
    assert caught.value.exit_code == 2


def test_a_changed_byte_of_the_same_size_stops_what_reads_it(tmp_path: Path) -> None:
    a, b, *_ = diamond()
    run([a], tmp_path)
    victim = tmp_path / a.folder / "deep" / "0.bin"
    victim.write_bytes(b"?" + victim.read_bytes()[1:])
    with pytest.raises(ArtifactError):
        check_content(tmp_path / a.folder)
    summary = run([a, b], tmp_path)
    (error,) = summary.failed.values()
    assert isinstance(error, ArtifactError)
    assert "deep/0.bin" in error.found


# ---------------------------------------------------------------- order and use of the cores


def test_the_longest_path_starts_first() -> None:
    from frontload.launch.study.order import critical_seconds

    a, b, c, d, e = diamond()
    seconds = {a.key: 1.0, b.key: 5.0, c.key: 2.0, d.key: 1.0, e.key: 4.0}
    rank = critical_seconds([a, b, c, d, e], seconds)
    assert [rank[stage.key] for stage in (a, b, c, d, e)] == [7.0, 6.0, 3.0, 1.0, 4.0]


def test_utilisation_counts_the_cpu_time_of_the_stages(tmp_path: Path) -> None:
    summary = run([toy(f"x{n}", does="burn", size=n + 1) for n in range(4)], tmp_path)
    assert 2.0 <= summary.cpu_seconds < 3.0
    share = summary.cpu_seconds / (summary.cores * summary.wall_seconds)
    assert summary.utilisation == pytest.approx(share)
    assert summary.utilisation <= 1.1


# ---------------------------------------------------------------- stages on several ranks


def run_ranks(stage: Stage, root: Path) -> Summary:
    placement = Placement(ranks_per_node=2, tensor_parallel=2)
    settings = Settings(
        placements=Placements(default=placement), workers=1, registry=REGISTRY, preload=()
    )
    return run_stages([stage], Store(root), settings=settings, watcher=Silent())


def test_a_stage_runs_on_every_rank_and_is_published_once(tmp_path: Path) -> None:
    stage = Stage(kind="sft", label="x", recipe=toy("x").recipe)
    assert not run_ranks(stage, tmp_path).failed
    folder = tmp_path / stage.folder
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["manifest.json", "metrics.jsonl", "rank0", "rank1"]
    assert (folder / "rank1").read_text() == "2"
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 1, "rank 0 alone logs"


def test_one_failed_rank_fails_the_stage_with_its_message(tmp_path: Path) -> None:
    stage = Stage(kind="sft", label="x", recipe=toy("x", does="raise").recipe)
    (error,) = run_ranks(stage, tmp_path).failed.values()
    assert isinstance(error, StageError)
    log = Store(tmp_path).telemetry_file(Ticket.of(stage), "log")
    assert "a planted error of rank 1" in log.read_text()
    assert not (tmp_path / stage.folder).exists()


def test_a_rank_that_refuses_tells_its_own_four_parts(tmp_path: Path) -> None:
    stage = Stage(kind="sft", label="x", recipe=toy("x", does="refuse").recipe)
    (error,) = run_ranks(stage, tmp_path).failed.values()
    assert isinstance(error, RecipeError)
    assert (error.asked, error.rule, error.do) == ("placement", "planted", "write 1")
    assert not (tmp_path / stage.folder).exists()


def test_ranks_on_other_nodes_are_refused(tmp_path: Path) -> None:
    stage = Stage(kind="sft", label="x", recipe=toy("x").recipe)
    settings = Settings(
        placements=Placements(default=Placement(num_nodes=2)),
        workers=1,
        registry=REGISTRY,
        preload=(),
    )
    summary = run_stages([stage], Store(tmp_path), settings=settings, watcher=Silent())
    (error,) = summary.failed.values()
    assert "num_nodes" in error.asked


def test_a_full_disk_is_named_where_the_log_cannot_be_written_either(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stages = diamond(does="full")
    log = Store(tmp_path / "store").telemetry_file(Ticket.of(stages[1]), "log")
    log.parent.mkdir(parents=True)
    log.symlink_to("/dev/full")
    summary = run(stages, tmp_path / "store")
    assert list(summary.failed) == [stages[1].key]
    assert "the disk of" in str(summary.failed[stages[1].key])
    assert capfd.readouterr().err == "", "no traceback of the worker, which lives on"


def test_a_worker_that_a_signal_stopped_is_ended_in_the_stated_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It raises nothing and closes nothing: 100 s later the study still waited for it."""
    monkeypatch.setattr(workers, "STOPPED_SECONDS", 1.0)
    monkeypatch.setattr(workers, "LOOK_SECONDS", 0.2)
    began = time.monotonic()
    stages = diamond(does="SIGSTOP")
    summary = run(stages, tmp_path / "store")
    assert time.monotonic() - began < 60.0
    assert list(summary.failed) == [stages[1].key]
    assert "was stopped by a signal for 1 s, and ended" in summary.failed[stages[1].key].found
    assert {stage.label for stage in summary.made} == {"a", "c", "e"}


def test_a_full_disk_ends_the_study_and_is_named_once(tmp_path: Path) -> None:
    """Nothing more is begun: each stage would end with the same message."""
    first = toy("a", does="full", size=1)
    stages = [first, *(toy(f"x{n}", size=n + 2) for n in range(6)), toy("b", size=9, a=first)]
    summary = run(stages, tmp_path / "store", workers=1)
    assert list(summary.failed) == [first.key]
    assert {stage.key for stage in summary.blocked} == {stage.key for stage in stages[1:]}
    lines = summary_lines(summary)
    assert sum("is full" in line for line in lines[:-1]) == 1
    assert lines[-1].startswith("not run, since the disk is full: 7 tokenizer")
