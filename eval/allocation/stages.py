"""The stages `decide`, `register`, `conclude` and `readings`: what they read and leave behind."""

from collections.abc import Mapping, Sequence
from typing import Any

from frontload.data_tools.disk.files import read_json, replacing
from frontload.eval.allocation.answer import answer_json, answer_text
from frontload.eval.allocation.conclude import draw_conclusion
from frontload.eval.allocation.decide import (
    SURE,
    WORTH,
    Decision,
    chance_within,
    decide_next,
    fit_scores,
)
from frontload.eval.allocation.readings import (
    exchange_json,
    rate_json,
    read_exchange,
    read_rates,
)
from frontload.eval.allocation.scores import read_evaluations, read_objective, read_scores
from frontload.eval.allocation.surrogate import Posterior
from frontload.eval.allocation.validate import (
    Predicted,
    Registration,
    compare_fresh,
    plan_validation,
)
from frontload.recipes.artifact import Inputs, Workspace, write_json
from frontload.recipes.runs.allocation import (
    AllocationQuestion,
    AskedCell,
    Conclude,
    Decide,
    Readings,
    Register,
)

DECISION, REGISTRATION, ANSWER = "decision.json", "registration.json", "answer.json"
ANSWER_TEXT = "answer.md"
READINGS = "readings.json"
REGISTERED = "registration"
"""The role of `register` among the inputs of `conclude` and `readings`."""
ANSWERED = "answer"
"""The role of `conclude` among the inputs of `readings`: the verdict stands before them."""


def decide(recipe: Decide, inputs: Inputs, work: Workspace) -> None:
    """Writes decision.json: the next block or why there is none, with all that it follows from."""
    question = recipe.question
    scores = read_scores(question.objectives[:1], recipe.cells, inputs=inputs)
    values = scores[question.objectives[0].name].values
    decision = decide_next(question, values)
    write_json(work.path / DECISION, decision_json(recipe, decision, values=values))


def register(recipe: Register, inputs: Inputs, work: Workspace) -> None:
    """Writes registration.json: the recommendation and every comparison, before a fresh seed."""
    question = recipe.question
    posterior, values = _posterior(question, recipe.cells, inputs=inputs)
    found = plan_validation(question, posterior, used=[seed for _, seed in values])
    names = [one.name for one in question.candidates]
    epsilon = question.objectives[0].epsilon
    write_json(
        work.path / REGISTRATION,
        {
            "format": 1,
            "recommendation": found.recommendation,
            "name": names[found.recommendation],
            "why_exploring_ended": recipe.stop,
            "chance_within_epsilon": chance_within(
                posterior, found.recommendation, epsilon=epsilon
            ),
            "comparisons": [
                {
                    "name": one.name,
                    "candidate": one.candidate,
                    "candidate_name": names[one.candidate],
                    "predicted": one.mean,
                    "error": one.error,
                }
                for one in found.comparisons
            ],
            "seeds": list(found.seeds),
            "seeds_wanted": found.seeds_wanted,
            "spread_of_a_difference": found.spread,
            "half_width_predicted": found.half_width if found.seeds else None,
            "price_of_a_seed": found.seed_price,
            "cells": [list(cell) for cell in found.cells()],
        },
    )


def conclude(recipe: Conclude, inputs: Inputs, work: Workspace) -> None:
    """Writes answer.json and answer.md from the explored cells and those of the fresh seeds."""
    question = recipe.question
    registration = read_registration(read_json(inputs[REGISTERED] / REGISTRATION))
    cells = [*recipe.cells, *recipe.fresh_cells]
    scores = read_scores(question.objectives, cells, inputs=inputs)
    decides = scores[question.objectives[0].name]
    compared = compare_fresh(
        registration,
        decides.draws,
        epsilon=question.objectives[0].epsilon,
        num_items=decides.num_items,
    )
    found = draw_conclusion(
        question,
        registration,
        compared=compared,
        scores={name: one.values for name, one in scores.items()},
    )
    answer = answer_json(question, registration, found=found, scores=scores)
    write_json(work.path / ANSWER, answer)
    with replacing(work.path / ANSWER_TEXT, "w") as stream:
        stream.write(answer_text(answer))


