"""The command `theory`: a solvable model of pretraining, SFT and outcome supervision, one page."""

import argparse
import importlib
import json
from pathlib import Path
from typing import Any

from frontload.launch.run.out_folder import check_out
from frontload.recipes.errors import RecipeError, StageError

LEAST, MOST = 40, 400
PAPER = 400  # d of the paper's figures 1 and 2


def add_arguments(one: argparse.ArgumentParser) -> None:
    """The arguments of `frontload theory`."""
    one.add_argument(
        "--dim",
        type=int,
        default=200,
        help=f"dimension of the task (default 200; {PAPER} is that of the paper: a minute of CPU)",
    )
    one.add_argument("--seed", type=int, default=1, help="of what is drawn (default 1)")
    one.add_argument("--out", type=Path, help="folder of the page (default results/theory)")
    one.add_argument("--json", action="store_true", help="print JSON: what is on the page")
    one.set_defaults(run=theory)


def theory(options: argparse.Namespace) -> int:
    """Computes checks and figures, writes the page; fails where a check does."""
    if not LEAST <= options.dim <= MOST or options.dim % 8:
        raise RecipeError(
            "--dim",
            found=f"is {options.dim}",
            rule=f"it is a multiple of 8 from {LEAST} to {MOST}: the figures cut it into eighths",
            do="write 200, or 400 as in the paper",
        )
    if options.seed < 0:
        raise RecipeError(
            "--seed",
            found=f"is {options.seed}",
            rule="a seed is 0 or more",
            do="write 1, or leave it out",
        )
    out = check_out(options.out or Path("results") / "theory", what="the page")
    lab: Any = importlib.import_module("frontload.eval.theory.lab")
    pages: Any = importlib.import_module("frontload.eval.theory.page")
    found = lab.compute_theory(options.dim, seed=options.seed)
    page = pages.write_theory(found, out)
    if options.json:
        print(json.dumps(pages.theory_json(found), indent=1))
    else:
        print("\n".join([*lab.check_lines(found.checks), f"page: {page}"]))
    failed = [one for one in found.checks if not one.holds]
    if failed:
        raise StageError(
            "theory",
            found=f"{failed[0].name}: {failed[0].found:.3g} {failed[0].unit}",
            rule=f"{failed[0].source} holds within {failed[0].allowed:g}; by chance one draw in "
            "370 is beyond 3 standard errors",
            do="run it with another --seed; where that fails too, the code is wrong",
        )
    return 0
