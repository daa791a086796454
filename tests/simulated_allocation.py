"""Studies with a known best allocation: four kinds of surface, with effects of unknown size.

Prices are those of the laptop study in units of one branch: a trunk is 1.5, fine-tuning on the
whole budget 0.4, an evaluation 0.03.
"""

from dataclasses import dataclass, field

import numpy as np

from frontload.eval.allocation.conclude import Conclusion, draw_conclusion
from frontload.eval.allocation.decide import Decision, decide_next
from frontload.eval.allocation.validate import Registration, compare_fresh, plan_validation
from frontload.recipes.runs.allocation import AllocationQuestion, Candidate, Competitor, Objective

KINDS = ("saturating", "jump", "edge", "rough")
SHARES = tuple(round(0.05 * step, 2) for step in range(21))
SETS = ("shq", "ldq")
TRUNK, BRANCH, TUNING, EVALUATION = 1.5, 1.0, 0.4, 0.03


def make_question(*, epsilon: float, money: float, **changes: object) -> AllocationQuestion:
    """21 shares of pretraining times two SFT sets."""
    found = [
        Candidate(
            name=f"{share:.0%} in pretraining, the rest on {name}",
            arm=f"{share:.0%}",
            levels=(share,),
            sets=(name,),
            pretraining_tokens=round(1000 * share),
            sft_tokens=round(1000 * (1 - share)),
            parts={
                "trunk": TRUNK,
                f"branch {share}": BRANCH,
                f"cell {share} {name}": TUNING * (1 - share) + EVALUATION,
            },
        )
        for share in SHARES
        for name in SETS
    ]
    stated: dict[str, object] = {
        "asked": "simulated",
        "budget_tokens": 1000,
        "budget_unit": "read",
        "budget_fixed": "pretraining",
        "money_unit": "branches",
        "factors": ("share in pretraining",),
        "candidates": tuple(found),
        "competitors": (Competitor(name="half and half", candidate=20),),
        "objectives": (Objective(name="score", weights={"score": 1.0}, epsilon=epsilon),),
        "first_arms": 3,
        "first_seeds": 2,
        "explore_price": money,
        "validate_price": 60.0,
        "half_width": epsilon,
        "least_seeds": 3,
        "made": {},
    }
    return AllocationQuestion(**(stated | changes))  # type: ignore[arg-type]


def surface(kind: str, generator: np.random.Generator) -> np.ndarray:
    """f at every candidate, 0 to its range of 10, 20 or 30 points."""
    share = np.array(SHARES)
    columns = []
    left = generator.random() < 0.5
    for _ in SETS:
        gain, loss = generator.uniform(0.3, 1.0, 2)
        early, late = np.exp(generator.uniform(np.log(0.05), np.log(0.8), 2))
        curve = gain * -np.expm1(-share / early) + loss * -np.expm1(-(1 - share) / late)
        if kind == "jump":
            curve += 0.6 / (1 + np.exp(-(share - generator.uniform(0.1, 0.6)) / 0.03))
        if kind == "edge":
            curve = gain * -np.expm1(-(share if left else 1 - share) / (2 * early + 0.1))
        if kind == "rough":
            far = (share[:, None] - share[None]) / 0.25
            kernel = np.exp(-0.5 * far**2) + 1e-8 * np.eye(len(share))
            curve = np.linalg.cholesky(kernel) @ generator.standard_normal(len(share))
        columns.append(curve + generator.normal(0, 0.15))
    values = np.stack(columns, axis=1).ravel()
    return (values - values.min()) / np.ptp(values) * generator.choice([10.0, 20.0, 30.0])


