"""Cells of the study as numbers: every metric over seeds and bootstrap draws of the questions.

A metric is an array draws_AB: A seeds, B = 1 + NUM_DRAWS columns. Column 0 is the measured value,
the others are the same metric on resampled questions. All cells share the draws of a benchmark, so
a difference of two columns is paired by question, and an expression that uses a cell twice, or
takes a minimum over cells, needs no formula for its error.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from frontload.data_tools.seeds import stream_bits
from frontload.eval.results import GeneratedResult, HeldoutResult, ResultFile
from frontload.eval.stats import SeededEstimate, combine
from frontload.eval.suites import CELL_PREFIX, INSTRUCTION_CATEGORY

NUM_DRAWS = 1000  # the error of a standard error from 1000 draws is about 2%
PERCENT = 100.0

GROUPS: dict[str, tuple[str, ...]] = {
    "pt:res": ("pt:SHQ", "pt:LDQ", "pt:LMQ"),  # Front-Loading Reasoning, section 2.3
    "sft:all": ("sft:LDQ", "sft:SHQ", "sft:LMQ"),  # inferred from Tables 2 and 5
}
ALIASES = {"pt:LMQ@80-20": "pt:LMQ"}  # 80/20 is the study's own ratio


class MissingCell(Exception):
    """A metric of a cell that this study does not have."""

    def __init__(self, cell: str, metric: str) -> None:
        super().__init__(f"{cell} {metric}")
        self.cell = cell
        self.metric = metric


@dataclass(frozen=True, kw_only=True)
class Draws:
    """One metric of one cell: draws_AB and the number of questions behind it."""

    draws_AB: np.ndarray
    num_items: int

    @property
    def num_seeds(self) -> int:
        return int(self.draws_AB.shape[0])

    def estimate(self) -> SeededEstimate:
        """Mean over seeds with the error from seeds and questions together."""
        mean_B = self.draws_AB.mean(axis=0)
        return combine(
            self.draws_AB[:, 0].tolist(),
            float(mean_B[1:].std(ddof=1)),
            num_items=self.num_items,
        )


def mean_draws(parts: Sequence[Draws]) -> Draws:
    """Unweighted mean; seeds beyond the shortest part are left out."""
    num_seeds = min(part.num_seeds for part in parts)
    stacked = np.stack([part.draws_AB[:num_seeds] for part in parts])
    return Draws(draws_AB=stacked.mean(axis=0), num_items=sum(part.num_items for part in parts))


@dataclass
class Cells:
    """All evaluations of a study, by cell in seed order."""

    files: Mapping[str, Sequence[ResultFile]]
    _known: dict[str, dict[str, Draws]] = field(default_factory=dict)
    _weights: dict[tuple[str, ...], np.ndarray] = field(default_factory=dict)

    def draws(self, cell: str, metric: str) -> Draws:
        """A metric of a cell; groups (pt:res, sft:all) are means over their members.

        Raises: MissingCell naming the first part that this study does not have.
        """
        cell = _resolved(cell)
        members = _members(cell)
        if members:
            return mean_draws([self.draws(member, metric) for member in members])
        found = self.metrics(cell).get(metric)
        if found is None:
            raise MissingCell(cell, metric)
        return found

    def metrics(self, cell: str) -> dict[str, Draws]:
        """Every metric of a cell that was evaluated; empty for another."""
        if cell not in self._known:
            by_suite: dict[str, list[ResultFile]] = {}
            for file in self.files.get(cell, ()):
                by_suite.setdefault(file.protocol.suite, []).append(file)
            found: dict[str, Draws] = {}
            for suite in sorted(by_suite):
                found |= self._suite_metrics(suite, by_suite[suite])
            self._known[cell] = found
        return self._known[cell]

    def _suite_metrics(self, suite: str, files: Sequence[ResultFile]) -> dict[str, Draws]:
        prefix = CELL_PREFIX[suite]
        benchmarks, category_of = self._benchmark_draws(files)
        found = {f"bench.{name}": draws for name, draws in benchmarks.items()}
        categories = {}
        for category in sorted(set(category_of.values())):
            members = [d for name, d in benchmarks.items() if category_of[name] == category]
            categories[category] = mean_draws(members)
        found |= {f"{prefix}.{category}": draws for category, draws in categories.items()}
        if categories:
            found[f"{prefix}.avg"] = mean_draws(list(categories.values()))
            found["flat9.avg"] = mean_draws(list(benchmarks.values()))
        flat8 = [d for name, d in benchmarks.items() if category_of[name] != INSTRUCTION_CATEGORY]
        if flat8:
            found["flat8.avg"] = mean_draws(flat8)
        if flat8 and suite == "sft":
            found["rl.avg"] = found["flat8.avg"]  # the paper's T3: same benchmarks, other name
        found |= {
            f"{prefix}.{name}": self._resampled(per_seed)
            for name, per_seed in sorted(_generated_groups(files).items())
        }
        return found | self._heldout_draws(files)

    def _benchmark_draws(
        self, files: Sequence[ResultFile]
    ) -> tuple[dict[str, Draws], dict[str, str]]:
        scores: dict[str, list[dict[str, float]]] = {}
        category_of: dict[str, str] = {}
        for seed, file in enumerate(files):
            for result in file.results:
                if isinstance(result, HeldoutResult):
                    continue
                per_seed = scores.setdefault(result.benchmark, [{} for _ in files])
                per_seed[seed][result.id] = PERCENT * result.accuracy
                category_of[result.benchmark] = result.category
        draws = {name: self._resampled(per_seed) for name, per_seed in sorted(scores.items())}
        return draws, category_of

    def _heldout_draws(self, files: Sequence[ResultFile]) -> dict[str, Draws]:
        tokens: dict[str, list[dict[str, float]]] = {}
        losses: dict[str, list[dict[str, float]]] = {}
        greedy: dict[str, list[dict[str, float]]] = {}
        for seed, file in enumerate(files):
            for result in file.results:
                if not isinstance(result, HeldoutResult):
                    continue
                inside = "inside" if result.inside_shq else "outside"
                for group in ("", f".{inside}", f".{result.domain}"):
                    for store, value in (
                        (tokens, result.num_tokens),
                        (losses, result.loss_sum),
                        (greedy, PERCENT * result.num_greedy_tokens),
                    ):
                        per_seed = store.setdefault(group, [{} for _ in files])
                        per_seed[seed][result.id] = value
        found = {}
        for group, counts in sorted(tokens.items()):
            found[f"heldout.loss{group}"] = self._ratio(losses[group], counts)
            found[f"heldout.step_accuracy{group}"] = self._ratio(greedy[group], counts)
        return found

    def _resampled(self, per_seed: Sequence[Mapping[str, float]]) -> Draws:
        rows = [self._sums(scores) / len(scores) for scores in per_seed if scores]
        return Draws(draws_AB=np.stack(rows), num_items=min(len(s) for s in per_seed if s))

    def _ratio(
        self, above: Sequence[Mapping[str, float]], below: Sequence[Mapping[str, float]]
    ) -> Draws:
        rows = [self._sums(a) / self._sums(b) for a, b in zip(above, below, strict=True) if b]
        return Draws(draws_AB=np.stack(rows), num_items=min(len(b) for b in below if b))

    def _sums(self, scores: Mapping[str, float]) -> np.ndarray:
        """Sum over the questions, then over each draw of as many questions with replacement."""
        ids = tuple(sorted(scores))
        if ids not in self._weights:
            self._weights[ids] = _draw_counts(ids)
        return self._weights[ids] @ np.array([scores[name] for name in ids], dtype=np.float64)


def _generated_groups(files: Sequence[ResultFile]) -> dict[str, list[dict[str, float]]]:
    """Group of generated answers -> for each seed, question -> percent."""
    groups: dict[str, list[dict[str, float]]] = {}
    for seed, file in enumerate(files):
        for result in file.results:
            if not isinstance(result, GeneratedResult):
                continue
            failed = sum(bool(sample.format_failure) for sample in result.samples)
            values = {
                "format_failure": PERCENT * failed / len(result.samples),
                "pass_at_k": PERCENT * any(sample.correct for sample in result.samples),
                "inside" if result.inside_shq else "outside": PERCENT * result.accuracy,
            }
            for name, value in values.items():
                groups.setdefault(name, [{} for _ in files])[seed][result.id] = value
    return groups


def _draw_counts(ids: tuple[str, ...]) -> np.ndarray:
    """counts_BN: how often question n is in draw b; the first row has every question once."""
    generator = np.random.Generator(stream_bits(0, "bootstrap", *ids))
    counts_BN = generator.multinomial(len(ids), np.full(len(ids), 1 / len(ids)), size=NUM_DRAWS)
    return np.concatenate([np.ones((1, len(ids))), counts_BN])


def _resolved(cell: str) -> str:
    return ">".join(ALIASES.get(part, part) for part in cell.split(">"))


def _members(cell: str) -> list[str]:
    parts = cell.split(">")
    for place, part in enumerate(parts):
        if part in GROUPS:
            return [
                ">".join([*parts[:place], member, *parts[place + 1 :]]) for member in GROUPS[part]
            ]
    return []
