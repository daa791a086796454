"""What is read beside a verdict, on its fresh seeds: an exchange rate, other learning rates of SFT.

Nothing here enters a decision or a verdict: the answer is written before it is read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from frontload.eval.allocation.blocks import SeededCell
from frontload.eval.allocation.exchange import MOST_RATE, ExchangeRate, read_rate
from frontload.eval.allocation.validate import (
    BETTER,
    EQUAL,
    WORSE,
    Compared,
    Predicted,
    Registration,
    compare_fresh,
)
from frontload.recipes.runs.allocation import AllocationQuestion, ExchangeCells, RatedCell

STANDS, TURNS, OPEN = "stands", "turns", "cannot be told"


@dataclass(frozen=True, kw_only=True)
class AtRate:
    """The recommendation less its closest rival, both fine-tuned at another learning rate."""

    sft_rate: float
    compared: Compared

    @property
    def verdict(self) -> str:
        """Whether the recommendation stands there."""
        if self.compared.verdict == WORSE:
            return TURNS
        return STANDS if self.compared.verdict in (BETTER, EQUAL) else OPEN


def closest_rival(registration: Registration) -> Predicted:
    """The comparison that exploring expected least of: the likeliest to turn."""
    return min(registration.comparisons, key=lambda one: one.mean)


def reading_seeds(registration: Registration, *, asked: int) -> tuple[int, ...]:
    """The first fresh seeds, whose trunks and branches the comparison has made."""
    return registration.seeds[:asked]


def read_exchange(asked: ExchangeCells, values: Mapping[str, float]) -> ExchangeRate:
    """The rate by the cells' scores, which stand by their roles."""
    seeds = sorted({one.seed for one in asked.cells})
    rows: dict[tuple[int, int], dict[int, float]] = {}
    for one in asked.cells:
        spent = (one.pretraining_tokens, one.sft_tokens)
        rows.setdefault(spent, {})[one.seed] = values[one.role]
    return read_rate(
        [before for before, _ in rows],
        [after for _, after in rows],
        values_CA=np.array([[row[seed] for seed in seeds] for row in rows.values()]),
    )


def read_rates(
    question: AllocationQuestion,
    registration: Registration,
    *,
    rated: Sequence[RatedCell],
    draws: Mapping[str, np.ndarray],
    num_items: int,
) -> list[AtRate]:
    """The same comparison at each rate; `draws` of each role: measured, then resampled."""
    rival = closest_rival(registration)
    found = []
    for rate in dict.fromkeys(one.sft_rate for one in rated):
        mine = [one for one in rated if one.sft_rate == rate]
        cells: dict[SeededCell, np.ndarray] = {
            (one.candidate, one.seed): draws[one.role] for one in mine
        }
        seeds = tuple(sorted({one.seed for one in mine}))
        (compared,) = compare_fresh(
            replace(registration, comparisons=(rival,), seeds=seeds),
            cells,
            epsilon=question.objectives[0].epsilon,
            num_items=num_items,
        )
        found.append(AtRate(sft_rate=rate, compared=compared))
    return found


def exchange_json(asked: ExchangeCells, found: ExchangeRate, *, num_seeds: int) -> dict[str, Any]:
    """As plain values."""
    return {
        "objective": asked.objective.name,
        "sets": list(asked.sets),
        "rate": found.rate,
        "low": found.low,
        "high": found.high,
        "most_asked": MOST_RATE,
        "is_told": found.is_told,
        "is_described": found.is_described,
        "is_reached": found.is_reached,
        "by_left_out": list(found.by_left_out),
        "num_seeds": num_seeds,
    }


def rate_json(one: AtRate, *, names: Sequence[str]) -> dict[str, Any]:
    """As plain values."""
    compared = one.compared
    return {
        "sft_rate": one.sft_rate,
        "against": compared.name,
        "candidate": names[compared.candidate],
        "value": compared.value,
        "low": compared.low,
        "high": compared.high,
        "seeds": list(compared.seeds),
        "verdict": one.verdict,
    }


def readings_lines(found: Mapping[str, Any] | None) -> list[str]:
    """What was read beside the verdict, for people, or was not."""
    untried = "Not tried: another learning rate of SFT: a ranking may turn with it."
    if found is None:
        return [untried]
    lines = [rate_line(one) for one in found["sft_rates"]] or [untried]
    if found["exchange"] is not None:
        lines.append(exchange_line(found["exchange"]))
    return lines


def rate_line(one: Mapping[str, Any]) -> str:
    """The recommendation at another learning rate of SFT."""
    return (
        f"At {one['sft_rate']:g} x the SFT learning rate the recommendation "
        f"{_WORDS[one['verdict']]}: {one['value']:+.2f} ({one['low']:+.2f} to {one['high']:+.2f}, "
        f"95%, {len(one['seeds'])} seeds) against {one['against']}."
    )


_WORDS = {STANDS: "stands", TURNS: "turns", OPEN: "cannot be told from its rival"}


def exchange_line(one: Mapping[str, Any]) -> str:
    """The exchange rate, or why there is none."""
    before, after = one["sets"]
    what = f"a token of {before} in pretraining is worth"
    law = f"by the law E - A (D0 + k P + S)^-b in {one['objective']}, {one['num_seeds']} seeds"
    between = f"{_end(one['low'], one['most_asked'])} to {_end(one['high'], one['most_asked'])}"
    if one["is_told"]:
        return (
            f"Exchange rate: {what} {one['rate']:.2g} tokens of {after} in SFT "
            f"({between}, 95%), {law}."
        )
    why = f"{between} tokens of {after} in SFT (95%)"
    if not one["is_described"]:
        why = "the cells lie further from the law than their noise allows"
    elif not one["is_reached"]:
        why = f"SFT on {after} alone reaches no cell with {before} in pretraining"
    return f"Exchange rate: what {what} cannot be told, {law}: {why}."


def _end(value: float, most: float) -> str:
    if value >= most * (1 - 1e-9):
        return f"{most:g} or more"
    return f"1/{most:g} or less" if value <= (1 + 1e-9) / most else f"{value:.2g}"
