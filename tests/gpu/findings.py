"""What a check of the GPU proof says, the arithmetic of its figures, and the table. No torch."""

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from frontload.recipes.machines.gpus import KINDS, GpuKind

PASS, FAIL, MEASURED = "pass", "fail", "measured"
COULD_NOT_RUN, NO_TIME = "could not run", "no time left"
RAN = (PASS, FAIL, MEASURED)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the proof. `measured` is a figure without a goal."""

    check: str
    result: str
    figure: str
    goal: str = ""  # with the reason for a tolerance
    facts: dict[str, float] = field(default_factory=dict)  # what later checks build on


class CouldNotRun(Exception):
    """A check lacks something; its text is the reason."""


def judge(check: str, *, figure: str, goal: str, is_met: bool, **facts: float) -> Finding:
    """A finding with a goal."""
    return Finding(
        check=check, result=PASS if is_met else FAIL, figure=figure, goal=goal, facts=facts
    )


def at_most(check: str, value: float, limit: float, *, reason: str, what: str = "") -> Finding:
    """A distance against its tolerance; what is no number is beyond any."""
    figure = f"{value:.2e}" + (f" ({what})" if what else "")
    return judge(check, figure=figure, goal=f"<= {limit:.2e}: {reason}", is_met=value <= limit)


def kind_of(device_name: str) -> GpuKind | None:
    """The data sheet of a device as torch names it; None if recipes/machines/gpus.py has none."""
    words = re.split(r"[\s-]+", device_name)
    if "PCIe" in words or "NVL" in words:
        return None
    for word, kind in (("H200", "h200_sxm"), ("H100", "h100_sxm"), ("B200", "b200")):
        if word in words:
            return KINDS[kind]
    return KINDS["a100_sxm_80gb"] if {"A100", "SXM4", "80GB"} <= set(words) else None


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Speed of training steps on one GPU."""

    tokens: int  # of a step
    seconds: tuple[float, ...]  # of each timed step
    flops_per_token: float

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / statistics.median(self.seconds)

    @property
    def tflops(self) -> float:
        return self.tokens_per_second * self.flops_per_token / 1e12


def mfu_findings(
    check: str, rate: Rate, *, kind: GpuKind | None, ceiling: float | None, goal: float
) -> list[Finding]:
    """Share of the measured GEMM ceiling and of the data sheet; a goal of 0 is none.

    The goal is one of the data sheet's share: that is what MFU means elsewhere.
    """
    found = []
    shares = {
        "of the measured BF16 GEMM ceiling": ceiling,
        "of the data sheet": kind.bf16_tflops if kind else None,
    }
    for words, peak in shares.items():
        name = f"{check}: MFU {words}"
        if peak is None:
            reason = (
                "not measured" if ceiling is None else "this GPU is not in recipes/machines/gpus.py"
            )
            found.append(Finding(check=name, result=COULD_NOT_RUN, figure=reason))
            continue
        share = rate.tflops / peak
        figure = f"{share:.1%} of {peak:.0f} TFLOP/s"
        if goal and words == "of the data sheet":
            found.append(judge(name, figure=figure, goal=f">= {goal:.0%}", is_met=share >= goal))
        else:
            found.append(Finding(check=name, result=MEASURED, figure=figure))
    return found


def ratio_finding(
    check: str, ours: Sequence[float], other: Sequence[float], *, goal: float, words: str
) -> Finding:
    """How many times faster `ours` is than `other`, by medians of seconds; a goal of 0 is none."""
    ratio = statistics.median(other) / statistics.median(ours)
    spread = max(max(ours) / min(ours), max(other) / min(other)) - 1.0
    figure = f"{ratio:.2f}x {words} (steps spread by {spread:.0%})"
    if not goal:
        return Finding(check=check, result=MEASURED, figure=figure)
    return judge(check, figure=figure, goal=f">= {goal:.2f}x", is_met=round(ratio, 2) >= goal)


def within_share(check: str, found: float, expected: float, *, share: float, unit: str) -> Finding:
    """A measured figure beside an estimated one."""
    return judge(
        check,
        figure=f"{found:.1f} {unit}, estimated {expected:.1f} ({found / expected - 1.0:+.0%})",
        goal=f"within {share:.0%}",
        is_met=abs(found / expected - 1.0) <= share,
    )


def markdown_table(findings: Sequence[Finding], machine: dict[str, Any]) -> str:
    """The table of an entry in tests/bench/log."""
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    lines = [
        f"GPU proof on {machine['device'] or 'no CUDA device'}, {packages}.",
        "",
        "| check | result | figure | goal |",
        "|---|---|---|---|",
    ]
    for one in findings:
        cells = (one.check, one.result, one.figure, one.goal)
        lines.append("| " + " | ".join(" ".join(c.replace("|", "/").split()) for c in cells) + " |")
    counts = {word: sum(f.result == word for f in findings) for word in (*RAN, COULD_NOT_RUN)}
    left = sum(f.result == NO_TIME for f in findings)
    told = ", ".join(f"{count} {word}" for word, count in counts.items())
    return "\n".join([*lines, "", f"{len(findings)} findings: {told}, {left} {NO_TIME}."])


def exit_code(findings: Sequence[Finding]) -> int:
    """0: nothing failed; 1: something did; 2: nothing ran at all, so nothing is proved."""
    if any(one.result == FAIL for one in findings):
        return 1
    return 0 if any(one.result in RAN for one in findings) else 2
