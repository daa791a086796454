"""Cells of the study as numbers: every metric over seeds and bootstrap draws of the questions.

A metric is an array draws_AB: A seeds, B = 1 + NUM_DRAWS columns. Column 0 is the measured value,
the others are the same metric on resampled questions. All cells share the draws of a benchmark, so
a difference of two columns is paired by question. Seeds are paired by their number.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from frontload.data_tools.disk.seeds import stream_bits
from frontload.eval.results import GeneratedResult, HeldoutResult, ResultFile
from frontload.eval.statistics.stats import SeededEstimate, Spread, combine
from frontload.eval.suites import CELL_PREFIX, INSTRUCTION_CATEGORY
from frontload.recipes.errors import ArtifactError

NUM_DRAWS = 1000  # the error of a standard error from 1000 draws is about 2%
PERCENT = 100.0
HELDOUT = "heldout/"  # before the id of a held-out document, which may be a question's too

type Leaf = tuple[str, str]
"""A cell and a metric."""

type PerSeed = dict[int, dict[str, float]]
"""Training seed -> question -> number."""

GROUPS: dict[str, tuple[str, ...]] = {
    "pt:res": ("pt:SHQ", "pt:LDQ", "pt:LMQ"),  # Front-Loading Reasoning, section 2.3
    "sft:all": ("sft:LDQ", "sft:SHQ", "sft:LMQ"),  # inferred from Tables 2 and 5
}
ALIASES = {"pt:LMQ@80-20": "pt:LMQ"}  # 80/20 is the study's own ratio


class MissingCell(Exception):
    """A metric of a cell that this study does not have, or no seed that all cells have."""

    def __init__(self, cell: str, metric: str, *, reason: str = "") -> None:
        super().__init__(f"{cell} {metric}{': ' * bool(reason)}{reason}")
        self.cell = cell
        self.metric = metric
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class Draws:
    """One metric of one cell: draws_AB, the number of each seed, the questions behind it."""

    draws_AB: np.ndarray
    seeds: tuple[int, ...]  # ascending, one a row of draws_AB
    questions: frozenset[str]

    @property
    def num_items(self) -> int:
        return len(self.questions)

    @property
    def num_seeds(self) -> int:
        return len(self.seeds)

    def of_seeds(self, seeds: Sequence[int]) -> np.ndarray:
        """The rows of these seeds, in their order."""
        return self.draws_AB[[self.seeds.index(seed) for seed in seeds]]

    def estimate(self) -> SeededEstimate:
        """Mean over seeds with the error from seeds and questions together, of this cell alone."""
        return combine(self.draws_AB, num_items=self.num_items, pooled=None)


def paired_seeds(parts: Sequence[Draws]) -> tuple[int, ...]:
    """The seeds that every part has, ascending."""
    return tuple(sorted(set.intersection(*[set(part.seeds) for part in parts])))


def mean_draws(parts: Sequence[Draws]) -> Draws:
    """Unweighted mean over the seeds that all parts have; a question of several counts once."""
    seeds = paired_seeds(parts)
    stacked = np.stack([part.of_seeds(seeds) for part in parts])
    return Draws(
        draws_AB=stacked.mean(axis=0),
        seeds=seeds,
        questions=frozenset[str]().union(*[part.questions for part in parts]),
    )


@dataclass
class Cells:
    """All evaluations of a study, by cell.

    Raises: ArtifactError when two evaluations of a cell and suite have one seed, or seeds of a cell
        answer different questions.
    """

    files: Mapping[str, Sequence[ResultFile]]
    _known: dict[str, dict[str, Draws]] = field(default_factory=dict)
    stated_spreads: Mapping[tuple[str, str], Spread] = field(default_factory=dict)
    """(stage, metric) -> the spread of one cell over seeds, for a study that has one seed."""
    _weights: dict[tuple[str, ...], np.ndarray] = field(default_factory=dict)
    _floors: dict[str, dict[str, float]] | None = None

    def draws(self, cell: str, metric: str) -> Draws:
        """A metric of a cell; groups (pt:res, sft:all) are means over their members.

        Raises: MissingCell naming the first part that this study does not have.
        """
        found = []
        for name in members(cell):
            draws = self.metrics(name).get(metric)
            if draws is None:
                raise MissingCell(name, metric)
            found.append(draws)
        return mean_draws(found)

    def seeds_of(self, cell: str) -> set[int]:
        """The seeds of any evaluation of a cell, or of any member of a group."""
        return {
            seed
            for name in members(cell)
            for draws in self.metrics(name).values()
            for seed in draws.seeds
        }

    @classmethod
    def of_metrics(cls, known: Mapping[str, dict[str, Draws]]) -> "Cells":
        """Cells whose numbers come from elsewhere than evaluations: from a simulation."""
        return cls(files={}, _known=dict(known))

    @property
    def names(self) -> list[str]:
        """The cells of this study, in the order in which they were given."""
        return list(dict.fromkeys([*self.files, *self._known]))

    def metrics(self, cell: str) -> dict[str, Draws]:
        """Every metric of a cell that was evaluated; empty for another."""
        if cell not in self._known:
            by_suite: dict[str, list[ResultFile]] = {}
            for file in self.files.get(cell, ()):
                by_suite.setdefault(file.protocol.suite, []).append(file)
            found: dict[str, Draws] = {}
            for suite in sorted(by_suite):
                _refuse_twice(cell, [file.protocol.seed for file in by_suite[suite]])
                found |= self._suite_metrics(suite, by_suite[suite])
            self._known[cell] = found
        return self._known[cell]

    def floors(self) -> dict[str, dict[str, float]]:
        """Suite -> accuracy -> what the best constant answer scores, in percent.

        Of a benchmark: the share of its commonest gold answer. Averages are made as a model's are.
        """
        if self._floors is None:
            self._floors = {}
            for file in (file for files in self.files.values() for file in files):
                suite = file.protocol.suite
                if suite not in self._floors:
                    benchmarks, category_of = _constant_answers(file)
                    floors = averages(suite, benchmarks, category_of, mean=_mean)
                    self._floors[suite] = _complete(suite, floors, missing=file.protocol.missing)
        return self._floors

    def _suite_metrics(self, suite: str, files: Sequence[ResultFile]) -> dict[str, Draws]:
        benchmarks, category_of = self._benchmark_draws(files)
        missing = {name: cat for file in files for name, cat in file.protocol.missing.items()}
        found = averages(suite, benchmarks, category_of, mean=mean_draws)
        found = _complete(suite, found, missing=missing)
        found |= {
            f"{CELL_PREFIX[suite]}.{name}": self._resampled(per_seed)
            for name, per_seed in sorted(_generated_groups(files).items())
        }
        return found | self._heldout_draws(files)

    def _benchmark_draws(
        self, files: Sequence[ResultFile]
    ) -> tuple[dict[str, Draws], dict[str, str]]:
        scores: dict[str, PerSeed] = {}
        category_of: dict[str, str] = {}
        for file in files:
            for result in file.results:
                if isinstance(result, HeldoutResult):
                    continue
                per_seed = scores.setdefault(result.benchmark, {})
                answered = per_seed.setdefault(file.protocol.seed, {})
                answered[result.id] = PERCENT * result.accuracy
                category_of[result.benchmark] = result.category
        draws = {name: self._resampled(per_seed) for name, per_seed in sorted(scores.items())}
        return draws, category_of

    def _heldout_draws(self, files: Sequence[ResultFile]) -> dict[str, Draws]:
        tokens: dict[str, PerSeed] = {}
        losses: dict[str, PerSeed] = {}
        greedy: dict[str, PerSeed] = {}
        for file in files:
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
                        per_seed = store.setdefault(group, {})
                        per_seed.setdefault(file.protocol.seed, {})[HELDOUT + result.id] = value
        found = {}
        for group, counts in sorted(tokens.items()):
            below = self._sums(counts)
            for name, above in (("loss", losses), ("step_accuracy", greedy)):
                sums = self._sums(above[group])
                found[f"heldout.{name}{group}"] = Draws(
                    draws_AB=sums.draws_AB / below.draws_AB,
                    seeds=sums.seeds,
                    questions=sums.questions,
                )
        return found

    def _resampled(self, per_seed: PerSeed) -> Draws:
        sums = self._sums(per_seed)
        return Draws(
            draws_AB=sums.draws_AB / sums.num_items, seeds=sums.seeds, questions=sums.questions
        )

    def _sums(self, per_seed: PerSeed) -> Draws:
        """Sums over the questions, then over each draw of as many questions with replacement."""
        seeds = tuple(sorted(per_seed))
        ids = tuple(sorted(per_seed[seeds[0]]))
        for seed in seeds:
            if tuple(sorted(per_seed[seed])) != ids:
                raise _other_questions(seeds[0], seed, set(ids) ^ set(per_seed[seed]))
        if ids not in self._weights:
            self._weights[ids] = draw_counts(ids)
        scores_AN = np.array([[per_seed[seed][name] for name in ids] for seed in seeds])
        return Draws(
            draws_AB=scores_AN @ self._weights[ids].T, seeds=seeds, questions=frozenset(ids)
        )


def averages[T](
    suite: str,
    benchmarks: Mapping[str, T],
    category_of: Mapping[str, str],
    *,
    mean: Callable[[Sequence[T]], T],
) -> dict[str, T]:
    """Benchmarks to categories to the paper's three averages, of scores or of anything alike."""
    prefix = CELL_PREFIX[suite]
    found = {f"bench.{name}": value for name, value in benchmarks.items()}
    categories: dict[str, T] = {}
    for category in sorted(set(category_of.values())):
        categories[category] = mean(
            [v for n, v in benchmarks.items() if category_of[n] == category]
        )
    found |= {f"{prefix}.{category}": value for category, value in categories.items()}
    if categories:
        found[f"{prefix}.avg"] = mean(list(categories.values()))
        found["flat9.avg"] = mean(list(benchmarks.values()))
    flat8 = [v for name, v in benchmarks.items() if category_of[name] != INSTRUCTION_CATEGORY]
    if flat8:
        found["flat8.avg"] = mean(flat8)
    if flat8 and suite == "sft":
        found["rl.avg"] = found["flat8.avg"]  # the paper's T3: same benchmarks, other name
    return found