def readings(recipe: Readings, inputs: Inputs, work: Workspace) -> None:
    """Writes readings.json: the exchange rate and the comparison at other rates of SFT."""
    question, exchange = recipe.question, recipe.exchange
    registration = read_registration(read_json(inputs[REGISTERED] / REGISTRATION))
    names = [one.name for one in question.candidates]
    found = None
    if exchange is not None:
        measured = read_evaluations([one.role for one in exchange.cells], inputs)
        scores = read_objective(exchange.objective, measured)
        values = {role: float(row[0]) for role, row in scores.draws.items()}
        seeds = {one.seed for one in exchange.cells}
        rate = read_exchange(exchange, values)
        found = exchange_json(exchange, rate, num_seeds=len(seeds))
        found["cells"] = [
            {
                "pretraining_tokens": one.pretraining_tokens,
                "sft_tokens": one.sft_tokens,
                "seed": one.seed,
                "value": values[one.role],
            }
            for one in exchange.cells
        ]
    measured = read_evaluations([one.role for one in recipe.rated], inputs)
    decides = read_objective(question.objectives[0], measured)
    at_rates = read_rates(
        question,
        registration,
        rated=recipe.rated,
        draws=decides.draws,
        num_items=decides.num_items,
    )
    write_json(
        work.path / READINGS,
        {
            "format": 1,
            "exchange": found,
            "sft_rates": [rate_json(one, names=names) for one in at_rates],
        },
    )


def read_registration(value: Mapping[str, Any]) -> Registration:
    """What `register` wrote."""
    return Registration(
        recommendation=value["recommendation"],
        comparisons=tuple(
            Predicted(
                name=one["name"],
                candidate=one["candidate"],
                mean=one["predicted"],
                error=one["error"],
            )
            for one in value["comparisons"]
        ),
        seeds=tuple(value["seeds"]),
        spread=value["spread_of_a_difference"],
        seeds_wanted=value["seeds_wanted"],
        seed_price=value["price_of_a_seed"],
    )


def decision_json(
    recipe: Decide, decision: Decision, *, values: dict[tuple[int, int], float]
) -> dict[str, Any]:
    """A decision with its inputs: data, scales, every candidate, every block that could be paid."""
    question, posterior = recipe.question, decision.posterior
    roles = {(one.candidate, one.seed): one.role for one in recipe.cells}
    block = decision.block
    return {
        "format": 1,
        "round": recipe.round,
        "objective": question.objectives[0].name,
        "rule": f"stops at a chance of {SURE} to be within epsilon, at no gain above {WORTH} of "
        "epsilon, or at the end of the money; else the block of the highest gain per price",
        "scores": [{"cell": roles[cell], "value": value} for cell, value in values.items()],
        "spent": decision.spent,
        "money": question.explore_price,
        "scales": posterior.scales() if posterior else None,
        "candidates": _candidates(question, posterior),
        "best": question.candidates[decision.best].name if posterior else None,
        "chance_within_epsilon": decision.chance,
        "blocks": [
            {"name": one.block.name, "gain": one.gain, "price": one.block.price}
            for one in decision.rated
        ],
        "stop": decision.stop,
        "next": None
        if block is None
        else {
            "name": block.name,
            "price": block.price,
            "cells": [list(cell) for cell in block.cells],
        },
    }


def _candidates(
    question: AllocationQuestion, posterior: Posterior | None
) -> list[dict[str, float | str]]:
    if posterior is None:
        return []
    rows = zip(question.candidates, posterior.mean_C, posterior.error_C, strict=True)
    return [
        {"name": one.name, "mean": float(mean), "error": float(error)} for one, mean, error in rows
    ]


def _posterior(
    question: AllocationQuestion, cells: Sequence[AskedCell], *, inputs: Inputs
) -> tuple[Posterior, dict[tuple[int, int], float]]:
    scores = read_scores(question.objectives[:1], cells, inputs=inputs)
    values = scores[question.objectives[0].name].values
    return fit_scores(question, values), values
