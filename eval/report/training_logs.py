"""Training runs of a study as curves: which panel, which colour, where the phase changes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from frontload.data_tools.text.document import read_objects
from frontload.eval.report.figures import INK, Curve, Panel, color_of

TRUNK = "trunk"
MOST_POINTS = 300  # a curve is drawn 250 pixels wide

_LABEL = re.compile(r"(?P<arm>[^+]+?)(\+(?P<mix>.+)-x(?P<times>\d+))?-seed(?P<seed>\d+)")


@dataclass(frozen=True, kw_only=True)
class LoggedRun:
    """One training run by the parts of its label (`lmq+shq-x1-seed2`)."""

    arm: str
    mix: str  # "" for a pretraining
    times: int
    seed: int
    samples: tuple[float, ...]
    losses: tuple[float, ...]


def read_runs(checkpoints: Mapping[str, Path]) -> list[LoggedRun]:
    """Reads the metrics of every checkpoint whose label is one of a study's."""
    runs = []
    for label, folder in checkpoints.items():
        parts = _LABEL.fullmatch(label)
        metrics = folder / "metrics.jsonl"
        if parts is None or not metrics.is_file():
            continue
        rows = [row for _, row in read_objects(metrics) if "train/loss" in row]
        runs.append(
            LoggedRun(
                arm=parts["arm"],
                mix=parts["mix"] or "",
                times=int(parts["times"] or 1),
                seed=int(parts["seed"]),
                samples=tuple(row["data/samples"] for row in rows),
                losses=tuple(row["train/loss"] for row in rows),
            )
        )
    return runs


def pretraining_panel(runs: list[LoggedRun]) -> list[Panel]:
    """One panel with the trunk and its branches; empty without pretraining."""
    found = [run for run in runs if not run.mix and run.samples]
    if not found:
        return []
    ends = [run.samples[-1] for run in found if run.arm == TRUNK]
    curves = tuple(_curve(run, first=_first_seed(found)) for run in _ordered(found))
    return [Panel(title="pretraining", curves=curves, boundary=ends[0] if ends else None)]


def sft_panels(runs: list[LoggedRun]) -> list[Panel]:
    """A panel for each SFT set that more than one pretrained model was tuned on."""
    tuned = [run for run in runs if run.mix and run.times == 1 and run.samples]
    panels = []
    for mix in sorted({run.mix for run in tuned}):
        group = [run for run in tuned if run.mix == mix]
        if len({run.arm for run in group}) > 1:
            curves = tuple(_curve(run, first=_first_seed(group)) for run in _ordered(group))
            panels.append(Panel(title=f"SFT on {mix.upper()}", curves=curves))
    return panels


def _ordered(runs: list[LoggedRun]) -> list[LoggedRun]:
    order = {name: place for place, name in enumerate((TRUNK, "base", "shq", "ldq", "lmq"))}
    return sorted(runs, key=lambda run: (run.seed, order.get(run.arm, len(order)), run.arm))


def _first_seed(runs: list[LoggedRun]) -> int:
    return min(run.seed for run in runs)


def _curve(run: LoggedRun, *, first: int) -> Curve:
    every = max(1, len(run.samples) // MOST_POINTS)
    name = run.arm if run.arm in (TRUNK, "base") else run.arm.upper()
    return Curve(
        label=name if run.arm == TRUNK else f"M_{name}",
        color=INK if run.arm == TRUNK else color_of(f"pt:{name}"),
        samples=run.samples[every - 1 :: every],
        values=tuple(smoothed_tail(run.losses)[every - 1 :: every]),
        is_faint=run.seed != first,
    )


def smoothed_tail(values: tuple[float, ...], *, share: float = 0.03) -> list[float]:
    """Trailing mean over `share` of the run, at least one step."""
    span = max(1, round(len(values) * share))
    total, out = 0.0, []
    for place, value in enumerate(values):
        total += value - (values[place - span] if place >= span else 0.0)
        out.append(total / min(place + 1, span))
    return out