def _complete[T](suite: str, found: Mapping[str, T], *, missing: Mapping[str, str]) -> dict[str, T]:
    """The metrics without those that a missing benchmark is a part of."""
    if not missing:
        return dict(found)
    prefix, categories = CELL_PREFIX[suite], set(missing.values())
    without = {f"{prefix}.{category}" for category in categories} | {f"{prefix}.avg", "flat9.avg"}
    if categories - {INSTRUCTION_CATEGORY}:
        without |= {"flat8.avg", "rl.avg"}
    return {name: value for name, value in found.items() if name not in without}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _constant_answers(file: ResultFile) -> tuple[dict[str, float], dict[str, str]]:
    """Benchmark -> percent of its questions that have its commonest gold answer; its category."""
    gold: dict[str, Counter[str]] = {}
    category_of: dict[str, str] = {}
    for result in file.results:
        if isinstance(result, HeldoutResult):
            continue
        gold.setdefault(result.benchmark, Counter())[str(result.gold)] += 1
        category_of[result.benchmark] = result.category
    return {n: PERCENT * max(c.values()) / c.total() for n, c in sorted(gold.items())}, category_of


def _generated_groups(files: Sequence[ResultFile]) -> dict[str, PerSeed]:
    """Group of generated answers -> for each seed, question -> percent."""
    groups: dict[str, PerSeed] = {}
    for file in files:
        for result in file.results:
            if not isinstance(result, GeneratedResult):
                continue
            failed = sum(bool(sample.format_failure) for sample in result.samples)
            values = {
                "format_failure": PERCENT * failed / len(result.samples),
                "pass_at_k": PERCENT * any(sample.correct for sample in result.samples),
            }
            if result.inside_shq is not None:
                values["inside" if result.inside_shq else "outside"] = PERCENT * result.accuracy
            for name, value in values.items():
                per_seed = groups.setdefault(name, {})
                per_seed.setdefault(file.protocol.seed, {})[result.id] = value
    return groups


