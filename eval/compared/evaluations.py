"""Two finished evaluations beside each other, question by question."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from frontload.eval.protocol.stored import read_summary
from frontload.eval.protocol.summary import PERCENT
from frontload.eval.results import ChoiceResult, GeneratedResult, read_results
from frontload.eval.statistics.gates import ScoreGate, marks
from frontload.eval.statistics.paired import PairedDifference, compare_results
from frontload.eval.statistics.score import AVERAGING_RULES
from frontload.eval.statistics.stats import SIGNIFICANCE, Estimate, mean_of_means
from frontload.eval.suites import INSTRUCTION_CATEGORY
from frontload.recipes.artifact import item_results_file
from frontload.recipes.errors import RecipeError

FORMAT = 1
Answered = GeneratedResult | ChoiceResult


@dataclass(frozen=True, kw_only=True)
class ComparedBenchmark:
    """One benchmark that both have answered; the difference is the first less the second."""

    category: str
    first: float
    second: float
    paired: PairedDifference
    marks: tuple[str, ...]  # of the pairing, and of each number


@dataclass(frozen=True, kw_only=True)
class PairedEvaluations:
    """The first evaluation less the second."""

    first: str  # identity of the model
    second: str
    benchmarks: Mapping[str, ComparedBenchmark]
    only_first: tuple[str, ...]  # benchmarks that the other has not answered
    only_second: tuple[str, ...]
    averages: Mapping[str, Estimate]  # by AVERAGING_RULES, where both have all benchmarks

    def to_json(self) -> dict[str, Any]:
        """The form of a comparison's file."""
        return {"format": FORMAT, **asdict(self)}


def compare_evaluations(first: Path, second: Path) -> PairedEvaluations:
    """Compares the evaluations in two folders over the questions that both answered.

    Raises: RecipeError when they have no benchmark in common; ArtifactError for a damaged folder.
    """
    one, other = read_summary(first), read_summary(second)
    results, others = _by_benchmark(first), _by_benchmark(second)
    common = [name for name in results if name in others]
    if not common:
        raise RecipeError(
            f"comparing {first} with {second}",
            found=f"benchmarks {', '.join(results) or 'none'} and {', '.join(others) or 'none'}",
            rule="a comparison is over the questions that both answered",
            do="evaluate both with one suite and one size",
        )
    benchmarks = {
        name: ComparedBenchmark(
            category=results[name][0].category,
            first=one["benchmarks"][name]["accuracy"],
            second=other["benchmarks"][name]["accuracy"],
            paired=compare_results(others[name], results[name]),
            marks=_marks(one["benchmarks"][name], other["benchmarks"][name]),
        )
        for name in common
    }
    only_first = tuple(name for name in results if name not in others)
    only_second = tuple(name for name in others if name not in results)
    is_whole = not (only_first or only_second or _lacking(first) or _lacking(second))
    return PairedEvaluations(
        first=one["model"],
        second=other["model"],
        benchmarks=benchmarks,
        only_first=only_first,
        only_second=only_second,
        averages=_averages(benchmarks) if is_whole else {},
    )


def _by_benchmark(folder: Path) -> dict[str, list[Answered]]:
    found: dict[str, list[Answered]] = {}
    for result in read_results(item_results_file(folder)).results:
        if isinstance(result, GeneratedResult | ChoiceResult):
            found.setdefault(result.benchmark, []).append(result)
    return found


def _lacking(folder: Path) -> dict[str, str]:
    return read_results(item_results_file(folder)).protocol.missing


def _marks(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[str, ...]:
    gates = [
        ScoreGate(
            name="same prompts",
            is_passed=one["prompts"] == other["prompts"],
            said=f"digests {one['prompts']} and {other['prompts']}: the two were asked otherwise",
        ),
        ScoreGate(
            name="same sampling",
            is_passed=(one["settings"], one["metric"]) == (other["settings"], other["metric"]),
            said="temperature, length, stop texts or metric differ",
        ),
    ]
    both = (("first", one), ("second", other))
    own = [f"{which}: {mark}" for which, summary in both for mark in summary["marks"]]
    return (*marks(gates), *own)


def _averages(benchmarks: Mapping[str, ComparedBenchmark]) -> dict[str, Estimate]:
    """The differences of the averages; questions of benchmarks are independent."""
    by_category: dict[str, list[Estimate]] = {}
    for one in benchmarks.values():
        by_category.setdefault(one.category, []).append(one.paired.difference)
    flat = [one for found in by_category.values() for one in found]
    found = {
        "avg": mean_of_means([mean_of_means(parts) for parts in by_category.values()]),
        "flat9": mean_of_means(flat),
    }
    without = [
        one
        for category, parts in by_category.items()
        for one in parts
        if category != INSTRUCTION_CATEGORY
    ]
    return found | ({"flat8": mean_of_means(without)} if without else {})


def comparison_lines(comparison: PairedEvaluations) -> list[str]:
    """The table for people, in points of percent; each test is of its benchmark alone."""
    lines = [f"{comparison.first} less {comparison.second}, on the same questions"]
    width = max(map(len, (*comparison.benchmarks, *AVERAGING_RULES)))
    for name, one in comparison.benchmarks.items():
        paired = one.paired
        counts = f"better {paired.num_better}, worse {paired.num_worse}, equal {paired.num_equal}"
        lines.append(
            f"  {name:{width}}  {_points(paired.difference)} points "
            f"({PERCENT * one.first:.1f} less {PERCENT * one.second:.1f} %), "
            f"p {paired.p_value:.3g} ({paired.test}), n {paired.difference.num_units}, {counts}"
        )
        for which, number in (("first", paired.only_second), ("second", paired.only_first)):
            if number:
                lines.append(f"  {'':{width}}  {number} questions of the {which} are left out")
        lines += [f"  {'':{width}}  ! {mark}" for mark in one.marks]
    for rule, says in AVERAGING_RULES.items():
        found = comparison.averages.get(rule)
        shown = "missing: both need all benchmarks of the suite"
        text = f"{_points(found)} points: {says}" if found else shown
        lines.append(f"  {rule:{width}}  {text}")
    for which, names in (
        ("first", comparison.only_first),
        ("second", comparison.only_second),
    ):
        if names:
            lines.append(f"  of the {which} alone: {', '.join(names)}")
    if len(comparison.benchmarks) > 1:
        number = len(comparison.benchmarks)
        level = SIGNIFICANCE / number
        lines.append(
            f"  each p is of its benchmark alone: of {number}, one below {level:.2g} counts"
        )
    return lines


def _points(found: Estimate) -> str:
    error = f" +- {PERCENT * found.se:.1f}" if found.se is not None else ""
    return f"{PERCENT * found.value:+.1f}{error}"
