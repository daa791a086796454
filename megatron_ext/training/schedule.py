"""The learning rate as a pure function of the sample number."""

import math

from frontload.recipes.errors import RecipeError
from frontload.recipes.schema import Optimizer, Schedule

KINDS = ("cosine", "wsd", "constant", "plateau")


def check_schedule(schedule: Schedule) -> None:
    """Checks the shares of a schedule.

    Raises: RecipeError naming the field.
    """
    if schedule.kind not in KINDS:
        raise RecipeError(
            "schedule.kind",
            found=f"is {schedule.kind!r}",
            rule=f"one of {', '.join(KINDS)}",
            do="write cosine",
        )
    if schedule.kind == "plateau":
        return
    decay = schedule.decay_share if schedule.kind == "wsd" else 0.0
    if min(schedule.warmup_share, decay) < 0 or schedule.warmup_share + decay > 1:
        raise RecipeError(
            "schedule",
            found=f"warmup_share {schedule.warmup_share} and decay_share {decay}",
            rule="both are at least 0 and their sum is at most 1",
            do="lower one of them",
        )
    if schedule.total_samples < 1:
        raise RecipeError(
            "schedule.total_samples",
            found=f"is {schedule.total_samples}",
            rule="a schedule has samples",
            do="write the samples of all phases that share it",
        )


def learning_rate(optimizer: Optimizer, schedule: Schedule, sample: int) -> float:
    """The rate of the step that ends at `sample`, counted from the start of the whole schedule.

    Warm-up rises linearly from 0 to the peak. Cosine then falls to the minimum at `total_samples`.
    WSD holds the peak and falls in its last `decay_share` as 1 - sqrt(progress). After the end the
    rate stays where it is. A plateau is WSD without an end: warm-up by samples, then the peak.

    Source: Haegele et al. 2024, "Scaling laws and compute-optimal training beyond fixed training
        durations", section 3 (the 1 - sqrt form).
    """
    peak, low = optimizer.learning_rate, optimizer.min_learning_rate
    if schedule.kind == "plateau":
        return peak * min(sample / max(schedule.warmup_samples, 1), 1.0)
    done = min(sample / schedule.total_samples, 1.0)
    if done < schedule.warmup_share:
        return peak * done / schedule.warmup_share
    if schedule.kind == "constant":
        return peak
    if schedule.kind == "cosine":
        rest = 1.0 - schedule.warmup_share
        progress = (done - schedule.warmup_share) / rest if rest > 0 else 1.0
        return low + (peak - low) * 0.5 * (1.0 + math.cos(math.pi * progress))
    start = 1.0 - schedule.decay_share
    if done <= start:
        return peak
    return low + (peak - low) * (1.0 - math.sqrt((done - start) / schedule.decay_share))
