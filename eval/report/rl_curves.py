"""GRPO runs of a study as curves: rewards, groups without a signal, KL, entropy, lengths, clips."""

import re
from collections.abc import Mapping
from pathlib import Path

from frontload.data_tools.text.document import read_objects
from frontload.eval.report.figures import Curve, Panel, color_of
from frontload.eval.report.training_logs import smoothed_tail

_LABEL = re.compile(r"(?P<arm>[^+]+)\+(?P<mix>.+)-x\d+-seed(?P<seed>\d+)\+rl")
SMOOTHED_SHARE = 0.1  # of the run: a step has few prompts, so single steps are noise

PANELS = {
    "train/reward": "reward",
    "train/degenerate_group_share": "groups of one reward",
    "train/kl": "KL to the start, nats",
    "train/entropy": "entropy, nats",
    "train/response_tokens": "response tokens",
    "train/clip_share": "clipped ratios",
    "train/cut_share": "answers cut by the limit",
    "train/validation_accuracy_family_mean": "held-out accuracy",
    "train/validation_reward_family_mean": "held-out reward",
}
"""Metric -> title. A group whose answers all score alike teaches nothing.

Held out are prompts that are never trained on, at least before and after: a mean over families.
"""

SHARES = frozenset(PANELS) - {"train/kl", "train/entropy", "train/response_tokens"}
"""Those between 0 and 1; the reward is the share of answers that are right and well formed."""


def rl_panels(checkpoints: Mapping[str, Path]) -> list[Panel]:
    """A panel a metric, a curve a run, seeds after the first drawn faint; empty without RL."""
    runs = {}
    for label, folder in sorted(checkpoints.items()):
        parts, metrics = _LABEL.fullmatch(label), folder / "metrics.jsonl"
        if parts is not None and metrics.is_file():
            rows = [row for _, row in read_objects(metrics)]
            runs[parts["arm"], parts["mix"], int(parts["seed"])] = rows
    if not runs:
        return []
    first = min(seed for _, _, seed in runs)
    panels = []
    for metric, title in PANELS.items():
        curves = []
        for (arm, mix, seed), rows in runs.items():
            points = [(row["step"], row[metric]) for row in rows if metric in row]
            name = arm if arm == "base" else arm.upper()
            if not points:
                continue
            curves.append(
                Curve(
                    label=f"M_{name} + SFT[{mix.upper()}]",
                    color=color_of(f"pt:{name}"),
                    samples=tuple(float(step) for step, _ in points),
                    values=tuple(
                        smoothed_tail(tuple(value for _, value in points), share=SMOOTHED_SHARE)
                    ),
                    is_faint=seed != first,
                )
            )
        if curves:
            panels.append(Panel(title=title, curves=tuple(curves), is_share=metric in SHARES))
    return panels
