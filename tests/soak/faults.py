"""Real torchrun jobs that meet faults, and end like the undisturbed run: `make soak`.

Each round draws, from its seed, a fault, a moment, a layout and the way checkpoints are written,
runs two or more gloo ranks through `frontload.launch.torchrun`, and compares what is left at the
end: every byte at one layout, every loss where the number of ranks changed on the way.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.soak.faulty_rank import RENDEZVOUS_PLACES, SAVE_PLACES
from tests.tiny_run import TinyData, artifact_bytes, write_longer_recipe, write_tiny_data

ROOT = Path(__file__).resolve().parents[2]
STEPS, SAVE_EVERY = 40, 4
HANG_SECONDS, PAUSE_SECONDS = 5.0, 120.0
MOST_SECONDS = 600.0  # of one job
TOLERANCE = 1e-5  # where the number of ranks changes: the same sums in another order
LAYOUTS = {"dp2": (), "dp2 sharded": ("placement.distributed_optimizer=true",)}

Fault = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One start of the agent: its ranks, and the fault of each start of them."""

    ranks: int = 2
    faults: Sequence[Fault | None] = ()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A job to run: what is drawn for a round."""

    name: str
    moment: str
    launches: Sequence[Launch]
    layout: str = "dp2"
    asynchronous: bool = False

    @property
    def faults(self) -> list[Fault]:
        """Those that must strike, in order."""
        return [fault for launch in self.launches for fault in launch.faults if fault is not None]


@dataclass(kw_only=True)
class Outcome:
    """What a job left."""

    codes: list[int]
    said: str
    restarts: int  # starts of the ranks after the first
    struck: list[Fault]
    hangs: list[dict[str, Any]]
    seconds: float
    out: Path
    wrong: list[str] = field(default_factory=list)


class Bench:
    """Recipe and data of the jobs, and the undisturbed run of each layout, made once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.recipe = write_longer_recipe(
            root,
            checkpoint_every_steps=SAVE_EVERY,
            keep_last=2,
            spike_window_steps=0,
            hang_seconds=HANG_SECONDS,
            pause_seconds=PAUSE_SECONDS,
        )
        self.data: TinyData = write_tiny_data(root / "data", self.recipe)
        self._whole: dict[str, Path] = {}
        self._server = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.soak.warm_agent"],
            env=os.environ
            | {
                "PYTHONPATH": os.pathsep.join([str(ROOT / ".imports"), str(ROOT)]),
                "OMP_NUM_THREADS": "1",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def whole(self, layout: str) -> Path:
        """The artifact of the run that nothing disturbs."""
        if layout not in self._whole:
            plan = Plan(name="none", moment="", launches=(Launch(),), layout=layout)
            done = self.start(plan, self.root / f"whole {layout}")
            assert done.codes == [0], done.said[-3000:]
            self._whole[layout] = done.out / "first"
        return self._whole[layout]

    def run(self, plan: Plan, name: str) -> Outcome:
        """Runs a plan and says in `wrong` what is not as it should be."""
        whole = self.whole(plan.layout)
        done = self.start(plan, self.root / name)
        done.wrong = [*wrong_faults(plan, done), *_wrong_end(plan, done, whole)]
        return done

    def start(self, plan: Plan, out: Path) -> Outcome:
        """Runs a plan to its end, whatever that is."""
        began, codes, said = time.monotonic(), [], ""
        log = out.with_name(f"{out.name}.faults")
        for launch in plan.launches:
            codes.append(self._launch(plan, launch, out, log=log))
            said += out.with_name(f"{out.name}.said").read_text(encoding="utf-8")
        told = _json_lines(log)
        return Outcome(
            codes=codes,
            said=said,
            restarts=sum("start" in one for one in told) - 1,
            struck=[one for one in told if "start" not in one],
            hangs=_json_lines(out / "logs" / "hangs.jsonl"),
            seconds=time.monotonic() - began,
            out=out,
        )

    def _launch(self, plan: Plan, launch: Launch, out: Path, *, log: Path) -> int:
        command = [
            *("torchrun", "--standalone", f"--nproc-per-node={launch.ranks}", "--max-restarts=3"),
            *("--shutdown-timeout=30", "--module", "tests.soak.faulty_rank"),
            *("train", str(self.recipe), *self.data.flags("first"), "--until", "first"),
            *("--out", str(out), *LAYOUTS[plan.layout]),
            f"upkeep.asynchronous={str(plan.asynchronous).lower()}",
        ]
        environment = {
            "FRONTLOAD_FAULTS": json.dumps(list(launch.faults)),
            "FRONTLOAD_FAULTS_LOG": str(log),
        }
        said = out.with_name(f"{out.name}.said")
        request = {"command": command, "environment": environment, "said": str(said)}
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps({**request, "seconds": MOST_SECONDS}) + "\n")
        self._server.stdin.flush()
        return int(json.loads(self._server.stdout.readline()))

    def close(self) -> None:
        """Ends the process that the agents are forked from."""
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait()


def _json_lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def wrong_faults(plan: Plan, done: Outcome) -> list[str]:
    """That every fault struck, and that each stopped rank, and no other, was found in time."""
    wrong = []
    struck = [{name: one[name] for name in one if name != "time"} for one in done.struck]
    if struck != plan.faults:
        wrong.append(f"faults that struck: {struck}")
    stopped = [one for one in done.struck if one["kind"] == "stop"]
    if [hang["ranks"] for hang in done.hangs] != [[one["rank"]] for one in stopped]:
        return [*wrong, f"hangs: {[hang['message'] for hang in done.hangs]}"]
    for hang, one in zip(done.hangs, stopped, strict=True):
        if not 0.0 < hang["time"] - one["time"] < 2 * HANG_SECONDS:
            wrong.append(f"found after {hang['time'] - one['time']:.1f} s")
        if f"frontload: {hang['message']}" not in done.said:
            wrong.append("the hang was not said")
    if any(one["where"] == "disk" for one in plan.faults) and "the disk is full" not in done.said:
        wrong.append("the full disk was not said")
    if any("file" in one for one in plan.faults) and "an older checkpoint" not in done.said:
        wrong.append("the torn checkpoint was not said")
    return wrong


