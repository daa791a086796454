"""Figures of SFT: its error against prompts, against their length, and in the limit."""

from collections.abc import Sequence

import numpy as np

from frontload.eval.statistics.stats import Estimate, clustered_mean
from frontload.eval.theory.errors import expected_error
from frontload.eval.theory.fine_tuning import first_order_sft, sft_minimiser
from frontload.eval.theory.limit import Form, limit_error
from frontload.eval.theory.shown import Plot, TheoryFigure, TheoryLine
from frontload.eval.theory.task import Prompts, Task, draw_prompts, stream

DRAWS = 3  # a point is their mean; near a peak one of the three is most of it
LIMIT_DRAWS = 8
INTERFERENCES = (0.0, 0.01, 0.1)  # r; figures 1 and 2
LENGTHS = (1.0, 2.0, 3.0)  # n over d; figure 1
COUNTS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0)
"""B over d; figure 1, whose grid is 50 to 2000 at d = 400."""
SOME_COUNTS = (0.125, 0.375, 0.75, 1.25)  # figure 2
ALL_LENGTHS = (0.05, 0.125, 0.25, 0.5, 1.0, 1.75, 2.5)  # n over d; figure 2: 20 to 1000 at d = 400
LIMIT_LENGTHS = (5 / 3, 25 / 3)  # figure 5: 1000 and 5000 at d = 600
LIMIT_COUNTS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1.1, 1.25, 1.6)
ERROR = "error, 1 = the guess 0"


def half_shifted(dim: int, *, length: float, interference: float, rate: float = 0.5) -> Task:
    """The setting of figures 1, 2 and 5: half of the directions are rare in pretraining."""
    return Task(
        dim=dim,
        shifted=dim // 2,
        prompt_length=round(length * dim),
        rate=rate,
        scale=rate,
        interference=interference,
    )


def drawn_prompts(task: Task, count: float, *, seed: int, draw: int) -> Prompts:
    """Prompts of SFT, `count` d of them; one draw is the same at any other setting of the task."""
    return draw_prompts(
        task.tuning,
        prompt_length=task.prompt_length,
        num_prompts=round(count * task.dim),
        rng=stream(seed, "prompts", count, draw),
    )


def sft_error(task: Task, count: float, *, seed: int) -> Estimate:
    """The expected error of SFT's minimiser, over draws of its prompts."""
    weights = [
        sft_minimiser(drawn_prompts(task, count, seed=seed, draw=n), task) for n in range(DRAWS)
    ]
    return clustered_mean([expected_error(one, task) for one in weights])


def line_of(label: str, x: Sequence[float], found: Sequence[Estimate]) -> TheoryLine:
    """A curve through estimates, with their errors."""
    return TheoryLine(
        label=label,
        x=tuple(x),
        y=tuple(one.value for one in found),
        errors=tuple(one.se or 0.0 for one in found),
    )


def against_prompts(dim: int, *, seed: int) -> TheoryFigure:
    """Figure 1: more prompts, with and without interference."""
    plots = []
    for interference in INTERFERENCES:
        lines = []
        for length in LENGTHS:
            task = half_shifted(dim, length=length, interference=interference)
            found = [sft_error(task, count, seed=seed) for count in COUNTS]
            lines.append(line_of(f"n = {length:g} d", COUNTS, found))
        plots.append(
            Plot(
                title=f"interference r = {interference:g}",
                lines=tuple(lines),
                x="SFT prompts B / d",
                y=ERROR,
                marks=(0.5 if interference == 0 else 1.0,),
            )
        )
    return TheoryFigure(
        name="prompts",
        title="More SFT prompts",
        source="figure 1; m = d/2, rho = 0.1, eta = 0.5; the paper draws d = 400",
        plots=tuple(plots),
        says="Double descent, with the peak at B = m without interference and at B = d with it "
        "(vertical lines). With r = 0.01 no set up to 5 d comes back to the best small one; with "
        "r = 0.1 and long prompts a large set does, and without interference the largest is best.",
        mirrors="H09, that a larger SFT set of the same kind can harm: here it harms where the set "
        "moves directions that pretraining already had right, and barely shows them.",
        cannot="B counts prompts of one law, all of them clean. Quality, repetition, early "
        "stopping and any regularisation are absent: descent runs to its end.",
    )


