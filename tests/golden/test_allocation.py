"""Allocation `smoke` from end to end through the command line: killed once, and the same bytes."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from frontload.eval.allocation.conclude import FLAT, OVERTURNED, RECOMMENDED, UNDECIDED

pytestmark = pytest.mark.smoke
ASKED = ("smoke", "study.pretraining.tokens=10_240", "--workers", "1")
"""A fifth of smoke's tokens: the loop is tested, not training."""
NO_READINGS = "readings=null"
"""Of the run that is killed: what is read beside the verdict moves no byte of it."""
KINDS = ("decide", "register", "conclude")
WAIT_SECONDS = 300.0


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "frontload.launch.cli", "allocate", *ASKED, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )


def finish(folder: Path, *arguments: str) -> str:
    """What the command prints; its exit code must be 0."""
    process = start(folder, *arguments)
    printed, _ = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 0, printed[-4000:]
    return printed


def digests(folder: Path) -> dict[str, str]:
    """Every file of every decision, registration and answer, which state every score they read."""
    return {
        path.relative_to(folder / "store").as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for kind in KINDS
        for path in sorted((folder / "store" / kind).rglob("*"))
        if path.is_file()
    }


def test_an_allocation_from_end_to_end_and_killed_once(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    printed = finish(whole)
    process = start(killed, NO_READINGS)
    end = time.monotonic() + WAIT_SECONDS
    while not list((killed / "store" / "evaluate").glob("*/manifest.json")):
        assert process.poll() is None, "it ended before it was killed"
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not list((killed / "store" / "conclude").glob("*/manifest.json"))
    finish(killed, NO_READINGS)
    assert digests(whole) == digests(killed)
    check_answer(whole, printed)
    check_registration_comes_first(whole)
    check_second_run(whole)


def check_answer(folder: Path, printed: str) -> None:
    """The answer in words, as JSON and as a page say the same."""
    out = folder / "results" / "allocate-smoke"
    answer = json.loads((out / "answer.json").read_text())
    assert answer["outcome"] in (RECOMMENDED, FLAT, OVERTURNED, UNDECIDED)
    assert (out / "answer.md").read_text() in printed
    readings = answer["readings"]
    assert readings["exchange"]["num_seeds"] == 2
    assert len(readings["exchange"]["cells"]) == 5 * 2
    assert [one["sft_rate"] for one in readings["sft_rates"]] == [2.0]
    assert "Exchange rate: " in printed
    assert "At 2 x the SFT learning rate" in printed
    page = (out / "allocation.html").read_text()
    assert "Exchange rate: " in page
    assert "0.73 at 1M parameters" in page, "a small model's ranking is no evidence for a large one"
    assert "0.73 at 1M parameters" in printed
    assert not re.findall(r"(?:src|href)=.?http", page.partition("<main>")[2]), "it fetches nothing"
    for one in answer["compared"]:
        assert one["name"] in page
        assert len(one["seeds"]) == len(one["by_seed"]) >= 2
    assert (out / "figures" / "curve_0.svg").is_file()
    fresh = {cell["seed"] for cell in answer["cells"] if cell["is_fresh"]}
    explored = {cell["seed"] for cell in answer["cells"] if not cell["is_fresh"]}
    assert fresh
    assert fresh.isdisjoint(explored)


def check_registration_comes_first(folder: Path) -> None:
    """No artifact of a fresh seed is older than the registration of its comparison."""
    (registered,) = (folder / "store" / "register").glob("*/registration.json")
    seeds = json.loads(registered.read_text())["seeds"]
    made = registered.stat().st_mtime
    for seed in seeds:
        of_seed = list((folder / "store").glob(f"*/*-seed{seed}-*/manifest.json"))
        assert of_seed
        assert all(path.stat().st_mtime > made for path in of_seed)


def check_second_run(folder: Path) -> None:
    """A second run makes nothing; the plan says what stopped; a cell knows who asked for it.

    As JSON it prints the answer and nothing beside it.
    """
    before = digests(folder)
    again = subprocess.run(
        [sys.executable, "-m", "frontload.launch.cli", "allocate", *ASKED, "--json"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    answer = folder / "results" / "allocate-smoke" / "answer.json"
    assert json.loads(again.stdout) == json.loads(answer.read_text())
    assert "registered as " in again.stderr
    assert "start " not in again.stderr
    assert digests(folder) == before
    planned = json.loads(finish(folder, "--plan", "--json"))
    assert planned["stop"]
    assert len(planned["decisions"]) == len(list((folder / "store" / "decide").glob("*")))
    evaluation = next((folder / "store" / "evaluate").glob("*-seed1-*")).name
    done = subprocess.run(
        [sys.executable, "-m", "frontload.launch.cli", "explain", f"evaluate/{evaluation}"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert "asked for it: first block" in done.stdout
