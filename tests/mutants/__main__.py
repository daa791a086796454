"""`make mutants`: draws mutants of a room, and says which of them its tests do not notice.

A survivor asks for a test of behaviour, or for its place in equivalent.txt with the reason.
"""

import argparse
import random
import sys
from pathlib import Path

from tests.mutants.judge import ROOT, bench_of
from tests.mutants.listed import FILE, gone, read_listed, shown
from tests.mutants.sites import Mutant, mutants_of


def modules_of(room: str, names: list[str]) -> list[Path]:
    """The modules to change."""
    if names:
        return [ROOT / name for name in names]
    return sorted(path for path in (ROOT / room).rglob("*.py") if path.name != "__init__.py")


def judge_all(
    mutants: list[Mutant], *, room: str, modules: list[str], golden: bool
) -> tuple[int, list[Mutant]]:
    """How many ran out of time, and the survivors; a line each as they come."""
    late, alive = 0, []
    with bench_of(room, modules=modules) as bench:
        for place, mutant in enumerate(mutants, 1):
            verdict = bench.judge(mutant, golden=golden)
            late += verdict.by == "time"
            where = f"{place}/{len(mutants)} {mutant.path}:{mutant.line} {verdict.seconds:.0f} s"
            if verdict.by:
                print(f"{where} killed by {verdict.by}", flush=True)
            else:
                alive.append(mutant)
                print(f"{where} ALIVE", shown(mutant), sep="\n", flush=True)
    return late, alive


def main() -> int:
    """Prints the survivors and the rate; 1 when an entry of equivalent.txt is out of date."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("--room", required=True, help="the room that is changed")
    parser.add_argument("--number", type=int, default=60, help="mutants to draw")
    parser.add_argument("--seed", type=int, default=1, help="of the draw")
    parser.add_argument("--files", nargs="*", default=[], help="only these modules, by their tests")
    parser.add_argument("--golden", action="store_true", help="survivors meet the smoke study")
    options = parser.parse_args()
    room = options.room
    every = [
        mutant
        for path in modules_of(room, options.files)
        for mutant in mutants_of(path.relative_to(ROOT).as_posix(), path.read_text())
    ]
    listed = read_listed(FILE.read_text())
    outdated = gone(listed, every)
    for one in outdated:
        print(f"{FILE.name}: not in the tree, take it out: {one.path}: {one.old} -> {one.new}")
    drawn = random.Random(options.seed).sample(every, min(options.number, len(every)))
    asked = [mutant for mutant in drawn if not any(one.matches(mutant) for one in listed)]
    print(f"{room}: {len(drawn)} of {len(every)} mutants drawn, seed {options.seed}", flush=True)
    late, alive = judge_all(asked, room=room, modules=options.files, golden=options.golden)
    killed = len(asked) - len(alive)
    print(
        f"{room}: {len(drawn)} drawn, {killed} killed ({late} by time), "
        f"{len(drawn) - len(asked)} equivalent (listed), {len(alive)} alive: "
        f"{killed / max(1, len(asked)):.0%} of the {len(asked)} others"
    )
    return 1 if outdated else 0


if __name__ == "__main__":
    sys.exit(main())
