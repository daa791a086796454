"""Studies whose truth is known: answers drawn from a model of questions, seeds and cells.

The logit of a right answer is a level, the question's difficulty, its seed's part (the trunk, which
all cells share), the cell's own part of that seed, the cell's own taste for each question. Every
benchmark has its own seed parts, as families of problems do. Nothing is trained.
"""

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np

from frontload.eval.statistics.cells import PERCENT, Cells, Draws, averages, draw_counts, mean_draws
from frontload.eval.tables.claims import judge
from frontload.eval.tables.paper import paper_claims
from frontload.eval.tables.verdicts import CONTRADICTED, SUPPORTED, VERDICTS

BENCHMARKS = {
    "base": {
        "few_chain": "math",
        "few_add": "math",
        "few_track": "science",
        "few_stack": "code",
        "recall": "gpr",
        "where": "gpr",
    },
    "sft": {
        "chain": "math",
        "add": "math",
        "story": "math",
        "hard_chain": "math",
        "hard_add": "math",
        "phase": "science",
        "track": "science",
        "fact": "science",
        "stack": "code",
        "queue": "code",
        "write": "ins",
        "keep": "ins",
        "drop": "ins",
    },
}
NUM_QUESTIONS = 60  # of a benchmark, as in the laptop study
NUM_SAMPLES = 2
MIN_EFFECT = 1.0
HYPOTHESES = paper_claims()["hypotheses"]

ARMS = ("base", "SHQ", "LDQ", "LMQ")
BASE_CELLS = tuple(f"pt:{arm}" for arm in (*ARMS, "LMQ@60-40"))
SFT_CELLS = (
    *(f"pt:{arm}>sft:{data}" for arm in ARMS for data in ("LDQ", "SHQ", "LMQ")),
    "pt:base>sft:SHQ*2",
    "pt:LDQ>sft:LDQ*2",
    "pt:LDQ>sft:ALF",
    "pt:LDQ>sft:ALF'",
)
RL_CELLS = ("pt:base>sft:SHQ>rl:CrossThink", "pt:LMQ>sft:SHQ>rl:CrossThink")


@dataclass(frozen=True, kw_only=True)
class World:
    """How answers come about; standard deviations in logits."""

    level: float = 0.0
    questions: float = 1.5
    trunk: float = 0.3
    cell: float = 0.5  # of a seed, in each benchmark
    taste: float = 0.7  # of a cell for a question, in every seed
    branch: float = 0.0  # of a pretrained arm in a seed, shared by all that is tuned from it
    jump: float = 0.0  # added in each benchmark of half of the seeds
    unequal: bool = False  # every other cell spreads half as much, the rest half as much again
    effects: dict[str, float] = field(default_factory=dict)  # cell -> logits added


WORLDS = {
    "seeds as seen": World(),
    "seeds spread widely": World(trunk=0.5, cell=1.2),
    "jumps": World(level=-2.0, cell=0.3, jump=4.0),
    "unequal spreads": World(cell=0.6, unequal=True),
    "arms move together": World(cell=0.4, branch=0.6),
    "at the floor": World(level=-4.5),
}


def simulated_cells(world: World, rng: np.random.Generator, *, seeds: int, draws: int) -> Cells:
    """The cells of one study: both suites, 5 pretrained, 16 tuned and 2 reinforced models."""
    known: dict[str, dict[str, Draws]] = {}
    for suite, names in (("base", BASE_CELLS), ("sft", SFT_CELLS)):
        logits = {bench: _logits(world, rng, names, seeds=seeds) for bench in BENCHMARKS[suite]}
        known |= _answered(suite, names, logits, rng, draws=draws)
        if suite == "sft":
            after = {
                bench: _after_rl(world, rng, names, logits_CSN, seeds=seeds)
                for bench, logits_CSN in logits.items()
            }
            known |= _answered(suite, RL_CELLS, after, rng, draws=draws)
    return Cells.of_metrics(known)


def with_effect(world: World, cell: str, logits: float) -> World:
    """The world in which one cell is better."""
    return replace(world, effects={**world.effects, cell: logits})


def _logits(
    world: World, rng: np.random.Generator, names: tuple[str, ...], *, seeds: int
) -> np.ndarray:
    """logits_CSN of one benchmark: C cells, S seeds, N questions."""
    count = len(names)
    scale_C = np.where(np.arange(count) % 2, 0.5, 1.5) if world.unequal else np.ones(count)
    arms = sorted({name.partition(">")[0] for name in names})
    branch_AS = rng.normal(0, world.branch, (len(arms), seeds))
    branch_CS = branch_AS[[arms.index(name.partition(">")[0]) for name in names]]
    by_seed_CS = (
        rng.normal(0, world.trunk, (1, seeds))
        + rng.normal(0, 1, (count, seeds)) * world.cell * scale_C[:, None]
        + branch_CS
        + world.jump * (rng.random((count, seeds)) < 0.5)
    )
    by_question_CN = rng.normal(0, world.questions, (1, NUM_QUESTIONS)) + rng.normal(
        0, world.taste, (count, NUM_QUESTIONS)
    )
    effect_C = np.array([world.effects.get(name, 0.0) for name in names])
    return (
        world.level + effect_C[:, None, None] + by_seed_CS[:, :, None] + by_question_CN[:, None, :]
    )