@dataclass
class World:
    """Scores of a known surface. The sizes of the effects are drawn, and nobody is given them."""

    question: AllocationQuestion
    value_C: np.ndarray
    generator: np.random.Generator
    deviations: tuple[float, float, float] = (5.0, 2.5, 2.0)  # of seed, branch, cell
    scores: dict[tuple[int, int], float] = field(default_factory=dict)
    _effects: dict[tuple[str, ...], float] = field(default_factory=dict)

    def score(self, candidate: int, seed: int) -> float:
        """One cell; the same at every call."""
        arm = self.question.candidates[candidate].arm
        parts = zip(
            self.deviations,
            ((f"{seed}",), (f"{seed}", arm), (f"{seed}", f"{candidate}")),
            strict=True,
        )
        total = self.value_C[candidate]
        for deviation, name in parts:
            if (str(deviation), *name) not in self._effects:
                self._effects[str(deviation), *name] = self.generator.normal(0, deviation)
            total += self._effects[str(deviation), *name]
        return float(total)

    def run(self, cells: tuple[tuple[int, int], ...]) -> None:
        """Scores cells."""
        self.scores |= {cell: self.score(*cell) for cell in cells}

    def explore(self) -> Decision:
        """Blocks until the question's own rule ends it."""
        while True:
            decision = decide_next(self.question, self.scores)
            if decision.block is None:
                return decision
            self.run(decision.block.cells)


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """A whole allocation, with what is true beside it."""

    world: World
    decision: Decision
    registration: Registration
    conclusion: Conclusion

    @property
    def span(self) -> float:
        """From the worst candidate to the best."""
        return float(np.ptp(self.world.value_C))

    @property
    def regret(self) -> float:
        """Of what exploring recommends, as a share of the span."""
        values = self.world.value_C
        return float(values.max() - values[self.decision.best]) / max(self.span, 1e-9)

    def true_difference(self, candidate: int) -> float:
        """What a comparison of the recommendation measures."""
        return float(self.world.value_C[self.decision.best] - self.world.value_C[candidate])


def simulate(
    value_C: np.ndarray,
    generator: np.random.Generator,
    *,
    money: float = 20.0,
    epsilon: float | None = None,
    **changes: object,
) -> Simulated:
    """Explores, registers, validates and concludes, by the product's own functions."""
    question = make_question(
        epsilon=0.1 * float(np.ptp(value_C)) if epsilon is None else epsilon, money=money, **changes
    )
    world = World(question, value_C, generator, draw_deviations(generator))
    decision = world.explore()
    assert decision.posterior is not None
    registration = plan_validation(
        question, decision.posterior, used=[seed for _, seed in world.scores]
    )
    world.run(registration.cells())
    compared = compare_fresh(
        registration,
        {cell: np.array([world.scores[cell]]) for cell in registration.cells()},
        epsilon=question.objectives[0].epsilon,
        num_items=1,
    )
    conclusion = draw_conclusion(
        question, registration, compared=compared, scores={"score": world.scores}
    )
    return Simulated(
        world=world, decision=decision, registration=registration, conclusion=conclusion
    )


def simulated_studies(replicates: int, **stated: float) -> list[Simulated]:
    """So many studies of each kind of surface, each with effects of its own size."""
    found = []
    for kind in KINDS:
        for replicate in range(replicates):
            generator = np.random.default_rng([KINDS.index(kind), replicate])
            found.append(simulate(surface(kind, generator), generator, **stated))
    return found


def draw_deviations(generator: np.random.Generator) -> tuple[float, float, float]:
    """Sizes of the effects of seed, branch and cell: the laptop's, each up to twice or half."""
    return tuple(np.array([5.0, 2.5, 2.0]) * 2 ** generator.uniform(-1, 1, 3))  # type: ignore[return-value]


def random_search(world: World, money: float) -> int:
    """A random cell at a trunk and seed of its own, as long as there is money: the best score."""
    paid, seed = 0.0, 0
    while True:
        seed += 1
        candidate = int(world.generator.integers(len(world.value_C)))
        paid += sum(world.question.candidates[candidate].parts.values())
        if paid > money:
            return max(world.scores, key=lambda cell: world.scores[cell])[0]
        world.run(((candidate, seed),))


def fixed_grid(world: World, money: float) -> int:
    """Five shares times both sets in whole blocks, as many seeds as there is money for: the best
    mean."""
    cells = [
        place for place, one in enumerate(world.question.candidates) if 4 * one.levels[0] % 1 == 0
    ]
    prices = {}
    for place in cells:
        prices |= world.question.candidates[place].parts
    seeds = int(money / sum(prices.values()))
    for seed in range(1, seeds + 1):
        world.run(tuple((place, seed) for place in cells))
    return max(cells, key=lambda place: np.mean([world.scores[place, s + 1] for s in range(seeds)]))
