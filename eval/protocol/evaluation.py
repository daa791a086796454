"""A suite asked of one model: its tasks, its answers, and what is made of them."""

import json
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from frontload.data_tools.disk.files import replacing
from frontload.data_tools.text.tokenizer import TextTokenizer
from frontload.eval.grading.grade import Grader
from frontload.eval.protocol.answers import Answerer
from frontload.eval.protocol.data_root import DataRoot
from frontload.eval.protocol.items import BenchmarkTask, MissingBenchmark
from frontload.eval.protocol.own import load_own
from frontload.eval.protocol.results_of import benchmark_results
from frontload.eval.protocol.runner import (
    AnswerWatch,
    Asking,
    Sheet,
    ask,
    sample_names,
    settings_digest,
)
from frontload.eval.protocol.samples import open_samples
from frontload.eval.protocol.stored import SUMMARY, AskedBenchmark, AskedSuite, require_own_folder
from frontload.eval.protocol.summary import (
    BenchmarkSummary,
    Circumstances,
    SuiteSummary,
    missing_summary,
    summarise,
)
from frontload.eval.results import ChoiceResult, GeneratedResult, Protocol, write_results
from frontload.eval.statistics.gates import corpus_is_clean, prompt_digest
from frontload.eval.statistics.score import rescore
from frontload.recipes.artifact import (
    benchmark_questions,
    item_results_file,
    scores_file,
    write_json,
)
from frontload.recipes.errors import RecipeError
from frontload.recipes.runs.suite import (
    INSTRUCTIONS,
    PROGRAM,
    STOCK,
    TINY,
    SuiteRecipe,
    stated_prompts,
)

SAMPLES = "samples.jsonl"


@dataclass(frozen=True, kw_only=True)
class SuiteRequest:
    """What to ask, of which rows, and where the answers go."""

    suite: SuiteRecipe
    name: str  # of the suite, for people
    size: str  # full or tiny
    seed: int
    root: DataRoot
    out: Path  # an existing folder
    tokenizer: TextTokenizer | None  # of the model, to count prompts; None where it is not known
    grading_processes: int = 1
    accept_limits_only: bool = False  # without walls programs run with limits only, and are marked
    training_texts: Iterable[str] | None = None  # of the checkpoint; None = not known


def evaluate_suite(
    request: SuiteRequest, answerer: Answerer, *, watch: AnswerWatch
) -> SuiteSummary:
    """Asks what is not answered yet, grades everything, writes four files.

    samples.jsonl (answers, appended as they come), items.jsonl and scores.json (as the stage
    `evaluate` leaves them, which tables and reports read) and evaluation.json (the summary).

    Raises: RecipeError when no benchmark of the suite can be asked, or the folder holds scores of
            other answers.
    """
    with closing(Grader(processes=request.grading_processes)) as grader:
        tasks = load_tasks(request, grader=grader)
        askings = {
            name: Asking(
                name=name,
                task=task,
                sampling=request.suite.benchmarks[name].sampling,
                seed=request.seed,
            )
            for name, task in tasks.items()
            if isinstance(task, BenchmarkTask)
        }
        if not askings:
            raise _nothing(request, tasks)
        with open_samples(request.out / SAMPLES) as samples:
            require_own_folder(request.out, _asked(request, askings, model=answerer.identity))
            sheets = {
                name: ask(asking, answerer, samples=samples, watch=watch)
                for name, asking in askings.items()
            }
            samples.settle(
                name for one in askings.values() for name in sample_names(one, answerer.identity)
            )
            num_torn = samples.num_torn
        missing = {name: task for name, task in tasks.items() if isinstance(task, MissingBenchmark)}
        return _judge(
            request, answerer, askings=askings, missing=missing, sheets=sheets, num_torn=num_torn
        )


def _asked(request: SuiteRequest, askings: Mapping[str, Asking], *, model: str) -> AskedSuite:
    return AskedSuite(
        model=model,
        seed=request.seed,
        size=request.size,
        benchmarks={
            name: AskedBenchmark(
                prompts=prompt_digest({item.id: item.digest for item in one.task.items}),
                settings=settings_digest(one),
                num_samples=one.sampling.samples if one.sampling else 1,
            )
            for name, one in askings.items()
        },
    )


def load_tasks(
    request: SuiteRequest, *, grader: Grader
) -> dict[str, BenchmarkTask | MissingBenchmark]:
    """The suite's benchmarks on the rows at hand, in the suite's order."""
    return {name: load_benchmark(name, request, grader=grader) for name in request.suite.asked}


