"""Who is hung, when and when not, and what is said of it."""

import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from frontload.launch.ranks.beats import BEAT, About, start_beats
from frontload.launch.ranks.hangs import Beat, Lookout, describe_hang, end_ranks, find_hung
from frontload.launch.ranks.seat import Seat
from frontload.recipes.artifact import Part
from frontload.recipes.machines.upkeep import Upkeep

ABOUT = About(
    rank=0, ranks_here=2, host="node7", pid=1, hang_seconds=10.0, pause_seconds=100.0, log=""
)


def beat(rank: int, **found: Any) -> Beat:
    values: dict[str, Any] = {
        "count": 31,
        "step": 15,
        "part": Part.EXCHANGE,
        "still_seconds": 0.0,
        "silent_seconds": 0.1,
    }
    return Beat(about=replace(ABOUT, rank=rank), **(values | found))


def ranks(beats: list[Beat]) -> list[int]:
    return [one.about.rank for one in find_hung(beats)]


def test_a_rank_that_stands_still_in_a_step_is_the_one_behind() -> None:
    waits = beat(0, still_seconds=10.5)
    stuck = beat(1, count=30, part=Part.STEP, still_seconds=10.6)
    assert ranks([waits, stuck]) == [1]
    assert ranks([beat(0, still_seconds=9.9), beat(1, count=30, still_seconds=9.9)]) == []
    text = str(describe_hang([stuck], [waits, stuck], now=time.time()))
    assert text.startswith("rank 1 on host node7: behind the other ranks, in its own part of step")
    assert "upkeep.hang_seconds, 10 s" in text


def test_a_stopped_process_is_named_wherever_it_stopped() -> None:
    """In tensor parallelism all ranks wait at the same mark; the stopped one may even be ahead."""
    stopped = beat(1, still_seconds=10.1, silent_seconds=9.8)
    assert ranks([beat(0, still_seconds=10.1), stopped]) == [1]
    paused = beat(0, part=Part.SAVE, still_seconds=11.0)
    ahead = beat(1, count=32, part=Part.SAVE, still_seconds=11.0, silent_seconds=10.2)
    assert ranks([paused, ahead]) == [1], "a save may take its time, but not without a sign of life"
    text = str(describe_hang([ahead], [paused, ahead], now=time.time()))
    assert "no sign of life in a checkpoint of step 15 since " in text
    assert ", for 10.2 s" in text


@pytest.mark.parametrize("part", [Part.START, Part.FIRST_STEP, Part.SAVE, Part.PUBLISH, Part.END])
def test_an_honest_pause_is_no_hang_until_pause_seconds(part: Part) -> None:
    def both(seconds: float) -> list[int]:
        late = beat(1, count=30, part=part, still_seconds=seconds)
        return ranks([beat(0, part=part, still_seconds=seconds), late])

    assert both(99.0) == []
    assert both(101.0) == [1]


def test_an_interpreter_at_its_end_has_no_thread_that_beats() -> None:
    ends = beat(1, part=Part.END, still_seconds=50.0, silent_seconds=50.0)
    assert ranks([ends]) == []
    assert ranks([replace(ends, still_seconds=101.0)]) == [1]


def test_where_no_rank_stands_out_all_of_the_node_are_ended_and_it_is_said() -> None:
    both = [beat(rank, still_seconds=10.5) for rank in (0, 1)]
    assert ranks(both) == [0, 1]
    text = str(describe_hang(both, both, now=time.time()))
    assert text.startswith("rank 0, 1 on host node7: all its ranks stand still in the exchange")
    assert "the cause may be elsewhere" in text
    alone = [beat(0, part=Part.START, still_seconds=101.0)]
    assert "1 of its 2 ranks have not begun" in str(describe_hang(alone, alone, now=time.time()))


# ---------------------------------------------------------------- over time


