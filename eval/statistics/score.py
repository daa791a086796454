"""Per-item results to scores: benchmarks, categories, the paper's three averages. No model."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from frontload.eval.results import (
    ChoiceResult,
    GeneratedResult,
    HeldoutResult,
    Protocol,
    Result,
    ResultFile,
    read_results,
)
from frontload.eval.statistics.stats import Estimate, clustered_mean, mean_of_means, ratio
from frontload.eval.suites import CATEGORIES, INSTRUCTION_CATEGORY

FORMAT = 1

AVERAGING_RULES = {
    "avg": "mean of the category means (the paper's T1, T2, T4 to T7)",
    "flat8": "mean of all benchmarks but instruction following (the paper's T3: 8 benchmarks)",
    "flat9": "mean of all benchmarks (the paper's arXiv Table 8: 9 benchmarks)",
}

Answered = GeneratedResult | ChoiceResult


@dataclass(frozen=True, kw_only=True)
class BenchmarkScore:
    """One benchmark: accuracy is the mean over items of each item's share of right samples."""

    category: str
    kind: str  # "generated" or "choice"
    accuracy: Estimate
    num_samples: int  # samples an item
    format_failure_rate: float | None  # of samples; None for choice items
    mean_tokens: float | None
    mean_shots: float | None
    num_over_length: int  # items whose prompt is longer than the model's training sequences


@dataclass(frozen=True, kw_only=True)
class HeldoutScore:
    """One group of held-out gold answers, teacher-forced."""

    loss: Estimate  # nats a token
    step_accuracy: Estimate  # share of tokens ranked first
    num_tokens: int
    num_cut: int  # documents cut at the trained context


