"""The answer as data and in words: one sentence, what it rests on, what more would cost."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from frontload.eval.allocation.conclude import (
    FLAT,
    OVERTURNED,
    RECOMMENDED,
    UNDECIDED,
    Conclusion,
)
from frontload.eval.allocation.decide import DRAWS
from frontload.eval.allocation.scores import CellScores
from frontload.eval.allocation.validate import Registration
from frontload.recipes.runs.allocation import AllocationQuestion, Candidate

MIDDLE = (0.1, 0.9)  # of the draws of the best place
UNITS = {"cpu_seconds": "CPU s", "gpu_hours": "GPU hours"}
LEAST_PARAMETERS = 15_000_000
"""From here rankings of small models were seen to carry (Olmix, arXiv 2602.12237)."""
NOT_TRIED = (
    "another draw of the data: seeds move weights, orders and samples, not the sets",
    "another size of model or of budget",
)


def answer_json(
    question: AllocationQuestion,
    registration: Registration,
    *,
    found: Conclusion,
    scores: Mapping[str, CellScores],
) -> dict[str, Any]:
    """All that the page and the text say, as plain values."""
    decides = question.objectives[0]
    names = [one.name for one in question.candidates]
    return {
        "format": 1,
        "outcome": found.outcome,
        "candidate": _candidate(question.candidates[found.candidate]),
        "registered": names[registration.recommendation],
        "budget": {
            "tokens": question.budget_tokens,
            "unit": question.budget_unit,
            "fixed": question.budget_fixed,
        },
        "objective": {"name": decides.name, "weights": decides.weights, "epsilon": decides.epsilon},
        "compared": [
            asdict(one)
            | {
                "candidate": names[one.candidate],
                "predicted_less_found": one.predicted - one.value,
            }
            for one in found.compared
        ],
        "chance_something_tried_is_better": found.chance_better_tried,
        "chance_something_is_better": found.chance_better,
        "best_place": best_place(question, found),
        "edges": list(found.edges),
        "other_objectives": _others(names, found),
        "caps": _caps(names, found),
        "halves": [names[place] for place in found.halves],
        "scales": found.posterior.scales(),
        "candidates": _surface(question, registration, found=found),
        "cells": _cells(names, registration, scores=scores),
        "num_items": scores[decides.name].num_items,
        "seeds_to_know": found.seeds_to_know,
        "price_to_know": found.price_to_know,
        "price_to_halve": found.price_to_halve,
        "money_unit": question.money_unit,
        "not_tried": list(NOT_TRIED),
    }


def _others(names: Sequence[str], found: Conclusion) -> list[dict[str, Any]]:
    return [
        {
            "name": one.name,
            "best": names[one.best],
            "recommended_is_worse_by": one.loss,
            "chance_worse": one.chance_worse,
            "disagrees": one.disagrees,
        }
        for one in found.others
    ]


def _caps(names: Sequence[str], found: Conclusion) -> list[dict[str, Any]]:
    return [
        {"cap": one.cap, "best": names[one.best], "worse_by": one.loss, "num_left": one.num_left}
        for one in found.caps
    ]


def _surface(
    question: AllocationQuestion, registration: Registration, *, found: Conclusion
) -> list[dict[str, Any]]:
    """Every candidate as the surrogate sees it, by itself and less the registered one."""
    posterior = found.posterior
    draws_BC = posterior.draws(DRAWS)
    best_C = np.bincount(draws_BC.argmax(1), minlength=len(posterior.mean_C)) / len(draws_BC)
    less_BC = draws_BC - draws_BC[:, [registration.recommendation]]
    return [
        _candidate(one)
        | {
            "mean": float(posterior.mean_C[place]),
            "error": float(posterior.error_C[place]),
            "chance_best": float(best_C[place]),
            "less_registered": float(less_BC[:, place].mean()),
            "less_registered_error": float(less_BC[:, place].std()),
        }
        for place, one in enumerate(question.candidates)
    ]


def _cells(
    names: Sequence[str], registration: Registration, *, scores: Mapping[str, CellScores]
) -> list[dict[str, Any]]:
    """Every cell that was run, with each objective's score."""
    fresh = set(registration.cells())
    values = {name: one.values for name, one in scores.items()}
    return [
        {
            "candidate": names[place],
            "seed": seed,
            "is_fresh": (place, seed) in fresh,
            "scores": {name: of_cell[place, seed] for name, of_cell in values.items()},
        }
        for place, seed in next(iter(values.values()))
    ]


def best_place(question: AllocationQuestion, found: Conclusion) -> dict[str, Any]:
    """Where the best candidate lies: the middle 80% of its draws on each factor, and its sets."""
    chosen_B = found.posterior.draws(DRAWS).argmax(1)
    levels_BD = np.array([one.levels for one in question.candidates])[chosen_B]
    sets = [" and ".join(question.candidates[place].sets) for place in chosen_B]
    return {
        "factors": {
            name: [float(np.quantile(levels_BD[:, place], share)) for share in MIDDLE]
            for place, name in enumerate(question.factors)
        },
        "sets": {name: sets.count(name) / len(sets) for name in sorted(set(sets))},
    }