def _refuse_twice(cell: str, seeds: Sequence[int]) -> None:
    twice = [seed for seed, count in Counter(seeds).items() if count > 1]
    if twice:
        raise ArtifactError(
            f"cell {cell!r}",
            found=f"two evaluations of seed {twice[0]}",
            rule="a cell has one evaluation for each training seed",
            do="name each evaluation once in the recipe of tabulate",
        )


def _other_questions(first: int, other: int, differing: set[str]) -> ArtifactError:
    return ArtifactError(
        f"seeds {first} and {other} of one cell",
        found=f"{len(differing)} questions that only one of them answers, e.g. {min(differing)}",
        rule="every seed of a cell answers the same questions: errors are paired by question",
        do="delete the evaluation of one of them and run the study again",
    )


def draw_counts(ids: tuple[str, ...]) -> np.ndarray:
    """counts_BN: how often question n is in draw b; the first row has every question once."""
    generator = np.random.Generator(stream_bits(0, "bootstrap", *ids))
    counts_BN = generator.multinomial(len(ids), np.full(len(ids), 1 / len(ids)), size=NUM_DRAWS)
    return np.concatenate([np.ones((1, len(ids))), counts_BN])


def _resolved(cell: str) -> str:
    return ">".join(ALIASES.get(part, part) for part in cell.split(">"))


def members(cell: str) -> list[str]:
    """The single cells that a name stands for: itself, or a group's members in their order."""
    parts = _resolved(cell).split(">")
    for place, part in enumerate(parts):
        if part in GROUPS:
            inner = [
                ">".join([*parts[:place], member, *parts[place + 1 :]]) for member in GROUPS[part]
            ]
            return [name for one in inner for name in members(one)]
    return [_resolved(cell)]
