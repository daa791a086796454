"""Figures of chains of thought: steps at the test, outcome supervision, balance of pretraining."""

from dataclasses import replace

import numpy as np

from frontload.eval.statistics.stats import clustered_mean
from frontload.eval.theory.errors import errors_by_step
from frontload.eval.theory.fine_tuning import sft_minimiser
from frontload.eval.theory.outcome import supervise_outcomes
from frontload.eval.theory.sft_curves import ERROR, line_of
from frontload.eval.theory.shown import Plot, TheoryFigure, TheoryLine
from frontload.eval.theory.task import Task, draw_prompts, stream

STEPS = 8
TEST_PROMPTS = 200
SFT_PROMPTS = 5  # times d
SCALES = (0.25, 0.5, 1.0, 2.0)  # of A over Sigma; eta is 0.5
SHIFTS = (0.1, 0.4, 1.0, 2.0)  # Delta, where pretraining gave 0.5
COUNTS = (4, 16, 64, 256)  # prompts of outcome supervision
CHAIN = 3  # steps of its chains; k of the paper's experiments
UPDATES = 600
SEEDS = 3
COVERED = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0)  # variance of the shifted directions in pretraining
FEW = 16  # SFT prompts of the figure on balance, and
MANY = 64  # those of outcome supervision


def step_table(*, seed: int) -> TheoryFigure:
    """The error by steps at the test, of SFT sets that differ in one thing."""
    sizes = {f"A = {one:g} Sigma on the new": (one, 0.0) for one in SCALES}
    kinds = {
        "new directions (hard)": (0.5, 0.0),
        "known directions (easy)": (0.0, 0.5),
        "both": (0.5, 0.5),
    }
    start = _stepped_task(scale=0.5, interference=0.0)
    before = replace(
        _stepped("pretrained alone", np.diag(start.initial), start, seed=seed), is_reference=True
    )
    plots = [
        Plot(
            title=title,
            lines=(*(_line(label, one, seed=seed) for label, one in sets.items()), before),
            x="steps at the test",
            y=ERROR,
        )
        for title, sets in (("how strongly SFT shows the new", sizes), ("what SFT shows", kinds))
    ]
    return TheoryFigure(
        name="steps",
        title="Steps of thought at the test",
        source="section 5.1 and insight 1; d = 80, m = 40, n = 800, eta = 0.5, B = 400",
        plots=tuple(plots),
        says="At one step A = eta Sigma is best, as section 5.1 has it. With more steps any scale "
        "that does not overshoot goes to 0 and scale is speed: a one-step optimum bounds less "
        "than it seems. A quarter overshoots, and so does the pretrained model. Hard examples are "
        "needed: easy ones change nothing of the new directions. Both together are a little better "
        "still, at so many prompts.",
        mirrors="the choice of SFT data by what the base model gets wrong: the perplexity of an "
        "SFT set under each base is its nearest number in a study.",
        cannot="hard and easy are directions here, known to whoever draws the data. A hard example "
        "of a corpus may also be a wrong one.",
    )


def outcome_figure(*, seed: int) -> TheoryFigure:
    """Figure 4 (d): outcome supervision by scale, at shifts that pretraining covers or not."""
    after, cut = [], []
    for shift in SHIFTS:
        task = _small_task(covered=0.5, rest=1.0, shift=shift)
        runs = [[_supervised(task, count, seed=seed + n) for n in range(SEEDS)] for count in COUNTS]
        label = f"shift {shift:g} (radius {task.spectral_radius:.2f})"
        found = [[clustered_mean([one[kind] for one in run]) for run in runs] for kind in (0, 1)]
        after.append(line_of(label, COUNTS, found[0]))
        cut.append(line_of(label, COUNTS, found[1]))
        start = _chain_error(np.diag(task.initial), task, seed=seed)
        after.append(
            TheoryLine(
                label=f"before, shift {shift:g}",
                x=(COUNTS[0], COUNTS[-1]),
                y=(start, start),
                is_reference=True,
                of=label,
            )
        )
    return TheoryFigure(
        name="outcomes",
        title="Outcome supervision",
        source="figure 4 (d) and section 6; d = 20, m = 4, n = 80, k = 3; plain descent of "
        f"{UPDATES} updates, gradients cut at length 1, {SEEDS} draws (the paper: Adam, d = 100)",
        plots=(
            Plot(title="error", lines=tuple(after), x="prompts", y=ERROR, is_log_x=True),
            Plot(
                title="updates whose gradient was cut",
                lines=tuple(cut),
                x="prompts",
                y="share",
                is_log_x=True,
                is_log_y=False,
            ),
        ),
        says="It needs scale: with few prompts a small shift gets worse, and there is little to "
        "gain. A shift that pretraining does not cover (radius above 1) starts where gradients "
        "explode; they are cut, and with enough prompts descent still arrives.",
        mirrors="H13 and H14 in kind: outcome rewards refine what pretraining partly has.",
        cannot="this is a regression on the final answer, not GRPO: no sampling, no advantage, no "
        "reward of 0 or 1. How many prompts are enough is not a number for a study.",
    )


