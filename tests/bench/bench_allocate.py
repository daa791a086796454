"""Simulated allocations with known truth: regret at equal cost, claims, coverage, outcomes.

Run: python tests/bench/bench_allocate.py [--replicates 60] [--money 20 50]. Rates, not times. Four
kinds of surface; sizes of the effects of seed, branch and cell drawn for each study and given to
nobody. Regret: best candidate less the recommended one, percent of best less worst.
"""

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from unittest import mock

import numpy as np

from frontload.eval.allocation import decide
from tests.simulated_allocation import (
    KINDS,
    Simulated,
    World,
    draw_deviations,
    fixed_grid,
    make_question,
    random_search,
    simulate,
    simulated_studies,
    surface,
)


def by_kind(regrets: Sequence[float], replicates: int) -> str:
    """Means by kind, then the share of all that is within a tenth of the span."""
    values = 100 * np.array(regrets).reshape(len(KINDS), replicates)
    means = " / ".join(f"{mean:.1f}" for mean in values.mean(1))
    return f"{means}, mean {values.mean():.1f}, within 10%: {(values <= 10).mean():.0%}"


def policy_regrets(name: str, *, money: float, replicates: int) -> list[float]:
    """Regret of random search, of the grid, or of exploring to the end of the money."""
    found = []
    for place, kind in enumerate(KINDS):
        for replicate in range(replicates):
            generator = np.random.default_rng([place, replicate])
            values = surface(kind, generator)
            question = make_question(epsilon=0.1 * float(np.ptp(values)), money=money)
            world = World(question, values, generator, draw_deviations(generator))
            if name == "to the end of the money":
                with mock.patch.multiple(decide, SURE=2.0, WORTH=-1.0):
                    chosen = world.explore().best
            else:
                chosen = {"random": random_search, "grid": fixed_grid}[name](world, money)
            found.append(float(values.max() - values[chosen]) / float(np.ptp(values)))
    return found


def report(studies: Sequence[Simulated], *, replicates: int) -> None:
    """What whole allocations claimed, and what was true."""
    claims = [one.regret <= 0.1 for one in studies if one.decision.chance >= decide.SURE]
    paid = np.mean([one.decision.spent for one in studies])
    print(
        f"  by its own rule, {paid:.1f} spent: {by_kind([s.regret for s in studies], replicates)}"
    )
    print(f"  claims of 0.8: {len(claims)} of {len(studies)}, true {np.mean(claims):.1%}")
    compared = [(one, study) for study in studies for one in study.conclusion.compared]
    fresh = [c.low <= s.true_difference(c.candidate) <= c.high for c, s in compared]
    predicted = [
        abs(c.predicted - s.true_difference(c.candidate)) <= 1.96 * c.predicted_error
        for c, s in compared
    ]
    curse = np.mean([c.predicted - s.true_difference(c.candidate) for c, s in compared])
    print(
        f"  intervals on fresh seeds cover {np.mean(fresh):.1%} of {len(fresh)}, those predicted "
        f"{np.mean(predicted):.1%}; predicted less true {curse:+.2f} points"
    )
    print(f"  outcomes: {dict(Counter(one.conclusion.outcome for one in studies))}", flush=True)


def main() -> None:
    """Prints a block for each amount of money, then flat surfaces."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--replicates", type=int, default=60)
    parser.add_argument("--money", type=float, nargs="+", default=[20.0, 50.0])
    asked = parser.parse_args()
    began = time.process_time()
    print(f"{asked.replicates} studies a kind: {', '.join(KINDS)}")
    for money in asked.money:
        print(f"cost {money:g}")
        for name in ("random", "grid", "to the end of the money"):
            regrets = policy_regrets(name, money=money, replicates=asked.replicates)
            print(f"  {name}: {by_kind(regrets, asked.replicates)}", flush=True)
        for seeds in (2, 1):
            print(f"  seeds of the first block: {seeds}")
            found = simulated_studies(asked.replicates, money=money, first_seeds=seeds)
            report(found, replicates=asked.replicates)
    flat = []
    for replicate in range(asked.replicates):
        generator = np.random.default_rng([9, replicate])
        flat.append(simulate(np.zeros(42), generator, epsilon=2.0))
    print(f"flat surfaces: {dict(Counter(one.conclusion.outcome for one in flat))}")
    print(f"{time.process_time() - began:.0f} CPU s")


if __name__ == "__main__":
    main()
