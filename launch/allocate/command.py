"""The command `allocate`: where should a budget of reasoning tokens go?"""

import argparse
import importlib
import json
import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

from frontload.eval.allocation.stages import ANSWER, ANSWER_TEXT
from frontload.launch.allocate.loop import Answered, Loop
from frontload.launch.allocate.plan import (
    num_parameters,
    plan_json,
    plan_lines,
    price_allocation,
    require_money,
)
from frontload.launch.allocate.question import Allocation, look_up
from frontload.launch.allocate.trend import print_trend
from frontload.launch.run.out_folder import check_out
from frontload.launch.study.crew import Crew, check_crew, count_workers, find_crew
from frontload.launch.study.plan import store_of
from frontload.recipes.allocation.load import load_allocation

ALLOCATION = "a name under recipes/allocations, or a path ending in .yaml"


def add_arguments(one: argparse.ArgumentParser) -> None:
    """The arguments of `frontload allocate`."""
    one.add_argument("allocation", metavar="QUESTION", help=ALLOCATION)
    one.add_argument(
        "--plan", action="store_true", help="print candidates, prices and state; run nothing"
    )
    one.add_argument(
        "--trend",
        nargs="+",
        default=[],
        metavar="QUESTION",
        help="with these questions' answers: does the best share move with model and budget?",
    )
    one.add_argument("--json", action="store_true", help="print JSON: the plan, or the answer")
    one.add_argument(
        "--store",
        type=Path,
        help="folder of artifacts (default store; of jobs: store in the cluster's shared folder)",
    )
    one.add_argument(
        "--out", type=Path, help="folder of the answer (default results/allocate-QUESTION)"
    )
    one.add_argument("--workers", type=int, help="worker processes (default one per core)")
    one.set_defaults(run=allocate)


def allocate(options: argparse.Namespace) -> int:
    """Explores, registers, validates and answers; resumes after any kill."""
    workers = count_workers(options.workers)
    placed = load_allocation(options.allocation, overrides=options.overrides).value.study.placement
    store = store_of(placed, options.store)
    if options.trend:
        names = [options.allocation, *options.trend]
        return print_trend(names, store, overrides=options.overrides, as_json=options.json)
    allocation = look_up(options.allocation, store, overrides=options.overrides)
    prices = price_allocation(allocation, store)
    require_money(allocation, prices)
    placement = allocation.placements.default
    if options.plan:
        explored = Loop(allocation, store, crew=Crew(workers=1)).progress()
        if options.json:
            print(json.dumps(plan_json(allocation, prices, explored=explored), indent=1))
        else:
            print("\n".join(plan_lines(allocation, prices, explored=explored)))
        return 0
    out = check_out(
        options.out or Path("results") / f"allocate-{allocation.name}", what="the answer"
    )
    crew = Crew(workers=1)
    if not allocation.are_jobs:
        crew = find_crew(placement, workers)
        check_crew(placement, crew)
    loop = Loop(allocation, store, crew=crew)
    if not options.json:
        print("\n".join(plan_lines(allocation, prices, explored=loop.progress())), flush=True)
    with redirect_stdout(sys.stderr) if options.json else nullcontext():
        found = loop.run()  # its progress is no part of the JSON
    page = _write(allocation, found, out=out)
    print((out / (ANSWER if options.json else ANSWER_TEXT)).read_text(encoding="utf-8"), end="")
    if not options.json:
        print(f"answer: {page}")
    return 0


def _write(allocation: Allocation, found: Answered, *, out: Path) -> Path:
    pages: Any = importlib.import_module("frontload.eval.report.allocation_page")
    return pages.write_allocation(
        pages.AllocationRequest(
            name=allocation.name,
            num_parameters=num_parameters(allocation),
            out=out,
            answer=found.folder,
            beside=found.beside,
            registered=found.registered,
            decisions=found.decisions,
            packs=found.packs,
        )
    )
