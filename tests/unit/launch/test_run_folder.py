"""The end of a stage as a rank sees it that does not publish."""

from pathlib import Path

import pytest

from frontload.launch.ranks.seat import Seat
from frontload.launch.run import folder as run_folder
from frontload.launch.run.folder import RunFolder
from frontload.launch.store import check_given
from frontload.recipes.errors import ArtifactError, RecipeError, Stopped
from frontload.recipes.machines.placement import Placement

pytestmark = pytest.mark.usefixtures("short_waits")


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "SEEN_SECONDS", 0.5)
    monkeypatch.setattr(run_folder, "ASKED_SECONDS", 0.05)


def second_rank(out: Path) -> RunFolder:
    return RunFolder(command="train", name="tiny", out=out, seat=Seat(rank=1, world=2))


def test_a_stage_that_is_never_seen_is_an_error_of_the_file_system(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="rank 1: .*first: not seen after"):
        second_rank(tmp_path).publish("first")


def test_a_rank_that_is_asked_to_stop_does_not_wait_for_a_rank_that_died(tmp_path: Path) -> None:
    with pytest.raises(Stopped, match="asked to stop before rank 0"):
        second_rank(tmp_path).publish("first", stop_asked=lambda: True)


def test_a_stage_published_in_time_is_seen_though_a_stop_was_asked(tmp_path: Path) -> None:
    def stop_asked() -> bool:
        manifest = tmp_path / "first" / run_folder.MANIFEST
        manifest.parent.mkdir(exist_ok=True)
        manifest.write_text("{}")
        return True

    second_rank(tmp_path).publish("first", stop_asked=stop_asked)


def test_a_published_stage_states_digests_so_that_another_byte_is_seen(tmp_path: Path) -> None:
    leader = RunFolder(command="train", name="tiny", out=tmp_path, seat=Seat())
    leader.open({"first": {"kind": "pretrain"}}, Placement())
    weights = leader.work("first") / "path" / "weights"
    weights.mkdir(parents=True)
    (weights / "part").write_bytes(b"12345")
    leader.publish("first")
    check_given(tmp_path / "first")
    (tmp_path / "first" / "weights" / "part").write_bytes(b"12346")
    with pytest.raises(ArtifactError, match="weights/part is not the file"):
        check_given(tmp_path / "first")


@pytest.mark.parametrize("below", ["", "/further"])
def test_a_run_in_what_is_no_folder_is_told_of_its_own_option(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("mine")
    out = Path(f"{tmp_path}/file{below}")
    folder = RunFolder(command="rl", name="grpo_tiny", out=out, seat=Seat())
    with pytest.raises(RecipeError, match="not a folder") as found, folder.held():
        pass
    assert found.value.asked == f"--out {out}"
    assert (tmp_path / "file").read_text() == "mine"
