"""Verdicts of simulated studies through the real `judge`: false ones, coverage, power.

Run: python tests/bench/bench_verdicts.py [--studies 200] [--seeds 3 5 10 20]. Rates, not times.
"""

import argparse
import time

from tests.simulated_study import WORLDS, found_rate, rates, with_effect

DRAWS = 200
TRUE_LOGITS = 0.63  # on one SFT cell: about 9.7 points of its Average


def main() -> None:
    """Prints a line a world and number of seeds, then the power at 3 and 5 seeds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 5, 10, 20])
    asked = parser.parse_args()
    print(f"{asked.studies} studies a line in which nothing is true; 18 hypotheses a study")
    for seeds in asked.seeds:
        for name, world in WORLDS.items():
            began = time.process_time()
            found = rates(world, seeds=seeds, studies=asked.studies, draws=DRAWS)
            worst = min(found.of_comparison, key=lambda label: found.of_comparison[label])
            print(
                f"{name}, {seeds} seeds: supported {found.supported:.2f} a study, contradicted "
                f"{found.contradicted:.2f}, after Bonferroni {found.bonferroni:.3f}; intervals "
                f"cover {found.coverage:.1%}, least {found.of_comparison[worst]:.0%} ({worst}); "
                f"{1000 * (time.process_time() - began) / asked.studies:.0f} CPU ms a study",
                flush=True,
            )
    for seeds in (3, 5):
        for name in ("seeds as seen", "unequal spreads", "jumps"):
            world = with_effect(WORLDS[name], "pt:LDQ>sft:ALF", TRUE_LOGITS)
            effect, share = found_rate(
                world, "H10", seeds=seeds, studies=asked.studies, draws=DRAWS
            )
            print(f"{name}, {seeds} seeds: a true {effect:+.1f} is supported in {share:.0%}")


if __name__ == "__main__":
    main()