class Clock:
    """Moves when told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def write_beat(folder: Path, *words: float) -> None:
    about = json.dumps(asdict(replace(ABOUT, pid=os.getpid()))).encode()
    (folder / f"1{BEAT}").write_bytes(struct.pack("=4d", *words) + about)


def watch(lookout: Lookout, clock: Clock, *, seconds: float) -> Beat:
    for _ in range(round(seconds * 2)):
        clock.now += 0.5
        (found,) = lookout.look()
    return found


def test_time_is_what_the_agent_lived_through(tmp_path: Path) -> None:
    clock = Clock()
    lookout = Lookout(tmp_path, clock)
    write_beat(tmp_path, 31, 15, Part.STEP, 7)
    found = watch(lookout, clock, seconds=5)
    assert (found.count, found.step, found.part) == (31, 15, Part.STEP)
    assert found.still_seconds == found.silent_seconds == 4.5
    write_beat(tmp_path, 31, 15, Part.STEP, 8)
    found = watch(lookout, clock, seconds=1)
    assert (found.still_seconds, found.silent_seconds) == (5.5, 0.5)
    clock.now += 3_600.0  # the whole job was suspended
    (found,) = lookout.look()
    assert found.still_seconds == 6.5
    assert not found.is_late
    write_beat(tmp_path, 32, 16, Part.STEP, 9)
    (found,) = lookout.look()
    assert found.still_seconds == 0.0
    watch(lookout, clock, seconds=8)
    lookout.forget()
    assert watch(lookout, clock, seconds=1).still_seconds == 0.5, "after a hang all have time"


def test_a_rank_that_ended_is_forgotten(tmp_path: Path) -> None:
    write_beat(tmp_path, 1, 1, Part.STEP, 1)
    path = tmp_path / f"1{BEAT}"
    path.write_bytes(path.read_bytes().replace(f'"pid": {os.getpid()}'.encode(), b'"pid": 4999999'))
    assert Lookout(tmp_path).look() == []
    assert not path.exists()


def test_without_an_agent_or_a_limit_there_are_no_beats(tmp_path: Path) -> None:
    assert start_beats("", Seat(), upkeep=Upkeep(), log=None) is None
    assert start_beats(str(tmp_path), Seat(), upkeep=Upkeep(hang_seconds=0.0), log=None) is None
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- a real process

ROOT = Path(__file__).resolve().parents[3]
RANK = """
import signal, sys, time
from pathlib import Path
from frontload.launch.ranks.beats import About, Beats
from frontload.recipes.artifact import Part

def wait_for_ever():
    while True:
        time.sleep(60.0)

signal.signal(signal.SIGTERM, lambda *_: None)
beats = Beats(Path(sys.argv[1]), About(**eval(sys.argv[2])))
if sys.argv[3] == "STEP":
    beats.mark(Part.STEP, step=17)
Path(sys.argv[1], "ready").touch()
wait_for_ever()
"""


@contextmanager
def rank_process(folder: Path, part: str) -> "Iterator[subprocess.Popen[bytes]]":
    """A rank that begins `part` and never ends it; its agent is this test."""
    about = asdict(replace(ABOUT, rank=3, ranks_here=1, hang_seconds=1.0, log=str(folder / "log")))
    about.pop("pid")
    text = f"dict({about!r}, pid=__import__('os').getpid())"
    environment = os.environ | {"PYTHONPATH": str(ROOT / ".imports")}
    process = subprocess.Popen([sys.executable, "-c", RANK, folder, text, part], env=environment)
    try:
        while not (folder / "ready").exists():
            assert process.poll() is None
            time.sleep(0.01)
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("is_stopped", [True, False])
def test_a_hung_process_is_named_and_killed(
    tmp_path: Path, is_stopped: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with rank_process(tmp_path, "STEP") as process:
        lookout = Lookout(tmp_path)
        if is_stopped:
            process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        while process.poll() is None:
            time.sleep(0.1)
            beats = lookout.look()
            if hung := find_hung(beats):
                end_ranks(tmp_path, hung, beats)
        assert 0.9 < time.monotonic() - began < 10.0
        assert process.returncode == -signal.SIGKILL
    assert capsys.readouterr().err.startswith("frontload: rank 3 on host node7: ")
    (line,) = (tmp_path / "log").read_text().splitlines()
    told = json.loads(line)
    assert (told["ranks"], told["step"], told["part"]) == ([3], 17, "step")
    assert ("no sign of life" in told["message"]) == is_stopped
    if not is_stopped:
        assert "wait_for_ever" in told["stacks"]["3"]
    assert lookout.look() == []


def test_asked_to_end_while_it_starts_a_rank_ends_at_once(tmp_path: Path) -> None:
    """Its main thread may wait for a rank that has died, and would not hear the signal."""
    with rank_process(tmp_path, "START") as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(10.0) == 75
    for path in tmp_path.iterdir():
        path.unlink()
    with rank_process(tmp_path, "STEP") as process:
        process.send_signal(signal.SIGTERM)
        time.sleep(1.0)
        assert process.poll() is None, "a rank that trains saves itself first"
