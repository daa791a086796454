"""Checks of the theory: each formula beside descent, beside drawn prompts, or beside a peak."""

import numpy as np

from frontload.eval.theory.errors import expected_error, simulated_error
from frontload.eval.theory.fine_tuning import descend, endless_sft, sft_minimiser
from frontload.eval.theory.sft_curves import half_shifted
from frontload.eval.theory.shown import TheoryCheck, TheoryFigure
from frontload.eval.theory.task import Task, draw_prompts, stream

DESCENT = 1e-10  # of double precision over a few hundred products
ERRORS = 3.0  # standard errors
NEAR = 0.03  # beyond 3 standard errors, of what is a limit in d; found 0 to 1% at d = 300
MANY = 160  # times d: prompts that stand for endlessly many
ENDLESS = 0.03  # the distance falls as 1 / B: 5% at 40 d
AWAY = 0.2  # of B / d from 1, where the limit is infinite
DRAWN = 2000  # prompts
DIM = 80


def all_checks(figures: tuple[TheoryFigure, ...], *, seed: int) -> tuple[TheoryCheck, ...]:
    """Every check; those of peaks and of the limit read the figures."""
    by_name = {figure.name: figure for figure in figures}
    return (
        *formula_checks(seed=seed),
        *peak_checks(by_name["prompts"]),
        *limit_checks(by_name["limit"]),
    )


def formula_checks(*, seed: int) -> list[TheoryCheck]:
    """Theorems 4.1 and 4.2, formula (5.1), proposition 4.3."""
    found = []
    for interference in (0.0, 0.1):
        task = half_shifted(DIM, length=2.0, interference=interference)
        prompts = draw_prompts(
            task.tuning,
            prompt_length=task.prompt_length,
            num_prompts=DIM // 4,
            rng=stream(seed, "check"),
        )
        weights = sft_minimiser(prompts, task)
        reached = descend(prompts, task, steps=3, num_updates=3000)
        away = np.linalg.norm(reached - weights) / np.linalg.norm(weights)
        found.append(
            TheoryCheck(
                name=f"descent reaches SFT's minimiser, r = {interference:g}",
                source="theorems 4.1, 4.2",
                found=float(away),
                allowed=DESCENT,
                unit="of the norm of V",
            )
        )
        for name, one in (("pretrained", np.diag(task.initial)), ("after SFT", weights)):
            found.append(
                _drawn_check(f"error of {name}, r = {interference:g}", one, task=task, seed=seed)
            )
    return [*found, _endless_check(seed=seed)]


def peak_checks(figure: TheoryFigure) -> list[TheoryCheck]:
    """Double descent peaks where the prompts' span fills up."""
    found = []
    for plot in figure.plots:
        away = [abs(line.x[int(np.argmax(line.y))] - plot.marks[0]) for line in plot.lines]
        found.append(
            TheoryCheck(
                name=f"peak at B / d = {plot.marks[0]:g}, {plot.title}",
                source="figure 1",
                found=max(away),
                allowed=0.0,
                unit="d",
            )
        )
    return found


def limit_checks(figure: TheoryFigure) -> list[TheoryCheck]:
    """Theorem B.1, corrected, beside the first order as it is drawn."""
    found = []
    for plot in figure.plots:
        lines = {line.label: line for line in plot.lines}
        drawn = lines["first order, drawn"]
        away = np.abs(np.subtract(lines["theorem, corrected"].y, drawn.y))
        away = np.maximum(away - ERRORS * np.array(drawn.errors), 0.0) / np.array(drawn.y)
        far = np.abs(np.array(drawn.x) - 1) >= AWAY
        found.append(
            TheoryCheck(
                name=f"theorem B.1, corrected, {plot.title}",
                source="theorem B.1",
                found=float(away[far].max()),
                allowed=NEAR,
                unit="of the error",
            )
        )
    return found


def _drawn_check(name: str, weights: np.ndarray, *, task: Task, seed: int) -> TheoryCheck:
    rng = stream(seed, "drawn", name)
    drawn = simulated_error(weights, task, num_prompts=DRAWN, rng=rng)
    away = abs(expected_error(weights, task) - drawn.value) / (drawn.se or np.inf)
    return TheoryCheck(
        name=name, source="(5.1)", found=away, allowed=ERRORS, unit="standard errors"
    )


def _endless_check(*, seed: int) -> TheoryCheck:
    task = half_shifted(DIM, length=2.0, interference=0.1)
    prompts = draw_prompts(
        task.tuning,
        prompt_length=task.prompt_length,
        num_prompts=MANY * DIM,
        rng=stream(seed, "endless"),
    )
    limit = expected_error(endless_sft(task), task)
    return TheoryCheck(
        name=f"{MANY} d prompts beside endlessly many",
        source="proposition 4.3",
        found=abs(expected_error(sft_minimiser(prompts, task), task) / limit - 1),
        allowed=ENDLESS,
        unit="of the error",
    )
