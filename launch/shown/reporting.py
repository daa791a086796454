"""Hands a finished study to the report: which folders, which recipe, which keys."""

import importlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from frontload.launch.store import Store
from frontload.recipes.artifact import benchmark_questions, corpus_items
from frontload.recipes.errors import ArtifactError
from frontload.recipes.stage import Stage, canonical
from frontload.recipes.study.expand import Study

PAGE = "report.html"


def write_report(study: Study, store: Store, out: Path, *, utilisation: str | None) -> Path:
    """Writes tables, verdicts, figures and report.html into `out`; returns the page.

    Raises: ArtifactError if a stage is not built.
    """
    report: Any = importlib.import_module("frontload.eval.report.write")
    folders = {stage.key: _folder(store, stage) for stage in study.stages}

    def of_kind(*kinds: str) -> dict[str, Path]:
        return {s.label: folders[s.key] for s in study.stages if s.kind in kinds}

    request = report.ReportRequest(
        study_name=study.name,
        out_dir=out,
        tabulate_folder=folders[study.tabulate.key],
        origins=origins_of(study, folders),
        checkpoints=of_kind("pretrain", "sft", "grpo"),
        blends=of_kind("blend"),
        packs=of_kind("pack"),
        recipe_text=recipe_text(study),
        keys={f"{stage.kind}/{stage.label}": stage.key for stage in study.stages},
        utilisation=utilisation,
    )
    return report.write_report(request)


def origins_of(study: Study, folders: Mapping[str, Path]) -> dict[str, list[Any]]:
    """Cell -> what its numbers come from, an evaluation a seed and suite. `folders`: by key."""
    origin: Any = importlib.import_module("frontload.eval.report.origins")
    found: dict[str, list[Any]] = {}
    for cell, roles in study.tabulate.recipe.cells.items():
        for role in roles:
            asked = study.tabulate.inputs[role]
            found.setdefault(cell, []).append(
                origin.ReportOrigin(
                    seed=asked.recipe.seed,
                    evaluation=asked.folder,
                    checkpoint=asked.inputs["checkpoint"].folder,
                    folder=folders[asked.key],
                    items=_items_file(asked, folders),
                )
            )
    return found


def _items_file(asked: Stage, folders: Mapping[str, Path]) -> Path:
    """The questions of an evaluation: its own of benchmarks, else those of its corpus."""
    corpus = asked.inputs.get("corpus")
    if corpus is None:
        return benchmark_questions(folders[asked.key])
    return corpus_items(folders[corpus.key])


def is_current(study: Study, out: Path) -> bool:
    """Whether `out` holds the report of exactly this study: its page names the last key."""
    page = out / PAGE
    return page.is_file() and study.tabulate.key in page.read_text(encoding="utf-8")


def printed(out: Path) -> str:
    """What is printed at the end of a run: the rows of a user's files, the tables, the verdicts."""
    own_files = out / importlib.import_module("frontload.eval.report.write").OWN_FILES
    rows = f"{own_files.read_text(encoding='utf-8')}\n" if own_files.is_file() else ""
    return rows + (out / "tables.md").read_text(encoding="utf-8").rstrip()


def recipe_text(study: Study) -> str:
    """The whole recipe after parents and overrides, as YAML that runs again."""
    recipe = json.loads(json.dumps(canonical(study.recipe)))
    recipe["placement"] = asdict(study.placements.default)
    recipe["placements"] = {
        kind: asdict(placement) for kind, placement in study.placements.by_kind.items()
    }
    return yaml.safe_dump(recipe, sort_keys=False, default_flow_style=None, width=100)


def _folder(store: Store, stage: Stage) -> Path:
    found = store.find(stage.kind, stage.key)
    if found is None:
        raise ArtifactError(
            f"report, {stage.folder}",
            found=f"is gone from {store.root}",
            rule="a report is written from a finished study",
            do="run the same command again",
        )
    return found