def _wrong_end(plan: Plan, done: Outcome, whole: Path) -> list[str]:
    """What differs from the undisturbed run."""
    killed = [int(any(f and f["kind"] == "world" for f in one.faults)) for one in plan.launches]
    expected = [-9 if by_us else 0 for by_us in killed]
    if done.codes != expected:
        return [f"exit {done.codes}: {done.said[-2000:]}"]
    if len({launch.ranks for launch in plan.launches}) == 1:
        found, right = artifact_bytes(done.out / "first"), artifact_bytes(whole)
        names = sorted(found.keys() ^ right.keys())
        names += [name for name in found.keys() & right.keys() if found[name] != right[name]]
        return [f"other bytes: {', '.join(names)}"] if names else []
    most = max(abs(a - b) for a, b in zip(losses(done.out / "first"), losses(whole), strict=True))
    return [] if most <= TOLERANCE else [f"losses differ by {most:.1e}"]


def losses(artifact: Path) -> list[float]:
    """The loss of every step, once each."""
    lines = _json_lines(artifact / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    return [line["train/loss"] for line in lines]


# ---------------------------------------------------------------- drawing


def draw(rng: random.Random, kind: str) -> Plan:
    """A plan of a kind, at a drawn moment."""
    layout, asynchronous = rng.choice(tuple(LAYOUTS)), rng.random() < 0.5
    rank, step, share = rng.randrange(2), rng.randrange(3, STEPS - 2), round(rng.random(), 3)
    in_step = {"where": "step", "rank": rank, "step": step, "share": share}
    launches = [Launch(faults=[{"kind": "kill", **in_step}])]
    moment = f"rank {rank}, step {step} + {share:.2f}"
    if kind == "stop":
        launches = [Launch(faults=[{"kind": "stop", **in_step}])]
    elif kind == "save":
        place, calls = rng.choice(tuple(SAVE_PLACES)), 0
        step = min(step, STEPS - SAVE_EVERY)  # the last step that is saved on the way
        calls = rng.randrange(8) if place == "write" else 0
        fault = {"kind": "kill", "where": "save", "rank": 0, "step": step, "place": place}
        launches = [Launch(faults=[{**fault, "calls": calls}])]
        moment = f"rank 0, after step {step}: {place}" + (f" {calls}" if calls else "")
    elif kind == "rendezvous":
        how, place = rng.choice(("kill", "stop")), rng.choice(tuple(RENDEZVOUS_PLACES))
        fault = {"kind": how, "where": "rendezvous", "rank": rank, "place": place}
        launches = [Launch(faults=[fault])]
        moment = f"{how}, rank {rank}, before {place}"
    elif kind == "torn":
        # two checkpoints are there, and no save falls between the tear and the kill
        step, asynchronous = SAVE_EVERY * rng.randrange(3, STEPS // SAVE_EVERY) + 1, False
        file = rng.choice((".metadata", "__0_0.distcp"))
        launches = [Launch(faults=[{"kind": "kill", **in_step, "step": step, "file": file}])]
        moment = f"{file}, rank {rank} killed, step {step} + {share:.2f}"
    elif kind == "disk":
        step = rng.randrange(5, STEPS - 6)
        launches = [Launch(faults=[{"kind": "full", "where": "disk", "rank": 0, "step": step}])]
        moment = f"saves from step {step}, until the restart"
    elif kind == "world":
        before, after = rng.choice(((2, 1), (2, 4), (4, 2), (1, 2)))
        layout = "dp2"
        fault = {"kind": "world", **in_step, "rank": rng.randrange(before)}
        launches = [Launch(ranks=before, faults=[fault]), Launch(ranks=after)]
        moment = f"{before} ranks, agent killed in step {step} + {share:.2f}; {after} come back"
    return Plan(
        name=kind, moment=moment, launches=launches, layout=layout, asynchronous=asynchronous
    )


KINDS = ("step", "save", "rendezvous", "stop", "torn", "disk", "world")


def main() -> int:
    """Runs the rounds, prints a table, and fails if one of them does."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=20)
    options.add_argument("--seed", type=int, default=1)
    asked = options.parse_args()
    rng = random.Random(asked.seed)
    kinds: list[str] = []
    while len(kinds) < asked.rounds:  # each kind comes up before one comes again
        kinds += rng.sample(KINDS, len(KINDS))
    print("| round | fault | moment | layout | saves | restarts | seconds | end |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    failed = 0
    with tempfile.TemporaryDirectory(prefix="frontload-soak-") as folder:
        bench = Bench(Path(folder))
        began = time.monotonic()
        for number, kind in enumerate(kinds[: asked.rounds], 1):
            plan = draw(rng, kind)
            done = bench.run(plan, f"round-{number}")
            failed += bool(done.wrong)
            same = "losses within 1e-5" if kind == "world" else "same bytes"
            saves = "background" if plan.asynchronous else "in step"
            cells = (number, plan.name, plan.moment, plan.layout, saves, done.restarts)
            end = "; ".join(done.wrong) or same
            print("|", " | ".join(map(str, cells)), f"| {done.seconds:.0f} | {end} |", flush=True)
        bench.close()
    print(f"{time.monotonic() - began:.0f} s in all, with the undisturbed runs")
    print(f"{asked.rounds - failed} of {asked.rounds} rounds right, seed {asked.seed}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