def _after_rl(
    world: World,
    rng: np.random.Generator,
    names: tuple[str, ...],
    logits_CSN: np.ndarray,
    *,
    seeds: int,
) -> np.ndarray:
    """A reinforced model is the tuned one that it started from, and a small change."""
    starts = [names.index(cell.partition(">rl:")[0]) for cell in RL_CELLS]
    change_CS = rng.normal(0, world.cell / 3, (len(starts), seeds))
    return logits_CSN[starts] + change_CS[:, :, None]


def _answered(
    suite: str,
    names: tuple[str, ...],
    logits: dict[str, np.ndarray],
    rng: np.random.Generator,
    *,
    draws: int,
) -> dict[str, dict[str, Draws]]:
    """Every metric of every cell, from samples of answers."""
    benchmarks: list[dict[str, Draws]] = [{} for _ in names]
    for bench, logits_CSN in logits.items():
        ids = tuple(f"{bench}-{number}" for number in range(NUM_QUESTIONS))
        weights_BN = _weights(ids)[: 1 + draws]
        right_CSN = PERCENT * rng.binomial(NUM_SAMPLES, _chance(logits_CSN)) / NUM_SAMPLES
        values_CSB = right_CSN @ weights_BN.T / NUM_QUESTIONS
        seeds = tuple(range(1, values_CSB.shape[1] + 1))
        for place in range(len(names)):
            benchmarks[place][bench] = Draws(
                draws_AB=values_CSB[place], seeds=seeds, questions=frozenset(ids)
            )
    return {
        name: averages(suite, benchmarks[place], BENCHMARKS[suite], mean=mean_draws)
        for place, name in enumerate(names)
    }


_KNOWN_WEIGHTS: dict[tuple[str, ...], np.ndarray] = {}


def _weights(ids: tuple[str, ...]) -> np.ndarray:
    if ids not in _KNOWN_WEIGHTS:
        _KNOWN_WEIGHTS[ids] = draw_counts(ids)
    return _KNOWN_WEIGHTS[ids]


def _chance(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What came of many studies in which nothing is true."""

    supported: float  # hypotheses a study
    contradicted: float
    bonferroni: float  # supported after Bonferroni, a study
    coverage: float  # share of comparisons whose interval holds the truth, which is 0
    of_hypothesis: dict[str, dict[str, float]]  # H01 -> verdict -> share of studies
    of_comparison: dict[str, float]  # label -> coverage

    @classmethod
    def mean(cls, several: list["Rates"]) -> "Rates":
        """Unweighted, without what is by name."""

        def average(name: str) -> float:
            return sum(getattr(one, name) for one in several) / len(several)

        return cls(
            supported=average("supported"),
            contradicted=average("contradicted"),
            bonferroni=average("bonferroni"),
            coverage=average("coverage"),
            of_hypothesis={},
            of_comparison={},
        )


def rates(world: World, *, seeds: int, studies: int, draws: int, seed: int = 1) -> Rates:
    """Judges so many studies of a world without effects."""
    verdicts: dict[str, Counter[str]] = {}
    covered: dict[str, list[bool]] = {}
    bonferroni = 0
    for number in range(studies):
        rng = np.random.default_rng([seed, seeds, number])
        cells = simulated_cells(world, rng, seeds=seeds, draws=draws)
        for verdict in judge(cells, HYPOTHESES, min_effect=MIN_EFFECT):
            verdicts.setdefault(verdict.id[:3], Counter())[verdict.verdict] += 1
            bonferroni += bool(verdict.survives_bonferroni)
            for part in verdict.parts:
                within = abs(part.value.value) <= part.critical * part.value.se
                covered.setdefault(f"{verdict.id[:3]}: {part.label}, {part.measure}", []).append(
                    within
                )
    per_study = {
        name: {verdict: count / studies for verdict, count in counts.items()}
        for name, counts in verdicts.items()
    }
    every = [within for found in covered.values() for within in found]
    return Rates(
        supported=sum(one.get(SUPPORTED, 0.0) for one in per_study.values()),
        contradicted=sum(one.get(CONTRADICTED, 0.0) for one in per_study.values()),
        bonferroni=bonferroni / studies,
        coverage=sum(every) / len(every),
        of_hypothesis={
            name: {verdict: one.get(verdict, 0.0) for verdict in VERDICTS}
            for name, one in per_study.items()
        },
        of_comparison={label: sum(found) / len(found) for label, found in covered.items()},
    )


def found_rate(
    world: World, hypothesis: str, *, seeds: int, studies: int, draws: int, seed: int = 2
) -> tuple[float, float]:
    """The mean effect of a hypothesis that is true, and the share of studies that support it."""
    effects, found = [], 0
    for number in range(studies):
        rng = np.random.default_rng([seed, seeds, number])
        cells = simulated_cells(world, rng, seeds=seeds, draws=draws)
        verdict = next(
            one
            for one in judge(cells, HYPOTHESES, min_effect=MIN_EFFECT)
            if one.id.startswith(hypothesis)
        )
        assert verdict.effect is not None
        effects.append(verdict.effect.value)
        found += verdict.verdict == SUPPORTED
    return sum(effects) / studies, found / studies