def against_length(dim: int, *, seed: int) -> TheoryFigure:
    """Figure 2: longer prompts."""
    plots = []
    for interference in INTERFERENCES:
        lines = []
        for count in SOME_COUNTS:
            found = []
            for length in ALL_LENGTHS:
                task = half_shifted(dim, length=length, interference=interference)
                found.append(sft_error(task, count, seed=seed))
            lines.append(line_of(f"B = {count:g} d", ALL_LENGTHS, found))
        plots.append(
            Plot(
                title=f"interference r = {interference:g}",
                lines=tuple(lines),
                x="prompt length n / d",
                y=ERROR,
                is_log_x=True,
            )
        )
    return TheoryFigure(
        name="length",
        title="Longer prompts",
        source="figure 2; the setting of figure 1",
        plots=tuple(plots),
        says="At a small B the error falls and rises again: short prompts are noisy at the test, "
        "and long ones make the pretrained weights surer of directions that are now wrong. It "
        "does so without interference too.",
        mirrors="that what is best in SFT depends on what the base model got from pretraining.",
        cannot="n is the number of examples inside a prompt, the same in pretraining, SFT and "
        "test. It is not the length of an answer: H10 and H12 are not about it.",
    )


def in_the_limit(dim: int, *, seed: int) -> TheoryFigure:
    """Figure 5: theorem B.1 in both forms, beside what it describes and what SFT reaches."""
    plots = []
    for length in LIMIT_LENGTHS:
        task = half_shifted(dim, length=length, interference=0.1, rate=0.2)
        simulated = [
            np.transpose([_both(task, one, seed=seed, draw=draw) for draw in range(LIMIT_DRAWS)])
            for one in LIMIT_COUNTS
        ]
        first, full = ([clustered_mean(one[kind]) for one in simulated] for kind in (0, 1))
        plots.append(
            Plot(
                title=f"n = {length:.3g} d",
                lines=(
                    _theorem(task, form="printed"),
                    _theorem(task, form="corrected"),
                    line_of("first order, drawn", LIMIT_COUNTS, first),
                    line_of("SFT's minimiser, drawn", LIMIT_COUNTS, full),
                ),
                x="SFT prompts B / d",
                y=ERROR,
                marks=(1.0,),
            )
        )
    return TheoryFigure(
        name="limit",
        title="The asymptotic curve",
        source="figure 5 and theorem B.1; m = d/2, rho = 0.1, eta = 0.2, r = 0.1; the paper draws "
        "d = 600",
        plots=tuple(plots),
        says="Below B = d the theorem as printed is low. Its terms (B.16) and (B.17) expand "
        "tr(D P S D P) where tr(D P S P D) stands; with the right order it meets the first-order "
        "simulation. Both describe the first order: SFT's minimiser is far below it near B = d.",
        mirrors="nothing of a study: it shows which formula may be used, and for what.",
        cannot="the curve is no forecast of a trained model's error.",
    )


def _theorem(task: Task, *, form: Form) -> TheoryLine:
    errors = tuple(limit_error(task, one, form=form) for one in LIMIT_COUNTS)
    return TheoryLine(label=f"theorem, {form}", x=LIMIT_COUNTS, y=errors, is_reference=True)


def _both(task: Task, count: float, *, seed: int, draw: int) -> tuple[float, float]:
    prompts = drawn_prompts(task, count, seed=seed, draw=draw)
    first = expected_error(first_order_sft(prompts, task), task)
    return first, expected_error(sft_minimiser(prompts, task), task)
