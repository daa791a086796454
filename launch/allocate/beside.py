"""The cells that a question reads beside its verdict: which they are, their stages, their price."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from frontload.eval.allocation.readings import closest_rival, reading_seeds
from frontload.eval.allocation.stages import ANSWERED, REGISTERED
from frontload.eval.allocation.validate import Registration
from frontload.launch.allocate.question import Allocation, price_parts
from frontload.launch.store import Store
from frontload.recipes.allocation.graph import AllocationGraph, exchange_graph, rated_graph
from frontload.recipes.allocation.lattice import exchange_points, exchange_sets
from frontload.recipes.runs import allocation as asking
from frontload.recipes.stage import Stage

COMPARED = 2  # cells at each other rate: the recommendation and its closest rival


@dataclass(frozen=True, kw_only=True)
class Beside:
    """The graphs of what is read beside a verdict."""

    allocation: Allocation
    exchange: AllocationGraph
    rated: Mapping[float, AllocationGraph]

    @classmethod
    def of(cls, allocation: Allocation) -> "Beside | None":
        """Of a question; None where it reads nothing beside its verdict."""
        recipe, knobs = allocation.recipe, allocation.recipe.readings
        if knobs is None:
            return None
        return cls(
            allocation=allocation,
            exchange=exchange_graph(recipe),
            rated={
                rate: rated_graph(recipe, allocation.lattice, sft_rate=rate)
                for rate in knobs.sft_rates
            },
        )

    def stage(self, registration: Registration, *, registered: Stage, answered: Stage) -> Stage:
        """The stage that reads them, its cells below it."""
        knobs = self.allocation.recipe.readings
        assert knobs is not None, "`of` gives none without them"
        seeds = reading_seeds(registration, asked=knobs.seeds)
        exchange, inputs = self._exchange(seeds)
        rated: list[asking.RatedCell] = []
        places = (registration.recommendation, closest_rival(registration).candidate)
        for rate, graph in self.rated.items():
            for seed in seeds:
                for place in places:
                    name = self.allocation.question.candidates[place].name
                    role = f"{name}, {rate:g} x the SFT rate, seed {seed}"
                    rated.append(
                        asking.RatedCell(candidate=place, seed=seed, sft_rate=rate, role=role)
                    )
                    inputs[role] = graph.evaluation(place, seed)
        return Stage(
            kind="readings",
            label=self.allocation.name,
            recipe=asking.Readings(
                question=self.allocation.question, exchange=exchange, rated=tuple(rated)
            ),
            inputs={**inputs, REGISTERED: registered, ANSWERED: answered},
        )

    def _exchange(
        self, seeds: Sequence[int]
    ) -> tuple[asking.ExchangeCells | None, dict[str, Stage]]:
        recipe, inputs = self.allocation.recipe, {}
        knobs = recipe.readings.exchange if recipe.readings is not None else None
        if knobs is None:
            return None, {}
        found: list[asking.ExchangeCell] = []
        for seed in seeds:
            for place, (name, point) in enumerate(exchange_points(recipe).items()):
                role = f"exchange rate, {name}, seed {seed}"
                inputs[role] = self.exchange.evaluation(place, seed)
                found.append(
                    asking.ExchangeCell(
                        pretraining_tokens=point.pretraining_tokens,
                        sft_tokens=point.sft_tokens,
                        seed=seed,
                        role=role,
                    )
                )
        stated = recipe.objectives[knobs.objective]
        objective = asking.Objective(
            name=knobs.objective, weights=dict(stated.weights), epsilon=stated.epsilon
        )
        sets = exchange_sets(recipe)
        return asking.ExchangeCells(objective=objective, sets=sets, cells=tuple(found)), inputs

    def price(self, store: Store) -> float:
        """Of all of them, beside the comparison that they go on from; of the dearest candidates."""
        recipe, question = self.allocation.recipe, self.allocation.question
        assert recipe.readings is not None
        made = {
            part
            for one in question.competitors
            for part in question.candidates[one.candidate].parts
        }
        prices = price_parts(recipe, self.exchange, store=store)
        total = sum(price for part, price in prices.items() if part not in made)
        again = sorted(
            sum(
                price for part, price in one.parts.items() if part.startswith(("sft/", "evaluate/"))
            )
            for one in question.candidates
            if one.sft_tokens
        )
        total += len(self.rated) * sum(again[-COMPARED:])
        return recipe.readings.seeds * total
