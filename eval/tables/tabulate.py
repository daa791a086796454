"""Evaluations of all cells and seeds to cells.json, tables.json, tables.md and verdicts.json."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from frontload.data_tools.disk.files import read_json, replacing
from frontload.eval.asking.set_loss import SetLoss, read_set_loss
from frontload.eval.results import ResultFile, read_results
from frontload.eval.statistics.cells import Cells
from frontload.eval.statistics.score import AVERAGING_RULES, score
from frontload.eval.statistics.spread import seed_spreads, stated_spreads
from frontload.eval.tables.build import build_tables, cell_order, figure2, stage_gaps
from frontload.eval.tables.claims import judge, recompute, verdicts_json
from frontload.eval.tables.controls import judge_controls, with_controls
from frontload.eval.tables.forgetting import forgetting, set_loss_table
from frontload.eval.tables.ledger import ledger
from frontload.eval.tables.own import own_tables
from frontload.eval.tables.paper import paper_claims
from frontload.eval.tables.proxies import measure_proxies, proxy_tables
from frontload.eval.tables.questions import is_paper_study, own_hypotheses
from frontload.eval.tables.rl import rl_table
from frontload.eval.tables.text import TextTables, tables_markdown
from frontload.eval.tables.views import judge_views
from frontload.recipes.artifact import Inputs, item_results_file, scores_file, write_json
from frontload.recipes.errors import ArtifactError, RecipeError
from frontload.recipes.schema import Tabulate


def write_tables(recipe: Tabulate, inputs: Inputs, *, out: Path) -> None:
    """Reads every evaluation named by the recipe and writes the four files of the artifact.

    Raises: RecipeError for a role without an input, ArtifactError for scores that do not follow
        from their own items.
    """
    cells = Cells(
        files=read_cells(recipe, inputs), stated_spreads=stated_spreads(recipe.seed_spreads)
    )
    is_paper = is_paper_study(cells.names)
    tables = build_tables(cells) if is_paper else own_tables(cells)
    tables += [table for table in [rl_table(cells), forgetting(cells)] if table.rows]
    proxies = None
    if recipe.proxies:
        proxies = measure_proxies(cells, _read_all(recipe.proxies, inputs))
        tables += proxy_tables(proxies)
    if recipe.set_losses:
        tables.append(set_loss_table(_read_set_losses(recipe, inputs)))
    hypotheses = paper_claims()["hypotheses"] if is_paper else own_hypotheses(cells)
    verdicts = judge(cells, hypotheses, min_effect=recipe.min_effect)
    views = judge_views(cells, hypotheses, judged=verdicts, min_effect=recipe.min_effect)
    views = views if is_paper else []
    controls = judge_controls(cells, min_effect=recipe.min_effect) if is_paper else []
    verdicts = with_controls(verdicts, controls)
    claims = recompute(cells) if is_paper else []
    read = ledger(recipe, inputs)
    write_json(out / "cells.json", _cells_json(cells, stated=recipe.seed_spreads))
    write_json(
        out / "tables.json",
        {
            "format": 2,
            "is_paper_study": is_paper,
            "averaging_rules": AVERAGING_RULES,
            "ledger": [asdict(entry) for entry in read],
            "tables": [asdict(table) for table in tables],
            "figure2": figure2(cells),
            "gap_by_stage": stage_gaps(cells),
            **({} if proxies is None else {"proxies": proxies.to_json()}),
        },
    )
    verdicts_form = verdicts_json(verdicts, claims, min_effect=recipe.min_effect)
    verdicts_form["views"] = [asdict(view) for view in views]
    verdicts_form["controls"] = [control.to_json() for control in controls]
    write_json(out / "verdicts.json", verdicts_form)
    with replacing(out / "tables.md", "w") as stream:
        stream.write(
            tables_markdown(
                TextTables(
                    tables=tables,
                    verdicts=verdicts,
                    views=views,
                    controls=controls,
                    ledger=read,
                    rule=verdicts_form["rule"],
                    draws_data_per_seed=recipe.draws_data_per_seed,
                    with_paper=is_paper,
                )
            )
        )


def read_cells(recipe: Tabulate, inputs: Inputs) -> dict[str, list[ResultFile]]:
    """The per-item results of each cell, in seed order."""
    return _read_all(recipe.cells, inputs)


def _read_set_losses(recipe: Tabulate, inputs: Inputs) -> dict[str, dict[str, list[SetLoss]]]:
    return {
        cell: {
            name: [read_set_loss(inputs[role]) for role in roles]
            for name, roles in recipe.set_losses[cell].items()
        }
        for cell in sorted(recipe.set_losses, key=cell_order)
    }


def _read_all(cells: Mapping[str, Sequence[str]], inputs: Inputs) -> dict[str, list[ResultFile]]:
    return {
        cell: [_read(inputs, role, cell) for role in cells[cell]]
        for cell in sorted(cells, key=cell_order)
    }


def _read(inputs: Inputs, role: str, cell: str) -> ResultFile:
    if role not in inputs:
        raise RecipeError(
            f"tabulate.cells[{cell!r}]",
            found=f"the role {role!r}, which no input has",
            rule=f"roles are {', '.join(sorted(inputs)) or 'none'}",
            do="name an evaluation of this study",
        )
    file = read_results(item_results_file(inputs[role]))
    stored = scores_file(inputs[role])
    if read_json(stored) != score(file).to_json():
        raise ArtifactError(
            f"reading {stored}",
            found="scores that do not follow from the items beside them",
            rule="scores.json is computed from items.jsonl and never edited",
            do="delete the evaluation's folder and run the stage again",
        )
    return file


def _cells_json(cells: Cells, *, stated: Mapping[str, float]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for cell in cells.files:
        found[cell] = {}
        for metric, draws in cells.metrics(cell).items():
            estimate = draws.estimate()
            found[cell][metric] = {
                "value": estimate.value,
                "se": estimate.se,
                "se_seeds": estimate.se_seeds,
                "se_items": estimate.se_items,
                "seeds": list(estimate.seeds),
                "seed_numbers": list(draws.seeds),
                "num_items": draws.num_items,
            }
    return {
        "format": 2,
        "unit": "percent; heldout.loss in nats a token",
        "floors": cells.floors(),
        "seed_spreads": seed_spreads(cells),
        "stated_spreads": dict(stated),
        "cells": found,
    }
