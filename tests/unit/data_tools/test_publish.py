"""Work folders: one holder at a time, freed by any death, and outputs that appear whole."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from frontload.data_tools.disk import publish
from frontload.data_tools.disk.publish import (
    check_place,
    clear,
    make_folder,
    publish_files,
    publish_folder,
    tidy,
    workplace,
)
from frontload.recipes.errors import RecipeError, StageError


def test_a_second_run_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    with workplace(tmp_path / "out", asked="--out") as folder:
        (folder / "part").touch()
        holder = rf"--out .*out: another run is writing it \(process {os.getpid()} on "
        with (
            pytest.raises(RecipeError, match=holder),
            workplace(tmp_path / "out", asked="--out"),
        ):
            pytest.fail("two runs hold one folder")
    assert not list(tmp_path.iterdir())


def test_the_lock_of_a_killed_run_is_free_and_its_parts_are_there(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        with workplace(tmp_path / "out", asked="--out") as folder:
            (folder / "part").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    with workplace(tmp_path / "out", asked="--out") as folder:
        assert (folder / "part").read_text() == "half"
    assert not list(tmp_path.iterdir())


def test_an_error_leaves_the_parts_and_no_empty_folder(tmp_path: Path) -> None:
    folder = tmp_path / "out.work"

    def fail(*, in_the_end: Callable[[], object]) -> None:
        with workplace(tmp_path / "out", asked="--out"):
            in_the_end()
            raise KeyError

    with pytest.raises(KeyError):
        fail(in_the_end=(folder / "part").touch)
    assert folder.is_dir()
    with pytest.raises(KeyError):
        fail(in_the_end=lambda: clear(folder))
    assert not folder.exists()


def test_a_run_that_comes_while_the_folder_goes_gets_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It opened the lock just before it was deleted, or made one just after."""
    real, came = Path.rmdir, []

    def late(folder: Path) -> None:
        if not came:  # between the deletion of the lock and that of the folder
            came.append(publish._locked(folder, "--out"))
        real(folder)

    monkeypatch.setattr(Path, "rmdir", late)
    with workplace(tmp_path / "out", asked="--out"):
        pass
    assert came
    with (
        pytest.raises(RecipeError, match="another run is writing it"),
        workplace(tmp_path / "out", asked="--out"),
    ):
        pytest.fail("the run that came is in it")
    os.close(came[0])
    with workplace(tmp_path / "out", asked="--out"):
        pass
    assert not list(tmp_path.iterdir())


def test_many_runs_at_once_never_share_the_folder(tmp_path: Path) -> None:
    inside, refused, done = [0], [0], [0]

    def run() -> None:
        for _ in range(50):
            try:
                with workplace(tmp_path / "out", asked="--out"):
                    inside[0] += 1
                    assert inside[0] == 1
                    done[0] += 1
                    inside[0] -= 1
            except RecipeError:
                refused[0] += 1

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done[0] + refused[0] == 200
    assert done[0]
    with workplace(tmp_path / "out", asked="--out"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_folder_gets_its_name_whole_and_replaces_nothing(tmp_path: Path) -> None:
    with workplace(tmp_path / "out", asked="--out") as work:
        (work / "ready" / "below").mkdir(parents=True)
        (work / "ready" / "below" / "file").write_text("x")
        publish_folder(work / "ready", tmp_path / "out")
    assert (tmp_path / "out" / "below" / "file").read_text() == "x"
    (tmp_path / "empty").mkdir()  # a rename alone would replace it
    (tmp_path / "ready").mkdir()
    with pytest.raises(RecipeError, match="something that came while it was made"):
        publish_folder(tmp_path / "ready", tmp_path / "empty")


def test_files_get_their_names_in_order(tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    first.write_text("new")
    (tmp_path / "a").write_text("old")
    with pytest.raises(StageError, match="b: No such file"):
        publish_files({first: tmp_path / "a", second: tmp_path / "b"})
    assert (tmp_path / "a").read_text() == "old"  # nothing is named before all is on the disk
    second.write_text("new")
    publish_files({first: tmp_path / "a", second: tmp_path / "b"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_finished_output_is_tidied(tmp_path: Path) -> None:
    (tmp_path / "out.work").mkdir()
    (tmp_path / "out.work" / "part").touch()
    tidy(tmp_path / "out", asked="--out")
    tidy(tmp_path / "out", asked="--out")
    assert not list(tmp_path.iterdir())


def test_places_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no folder"):
        check_place(tmp_path / "no" / "out", asked="--out")
    with pytest.raises(RecipeError, match="without a name"):
        check_place(Path(), asked="--out")
    check_place(Path("/proc/out"), asked="--out")
    with pytest.raises(RecipeError, match=r"--out /proc/out/a: no folder can be made there"):
        make_folder(Path("/proc/out/a"), asked="--out")
    with (
        pytest.raises(StageError, match=r"/proc/out.work: No such file.*correct permissions"),
        workplace(Path("/proc/out"), asked="--out"),
    ):
        pytest.fail("nothing can be made there")
