"""What an allocation would cost before anything runs: blocks, fresh seeds, what money carries."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from frontload.eval.allocation.answer import UNITS, size_text
from frontload.eval.allocation.blocks import Prices, arms_of, first_block
from frontload.launch.allocate.beside import Beside
from frontload.launch.allocate.loop import Explored
from frontload.launch.allocate.question import Allocation
from frontload.launch.store import Store
from frontload.launch.text.words import show_number
from frontload.recipes.allocation.schema import CPU_SECONDS
from frontload.recipes.facts.census import count_parameters

ARMS_OF_FACTORS = (10, 25, 60)
"""Arms at a seed that one, two and three ordered factors take to come within a tenth of the range
in 9 of 10 studies, by simulation at the laptop's spread."""
CORES = 2  # of the laptop that times are said for
SPARE = 2  # candidates of a fresh seed beside the competitors: the recommended one and a rival


@dataclass(frozen=True, kw_only=True)
class AllocationPrices:
    """Prices in the unit of the money."""

    unit: str
    data: float  # once, of what the store lacks
    first_block: float
    arm: float  # a further arm at a seed that is there, the dearest
    new_seed: float  # two arms at a new seed, the dearest
    fresh_seed: float  # competitors and two more candidates, the dearest
    explore: float
    validate: float
    least_seeds: int
    readings: float  # beside the verdict, of all their seeds; 0 = none are asked for

    @property
    def num_arms(self) -> int:
        """Arms at a seed that exploring pays."""
        return int(self.explore / max(self.arm, 1e-9))

    @property
    def whole(self) -> float:
        """All that may be spent."""
        return self.data + self.explore + self.validate + self.readings

    @property
    def num_fresh_seeds(self) -> int:
        """Seeds that the comparison can have."""
        return int(self.validate / max(self.fresh_seed, 1e-9))


def price_allocation(allocation: Allocation, store: Store) -> AllocationPrices:
    """The prices of the blocks that a question may ask for."""
    question, beside_it = allocation.question, Beside.of(allocation)
    arms = list(arms_of(question).values())
    # a seed that no part was made of, and the same with its trunk
    fresh, none = 1 + max([0, *map(int, question.made)]), Prices(question, ())
    whole = {place: none.of([(one, fresh) for one in arm]) for place, arm in enumerate(arms)}
    shared = [Prices(question, [(arm[0], fresh)]) for arm in arms]
    beside = [
        min(
            prices.of([(one, fresh) for one in arm])
            for prices in shared[:place] + shared[place + 1 :]
        )
        for place, arm in enumerate(arms)
    ]
    two = sorted(whole, key=lambda place: -whole[place])[:2]
    cells = sorted(range(len(question.candidates)), key=lambda one: -none.of([(one, fresh)]))
    named = [one.candidate for one in question.competitors]
    return AllocationPrices(
        unit=question.money_unit,
        data=allocation.data_price,
        first_block=first_block(question, allocation.prior).price,
        arm=max(beside),
        new_seed=none.of([(one, fresh) for place in two for one in arms[place]]),
        fresh_seed=none.of([(one, fresh) for one in dict.fromkeys([*named, *cells[:SPARE]])]),
        explore=question.explore_price,
        validate=question.validate_price,
        least_seeds=question.least_seeds,
        readings=beside_it.price(store) if beside_it is not None else 0.0,
    )


def require_money(allocation: Allocation, prices: AllocationPrices) -> None:
    """Refuses money that pays no block, or no interval.

    Raises: RecipeError naming file, line and key.
    """
    unit = UNITS[prices.unit]
    if prices.first_block > prices.explore:
        raise allocation.loaded.refuse(
            "money.explore",
            found=f"is {prices.explore:g} {unit}; the first block costs {prices.first_block:,.1f}",
            rule="exploring pays its first block, design.first_arms at design.first_seeds",
            do=f"write at least {_above(prices.first_block)}, or fewer arms or seeds",
        )
    if prices.num_fresh_seeds < prices.least_seeds:
        least = prices.least_seeds * prices.fresh_seed
        raise allocation.loaded.refuse(
            "money.validate",
            found=f"is {prices.validate:g} {unit}; a fresh seed costs {prices.fresh_seed:,.1f}",
            rule=f"a comparison has {prices.least_seeds} fresh seeds or more, each with the "
            "competitors, the recommended candidate and a rival",
            do=f"write at least {_above(least)}, or fewer competitors",
        )


