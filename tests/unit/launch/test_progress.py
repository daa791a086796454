"""What a watcher sees: plain lines without a terminal, shares and time left by the estimates."""

from pathlib import Path

import pytest

from frontload.launch.shown import progress
from frontload.launch.shown.progress import StudyProgress
from frontload.launch.shown.show import SHOWN_FAILURES, status_lines, summary_lines
from frontload.launch.stage.jobs import Finished, Tick
from frontload.launch.store import Store, Ticket
from frontload.launch.study.crew import Crew
from frontload.launch.study.plan import plan_study
from frontload.launch.study.runner import Summary
from frontload.launch.text.words import show_seconds
from frontload.recipes.errors import StageError
from frontload.recipes.study.expand import load_study

STAGES = load_study("smoke").stages[:3]
SECONDS = dict(zip((stage.key for stage in STAGES), (10.0, 20.0, 70.0), strict=True))


class Clock:
    """A clock that tests turn."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(progress, "time", found)
    return found


def end(error: StageError | None = None) -> Finished:
    return Finished(cpu_seconds=1.0, wall_seconds=2.0, error=error)


def test_plain_lines_tell_start_end_share_and_time_left(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    view = StudyProgress(STAGES, SECONDS)
    view.started(STAGES[0])
    clock.now = 10.0
    view.finished(STAGES[0], end())
    view.started(STAGES[1])
    view.ticked(STAGES[1], Tick(done=1, total=2, note=""))
    assert view.share() == pytest.approx(0.2)
    clock.now = 20.0
    view.waited()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["start", "done", "start", "20%"]
    assert STAGES[0].folder in lines[1]
    assert "1 of 3" in lines[1]
    assert "about 1 min 20 s left" in lines[3]
    assert f"{STAGES[1].label} 50%" in lines[3]


def test_the_overall_line_comes_every_ten_seconds_not_more(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    view = StudyProgress(STAGES, SECONDS)
    for second in range(31):
        clock.now = float(second)
        view.waited()
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_a_failure_is_shown_with_its_message(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    view = StudyProgress(STAGES, SECONDS)
    view.started(STAGES[0])
    error = StageError("stage x", found="found it", rule="rule", do="do this")
    view.finished(STAGES[0], end(error))
    out = capsys.readouterr().out
    assert "FAILED" in out
    assert "found it; rule; do this" in out


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (3.6, "4 s"),
        (59.4, "59 s"),
        (200.0, "3 min 20 s"),
        (7500.0, "2 h 05 min"),
        (990_000.0, "11.5 days"),
    ],
)
def test_durations_read_as_people_say_them(seconds: float, shown: str) -> None:
    assert show_seconds(seconds) == shown


def test_status_tells_running_failed_and_begun_apart(tmp_path: Path) -> None:
    store, study = Store(tmp_path), load_study("smoke")
    tickets = [Ticket.of(stage) for stage in study.stages[:4]]
    for ticket in tickets[:3]:
        (store.workspace(ticket) / "path").mkdir(parents=True)
    store.error_file(tickets[1]).write_text("it broke\n")
    with store.lock(tickets[0].key):
        lines = status_lines(plan_study(study, store, crew=Crew(workers=1)), store, {})[1:5]
    assert [line.split()[0] for line in lines] == ["running", "failed", "begun", "blocked"]
    assert "it broke" in lines[1]


def test_the_end_of_a_run_tells_each_message_once_and_not_too_many() -> None:
    same = StageError("the corpus", found="is gone", rule="it is there", do="bring it back")
    others = [StageError(f"stage {n}", found="broke", rule="r", do="d") for n in range(9)]
    failed = {str(number): error for number, error in enumerate([same, same, *others])}
    summary = Summary(
        made=(), failed=failed, blocked=(), wall_seconds=1.0, cpu_seconds=1.0, cores=1
    )
    lines = summary_lines(summary)
    assert f"  {same} (2 stages)" in lines
    assert sum("broke" in line for line in lines) == SHOWN_FAILURES - 1
    assert lines[-1].startswith("  and 5 more")
