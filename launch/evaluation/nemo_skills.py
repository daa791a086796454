"""`frontload eval environment` and `frontload eval nemo-skills`: the harness made, and asked."""

import argparse
import importlib
import json
import os
from pathlib import Path
from typing import Any

from frontload.eval.nemo.environment import (
    FOLDER,
    REPOSITORY,
    TESTED_COMMIT,
    make_environment,
    python_of,
)
from frontload.recipes.errors import RecipeError

HARNESS = "nemo-skills"
MOST_SAMPLES = 1024


def add_environment(one: argparse.ArgumentParser) -> None:
    """The arguments of `eval environment`."""
    one.add_argument("harness", metavar="HARNESS", choices=(HARNESS,), help=f"{HARNESS}, alone")
    one.add_argument(
        "--from",
        dest="source",
        default=REPOSITORY,
        metavar="PATH|GIT",
        help=f"a clone here, or what git clones (default {REPOSITORY})",
    )
    one.add_argument(
        "--commit", default=TESTED_COMMIT, help=f"default {TESTED_COMMIT[:12]}, the tested one"
    )
    one.add_argument(
        "--folder", type=Path, default=FOLDER, help=f"the folder to make (default {FOLDER})"
    )
    one.set_defaults(run=run_environment)


def run_environment(options: argparse.Namespace) -> int:
    """Makes the environment once; a second call finds it."""
    made = make_environment(options.folder, source=options.source, commit=options.commit)
    tested = "" if made.commit == TESTED_COMMIT else ", which was not tested"
    print(f"{options.folder}: NeMo-Skills {made.commit[:12]}{tested}, Python {made.python}")
    print(f"its interpreter: {python_of(options.folder)}")
    return 0


def add_nemo_skills(one: argparse.ArgumentParser) -> None:
    """The arguments of `eval nemo-skills`."""
    one.add_argument("url", metavar="URL", help="base of the server to ask, which ends in /v1")
    one.add_argument("--model", required=True, help="the model's name on that server")
    one.add_argument("--benchmark", required=True, help="NeMo-Skills' name, as gsm8k")
    one.add_argument("--rows", type=Path, required=True, help="JSONL file of the benchmark's rows")
    one.add_argument("--out", type=Path, required=True, help="folder of answers and scores")
    one.add_argument("--samples", type=int, default=1, help="answers to each row (default 1)")
    one.add_argument("--max-rows", type=int, help="the first ones only")
    one.add_argument("--temperature", type=float, default=0.7, help="0 = greedy (default 0.7)")
    one.add_argument("--top-p", type=float, default=0.95, help="default 0.95")
    one.add_argument("--max-new-tokens", type=int, default=2048, help="default 2048")
    one.add_argument("--folder", type=Path, default=FOLDER, help=f"default {FOLDER}")
    one.set_defaults(run=run_nemo_skills)


def run_nemo_skills(options: argparse.Namespace) -> int:
    """Evaluates one benchmark, and prints its numbers with who made them."""
    _check(options)
    rows: Any = importlib.import_module("frontload.eval.nemo.rows")
    runner: Any = importlib.import_module("frontload.eval.nemo.run")
    asked = runner.NemoRun(
        benchmark=options.benchmark,
        url=options.url,
        model=options.model,
        num_samples=options.samples,
        temperature=options.temperature,
        top_p=options.top_p,
        max_new_tokens=options.max_new_tokens,
        max_rows=options.max_rows,
    )
    place = runner.NemoPlace(
        environment=options.folder, out=options.out, variables=dict(os.environ)
    )
    scores = runner.run_nemo(asked, rows.read_nemo_rows(options.rows), place=place)
    runner.write_scores(scores, options.out / "scores.json")
    for average, numbers in scores.metrics.items():
        print(f"{options.benchmark} {average}: {json.dumps(numbers)}")
    commit = scores.protocol["commit"][:12]
    print(f"runner: nemo-skills {commit}, n = {scores.protocol['num_rows']} rows; {options.out}")
    return 0


def _check(options: argparse.Namespace) -> None:
    wrong = [
        (flag, number, rule)
        for flag, number, is_right, rule in (
            ("--samples", options.samples, 0 < options.samples <= MOST_SAMPLES, "it is 1 to 1024"),
            ("--max-rows", options.max_rows, (options.max_rows or 1) > 0, "it is 1 or more"),
            ("--temperature", options.temperature, options.temperature >= 0, "it is 0 or more"),
            ("--top-p", options.top_p, 0 < options.top_p <= 1, "it is above 0 and at most 1"),
            ("--max-new-tokens", options.max_new_tokens, options.max_new_tokens > 0, "1 or more"),
        )
        if not is_right
    ]
    for flag, number, rule in wrong:
        raise RecipeError(
            f"eval nemo-skills {flag}", found=f"is {number}", rule=rule, do="write another"
        )