def load_benchmark(
    name: str, request: SuiteRequest, *, grader: Grader
) -> BenchmarkTask | MissingBenchmark:
    """One benchmark of the suite on the rows at hand; where there are none, the reason."""
    benchmark, root, is_tiny = request.suite.benchmarks[name], request.root, request.size == TINY
    if benchmark.grader in (PROGRAM, INSTRUCTIONS):
        from frontload.eval.protocol.programs import Running, load_programs

        how = Running(
            processes=request.grading_processes, accept_limits_only=request.accept_limits_only
        )
        return load_programs(name, benchmark, root=root, is_tiny=is_tiny, how=how)
    if benchmark.form == STOCK:
        from frontload.eval.protocol.stock import load_stock  # lm_eval: a CPU second to import

        return load_stock(name, benchmark, root=root, is_tiny=is_tiny)
    return load_own(name, request.suite, root=root, grader=grader, is_tiny=is_tiny)


def _judge(
    request: SuiteRequest,
    answerer: Answerer,
    *,
    askings: Mapping[str, Asking],
    missing: Mapping[str, MissingBenchmark],
    sheets: Mapping[str, Sheet],
    num_torn: int,
) -> SuiteSummary:
    made = {
        name: benchmark_results(
            name,
            request.suite.benchmarks[name],
            task=asking.task,
            sheet=sheets[name],
            tokenizer=request.tokenizer,
        )
        for name, asking in askings.items()
    }
    summaries = _summaries(request, askings, missing=missing, made=made)
    results = [one for found in made.values() for one in found]
    path = item_results_file(request.out)
    not_asked = {  # those that are not asked too: the paper's average is of all of them
        name: benchmark.category
        for name, benchmark in request.suite.benchmarks.items()
        if name not in sheets
    }
    protocol = replace(_protocol(request, answerer), missing=not_asked)
    write_results(path, protocol, results=results)
    _write_questions(request.out, [one.task for one in askings.values()])
    scores = rescore(path)
    write_json(scores_file(request.out), scores.to_json())
    summary = SuiteSummary(
        suite=request.name,
        size=request.size,
        seed=request.seed,
        model=answerer.identity,
        benchmarks=summaries,
        scores=scores,
        num_torn=num_torn,
        rows={
            benchmark.dataset: request.root.sha256(benchmark.dataset)
            for name in sheets
            for benchmark in [request.suite.benchmarks[name]]
        },
    )
    write_json(request.out / SUMMARY, summary.to_json())
    return summary


def _summaries(
    request: SuiteRequest,
    askings: Mapping[str, Asking],
    *,
    missing: Mapping[str, MissingBenchmark],
    made: Mapping[str, list[GeneratedResult] | list[ChoiceResult]],
) -> dict[str, BenchmarkSummary]:
    """The line of each benchmark that the suite asks, in its order."""
    questions = {name: [item.question for item in one.task.items] for name, one in askings.items()}
    clean = corpus_is_clean(questions, request.training_texts)
    stated = stated_prompts(request.name, request.size)
    found: dict[str, BenchmarkSummary] = {}
    for name in request.suite.asked:
        benchmark = request.suite.benchmarks[name]
        if name in missing:
            found[name] = missing_summary(benchmark, missing[name].reason)
            continue
        found[name] = summarise(
            benchmark,
            results=made[name],
            task=askings[name].task,
            around=Circumstances(
                is_made=request.root.is_made(benchmark.dataset),
                settings=settings_digest(askings[name]),
                stated_prompts=stated.get(name),
                contamination=clean[name],
            ),
        )
    return found


def _write_questions(out: Path, tasks: Iterable[BenchmarkTask]) -> None:
    """The multiple-choice questions, whose texts stand in no result, for the pages of a report."""
    with replacing(benchmark_questions(out), "w") as stream:
        for task in tasks:
            for item in task.items:
                if item.options:
                    row = {"id": item.id, "context": item.question, "options": item.shown}
                    stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def _protocol(request: SuiteRequest, answerer: Answerer) -> Protocol:
    asked = [request.suite.benchmarks[name] for name in request.suite.asked]
    drawn = [one.sampling for one in asked if one.sampling]
    return Protocol(
        suite=request.suite.stage,
        num_samples=min((one.samples for one in drawn), default=1),
        num_hard_samples=max((one.samples for one in drawn), default=1),
        temperature=max((one.temperature for one in drawn), default=0.0),
        max_new_tokens=max((one.max_new_tokens for one in drawn), default=0),
        max_sequence_tokens=answerer.max_sequence_tokens,
        num_shots=max((one.num_shots for one in asked), default=0),
        seed=request.seed,
    )


def _nothing(
    request: SuiteRequest, tasks: Mapping[str, BenchmarkTask | MissingBenchmark]
) -> RecipeError:
    reasons = [task.reason for task in tasks.values() if isinstance(task, MissingBenchmark)]
    return RecipeError(
        f"suite {request.name} on {request.root.folder}",
        found=f"none of its {len(tasks)} benchmarks can be asked: {reasons[0]}",
        rule="a suite asks the benchmarks whose rows are there",
        do=f"run `frontload eval data --root {request.root.folder} --from LOCAL`",
    )
