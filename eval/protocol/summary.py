"""What an evaluation says, benchmark by benchmark: a number with its n, its error and its marks."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from frontload.eval.protocol.items import BenchmarkTask
from frontload.eval.protocol.results_of import prompt_text
from frontload.eval.results import ChoiceResult, GeneratedResult
from frontload.eval.statistics.gates import (
    ScoreGate,
    examples_are_others,
    gold_is_right,
    marks,
    options_are_written,
    options_differ,
    prompt_digest,
    prompts_are_known,
    texts_are_written,
)
from frontload.eval.statistics.repeated import ANY_FAILURE, failure_rates, run_spread
from frontload.eval.statistics.score import AVERAGING_RULES, Scores
from frontload.eval.statistics.stats import clustered_mean
from frontload.recipes.runs.suite import SuiteBenchmark

FORMAT = 2  # with settings and gates
RUNNER = "native"
PERCENT = 100.0
MOST_NAMED = 3  # missing benchmarks on a line


@dataclass(frozen=True, kw_only=True)
class BenchmarkSummary:
    """One line of the table. Rates are shares of the answers; None where there are none."""

    category: str
    metric: str
    num_items: int
    num_samples: int  # answers to an item
    accuracy: float | None  # None: missing
    error: float | None  # standard error, clustered by item; None for one item
    run_spread: float | None  # sd of the accuracy over the runs 1 to k; no error of the accuracy
    failures: Mapping[str, float]  # why answers have no final one -> share; "any" is all of them
    mean_tokens: float | None
    ceiling: float | None  # what the gold answers score; None where no gold text is known
    floor: float | None  # what an empty, an echoed or one constant answer scores, the best of them
    prompts: str  # digest of all prompts
    settings: str  # digest of the sampling; "" where options are scored
    missing: str  # why there is no number; "" where there is one
    gates: tuple[ScoreGate, ...]  # all that was looked at, passed or not
    marks: tuple[str, ...]  # what a reader must know before he believes the number


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """What decides the marks of a number beside its answers."""

    is_made: bool  # rows that this project made up
    settings: str  # as in `BenchmarkSummary`
    stated_prompts: str | None  # digest that the prompts should have; None = not stated
    contamination: ScoreGate


@dataclass(frozen=True, kw_only=True)
class SuiteSummary:
    """All of one evaluation."""

    suite: str
    size: str
    seed: int
    model: str
    benchmarks: Mapping[str, BenchmarkSummary]
    scores: Scores
    num_torn: int  # lines of samples that a kill had torn
    rows: Mapping[str, Mapping[str, str]]  # data set -> file -> sha256

    def to_json(self) -> dict[str, Any]:
        """The form of evaluation.json. What a kill has torn is no part of it: bytes stay equal."""
        return {
            "format": FORMAT,
            "runner": RUNNER,
            "suite": self.suite,
            "size": self.size,
            "seed": self.seed,
            "model": self.model,
            "benchmarks": {name: asdict(one) for name, one in self.benchmarks.items()},
            "rows": {name: dict(files) for name, files in self.rows.items()},
        }


def summarise(
    benchmark: SuiteBenchmark,
    *,
    task: BenchmarkTask,
    results: Sequence[GeneratedResult] | Sequence[ChoiceResult],
    around: Circumstances,
) -> BenchmarkSummary:
    """The line of one benchmark, with the gates that its number has not passed."""
    drawn = benchmark.sampling
    found = clustered_mean([result.accuracy for result in results])
    generated = [one for one in results if isinstance(one, GeneratedResult)]
    spread = run_spread(generated)
    floors = task.floors()
    gates = _gates(task, results, around=around)
    return BenchmarkSummary(
        category=benchmark.category,
        metric=benchmark.metric or benchmark.grader,
        num_items=len(results),
        num_samples=drawn.samples if drawn else 1,
        accuracy=found.value,
        error=found.se,
        run_spread=spread.deviation if spread else None,
        failures=_failures(generated),
        mean_tokens=_mean([sample.tokens for one in generated for sample in one.samples]),
        ceiling=_mean([one.gold_correct for one in generated]) if task.has_gold else None,
        floor=floors.highest if floors else None,
        prompts=prompt_digest(_prompts(task)),
        settings=around.settings,
        missing="",
        gates=tuple(gates),
        marks=marks(gates),
    )


def missing_summary(benchmark: SuiteBenchmark, reason: str) -> BenchmarkSummary:
    """The line of a benchmark that was not asked."""
    return BenchmarkSummary(
        category=benchmark.category,
        metric=benchmark.metric or benchmark.grader,
        num_items=0,
        num_samples=benchmark.sampling.samples if benchmark.sampling else 1,
        accuracy=None,
        error=None,
        run_spread=None,
        failures={},
        mean_tokens=None,
        ceiling=None,
        floor=None,
        prompts="",
        settings="",
        missing=reason,
        gates=(),
        marks=(),
    )


def _gates(
    task: BenchmarkTask,
    results: Sequence[GeneratedResult] | Sequence[ChoiceResult],
    *,
    around: Circumstances,
) -> list[ScoreGate]:
    """Every gate of the number, in the order in which a reader asks."""
    generated = [one for one in results if isinstance(one, GeneratedResult)]
    choices = [one for one in results if isinstance(one, ChoiceResult)]
    shown = sum(prompt_text(item).count(item.question) > 1 for item in task.items if item.question)
    gates = [
        ScoreGate(
            name="rows",
            is_passed=not around.is_made,
            said="made up: they judge nothing" if around.is_made else "of the benchmark",
        ),
        prompts_are_known(_prompts(task), stated=None if around.is_made else around.stated_prompts),
        examples_are_others([item.question for item in task.items], task.examples()),
        ScoreGate(
            name="own prompt",
            is_passed=not shown,
            said=f"{shown} questions stand among the examples of their own prompts",
        ),
        around.contamination,
        *task.gates(),
    ]
    if choices:
        texts = {item.id: [text for _, text in item.options] for item in task.items}
        gates += [options_are_written(texts), options_differ(choices)]
    if generated:
        gates += [gold_is_right(generated)] if task.has_gold else []
        gates += [texts_are_written(generated)]
    return gates


def _prompts(task: BenchmarkTask) -> dict[str, str]:
    return {item.id: item.digest for item in task.items}


def _failures(results: Sequence[GeneratedResult]) -> dict[str, float]:
    """Why answers have no final one, and how many of all; none where options are scored."""
    if not results:
        return {}
    return {name: one.value for name, one in failure_rates(results).items()}


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def suite_lines(summary: SuiteSummary) -> list[str]:
    """The table for people, in percent; missing benchmarks have no number."""
    lines = [f"suite {summary.suite}, size {summary.size}, seed {summary.seed}, runner {RUNNER}"]
    width = max(map(len, summary.benchmarks))
    for name, one in summary.benchmarks.items():
        if one.accuracy is None:
            lines.append(f"  {name:{width}}  missing: {one.missing}")
            continue
        error = f" +- {PERCENT * one.error:.1f}" if one.error is not None else ""
        parts = [f"{PERCENT * one.accuracy:5.1f}{error} % {one.metric}", f"n {one.num_items}"]
        parts += [f"k {one.num_samples}"] if one.num_samples > 1 else []
        for title, value in (
            ("run sd", one.run_spread),
            *_said_failures(one.failures),
            ("floor", one.floor),
            ("gold scores", one.ceiling if one.ceiling != 1 else None),
        ):
            if value is not None:
                parts.append(f"{title} {PERCENT * value:.1f} %")
        lines.append(f"  {name:{width}}  " + ", ".join(parts))
        lines += [f"  {'':{width}}  ! {mark}" for mark in one.marks]
    return lines + _average_lines(summary)


def _average_lines(summary: SuiteSummary) -> list[str]:
    """The averages by each rule that has all of its benchmarks; else which ones it lacks."""
    missing = list(summary.scores.protocol.missing)
    rest = f" and {len(missing) - MOST_NAMED} more" if len(missing) > MOST_NAMED else ""
    lacking = ", ".join(missing[:MOST_NAMED]) + rest
    lines: list[str] = []
    for rule, says in AVERAGING_RULES.items():
        found = summary.scores.averages.get(rule)
        if found is None:
            lines.append(f"  {rule}: missing, for want of {lacking}: {says}")
            continue
        error = f" +- {PERCENT * found.se:.1f}" if found.se is not None else ""
        lines.append(f"  {rule}: {PERCENT * found.value:.1f}{error} %: {says}")
    marked = sum(bool(one.marks) for one in summary.benchmarks.values())
    if marked:
        lines.append(f"  {marked} of these numbers are marked (!): read the marks first")
    return lines


def _said_failures(failures: Mapping[str, float]) -> list[tuple[str, float]]:
    """All answers without a final one, then their reasons, where these say more than that."""
    reasons = {why: share for why, share in failures.items() if why != ANY_FAILURE}
    whole = [("without an answer", failures[ANY_FAILURE])] if failures else []
    return whole + ([] if set(reasons) == {"no answer"} else sorted(reasons.items()))