def balance_figure(*, seed: int) -> TheoryFigure:
    """Section 7: pretraining that shows the later directions more, at the same total variance."""
    radius, start, sft, outcome, cut = [], [], [], [], []
    for covered in COVERED:
        task = _small_task(covered=covered, rest=(20 - 4 * covered) / 16, shift=1.0)
        prompts = draw_prompts(
            task.tuning,
            prompt_length=task.prompt_length,
            num_prompts=FEW,
            rng=stream(seed, "balance"),
        )
        runs = [_supervised(task, MANY, seed=seed + n) for n in range(SEEDS)]
        radius.append(task.spectral_radius)
        start.append(_chain_error(np.diag(task.initial), task, seed=seed))
        sft.append(_chain_error(sft_minimiser(prompts, task), task, seed=seed))
        outcome.append(clustered_mean([one for one, _ in runs]))
        cut.append(clustered_mean([one for _, one in runs]))
    lines = (
        TheoryLine(label="pretrained alone", x=COVERED, y=tuple(start)),
        TheoryLine(label=f"after SFT, {FEW} prompts", x=COVERED, y=tuple(sft)),
        line_of(f"after outcomes, {MANY} prompts", COVERED, outcome),
    )
    return TheoryFigure(
        name="balance",
        title="Balanced pretraining",
        source="section 7; d = 20, m = 4, n = 80, k = 3, tr Sigma_0 = 20, shift 1, r = 0",
        plots=(
            Plot(
                title=f"error after {CHAIN} steps",
                lines=lines,
                x="variance of the new directions in pretraining",
                y=ERROR,
            ),
            Plot(
                title="how hard the start is",
                lines=(
                    TheoryLine(
                        label="spectral radius", x=COVERED, y=tuple(radius), is_reference=True
                    ),
                    line_of("updates cut, share", COVERED, cut),
                ),
                x="variance of the new directions in pretraining",
                y="radius; share",
            ),
        ),
        says="The more pretraining shows what comes later, the smaller the radius of "
        "Gamma_0^-1 Delta: the start is better and outcome supervision is cut less often.",
        mirrors="H01 and H02, front-loading: pretraining on some of what the test asks for makes "
        "what follows easier.",
        cannot="here the balance is a spectrum and the total variance is fixed; in a study it is a "
        "blend of texts and the price is other tokens. The size of a gain does not carry over.",
    )


def _stepped_task(*, scale: float, interference: float) -> Task:
    return Task(dim=80, shifted=40, prompt_length=800, scale=scale, interference=interference)


def _line(label: str, levels: tuple[float, float], *, seed: int) -> TheoryLine:
    """After SFT whose inputs have these levels on the new and on the known directions."""
    scale, interference = levels
    task = _stepped_task(scale=scale, interference=interference)
    prompts = draw_prompts(
        task.tuning,
        prompt_length=task.prompt_length,
        num_prompts=SFT_PROMPTS * task.dim,
        rng=stream(seed, "steps"),
    )
    return _stepped(label, sft_minimiser(prompts, task), task, seed=seed)


def _stepped(label: str, weights: np.ndarray, task: Task, *, seed: int) -> TheoryLine:
    rng = stream(seed, "test")
    found = errors_by_step(weights, task, steps=STEPS, num_prompts=TEST_PROMPTS, rng=rng)
    return line_of(label, range(1, STEPS + 1), found)


def _small_task(*, covered: float, rest: float, shift: float) -> Task:
    return Task(dim=20, shifted=4, prompt_length=80, covered=covered, rest=rest, shift=shift)


def _chain_error(weights: np.ndarray, task: Task, *, seed: int) -> float:
    rng = stream(seed, "test")
    found = errors_by_step(weights, task, steps=CHAIN, num_prompts=TEST_PROMPTS, rng=rng)
    return found[-1].value


def _supervised(task: Task, num_prompts: int, *, seed: int) -> tuple[float, float]:
    """The error after outcome supervision, and the share of its updates that were cut."""
    rng = stream(seed, "outcomes", num_prompts)
    made = supervise_outcomes(
        task, num_prompts=num_prompts, steps=CHAIN, num_updates=UPDATES, rng=rng
    )
    return _chain_error(made.weights, task, seed=seed), made.num_cut / UPDATES
