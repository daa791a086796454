"""Everything that the page of the theory holds, computed; and its words."""

from collections.abc import Sequence

from frontload.eval.theory.checks import all_checks
from frontload.eval.theory.sft_curves import against_length, against_prompts, in_the_limit
from frontload.eval.theory.shown import Theory, TheoryCheck
from frontload.eval.theory.step_curves import balance_figure, outcome_figure, step_table

SOURCE = "Theoretical Perspectives on Data Quality and Synergistic Effects, arXiv 2603.01293"
LEFT_OUT = (
    "Left out: the paper's check on a nonlinear transformer (figure 3, GPT-2 of 9.5M parameters). "
    "It reads vectors; the engine here reads tokens."
)
CAUTION = (
    "A linear model with Gaussian inputs. It says which effects can happen and why; it forecasts "
    "no score of a trained model."
)


def compute_theory(dim: int, *, seed: int) -> Theory:
    """All checks and figures. `dim` is d of figures 1 and 2; figure 5 has half as much again."""
    figures = (
        against_prompts(dim, seed=seed),
        against_length(dim, seed=seed),
        in_the_limit(3 * dim // 2, seed=seed),
        step_table(seed=seed),
        outcome_figure(seed=seed),
        balance_figure(seed=seed),
    )
    return Theory(dim=dim, seed=seed, checks=all_checks(figures, seed=seed), figures=figures)


def check_lines(checks: Sequence[TheoryCheck]) -> list[str]:
    """A line for each check, as people read it."""
    width = max(len(one.name) for one in checks)
    return [
        f"{'holds' if one.holds else 'FAILS'}  {one.name:{width}}  {one.found:.2g} {one.unit}"
        f" (at most {one.allowed:g}; {one.source})"
        for one in checks
    ]
