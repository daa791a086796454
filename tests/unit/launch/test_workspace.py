"""The workspace of a stage: deterministic logs, telemetry aside, progress in moderation."""

import json
import time
from pathlib import Path

import pytest

from frontload.launch.stage.workspace import METRICS, LiveWorkspace
from frontload.launch.store import Store, Ticket, check_content, digest_file, read_manifest
from frontload.recipes.errors import ArtifactError
from frontload.recipes.machines.placement import Placement
from frontload.recipes.schema import Tokenizer
from frontload.recipes.stage import Stage

STAGE = Stage(kind="tokenizer", label="x", recipe=Tokenizer(kind="word", vocab_size=9))
TICKET = Ticket.of(STAGE)


def open_workspace(root: Path, *, rank: int = 0, seen: list[int] | None = None) -> LiveWorkspace:
    def report(done: int, _total: int, _note: str) -> None:
        if seen is not None:
            seen.append(done)

    return LiveWorkspace(Store(root), TICKET, placement=Placement(), report=report, rank=rank)


def lines(work: LiveWorkspace) -> list[dict[str, float]]:
    return [json.loads(line) for line in (work.path / METRICS).read_text().splitlines()]


def test_metrics_go_to_the_artifact_and_system_metrics_do_not(tmp_path: Path) -> None:
    work = open_workspace(tmp_path)
    work.log(1, train__loss=2.0, system__tokens_per_second=9.0)
    work.log(2, train__loss=1.0)
    work.close()
    assert lines(work) == [{"step": 1, "train/loss": 2.0}, {"step": 2, "train/loss": 1.0}]
    told = Store(tmp_path).telemetry_file(TICKET, "jsonl").read_text()
    assert json.loads(told)["system/tokens_per_second"] == 9.0


def test_rewind_drops_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    work = open_workspace(tmp_path)
    for step in range(1, 6):
        work.log(step, train__loss=float(step))
    work.close()
    again = open_workspace(tmp_path)
    again.rewind(3)
    again.log(4, train__loss=40.0)
    again.close()
    assert [line["train/loss"] for line in lines(again)] == [1.0, 2.0, 3.0, 40.0]


def test_a_stage_that_starts_over_without_rewind_leaves_no_old_lines(tmp_path: Path) -> None:
    for _ in range(2):
        work = open_workspace(tmp_path)
        for step in (1, 2):
            work.log(step, train__loss=float(step))
        work.close()
    assert [line["step"] for line in lines(work)] == [1, 2]


def test_a_line_torn_by_a_kill_is_dropped(tmp_path: Path) -> None:
    work = open_workspace(tmp_path)
    work.log(1, train__loss=1.0)
    work.close()
    with open(work.path / METRICS, "a") as file:
        file.write('{"step": 2, "train/lo')
    again = open_workspace(tmp_path)
    again.rewind(5)
    again.close()
    assert [line["step"] for line in lines(again)] == [1]


def test_a_stage_without_a_line_has_no_metrics_file(tmp_path: Path) -> None:
    work = open_workspace(tmp_path)
    work.rewind(0)
    work.close()
    assert not (work.path / METRICS).exists()


def test_a_run_that_starts_over_in_the_middle_keeps_what_came_before(tmp_path: Path) -> None:
    work = open_workspace(tmp_path)
    for step in (1, 2, 3):
        work.log(step, train__loss=float(step))
    work.close()
    again = open_workspace(tmp_path)
    again.log(3, train__loss=30.0)
    again.log(4, train__loss=40.0)
    again.close()
    assert [line["train/loss"] for line in lines(again)] == [1.0, 2.0, 30.0, 40.0]


