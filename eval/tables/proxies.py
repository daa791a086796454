"""Proxies of RL: held-out loss and pass@k of each SFT cell, and how they rank cells after RL."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from frontload.eval.results import GeneratedResult, HeldoutResult, ResultFile
from frontload.eval.statistics.cells import PERCENT, Cells
from frontload.eval.statistics.proxies import (
    Interval,
    Proxy,
    ProxyQuality,
    Recommendation,
    judge_proxy,
    recommend,
)
from frontload.eval.statistics.repeated import pass_at_k
from frontload.eval.tables.build import Number, Table, TableRow, label_of, measured
from frontload.recipes.errors import RecipeError
from frontload.recipes.study.points import RL_DATA

LOSS = "held-out loss"
PASS_AT = (1, 8, 64)  # Quagmires, arXiv 2510.01624
RECOMMENDED = 3  # cells that the report names
SCORE = "rl.avg"


@dataclass(frozen=True, kw_only=True)
class Proxies:
    """The proxies of a study, what they are worth, and what follows."""

    proxies: tuple[Proxy, ...]
    scores: Mapping[str, float]  # SFT cell -> its score after RL
    quality: tuple[ProxyQuality, ...]  # of the proxies that could be judged
    refused: tuple[str, ...]  # why others could not
    recommendation: Recommendation | None

    def to_json(self) -> dict[str, Any]:
        """The form in tables.json."""
        return {
            "values": {proxy.name: dict(sorted(proxy.values.items())) for proxy in self.proxies},
            "after_rl": dict(sorted(self.scores.items())),
            "quality": [asdict(one) for one in self.quality],
            "refused": list(self.refused),
            "recommendation": asdict(self.recommendation) if self.recommendation else None,
        }


def measure_proxies(cells: Cells, files: Mapping[str, Sequence[ResultFile]]) -> Proxies:
    """Judges every proxy on the cells that RL was given to. `files`: SFT cell -> by seed.

    A proxy is the mean over the seeds. pass@k is there for each k up to the answers to a question.
    """
    proxies = _proxies(files)
    scores = {}
    for cell in files:
        found = measured(cells, f"{cell}>rl:{RL_DATA}", SCORE)
        if found is not None:
            scores[cell] = found.value
    quality: list[ProxyQuality] = []
    judged: list[Proxy] = []
    refused: list[str] = []
    for proxy in proxies:
        try:
            quality.append(judge_proxy(proxy, scores))
            judged.append(proxy)
        except RecipeError as error:
            refused.append(f"{proxy.name}: {error.found}; {error.rule}")
    recommendation = None
    if judged and len(scores) < len(files):
        recommendation = recommend(judged, scores, num_cells=RECOMMENDED)
    return Proxies(
        proxies=proxies,
        scores=scores,
        quality=tuple(quality),
        refused=tuple(refused),
        recommendation=recommendation,
    )


def proxy_tables(found: Proxies) -> list[Table]:
    """What each proxy is worth, then its value for each cell."""
    return [table for table in (_quality_table(found), _value_table(found)) if table.rows]


def advice(found: Proxies) -> str:
    """Which cells deserve RL, in a sentence or two."""
    if found.refused and not found.quality:
        return f"No proxy is judged. {found.refused[0][0].upper()}{found.refused[0][1:]}."
    if found.recommendation is None:
        waiting = len(found.scores) < len(found.proxies[0].values)
        return (
            "No proxy is shown to rank cells as RL does: no lower end of Spearman's interval is "
            "above 0 at the 5% level divided by the proxies."
            if waiting
            else "Every cell has had RL."
        )
    one = found.recommendation
    return (
        f"RL next, by {one.proxy}: {', '.join(map(label_of, one.cells))}. On the cells that had "
        f"RL the same rule lost {one.regret:.1f} points, drawn cells {one.regret_by_chance:.1f}; "
        "those cells chose the proxy, which flatters it."
    )


def _proxies(files: Mapping[str, Sequence[ResultFile]]) -> tuple[Proxy, ...]:
    losses = {cell: _mean([_loss(file) for file in group]) for cell, group in files.items()}
    sets = {cell: "+".join(sorted({_digest(f) for f in group})) for cell, group in files.items()}
    found = [Proxy(name=LOSS, values=losses, is_loss=True, sets=sets)]
    answers = {
        cell: [[r for r in file.results if isinstance(r, GeneratedResult)] for file in group]
        for cell, group in files.items()
    }
    least = min(
        (len(r.samples) for group in answers.values() for one in group for r in one), default=0
    )
    for k in (k for k in PASS_AT if k <= least):
        values = {
            cell: _mean([PERCENT * pass_at_k(one, k).value for one in group])
            for cell, group in answers.items()
        }
        found.append(Proxy(name=f"pass@{k}", values=values))
    return tuple(found)


def _loss(file: ResultFile) -> float:
    held = [one for one in file.results if isinstance(one, HeldoutResult)]
    return sum(one.loss_sum for one in held) / max(sum(one.num_tokens for one in held), 1)


def _digest(file: ResultFile) -> str:
    """Names the held-out set: its documents and how many tokens of each are scored."""
    held = sorted(
        (one.id, one.num_tokens) for one in file.results if isinstance(one, HeldoutResult)
    )
    return hashlib.sha256(json.dumps(held).encode()).hexdigest()[:12]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _quality_table(found: Proxies) -> Table:
    rows = [
        TableRow(
            label=one.name,
            cell="",
            ours=(*_numbers(one.spearman, one), *_numbers(one.r2, one)),
            paper=(None,) * 6,
            note="",
        )
        for one in found.quality
    ]
    return Table(
        id="Proxies",
        caption="How well a number before RL ranks cells by their score after it: Spearman's "
        "correlation and R2 with 95% intervals, over the cells that had RL. Higher is better, for "
        f"a loss too. {advice(found)}",
        source="this study",
        average_rule="none: a cell is a unit",
        columns=("Spearman", "low", "high", "R2", "R2 low", "R2 high"),
        rows=tuple(rows),
        decimals=2,
        has_paper=False,
    )


def _numbers(interval: Interval, quality: ProxyQuality) -> list[Number]:
    return [
        Number(value=value, se=None, num_seeds=0, num_items=quality.num_cells)
        for value in (interval.value, interval.low, interval.high)
    ]


def _value_table(found: Proxies) -> Table:
    rows = []
    for cell in found.proxies[0].values:
        values = [proxy.values[cell] for proxy in found.proxies]
        numbers = [Number(value=v, se=None, num_seeds=0, num_items=0) for v in values]
        after = found.scores.get(cell)
        last = None if after is None else Number(value=after, se=None, num_seeds=0, num_items=0)
        ours = (*numbers, last)
        rows.append(
            TableRow(
                label=label_of(cell), cell=cell, ours=ours, paper=tuple(None for _ in ours), note=""
            )
        )
    return Table(
        id="Proxy values",
        caption="Each cell before RL: loss in nats a token on one held-out set, pass@k in % "
        "without bias from all answers to each question; and its average after RL, if it had RL."
        + ("" if found.quality else f" {advice(found)}"),
        source="this study",
        average_rule="all questions weigh the same",
        columns=(*(proxy.name for proxy in found.proxies), "after RL"),
        rows=tuple(rows),
        decimals=2,
        has_paper=False,
    )
