"""The report of a study: one folder of pages, figures and tables that needs no network."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frontload.data_tools.corpus.own_counts import COUNTS, own_counts_lines
from frontload.data_tools.disk.files import read_json, replacing
from frontload.eval.report import cell_figures, figures, rl_curves, training_logs
from frontload.eval.report import page as report_page
from frontload.eval.report.downloads import write_downloads
from frontload.eval.report.heat_map import heat_maps
from frontload.eval.report.item_pages import AskedQuestion, write_item_data
from frontload.eval.report.number_tips import NumberTips
from frontload.eval.report.origins import ReportOrigin, origins_json, slugs
from frontload.eval.report.seed_values import seed_values
from frontload.eval.report.templates import resource, template
from frontload.eval.tables.build import label_of
from frontload.eval.tables.text import CONTROLS_TEXT, LEDGER_HEAD, LEDGER_TEXT
from frontload.eval.tables.verdict_rows import TONES
from frontload.eval.tables.verdict_text import decimals_of
from frontload.eval.tables.views import VIEWS, VIEWS_TEXT

OWN_FILES = "own_files.txt"
"""In the report of a user's own data: what became of the rows of their files."""
WORDS = {
    "label_of": label_of,
    "decimals_of": decimals_of,
    "ledger_head": LEDGER_HEAD,
    "ledger_text": LEDGER_TEXT,
    "controls_text": CONTROLS_TEXT,
    "view_names": VIEWS,
    "views_text": VIEWS_TEXT,
    "tones": TONES,
}
"""What the page's template says the same of every study."""
TABULATED = ("cells.json", "tables.json", "tables.md", "verdicts.json")


@dataclass(frozen=True, kw_only=True)
class ReportRequest:
    """What a report is written from: finished artifacts by label, and how they were asked for."""

    study_name: str
    out_dir: Path
    tabulate_folder: Path
    origins: Mapping[str, Sequence[ReportOrigin]]  # cell -> its evaluations, by seed
    checkpoints: Mapping[str, Path]  # stage label -> folder, of every trained model
    blends: Mapping[str, Path]
    packs: Mapping[str, Path]
    recipe_text: str
    keys: Mapping[str, str]  # stage label -> key
    utilisation: str | None  # how busy the workers were, when this run measured it

    @property
    def evaluations(self) -> dict[str, list[Path]]:
        """Cell -> folders of its evaluations, by seed."""
        return {cell: [one.folder for one in asked] for cell, asked in self.origins.items()}


def write_report(request: ReportRequest) -> Path:
    """Writes the tabulated files, recipe, figures/, items/, tables/ and last report.html, the page.

    Returns the page.
    """
    out = request.out_dir
    (out / "figures").mkdir(parents=True, exist_ok=True)
    for name in TABULATED:
        shutil.copyfile(request.tabulate_folder / name, out / name)
    with replacing(out / "origins.json", "w") as stream:
        tabulate = f"tabulate/{request.tabulate_folder.name}"
        json.dump(origins_json(tabulate, request.origins), stream, indent=1)
    tables = read_json(out / "tables.json")
    verdicts = read_json(out / "verdicts.json")
    tabulated = read_json(out / "cells.json")
    cells = tabulated["cells"]
    with replacing(out / "recipe.yaml", "w") as stream:
        stream.write(request.recipe_text)
    drawn = draw_figures(request, tables=tables, cells=cells)
    page = report_page.build_page(
        tables=tables, verdicts=verdicts, tabulated=tabulated, evaluations=request.evaluations
    )
    own_files = own_files_lines(request)
    if own_files:
        with replacing(out / OWN_FILES, "w") as stream:
            stream.write("\n".join(own_files) + "\n")
    ledger = report_page.ledger_rows(request.blends)
    packs = report_page.pack_rows(request.packs)
    names = slugs(request.origins)
    questions = write_item_pages(request, names)
    tips = NumberTips.of(tables, cells, origins=request.origins, names=names)
    downloads = write_downloads(
        out / "tables",
        tables["tables"],
        tips=tips,
        origins=request.origins,
        study_name=request.study_name,
    )
    text = template("report.html.jinja").render(
        request=request,
        names=names,
        tips=tips,
        downloads=downloads,
        heat_maps=heat_maps(cells, questions, floors=tabulated["floors"]),
        seed_averages=_seed_averages(cells),
        **WORDS,
        page=page,
        own_files=own_files,
        figures=drawn,
        ledger=ledger,
        packs=packs,
        css=resource("report.css"),
        script=resource("report.js"),
    )
    with replacing(out / "report.html", "w") as stream:
        stream.write(text)
    return out / "report.html"


def own_files_lines(request: ReportRequest) -> list[str]:
    """What became of a user's own rows; nothing for a corpus that was made."""
    corpora = dict.fromkeys(one.items.parent for asked in request.origins.values() for one in asked)
    counts = [read_json(corpus / COUNTS) for corpus in corpora if (corpus / COUNTS).is_file()]
    own = [one for one in counts if "distinct_questions" in one]
    return own_counts_lines(own[0]) if own else []


def _seed_averages(cells: Mapping[str, Any]) -> dict[str, dict[int, float]]:
    """Cell -> its Average by seed."""
    metrics = {cell: m.get("sft.avg") or m.get("pt.avg") for cell, m in cells.items()}
    return {cell: seed_values(metric) for cell, metric in metrics.items()}


def write_item_pages(request: ReportRequest, names: Mapping[str, str]) -> list[AskedQuestion]:
    """Writes items/: a page of all questions, which are returned, and the data that it loads."""
    folder = request.out_dir / "items"
    questions = write_item_data(folder, request.origins, names=names)
    text = template("items.html.jinja").render(
        study_name=request.study_name,
        origins=request.origins,
        label_of=label_of,
        css=resource("report.css"),
        script=resource("items.js"),
    )
    with replacing(folder / "index.html", "w") as stream:
        stream.write(text)
    return questions


def draw_figures(
    request: ReportRequest, *, tables: Mapping[str, Any], cells: Mapping[str, Any]
) -> dict[str, str]:
    """Draws what there is data for; name -> SVG for the page."""
    made: dict[str, Any] = {}
    if any(any(bar["ours"]) for bar in tables["figure2"]["bars"]):
        made["figure2"] = cell_figures.bars_by_category(tables["figure2"], cells)
    if tables["gap_by_stage"]:
        made["gap_by_stage"] = cell_figures.gap_by_stage(tables["gap_by_stage"], cells)
    if any("pt.avg" in metrics or "sft.avg" in metrics for metrics in cells.values()):
        made["averages"] = cell_figures.averages(cells)
    if any("heldout.loss.inside" in metrics for metrics in cells.values()):
        by_family = tables["is_paper_study"]
        made["heldout_loss"] = cell_figures.heldout_losses(cells, by_family=by_family)
    runs = training_logs.read_runs(request.checkpoints)
    for name, panels in (
        ("loss_pretraining", training_logs.pretraining_panel(runs)),
        ("loss_sft", training_logs.sft_panels(runs)),
    ):
        if panels:
            made[name] = figures.loss_curves(panels)
    panels = rl_curves.rl_panels(request.checkpoints)
    if panels:
        made["rl"] = figures.rl_curves(panels)
    folder = request.out_dir / "figures"
    return {name: figures.save(figure, folder, name=name) for name, figure in made.items()}