def test_a_step_of_system_metrics_alone_is_no_line_of_the_artifact(tmp_path: Path) -> None:
    work = open_workspace(tmp_path)
    work.log(1, system__seconds=1.0)
    work.log(2, system__seconds=2.0)
    work.close()
    assert not (work.path / METRICS).exists()
    told = Store(tmp_path).telemetry_file(TICKET, "jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in told] == [1, 2]
    assert abs(json.loads(told[0])["system/time"] - time.time()) < 3600


def test_whoever_listens_hears_every_metric_of_the_first_rank(tmp_path: Path) -> None:
    heard: list[tuple[int, dict[str, float]]] = []
    for rank in (0, 1):
        work = open_workspace(tmp_path, rank=rank)
        work.listeners.append(lambda step, named: heard.append((step, dict(named))))
        work.log(7, train__loss=2.0, system__seconds=1.0)
        work.close()
    assert heard == [(7, {"train/loss": 2.0, "system/seconds": 1.0})]


def test_a_rank_has_a_log_of_its_own_where_one_is_asked_for(tmp_path: Path) -> None:
    work = open_workspace(tmp_path, rank=3)
    work.log_rank(1, seconds=0.5)
    work.rank_log = tmp_path / "logs" / "rank3.jsonl"
    work.log_rank(2, seconds=0.25)
    work.log_rank(3, seconds=0.75)
    told = [json.loads(line) for line in work.rank_log.read_text().splitlines()]
    assert [(line["step"], line["seconds"]) for line in told] == [(2, 0.25), (3, 0.75)]


def test_a_run_is_asked_to_end_by_whoever_says_so(tmp_path: Path) -> None:
    work = open_workspace(tmp_path)
    assert not work.stop_asked()
    work.stop = lambda: True
    assert work.stop_asked()


def test_other_ranks_are_silent(tmp_path: Path) -> None:
    seen: list[int] = []
    work = open_workspace(tmp_path, rank=1, seen=seen)
    work.log(1, train__loss=1.0)
    work.rewind(0)
    work.progress(1, 1)
    work.close()
    assert not (work.path / METRICS).exists()
    assert not seen


def test_progress_is_not_a_flood_and_always_tells_the_end(tmp_path: Path) -> None:
    seen: list[int] = []
    work = open_workspace(tmp_path, seen=seen)
    for done in range(1, 10_001):
        work.progress(done, 10_000)
    assert seen[0] == 1, "the first word comes at once"
    assert seen[-1] == 10_000
    assert len(seen) < 50
    work.progress(10_000, 10_000)
    assert seen[-2:] == [10_000, 10_000], "the end is always told"


# ---------------------------------------------------------------- publishing


def test_the_manifest_says_what_was_hashed_and_what_is_there(tmp_path: Path) -> None:
    store = Store(tmp_path)
    work = open_workspace(tmp_path)
    (work.path / "deep").mkdir()
    (work.path / "deep" / "file").write_bytes(b"bytes")
    (work.scratch / "checkpoint").write_bytes(b"not published")
    folder = store.publish(TICKET)
    manifest = read_manifest(folder)
    assert {name: manifest[name] for name in STAGE.payload()} == STAGE.payload()
    assert manifest["files"] == {
        "deep/file": {"sha256": digest_file(folder / "deep" / "file"), "size_bytes": 5}
    }
    check_content(folder)
    assert not store.workspace(TICKET).exists()


def test_an_artifact_is_found_by_key_under_any_label(tmp_path: Path) -> None:
    store = Store(tmp_path)
    open_workspace(tmp_path)
    folder = store.publish(TICKET)
    other = Stage(kind=STAGE.kind, label="another-name", recipe=STAGE.recipe)
    assert store.find(other.kind, other.key) == folder


def test_an_artifact_of_another_format_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    open_workspace(tmp_path)
    manifest = store.publish(TICKET) / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 9'))
    with pytest.raises(ArtifactError, match="its manifest is of format 9; this version reads"):
        store.find(STAGE.kind, STAGE.key)


def test_before_the_rename_nothing_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    work = open_workspace(tmp_path)
    (work.path / "file").write_bytes(b"bytes")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("frontload.launch.store.os.rename", stop)
        with pytest.raises(KeyboardInterrupt):
            store.publish(TICKET)
    assert store.find(STAGE.kind, STAGE.key) is None
    first = store.publish(TICKET)
    assert list(read_manifest(first)["files"]) == ["file"], "a half-written manifest is no content"
