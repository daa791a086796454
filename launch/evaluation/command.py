"""`frontload eval CHECKPOINT`: its arguments, and the table it prints."""

import argparse
import importlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frontload.data_tools.corpus.texts import texts_of_files
from frontload.data_tools.disk.publish import make_folder
from frontload.data_tools.raw.inputs import expand_inputs
from frontload.launch.evaluation.answerers import choose_answerer
from frontload.recipes.artifact import write_json
from frontload.recipes.command_line import Command
from frontload.recipes.errors import RecipeError
from frontload.recipes.runs.suite import FULL, SIZES, load_suite

COMMANDS: Mapping[str, Command] = {
    "data": Command(
        text="gather the rows of the benchmarks into one proved folder",
        adds="frontload.launch.evaluation.data:add_arguments",
    ),
    "environment": Command(
        text="make the environment of a harness that stands apart: nemo-skills",
        adds="frontload.launch.evaluation.nemo_skills:add_environment",
    ),
    "nemo-skills": Command(
        text="ask NeMo-Skills to evaluate the model behind a server",
        adds="frontload.launch.evaluation.nemo_skills:add_nemo_skills",
    ),
}
"""The commands beside `frontload eval CHECKPOINT`."""

DEFAULT_ROOT = Path("benchmarks")
DEFAULT_SEED = 1
SAY_EVERY_SECONDS = 5.0


def add_arguments(one: argparse.ArgumentParser) -> None:
    """The arguments of `eval`."""
    one.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="its folder, its key or label in the store, hf:FOLDER for a model of transformers, or "
        "the address of a server of the OpenAI protocol, as http://127.0.0.1:8000/v1",
    )
    one.add_argument(
        "--suite", required=True, help="a name under recipes/suites, or a path ending in .yaml"
    )
    one.add_argument(
        "--size", choices=SIZES, default=FULL, help="all rows, or a few fixed ones (default full)"
    )
    one.add_argument(
        "--data",
        type=Path,
        default=DEFAULT_ROOT,
        help="the folder that `frontload eval data` made (default benchmarks)",
    )
    one.add_argument("--seed", type=int, default=DEFAULT_SEED, help="of the draws (default 1)")
    one.add_argument(
        "--out",
        type=Path,
        help="folder of answers and scores (default evaluations/NAME/SUITE-SIZE, and -seedN "
        "behind it for another seed than 1); it holds one evaluation",
    )
    one.add_argument(
        "--compare",
        metavar="OTHER",
        help="another checkpoint, which is asked the same, or the folder of its evaluation: the "
        "difference over the same questions, CHECKPOINT less OTHER",
    )
    one.add_argument(
        "--corpus",
        nargs="+",
        metavar="FILE",
        help="what the checkpoint was trained on, in which questions are looked for (default: what "
        "the manifests of its store lead to)",
    )
    one.add_argument("--tokenizer", type=Path, help="tokenizer.json (default its study's)")
    one.add_argument("--model", help="of a server that has several")
    one.add_argument(
        "--api-key-env", metavar="NAME", help="environment variable with the key of a server"
    )
    one.add_argument(
        "--accept-limits-only",
        action="store_true",
        help="where bubblewrap cannot work, run generated programs with limits but without walls, "
        "and mark every score of theirs; else those benchmarks are missing",
    )
    one.add_argument("--store", type=Path, default=Path("store"), help="folder of artifacts")
    one.add_argument("--json", action="store_true", help="print JSON")
    one.set_defaults(run=run_eval)


def run_eval(options: argparse.Namespace) -> int:
    """Asks what is not answered yet, and prints the scores of all benchmarks of the suite."""
    loaded = load_suite(options.suite, overrides=options.overrides)
    if options.seed < 0:
        raise RecipeError(
            f"eval --seed {options.seed}",
            found="a seed below 0",
            rule="a seed is 0 or more",
            do="write another",
        )
    roots: Any = importlib.import_module("frontload.eval.protocol.data_root")
    root = roots.DataRoot.open(options.data)
    asked = _Asked(options=options, suite=loaded.value, root=root, corpus=_corpus(options.corpus))
    out, summary = _evaluate(asked, options.checkpoint, out=options.out)
    compared = _compare(asked, out) if options.compare else None
    page: Any = importlib.import_module("frontload.eval.compared.page")
    page.write_page(out, [compared] if compared else [])
    if options.json:
        beside = {"comparison": compared.to_json()} if compared else {}
        print(json.dumps(summary.to_json() | beside, indent=1))
        return 0
    shown: Any = importlib.import_module("frontload.eval.protocol.summary")
    print("\n".join(shown.suite_lines(summary)))
    if compared:
        lines: Any = importlib.import_module("frontload.eval.compared.evaluations")
        print("\n".join(lines.comparison_lines(compared)))
    print(f"answers and scores: {out}, page {out / page.PAGE}")
    return 0


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What is asked of one checkpoint, or of two."""

    options: argparse.Namespace
    suite: Any
    root: Any
    corpus: tuple[Path, ...] | None


def _evaluate(asked: _Asked, checkpoint: str, *, out: Path | None) -> tuple[Path, Any]:
    """The folder of a checkpoint's evaluation, and its summary."""
    options = asked.options
    beside = options.compare if checkpoint == options.checkpoint else options.checkpoint
    chosen = choose_answerer(options, checkpoint, beside=beside)
    out = out or _default_out(chosen.name, options)
    protocol: Any = importlib.import_module("frontload.eval.protocol.evaluation")
    make_folder(out, asked="eval --out")
    files = chosen.training_files if asked.corpus is None else asked.corpus
    request = protocol.SuiteRequest(
        suite=asked.suite,
        name=Path(options.suite).stem,
        size=options.size,
        seed=options.seed,
        root=asked.root,
        out=out,
        tokenizer=chosen.tokenizer,
        accept_limits_only=options.accept_limits_only,
        training_texts=None if files is None else texts_of_files(files),
    )
    return out, protocol.evaluate_suite(request, chosen.answerer, watch=_Watch())


def _compare(asked: _Asked, out: Path) -> Any:
    """The evaluation in `out` less the other one, which is made where it is not there."""
    stored: Any = importlib.import_module("frontload.eval.protocol.stored")
    compared: Any = importlib.import_module("frontload.eval.compared.evaluations")
    other = Path(asked.options.compare)
    if not (other / stored.SUMMARY).is_file():
        other, _ = _evaluate(asked, asked.options.compare, out=None)
    found = compared.compare_evaluations(out, other)
    name = "-".join(other.resolve().parts[-2:])
    write_json(out / f"comparison-{name}.json", found.to_json())
    return found


def _default_out(name: str, options: argparse.Namespace) -> Path:
    suite = Path(options.suite).stem
    seed = f"-seed{options.seed}" if options.seed != DEFAULT_SEED else ""
    return Path("evaluations") / name / f"{suite}-{options.size}{seed}"


def _corpus(patterns: Sequence[str] | None) -> tuple[Path, ...] | None:
    return None if patterns is None else expand_inputs(patterns, asked_by="eval --corpus")


class _Watch:
    """Says how far a benchmark is, now and then."""

    def __init__(self) -> None:
        self._said = time.monotonic()

    def __call__(self, name: str, *, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._said >= SAY_EVERY_SECONDS or (done == total and sys.stderr.isatty()):
            self._said = now
            print(f"{name}: {done} of {total} answers", file=sys.stderr)