def plan_lines(
    allocation: Allocation, prices: AllocationPrices, *, explored: Explored
) -> list[str]:
    """The plan for people."""
    question, lattice, unit = allocation.question, allocation.lattice, UNITS[prices.unit]
    budget = allocation.recipe.budget
    left_out = f", {lattice.num_left_out} left out: they fit behind no onset"
    lines = [
        f"allocation {allocation.name}: {budget.tokens:,} {budget.unit} tokens of reasoning, "
        f"{budget.fixed} fixed; {question.objectives[0].name} decides, epsilon "
        f"{question.objectives[0].epsilon:g}",
        f"  {len(lattice.points)} candidates in {len(arms_of(question))} arms"
        + (left_out if lattice.num_left_out else "")
        + f"; factors: {', '.join(lattice.factors)}, sets",
        *[
            f"  competitor: {name}: {lattice.points[place].name}"
            for name, place in lattice.competitors.items()
        ],
        f"  data {prices.data:,.0f} {unit} once; first block {prices.first_block:,.0f}; an arm at "
        f"a seed that is there up to {prices.arm:,.0f}; two arms at a new seed "
        f"{prices.new_seed:,.0f}; a fresh seed of the comparison {prices.fresh_seed:,.0f}",
        f"  money: exploring {prices.explore:,.0f} {unit}, some {prices.num_arms} arms at a seed; "
        f"validating {prices.validate:,.0f}, some {prices.num_fresh_seeds} fresh seeds",
    ]
    knobs = allocation.recipe.readings
    if knobs is not None:
        seeds = show_number(knobs.seeds, "seed")
        lines.append(f"  readings beside the verdict, at {seeds}: {prices.readings:,.0f} {unit}")
    lines.append(f"  in all at most {_whole(allocation, prices)}")
    if allocation.prior:
        lines.append(f"  {len(allocation.prior)} cells of earlier studies in the store are data")
    if allocation.num_unpaired:
        lines.append(
            f"  {allocation.num_unpaired} cells of the store are left out, alone at their seed"
        )
    lines += [f"  {text}" for text in warnings(allocation, prices)]
    if explored.decisions:
        state = f"stopped: {explored.stop}" if explored.stop else "continues"
        lines.append(
            f"  so far {len(explored.decisions)} decisions on {len(explored.cells)} cells; {state}"
        )
    return lines


def _whole(allocation: Allocation, prices: AllocationPrices) -> str:
    """All that may be spent, and how long two cores would take if neither ever waited."""
    total = prices.whole
    text = f"{total:,.0f} {UNITS[prices.unit]}"
    if prices.unit != CPU_SECONDS:
        return text
    return f"{text}: {total / CORES / 60:.0f} min on {CORES} cores that never wait"


def warnings(allocation: Allocation, prices: AllocationPrices) -> list[str]:
    """What the money does not carry, and what the answer will not be."""
    found = []
    levels = [one.levels for one in allocation.question.candidates]
    num = sum(len({level[place] for level in levels}) > 1 for place in range(len(levels[0])))
    if num:
        needed = ARMS_OF_FACTORS[min(num, len(ARMS_OF_FACTORS)) - 1]
        if prices.num_arms < needed:
            found.append(
                f"this needs more than the money pays: {show_number(num, 'ordered factor')} "
                f"and the sets take some {needed} arms at a seed, exploring pays {prices.num_arms}"
            )
    if size := size_text(num_parameters(allocation)):
        found.append(size)
    return found


def plan_json(
    allocation: Allocation, prices: AllocationPrices, *, explored: Explored
) -> Mapping[str, Any]:
    """The plan as plain values."""
    return {
        "allocation": allocation.name,
        "question": allocation.question.asked,
        "candidates": [asdict(one) for one in allocation.question.candidates],
        "competitors": dict(allocation.lattice.competitors),
        "prices": asdict(prices)
        | {"num_arms": prices.num_arms, "num_fresh_seeds": prices.num_fresh_seeds},
        "prior_cells": [list(cell) for cell in allocation.prior],
        "warnings": warnings(allocation, prices),
        "decisions": [stage.folder for stage in explored.decisions],
        "stop": explored.stop,
    }


def num_parameters(allocation: Allocation) -> int:
    """Of the model of its study."""
    return count_parameters(allocation.recipe.study.model).total


def _above(price: float) -> str:
    return f"{int(price) + 1:_}"