def answer_text(answer: Mapping[str, Any]) -> str:
    """The answer in a few sentences, as Markdown."""
    objective, chance = answer["objective"], answer["chance_something_tried_is_better"]
    lines = [sentence(answer), ""]
    for one in answer["compared"]:
        lines.append(
            f"- against {one['name']} ({one['candidate']}): {interval(one)}, {one['verdict']}; "
            f"exploring predicted {one['predicted']:+.2f} +- {one['predicted_error']:.2f}"
        )
    lines += [
        "",
        f"Chance that something that was tried is better by more than {objective['epsilon']:g}: "
        f"{chance:.0%}. Objective: {objective_text(objective)}.",
    ]
    lines += [text for text in qualifications(answer)]
    lines.append(cost_text(answer))
    return "\n".join(lines) + "\n"


def sentence(answer: Mapping[str, Any]) -> str:
    """The outcome in one sentence."""
    chosen, budget = answer["candidate"], answer["budget"]
    spend = f"Of {budget['tokens']:,} {budget['unit']} tokens of reasoning"
    put = f"{chosen['pretraining_tokens']:,} in pretraining and {chosen['sft_tokens']:,} in SFT"
    where = f"{put} ({chosen['name']})"
    fixed = f"with {budget['fixed']} fixed"
    seeds = len(answer["compared"][0]["seeds"]) if answer["compared"] else 0
    if answer["outcome"] == RECOMMENDED:
        first = next(one for one in answer["compared"] if one["verdict"] == "better")
        return f"{spend}, {fixed}, put {where}: {interval(first)} against {first['name']}."
    if answer["outcome"] == FLAT:
        return (
            f"{spend}, {fixed}, it does not matter where they go among what was compared: on "
            f"{seeds} fresh seeds {where} differs from each by less than "
            f"{answer['objective']['epsilon']:g}."
        )
    if answer["outcome"] == OVERTURNED:
        return (
            f"{spend}, {fixed}, fresh seeds overturned what exploring recommended "
            f"({answer['registered']}): {where} is better."
        )
    assert answer["outcome"] == UNDECIDED
    return (
        f"{spend}, {fixed}, where they should go is undecided after {seeds} fresh seeds; the "
        f"best guess is {where}."
    )


def objective_text(objective: Mapping[str, Any]) -> str:
    """`heldout_loss = -1 x heldout.loss, the higher the better`."""
    parts = [f"{weight:g} x {metric}" for metric, weight in sorted(objective["weights"].items())]
    return f"{objective['name']} = {' + '.join(parts)}, the higher the better"


def interval(one: Mapping[str, Any]) -> str:
    """A difference with its 95% interval and its seeds."""
    return (
        f"{one['value']:+.2f} ({one['low']:+.2f} to {one['high']:+.2f}, 95%, "
        f"{len(one['seeds'])} fresh seeds)"
    )


def qualifications(answer: Mapping[str, Any]) -> list[str]:
    """What limits the answer: an edge, another objective, halves of the data that differ."""
    found = [
        f"At the edge: no candidate beyond it on {name} was asked about."
        for name in answer["edges"]
    ]
    found += [
        f"The objectives disagree: {one['name']} would have {one['best']}, and is worse by "
        f"{one['recommended_is_worse_by']:.3g} where the answer is followed."
        for one in answer["other_objectives"]
        if one["disagrees"]
    ]
    found += [
        f"If no set may be read more than {one['cap']:g} times, {one['best']} is the best of "
        f"{one['num_left']}, by the surrogate worse by {one['worse_by']:.3g}."
        for one in answer["caps"]
        if one["best"] != answer["candidate"]["name"]
    ]
    if len(set(answer["halves"])) > 1:
        odd, even = answer["halves"]
        found.append(f"Half of the seeds alone would have {odd}, the other half {even}.")
    return found


def size_text(num_parameters: int) -> str:
    """What a ranking of a small model is evidence for; nothing from LEAST_PARAMETERS on."""
    if num_parameters >= LEAST_PARAMETERS:
        return ""
    return (
        f"{num_parameters:,} parameters: its ranking is a check of the machinery, not evidence for "
        "a large model (Olmix, arXiv 2602.12237: rank correlation with 1B 0.73 at 1M parameters, "
        "above 0.89 from 15M)"
    )


def cost_text(answer: Mapping[str, Any]) -> str:
    """What knowing better costs."""
    unit = UNITS.get(answer["money_unit"], answer["money_unit"])
    halve = f"intervals half as wide cost {answer['price_to_halve']:,.0f} {unit} more"
    if not answer["seeds_to_know"]:
        return f"Every interval is within epsilon to each side; {halve}."
    return (
        f"Intervals of epsilon to each side take {answer['seeds_to_know']} more fresh seeds, "
        f"{answer['price_to_know']:,.0f} {unit}; {halve}."
    )


def _candidate(one: Candidate) -> dict[str, Any]:
    return {
        "name": one.name,
        "levels": list(one.levels),
        "sets": list(one.sets),
        "pretraining_tokens": one.pretraining_tokens,
        "sft_tokens": one.sft_tokens,
    }
