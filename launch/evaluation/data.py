"""`frontload eval data`: its arguments, and what became of each data set."""

import argparse
import importlib
import json
import os
from pathlib import Path
from typing import Any

from frontload.recipes.errors import RecipeError


def add_arguments(one: argparse.ArgumentParser) -> None:
    """The arguments of `eval data`."""
    one.add_argument(
        "--root",
        type=Path,
        default=Path("benchmarks"),
        help="the folder to make, or to add to (default benchmarks)",
    )
    one.add_argument(
        "--from",
        dest="sources",
        nargs="+",
        default=[],
        metavar="SOURCE",
        help="folders of local files or of the hub's layout, `hub`, or `made` (made-up rows that "
        "try everything out); of each split the first that has it",
    )
    one.add_argument(
        "--only", nargs="+", default=[], metavar="DATASET", help="these data sets, as openai/gsm8k"
    )
    one.add_argument(
        "--token-env",
        metavar="NAME",
        help="environment variable with your token of the hub, which gated sets (GPQA) need",
    )
    one.add_argument("--json", action="store_true", help="print JSON")
    one.set_defaults(run=gather_rows)


def gather_rows(options: argparse.Namespace) -> int:
    """Gathers rows and prints a line a split."""
    module: Any = importlib.import_module("frontload.eval.protocol.gather")
    request = module.GatherRequest(
        sources=tuple(options.sources),
        datasets=tuple(options.only),
        token=_token(options.token_env),
    )
    reports = module.gather(options.root, request)
    rows = [
        {
            "dataset": one.split.dataset,
            "split": one.split.split,
            "rows": one.num_rows,
            "of": one.split.num_rows,
            "origin": one.origin,
        }
        for one in reports
    ]
    if options.json:
        print(json.dumps(rows, indent=1))
        return 0
    width = max(len(str(row["dataset"])) for row in rows)
    for row in rows:
        count = f"{row['rows']:>6}" if row["rows"] else "absent"
        print(f"{row['dataset']:{width}}  {row['split']:10}  {count}  {row['origin']}")
    return 0


def _token(name: str | None) -> str | None:
    """The user's token, from the variable that he names.

    Raises: RecipeError when it is not set.
    """
    if name is None:
        return None
    token = os.environ.get(name)
    if not token:
        raise RecipeError(
            f"eval data --token-env {name}",
            found="no such environment variable, or an empty one",
            rule="the variable holds your own token of the hub",
            do=f"export {name}=..., or leave the flag out",
        )
    return token
