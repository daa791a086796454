"""Results with chosen samples: what a statistic is worked out from, without a model."""

from collections.abc import Sequence

from frontload.eval.results import ChoiceResult, GeneratedResult, Generation


def sample(*, correct: bool = False, answer: str = "", failure: str = "") -> Generation:
    """One sample; a right one answers `gold`."""
    text = "gold" if correct else answer
    return Generation(
        text=text or failure, answer=text, correct=correct, format_failure=failure, tokens=3
    )


def generated(name: str, samples: Sequence[Generation], *, gold: bool = True) -> GeneratedResult:
    return GeneratedResult(
        id=name,
        benchmark="made",
        category="math",
        family="",
        question=f"question {name}",
        gold="gold",
        inside_shq=False,
        hard=False,
        prompt_tokens=4,
        num_shots=0,
        gold_correct=gold,
        samples=tuple(samples),
    )


def choice(name: str, log_likelihoods: Sequence[float], *, gold: int = 0) -> ChoiceResult:
    return ChoiceResult(
        id=name,
        benchmark="made",
        category="gpr",
        prompt_tokens=4,
        gold=gold,
        log_likelihoods=tuple(log_likelihoods),
    )


def flags(name: str, right: str) -> GeneratedResult:
    """A question whose samples are right where `right` has a 1: `0110`."""
    return generated(name, [sample(correct=one == "1", answer="other") for one in right])
