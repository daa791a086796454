"""A run's folder as a store, and the end of a stage as each of its ranks sees it."""

import json
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from frontload.launch.ranks.seat import Seat
from frontload.launch.run.folder import RunFolder
from frontload.launch.stage import as_rank
from frontload.launch.stage.alone import Meter, check_once
from frontload.launch.stage.as_rank import Rank, make_as_rank, publish_stage
from frontload.launch.stage.jobs import Job
from frontload.launch.store import MANIFEST, check_content
from frontload.recipes.artifact import Workspace
from frontload.recipes.errors import ArtifactError, RecipeError, Stopped
from frontload.recipes.machines.placement import Placement
from frontload.recipes.machines.upkeep import Upkeep
from frontload.recipes.schema import Tokenizer

pytestmark = pytest.mark.usefixtures("short_waits")
RECIPE = Tokenizer(kind="word", vocab_size=9)


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(as_rank, "SEEN_SECONDS", 0.5)
    monkeypatch.setattr(as_rank, "ASKED_SECONDS", 0.2)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "out", command="train", name="tiny")


def write_weights(recipe: Tokenizer, inputs: dict[str, Path], work: Workspace) -> None:
    """A stage function."""
    (work.path / "weights").mkdir(exist_ok=True)
    (work.path / "weights" / "part").write_bytes(bytes([recipe.vocab_size]) * 5)


def job_of(folder: RunFolder, *, before: Job | None = None, name: str = "first") -> Job:
    upkeep = Upkeep(hang_seconds=0.2, pause_seconds=0.2)
    job = folder.job(
        name,
        kind="tokenizer",
        recipe=RECIPE,
        inputs={},
        before=before,
        placement=Placement(ranks_per_node=2, upkeep=upkeep),
    )
    object.__setattr__(job, "function", f"{__name__}:write_weights")
    return job


def rank_of(number: int, world: int = 2, *stop: str) -> Rank:
    seat = Seat(rank=number, world=world, ranks_here=world)
    return Rank(seat=seat, stop=list(stop), beats=None, logs=None)


def end(job: Job, rank: Rank) -> None:
    publish_stage(job, rank, meter=Meter(), work=0.0)


def test_a_stage_that_is_never_seen_is_an_error_of_the_file_system(folder: RunFolder) -> None:
    with pytest.raises(ArtifactError, match="rank 1: .*first: not seen after") as found:
        end(job_of(folder), rank_of(1))
    assert found.value.do.startswith("put --out on a file system that all nodes share")


def test_a_rank_that_is_asked_to_stop_does_not_wait_for_a_rank_that_died(
    folder: RunFolder,
) -> None:
    with pytest.raises(Stopped, match="asked to stop before rank 0"):
        end(job_of(folder), rank_of(1, 2, "SIGTERM"))


def test_a_stage_published_in_time_is_seen_though_a_stop_was_asked(folder: RunFolder) -> None:
    job = job_of(folder)

    def publish() -> None:
        time.sleep(0.05)
        manifest = folder.root / "first" / MANIFEST
        manifest.parent.mkdir(parents=True)
        manifest.write_text("{}")

    thread = threading.Thread(target=publish)
    thread.start()
    end(job, rank_of(1, 2, "SIGTERM"))
    thread.join()


def test_two_ranks_make_a_stage_and_its_record_counts_both(folder: RunFolder) -> None:
    job = job_of(folder)
    folder.workspace(job.ticket).mkdir(parents=True)
    burnt: list[float] = []

    def second() -> None:
        meter = SimpleNamespace(cpu_seconds=lambda: 70.5)
        time.sleep(0.05)
        publish_stage(job, rank_of(1), meter=meter, work=0.0)  # pyright: ignore[reportArgumentType]
        burnt.append(70.5)

    thread = threading.Thread(target=second)
    thread.start()
    make_as_rank(job, rank_of(0))
    thread.join()
    assert burnt, "the second rank has seen what the first one published"
    made = folder.find_made(job.ticket)
    assert made == folder.root / "first"
    check_content(folder.root / "first")
    told = json.loads(folder.provenance_file(job.ticket).read_text())
    assert told["key"] == job.ticket.key
    assert (70.5 <= told["cpu_seconds"] < 80.0, told["uncounted_ranks"]) == (True, 0)
    assert not folder.workspace(job.ticket).exists()


def test_a_rank_that_does_not_say_what_it_spent_is_counted_as_missing(folder: RunFolder) -> None:
    job = job_of(folder)
    make_as_rank(job, rank_of(0, 3))
    told = json.loads(folder.provenance_file(job.ticket).read_text())
    assert told["uncounted_ranks"] == 2


def test_what_an_earlier_start_spent_is_not_counted(folder: RunFolder) -> None:
    job = job_of(folder)
    stale = folder.workspace(job.ticket) / as_rank.CPU / "1"
    stale.parent.mkdir(parents=True)
    stale.write_text("1000.0")
    make_as_rank(job, rank_of(0))
    told = json.loads(folder.provenance_file(job.ticket).read_text())
    assert told["cpu_seconds"] < 1000.0


def test_a_published_stage_states_digests_so_that_another_byte_is_seen(folder: RunFolder) -> None:
    job = job_of(folder)
    make_as_rank(job, rank_of(0, 1))
    (folder.root / "first" / "weights" / "part").write_bytes(b"12346")
    with pytest.raises(ArtifactError, match="weights/part is not the file"):
        check_once(folder, folder.root / "first")


def test_a_stage_goes_on_from_the_one_before_and_its_key_says_so(folder: RunFolder) -> None:
    first = job_of(folder)
    second = job_of(folder, before=first, name="second")
    assert second.inputs["start"] == folder.root / "first"
    assert second.ticket.payload["inputs"] == {"start": first.ticket.key}
    assert second.ticket.key != job_of(folder, name="second").ticket.key


def test_a_failed_stage_leaves_its_message_and_nothing_finished(folder: RunFolder) -> None:
    job = job_of(folder)
    object.__setattr__(job, "function", f"{__name__}:refuse")
    with pytest.raises(ArtifactError):
        make_as_rank(job, rank_of(0, 1))
    assert "torn; it is whole" in folder.error_file(job.ticket).read_text()
    assert folder.find_made(job.ticket) is None


def refuse(recipe: Tokenizer, inputs: dict[str, Path], work: Workspace) -> None:
    """A stage function."""
    raise ArtifactError("a pack", found="torn", rule="it is whole", do="make it again")


@pytest.mark.parametrize("below", ["", "/further"])
def test_a_run_in_what_is_no_folder_is_told_of_its_own_option(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("mine")
    out = Path(f"{tmp_path}/file{below}")
    with pytest.raises(RecipeError, match="not a folder") as found:
        RunFolder(out, command="rl", name="grpo_tiny")
    assert found.value.asked == f"--out {out}"
    assert (tmp_path / "file").read_text() == "mine"


def test_a_run_that_another_one_holds_is_told_of_its_own_option(folder: RunFolder) -> None:
    other = RunFolder(folder.root, command="rl", name="other")
    held = pytest.raises(RecipeError, match="another run holds it")
    with folder.lock("run"), held as found, other.lock("run"):
        pass
    assert found.value.asked == f"--out {folder.root}"
    assert found.value.do.endswith("name another folder with --out")
