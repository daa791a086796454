"""Evaluations of every cell of a study by models that answer from a book, in seconds."""

import json
from pathlib import Path

from frontload.data_tools.text.tokenizer import TextTokenizer
from frontload.eval.report.origins import ReportOrigin
from frontload.eval.stages import evaluate_model
from frontload.recipes.schema import Tabulate
from tests.unit.eval.fake_study import BookModel, recipe, workspace, write_corpus

BASE_CELLS = {"pt:base": 0.2, "pt:SHQ": 0.3, "pt:LDQ": 0.42, "pt:LMQ": 0.45, "pt:LMQ@60-40": 0.5}
SFT_CELLS = {
    f"pt:{model}>sft:{name}": level + gain
    for model, level in (("base", 0.3), ("SHQ", 0.42), ("LDQ", 0.5), ("LMQ", 0.55))
    for name, gain in (("LDQ", 0.0), ("SHQ", 0.15), ("LMQ", 0.05))
} | {
    "pt:base>sft:SHQ*2": 0.5,
    "pt:LDQ>sft:LDQ*2": 0.45,
    "pt:LDQ>sft:ALF": 0.57,
    "pt:LDQ>sft:ALF'": 0.59,
}


def evaluations(
    folder: Path, *, seeds: int, per_family: int = 6, cells: dict[str, float] | None = None
) -> dict[str, list[Path]]:
    """Runs the stage `evaluate` for each cell and seed; cell -> scores folders in seed order."""
    corpus = folder / "corpus"
    items = write_corpus(corpus, per_family=per_family)
    tokenizer = TextTokenizer.load(corpus)
    inputs = {"corpus": corpus, "tokenizer": corpus, "checkpoint": corpus}
    found: dict[str, list[Path]] = {}
    for cell, level in (cells or BASE_CELLS | SFT_CELLS).items():
        suite = "sft" if ">sft:" in cell else "base"
        for seed in range(seeds):
            skill = {"math": level, "science": level - 0.05, "code": level - 0.1, "ins": level}
            if cell.endswith("sft:LDQ"):
                skill["ins"] += 0.2
            model = BookModel(tokenizer, items, skill=skill, seed=1000 * seed + len(found))
            work = workspace(folder / f"{len(found)}-{seed}")
            evaluate_model(model, recipe(suite, seed=seed), inputs=inputs, work=work)
            found.setdefault(cell, []).append(work.path)
    return found


def origins(found: dict[str, list[Path]]) -> dict[str, list[ReportOrigin]]:
    """Where `evaluations` come from, with keys like those of a store."""
    return {
        cell: [
            ReportOrigin(
                seed=number,
                evaluation=f"evaluate/{folder.parent.name}-{10**11 + place:012d}",
                checkpoint=f"pretrain/{folder.parent.name}-{2 * 10**11 + place:012d}",
                folder=folder,
                items=folder.parents[1] / "corpus" / "items.jsonl",
            )
            for number, folder in enumerate(found[cell])
        ]
        for place, cell in enumerate(found)
    }


def tabulate_recipe(found: dict[str, list[Path]]) -> tuple[Tabulate, dict[str, Path]]:
    """The recipe and the inputs of the stage `tabulate` for these evaluations."""
    cells = {cell: tuple(f"{cell}#{n}" for n in range(len(found[cell]))) for cell in found}
    inputs = {role: found[cell][n] for cell in cells for n, role in enumerate(cells[cell])}
    return Tabulate(cells=cells, min_effect=0.5, ledger={}), inputs


def read(path: Path) -> dict:
    """A JSON file."""
    return json.loads(path.read_text())
