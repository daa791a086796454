"""What an evaluation says, benchmark by benchmark: a number with its n, its error and its marks."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from frontload.eval.protocol.items import BenchmarkTask
from frontload.eval.protocol.results_of import prompt_text
from frontload.eval.results import ChoiceResult, GeneratedResult
from frontload.eval.statistics.gates import (
    ScoreGate,
    gold_is_right,
    marks,
    options_differ,
    prompt_digest,
    texts_are_written,
)
from frontload.eval.statistics.repeated import ANY_FAILURE, failure_rates, run_spread
from frontload.eval.statistics.score import Scores
from frontload.eval.statistics.stats import clustered_mean
from frontload.recipes.runs.suite import SuiteBenchmark

FORMAT = 1
RUNNER = "native"
PERCENT = 100.0


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
    missing: str  # why there is no number; "" where there is one
    marks: tuple[str, ...]  # what a reader must know before he believes the number


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
    results: Sequence[GeneratedResult] | Sequence[ChoiceResult] = (),
    task: BenchmarkTask | None = None,
    is_made: bool = False,
    missing: str = "",
) -> BenchmarkSummary:
    """The line of one benchmark, with the gates that its number has not passed."""
    drawn = benchmark.sampling
    metric = benchmark.metric or benchmark.grader
    if task is None or not results:
        return BenchmarkSummary(
            category=benchmark.category,
            metric=metric,
            num_items=0,
            num_samples=drawn.samples if drawn else 1,
            accuracy=None,
            error=None,
            run_spread=None,
            failures={},
            mean_tokens=None,
            ceiling=None,
            floor=None,
            prompts="",
            missing=missing or "no rows",
            marks=(),
        )
    found = clustered_mean([result.accuracy for result in results])
    generated = [one for one in results if isinstance(one, GeneratedResult)]
    spread = run_spread(generated)
    has_gold = bool(task.gold_answers())
    floors = task.floors()
    return BenchmarkSummary(
        category=benchmark.category,
        metric=metric,
        num_items=len(results),
        num_samples=drawn.samples if drawn else 1,
        accuracy=found.value,
        error=found.se,
        run_spread=spread.deviation if spread else None,
        failures=_failures(generated),
        mean_tokens=_mean([sample.tokens for one in generated for sample in one.samples]),
        ceiling=_mean([one.gold_correct for one in generated]) if has_gold else None,
        floor=floors.highest if floors else None,
        prompts=prompt_digest({item.id: item.digest for item in task.items})[:16],
        missing="",
        marks=_marks(task, results, is_made=is_made),
    )


def _marks(
    task: BenchmarkTask,
    results: Sequence[GeneratedResult] | Sequence[ChoiceResult],
    *,
    is_made: bool,
) -> tuple[str, ...]:
    """The gates that the number has not passed, in words."""
    generated = [one for one in results if isinstance(one, GeneratedResult)]
    choices = [one for one in results if isinstance(one, ChoiceResult)]
    shown = sum(prompt_text(item).count(item.question) > 1 for item in task.items if item.question)
    gates = [
        ScoreGate(name="rows", is_passed=not is_made, said="made up: they judge nothing"),
        ScoreGate(
            name="worked examples",
            is_passed=not shown,
            said=f"{shown} questions stand among the examples of their own prompts",
        ),
    ]
    gates += task.gates()
    gates += [options_differ(choices)] if choices else []
    gates += [gold_is_right(generated), texts_are_written(generated)] if generated else []
    return marks(gates)


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
    return lines


def _said_failures(failures: Mapping[str, float]) -> list[tuple[str, float]]:
    """All answers without a final one, then their reasons, where these say more than that."""
    reasons = {why: share for why, share in failures.items() if why != ANY_FAILURE}
    whole = [("without an answer", failures[ANY_FAILURE])] if failures else []
    return whole + ([] if set(reasons) == {"no answer"} else sorted(reasons.items()))