@dataclass(frozen=True, kw_only=True)
class GoldReplay:
    """The gold answers through tokenizer, template and grader: anything but 1.0 is our bug."""

    accuracy: float | None
    num_items: int
    failed: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Everything that one evaluation says, recomputable from its items.jsonl."""

    format: int
    protocol: Protocol
    benchmarks: dict[str, BenchmarkScore]
    categories: dict[str, Estimate]
    averages: dict[str, Estimate]  # by AVERAGING_RULES; only those that exist
    missing_categories: tuple[str, ...]  # of the paper's four, without an item here
    families: dict[str, Estimate]
    inside_shq: dict[str, Estimate]  # "inside" and "outside": questions of SHQ's families or not
    format_failure_rate: float | None
    heldout: dict[str, HeldoutScore]  # "all", "inside", "outside", "domain:..." and "family:..."
    gold_replay: GoldReplay

    def to_json(self) -> dict[str, Any]:
        """The form of scores.json, as it reads back."""
        return json.loads(json.dumps(asdict(self) | {"protocol": self.protocol.to_json()}))


def rescore(path: Path) -> Scores:
    """Scores of a stored items.jsonl, without the model."""
    return score(read_results(path))


def score(file: ResultFile) -> Scores:
    """Scores of per-item results."""
    answered = [r for r in file.results if not isinstance(r, HeldoutResult)]
    generated = [r for r in answered if isinstance(r, GeneratedResult)]
    heldout = [r for r in file.results if isinstance(r, HeldoutResult)]
    benchmarks = {
        name: _benchmark(group, file.protocol.max_sequence_tokens)
        for name, group in _grouped(answered, lambda r: r.benchmark).items()
    }
    missing = file.protocol.missing
    categories = category_means(benchmarks, missing=missing)
    expected = CATEGORIES[file.protocol.suite]
    return Scores(
        format=FORMAT,
        protocol=file.protocol,
        benchmarks=benchmarks,
        categories=categories,
        averages=_averages(benchmarks, categories, missing=missing),
        missing_categories=tuple(name for name in expected if name not in categories),
        families=_accuracies(generated, lambda r: r.family),
        inside_shq=_accuracies(
            [one for one in generated if one.inside_shq is not None],
            lambda r: "inside" if r.inside_shq else "outside",
        ),
        format_failure_rate=_format_failure_rate(generated),
        heldout=_heldout_scores(heldout),
        gold_replay=_gold_replay(generated),
    )


def category_means(
    benchmarks: dict[str, BenchmarkScore], *, missing: Mapping[str, str]
) -> dict[str, Estimate]:
    """Unweighted mean of the benchmarks of each category; none where one of them is missing."""
    found = {benchmark.category for benchmark in benchmarks.values()}
    names = sorted(found - set(missing.values()))
    return {
        name: mean_of_means([b.accuracy for b in benchmarks.values() if b.category == name])
        for name in names
    }


def _averages(
    benchmarks: dict[str, BenchmarkScore],
    categories: dict[str, Estimate],
    *,
    missing: Mapping[str, str],
) -> dict[str, Estimate]:
    """The averages that exist: an average of fewer benchmarks than it says is another number."""
    averages: dict[str, Estimate] = {}
    if benchmarks and not missing:
        flat = [b.accuracy for b in benchmarks.values()]
        averages["avg"] = mean_of_means(list(categories.values()))
        averages["flat9"] = mean_of_means(flat)
    without = [b.accuracy for b in benchmarks.values() if b.category != INSTRUCTION_CATEGORY]
    if without and set(missing.values()) <= {INSTRUCTION_CATEGORY}:
        averages["flat8"] = mean_of_means(without)
    return averages


def _benchmark(group: Sequence[Answered], max_sequence_tokens: int) -> BenchmarkScore:
    generated = [r for r in group if isinstance(r, GeneratedResult)]
    samples = [sample for result in generated for sample in result.samples]
    return BenchmarkScore(
        category=group[0].category,
        kind="generated" if generated else "choice",
        accuracy=clustered_mean([result.accuracy for result in group]),
        num_samples=len(generated[0].samples) if generated else 1,
        format_failure_rate=_format_failure_rate(generated),
        mean_tokens=_mean([sample.tokens for sample in samples]),
        mean_shots=_mean([result.num_shots for result in generated]),
        num_over_length=sum(result.prompt_tokens > max_sequence_tokens for result in group),
    )


def _heldout_scores(results: Sequence[HeldoutResult]) -> dict[str, HeldoutScore]:
    groups = {"all": list(results)} if results else {}
    groups |= _grouped(results, lambda r: "inside" if r.inside_shq else "outside")
    groups |= _grouped(results, lambda r: f"domain:{r.domain}")
    groups |= _grouped(results, lambda r: f"family:{r.family}")
    return {
        name: _heldout(group)
        for name, group in groups.items()
        if any(result.num_tokens for result in group)
    }


def _heldout(group: Sequence[HeldoutResult]) -> HeldoutScore:
    tokens = [result.num_tokens for result in group]
    return HeldoutScore(
        loss=ratio([result.loss_sum for result in group], tokens),
        step_accuracy=ratio([result.num_greedy_tokens for result in group], tokens),
        num_tokens=sum(tokens),
        num_cut=sum(result.is_cut for result in group),
    )


def _gold_replay(generated: Sequence[GeneratedResult]) -> GoldReplay:
    failed = tuple(result.id for result in generated if not result.gold_correct)
    share = 1 - len(failed) / len(generated) if generated else None
    return GoldReplay(accuracy=share, num_items=len(generated), failed=failed)


def _accuracies(
    results: Sequence[GeneratedResult], name_of: Callable[[GeneratedResult], str]
) -> dict[str, Estimate]:
    groups = _grouped(results, name_of)
    return {name: clustered_mean([r.accuracy for r in group]) for name, group in groups.items()}


def _format_failure_rate(results: Iterable[GeneratedResult]) -> float | None:
    return _mean([bool(sample.format_failure) for r in results for sample in r.samples])


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _grouped[R: Result](results: Sequence[R], name_of: Callable[[R], str]) -> dict[str, list[R]]:
    groups: dict[str, list[R]] = {}
    for result in results:
        groups.setdefault(name_of(result), []).append(result)
    return dict(sorted(groups.items()))
