"""Writes recipes/suites/prompts.json: digests of the prompts of each benchmark on real rows.

python -m tests.pages.prompts ROOT

A benchmark whose rows are not there, or are made up, keeps what is stated.
"""

import json
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from frontload.eval.grading.grade import Grader
from frontload.eval.protocol.data_root import DataRoot
from frontload.eval.protocol.evaluation import SuiteRequest, load_benchmark
from frontload.eval.protocol.items import BenchmarkItem, BenchmarkTask, MissingBenchmark
from frontload.eval.protocol.own import asked_item, asked_rows
from frontload.eval.statistics.gates import prompt_digest
from frontload.recipes.artifact import write_json
from frontload.recipes.runs.suite import PROGRAM, PROMPTS, SIZES, SUITES, TINY, load_suite

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "recipes" / SUITES / PROMPTS
NAMES = ("base", "sft", "rl")


def digests(root: DataRoot, suite: str, *, size: str) -> dict[str, str]:
    """Benchmark -> digest of its prompts, where the rows are real."""
    request = SuiteRequest(
        suite=load_suite(suite).value,
        name=suite,
        size=size,
        seed=1,
        root=root,
        out=Path(),
        tokenizer=None,
    )
    with closing(Grader()) as grader:
        asked = {
            name: prompted_items(name, request, grader=grader)
            for name in request.suite.asked
            if not root.is_made(request.suite.benchmarks[name].dataset)
        }
    return {
        name: prompt_digest({item.id: item.digest for item in items})
        for name, items in asked.items()
        if items
    }


def prompted_items(name: str, request: SuiteRequest, *, grader: Grader) -> Sequence[BenchmarkItem]:
    """The items of a benchmark; of programs without a run of their gold programs."""
    benchmark = request.suite.benchmarks[name]
    if benchmark.grader != PROGRAM:
        task = load_benchmark(name, request, grader=grader)
        return task.items if isinstance(task, BenchmarkTask) else ()
    rows = asked_rows(benchmark, request.root, is_tiny=request.size == TINY)
    if isinstance(rows, MissingBenchmark):
        return ()
    return [
        asked_item(benchmark, where=f"{name}/{place}", row=row, options=(), gold="")
        for place, row in rows.items()
    ]


def main(folder: str) -> None:
    """Writes the file, and prints how many digests it holds."""
    root, stated = DataRoot.open(Path(folder)), json.loads(FILE.read_text(encoding="utf-8"))
    for suite in NAMES:
        for size in SIZES:
            stated.setdefault(suite, {}).setdefault(size, {}).update(
                digests(root, suite, size=size)
            )
    write_json(FILE, stated)
    print(sum(len(one) for sizes in stated.values() for one in sizes.values()), "digests")


if __name__ == "__main__":
    main(sys.argv[1])
