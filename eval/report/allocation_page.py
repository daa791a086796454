"""The page of an allocation: the answer, its comparisons, the curve and its band, decisions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frontload.data_tools.disk.files import read_json, replacing
from frontload.data_tools.packing.account import account_reading
from frontload.eval.allocation.answer import (
    cost_text,
    objective_text,
    qualifications,
    sentence,
    size_text,
)
from frontload.eval.allocation.readings import readings_lines
from frontload.eval.allocation.stages import ANSWER, ANSWER_TEXT, DECISION, READINGS
from frontload.eval.report.figures import INK, legend, new_figure, save
from frontload.eval.report.templates import resource, template
from frontload.recipes.artifact import write_json

PAGE = "allocation.html"
BAND = 1.96  # errors to each side of the mean
NEAR = 1e-6  # of two levels that are one
COLORS = ("#e69f00", "#2f7fc1", "#009e73", "#cc79a7", "#8a8f98")


@dataclass(frozen=True, kw_only=True)
class AllocationRequest:
    """What the page of an allocation is written from: finished artifacts."""

    name: str
    num_parameters: int  # of the study's model
    out: Path
    answer: Path
    beside: Path | None  # of `readings`
    registered: str  # folder of the registration, below the store
    decisions: Sequence[Path]
    packs: Mapping[str, Path]  # candidate -> pack of its first seed; absent without SFT


def write_allocation(request: AllocationRequest) -> Path:
    """Writes answer.json, answer.md, figures/ and last allocation.html, which is returned."""
    out = request.out
    (out / "figures").mkdir(parents=True, exist_ok=True)
    beside = read_json(request.beside / READINGS) if request.beside is not None else None
    answer = read_json(request.answer / ANSWER) | {"readings": beside}
    lines = readings_lines(beside)
    size = size_text(request.num_parameters)
    write_json(out / ANSWER, answer)
    text = (request.answer / ANSWER_TEXT).read_text(encoding="utf-8")
    with replacing(out / ANSWER_TEXT, "w") as stream:
        stream.write(
            "".join([text, *[f"{line}\n" for line in [*lines, *([f"{size}."] if size else [])]]])
        )
    factors = list(answer["best_place"]["factors"])
    drawn = [
        save(draw_curve(answer, place, name=name), out / "figures", name=f"curve_{place}")
        for place, name in enumerate(factors)
    ]
    text = template("allocation.html.jinja").render(
        name=request.name,
        answer=answer,
        sentence=sentence(answer),
        objective=objective_text(answer["objective"]),
        qualifications=qualifications(answer),
        cost=cost_text(answer),
        readings=lines,
        size=size,
        registered=request.registered,
        figures=drawn,
        factors=factors,
        decisions=[
            read_json(folder / DECISION) | {"folder": f"decide/{folder.name}"}
            for folder in request.decisions
        ],
        ledger=cell_ledger(answer, request.packs),
        css=resource("report.css"),
        script=resource("report.js"),
    )
    with replacing(out / PAGE, "w") as stream:
        stream.write(text)
    return out / PAGE


def cell_ledger(answer: Mapping[str, Any], packs: Mapping[str, Path]) -> list[dict[str, Any]]:
    """What each candidate that was run read: in pretraining, and in SFT by its pack."""
    run = {one["candidate"] for one in answer["cells"]}
    rows = []
    for one in answer["candidates"]:
        if one["name"] not in run:
            continue
        row = {"text": 0, "loss": 0, "epochs": 0.0, "padding": 0.0}
        if one["name"] in packs:
            read = account_reading(packs[one["name"]])
            row = {
                "text": read.tokens,
                "loss": read.loss_tokens,
                "epochs": read.epochs,
                "padding": read.padding_share,
            }
        rows.append(
            {
                "candidate": one["name"],
                "pretraining": one["pretraining_tokens"],
                "rows": one["sft_tokens"],
            }
            | row
        )
    return rows


def draw_curve(answer: Mapping[str, Any], place: int, *, name: str) -> Any:
    """The objective against one factor: a line and a band a set, cells, competitors."""
    figure, (ax,) = new_figure(8.2, 3.6)
    chosen = next(one for one in answer["candidates"] if one["name"] == answer["registered"])
    levels = {one["name"]: one["levels"][place] for one in answer["candidates"]}
    kinds = list(dict.fromkeys(tuple(one["sets"]) for one in answer["candidates"]))
    colors = {kind: COLORS[number % len(COLORS)] for number, kind in enumerate(kinds)}
    for kind in kinds:
        line = [
            one
            for one in answer["candidates"]
            if tuple(one["sets"]) == kind and _is_beside(one, chosen, place=place)
        ]
        line.sort(key=lambda one: one["levels"][place])
        at = [one["levels"][place] for one in line]
        mean = [one["less_registered"] for one in line]
        low = [one["less_registered"] - BAND * one["less_registered_error"] for one in line]
        high = [one["less_registered"] + BAND * one["less_registered_error"] for one in line]
        label = f"pretraining {kind[0]}, SFT {kind[1]}"
        style = {"marker": "D", "linestyle": "none"} if len(line) == 1 else {}
        ax.plot(at, mean, color=colors[kind], label=label, **style)
        ax.fill_between(at, low, high, color=colors[kind], alpha=0.15, linewidth=0)
    sets = {one["name"]: tuple(one["sets"]) for one in answer["candidates"]}
    for cell, value in _without_seeds(answer):
        ax.plot(
            levels[cell["candidate"]],
            value - chosen["mean"],
            marker="o" if cell["is_fresh"] else ".",
            markersize=4,
            color=colors[sets[cell["candidate"]]],
            alpha=0.6,
        )
    for one in answer["compared"]:
        ax.axvline(levels[one["candidate"]], color=INK, linewidth=0.7, linestyle=(0, (4, 3)))
    ax.axvline(chosen["levels"][place], color=INK, linewidth=1.2)
    ax.set_xlabel(f"{name}, 0 to 1 of its range", color=INK)
    ax.axhline(0.0, color=INK, linewidth=0.7)
    ax.set_ylabel(f"{answer['objective']['name']}, less the recommended", color=INK)
    legend(ax, columns=3)
    return figure


def _is_beside(one: Mapping[str, Any], chosen: Mapping[str, Any], *, place: int) -> bool:
    """Whether a candidate differs from the recommendation on this factor and in sets alone."""
    pairs = zip(one["levels"], chosen["levels"], strict=True)
    return all(
        number == place or abs(mine - other) < NEAR for number, (mine, other) in enumerate(pairs)
    )


def _without_seeds(answer: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], float]]:
    """Each cell's score less what its seed's cells have beyond the surrogate's means."""
    objective = answer["objective"]["name"]
    means = {one["name"]: one["mean"] for one in answer["candidates"]}
    by_seed: dict[int, list[float]] = {}
    for cell in answer["cells"]:
        left = cell["scores"][objective] - means[cell["candidate"]]
        by_seed.setdefault(cell["seed"], []).append(left)
    shift = {seed: sum(left) / len(left) for seed, left in by_seed.items()}
    return [(cell, cell["scores"][objective] - shift[cell["seed"]]) for cell in answer["cells"]]
