"""The stage `tabulate` and the report on evaluations of models that answer from a book."""

import html
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from frontload.eval.report.page import caveats, own_headline, rl_lead
from frontload.eval.report.write import ReportRequest, write_report
from frontload.eval.stages import tabulate
from frontload.eval.tables.build import cell_order, label_of
from frontload.eval.tables.paper import paper_claims, paper_tables
from frontload.recipes.errors import ArtifactError, RecipeError
from tests.unit.eval.fake_study import workspace
from tests.unit.eval.fake_tables import evaluations, origins, read, tabulate_recipe


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    return evaluations(tmp_path_factory.mktemp("study"), seeds=2, per_family=3)


@pytest.fixture(scope="module")
def tabulated(found: dict[str, list[Path]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe, inputs = tabulate_recipe(found)
    work = workspace(tmp_path_factory.mktemp("tables"))
    tabulate(recipe, inputs, work)
    return work.path


def test_the_same_evaluations_give_the_same_bytes(
    found: dict[str, list[Path]], tabulated: Path, tmp_path: Path
) -> None:
    recipe, inputs = tabulate_recipe(found)
    work = workspace(tmp_path)
    tabulate(recipe, dict(reversed(inputs.items())), work)
    names = sorted(path.name for path in tabulated.iterdir())
    assert names == ["cells.json", "tables.json", "tables.md", "verdicts.json"]
    for name in names:
        assert (work.path / name).read_bytes() == (tabulated / name).read_bytes(), name


def test_every_paper_table_has_ours_beside_its_printed_numbers(tabulated: Path) -> None:
    tables = {table["id"]: table for table in read(tabulated / "tables.json")["tables"]}
    assert {"T1", "T2", "T3", "T4", "T5", "T6", "T7", "Ratio", "Grid", "Heldout"} <= set(tables)
    for name in ("T1", "T2", "T4", "T5", "T6", "T7", "Ratio"):
        for row in tables[name]["rows"]:
            assert all(row["ours"]), (name, row["label"])
            assert row["paper"][0] is not None
    assert not any(any(row["ours"]) for row in tables["T3"]["rows"])
    assert tables["T1"]["rows"][2]["paper"][:2] == [64.09, 75.56]
    assert tables["T5"]["rows"][0]["paper"][0] == 29.92


def test_m_res_is_the_mean_of_its_members_and_average_of_the_categories(tabulated: Path) -> None:
    tables = {table["id"]: table for table in read(tabulated / "tables.json")["tables"]}
    *_, res = rows = tables["T1"]["rows"]
    for column in range(5):
        members = [row["ours"][column]["value"] for row in rows[1:4]]
        assert res["ours"][column]["value"] == pytest.approx(sum(members) / 3)
    for row in rows:
        categories = [number["value"] for number in row["ours"][1:5]]
        assert row["ours"][0]["value"] == pytest.approx(sum(categories) / 4)


def test_the_text_tables_say_what_the_study_lacks(tabulated: Path) -> None:
    text = (tabulated / "tables.md").read_text()
    after_rl = "M_base + SFT[SHQ] + RL[CrossThink], M_LMQ + SFT[SHQ] + RL[CrossThink]"
    assert f"no cell of it in this study: {after_rl}." in text
    assert text.isascii()
    for line in text.splitlines():
        if line.startswith("|"):
            assert line.endswith("|")
    assert "(64.09)" in text


def test_scores_that_do_not_follow_from_their_items_are_refused(
    found: dict[str, list[Path]], tmp_path: Path
) -> None:
    folder = tmp_path / "scores"
    folder.mkdir()
    for name in ("items.jsonl", "scores.json"):
        text = (found["pt:base"][0] / name).read_text()
        (folder / name).write_text(text)
    (folder / "scores.json").write_text(text.replace('"value": 0.', '"value": 0.9', 1))
    recipe, inputs = tabulate_recipe({"pt:base": [folder]})
    with pytest.raises(ArtifactError, match="do not follow from the items beside them"):
        tabulate(recipe, inputs, workspace(tmp_path / "work"))
    with pytest.raises(RecipeError, match="the role 'pt:base#0', which no input has"):
        tabulate(recipe, {}, workspace(tmp_path / "other"))


def test_labels_and_order_are_the_papers() -> None:
    assert label_of("pt:LDQ>sft:LDQ*2") == "M_LDQ + SFT[2 x LDQ]"
    assert label_of("pt:LMQ@60-40") == "M_LMQ@60-40"
    cells = ["pt:own", "pt:LMQ>sft:SHQ", "pt:LMQ", "pt:base", "pt:SHQ", "pt:base>sft:SHQ"]
    expected = ["pt:base", "pt:SHQ", "pt:LMQ", "pt:own", "pt:base>sft:SHQ", "pt:LMQ>sft:SHQ"]
    assert sorted(cells, key=cell_order) == expected


def request(found: dict[str, list[Path]], tabulated: Path, out: Path) -> ReportRequest:
    log = out.parent / "trunk"
    log.mkdir(exist_ok=True, parents=True)
    rows = [{"step": n, "data/samples": 4 * n, "train/loss": 5 / n} for n in range(1, 60)]
    (log / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ReportRequest(
        study_name="fake <study>",
        out_dir=out,
        tabulate_folder=tabulated,
        origins=origins(found),
        checkpoints={
            label: log
            for label in ("trunk-seed1", "ldq-seed1", "base+shq-x1-seed1", "ldq+shq-x1-seed1")
        },
        blends={},
        packs={},
        recipe_text="a: <b> & c",
        keys={"pretrain/trunk-seed1": "0123456789ab"},
        utilisation=None,
    )


@pytest.fixture(scope="module")
def page(
    found: dict[str, list[Path]], tabulated: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return write_report(request(found, tabulated, tmp_path_factory.mktemp("report") / "a" / "out"))


def test_the_report_is_one_folder_that_needs_no_network(page: Path, tabulated: Path) -> None:
    text = page.read_text()
    for one in (page, page.parent / "items" / "index.html"):
        assert not re.search(r"<(link|img|iframe)\b|@import|url\((?!#)", one.read_text())
        for name in re.findall(r'(?:href|src)="([^"#]+)[^"]*"', one.read_text()):
            assert (one.parent / name).is_file(), name
    assert "fake &lt;study&gt;" in text
    assert "a: &lt;b&gt; &amp; c" in text
    assert "0123456789ab" in text
    assert "None" not in re.sub(r"<pre>.*?</pre>", "", text, flags=re.S)
    for name in ("figure2", "gap_by_stage", "heldout_loss", "loss_pretraining"):
        for ending in ("svg", "png"):
            assert (page.parent / "figures" / f"{name}.{ending}").stat().st_size > 1000
    for name in ("tables.json", "tables.md", "verdicts.json"):
        assert (page.parent / name).read_bytes() == (tabulated / name).read_bytes()


def test_a_reader_is_told_the_number_of_each_verdict(page: Path, tabulated: Path) -> None:
    tables = page.with_name("tables.md").read_text()
    (head,) = re.findall(r"^\|.*\| effect, points \|.*$", tables, re.M)
    names = [word.strip() for word in head.split("|")[1:-1]]
    rows = [
        dict(zip(names, [word.strip() for word in line.split("|")[1:-1]], strict=True))
        for line in tables.partition(head)[2].partition("## ")[0].splitlines()
        if line.startswith("| H")
    ]
    written = {one["id"][:3]: one for one in read(tabulated / "verdicts.json")["hypotheses"]}
    assert {row[""][:3] for row in rows} == set(written)
    for row in rows:
        one = written[row[""][:3]]
        if row["effect, points"] not in ("", "-"):
            assert row["in"], "no number without its measure"
        if row["verdict"] and row["effect, points"] not in ("", "-"):
            assert one["judges_effect"] or "/" in row[""]
            judged = one["parts"][int(row[""][4]) - 1] if "/" in row[""] else one
            shown = judged["effect"] if "effect" in judged else judged["value"]
            assert row["effect, points"] == f"{shown['value']:+.2f} +-{shown['se']:.2f}"
            assert row["verdict"] == judged["verdict"], "no verdict beside another's number"
    needed = [row for row in rows if row["t"]]
    assert needed
    for row in needed:
        part = written[row[""][:3]]["parts"][int(row[""][4]) - 1 if "/" in row[""] else 0]
        side = "critical" if part["t"] >= 0 else "critical_of_opposite"
        assert row["needed"] == f"{part[side]:.2f}", "that of the side on which it stands"
        assert f"{part[side]:.2f} needed</span>" in page.read_text()
    assert page.read_text().count(" needed</span>") == len(needed)


def test_no_caption_of_ours_is_the_papers_and_the_papers_stands_apart(
    page: Path, tabulated: Path
) -> None:
    ours = {table["id"]: table for table in read(tabulated / "tables.json")["tables"]}
    text = page.read_text()
    for name in ("T1", "T4", "T6"):
        theirs = paper_tables()["tables"][name]["caption"]
        assert ours[name]["in_paper"] == theirs
        assert ours[name]["caption"] != theirs
        place = text.index(html.escape(theirs, quote=False).replace("'", "&#39;"))
        assert text[:place].endswith("<em>In the paper:</em> ")
    tables = page.with_name("tables.md").read_text()
    assert tables.count("In the paper: ") == len([t for t in ours.values() if t["in_paper"]])
    heading = [row for row in paper_claims()["hypotheses"] if row["caveat"]]
    column = text.split('class="left">in the paper</th>')[1]
    for row in heading:
        caveat = html.escape(row["caveat"]).replace("&#x27;", "&#39;")
        assert f"there; {caveat}</small>" in column


def test_what_guessing_gets_stands_beside_the_lowest_and_highest_cell(tabulated: Path) -> None:
    tables = {table["id"]: table for table in read(tabulated / "tables.json")["tables"]}
    rows = {row["label"]: row["ours"] for row in tables["Guessing"]["rows"]}
    cells = read(tabulated / "cells.json")
    assert {"copying (base suite)", "chain (sft suite)", "hard-chain (sft suite)"} <= set(rows)
    guess, low, high = rows["chain (sft suite)"]
    tuned = [m["bench.chain"]["value"] for m in cells["cells"].values() if "sft.avg" in m]
    assert guess == {
        "value": cells["floors"]["sft"]["bench.chain"],
        "se": None,
        "num_seeds": 0,
        "num_items": 3,
    }
    assert (low["value"], high["value"]) == (min(tuned), max(tuned))
    assert cells["cells"]["pt:base"]["pt.avg"]["seed_numbers"] == [0, 1]
    assert cells["seed_spreads"]["sft/sft.avg"]["degrees"] == 15


def test_a_cell_is_at_the_floor_when_it_is_not_above_guessing_beyond_its_error() -> None:
    levels = {"pt:base>sft:SHQ": 21.0, "pt:LDQ>sft:SHQ": 26.0, "pt:LMQ>sft:SHQ": 25.5}
    cells = {cell: {"sft.avg": {"value": v, "se": 3.0}} for cell, v in levels.items()}
    guessing = {"floors": {"sft": {"sft.avg": 20.0}}}
    said = caveats(3, cells, tabulated=guessing, is_paper=True)[-1]
    assert said == (
        "At the floor (Average within two errors of the 20.0% that guessing gets): "
        "M_base + SFT[SHQ], M_LDQ + SFT[SHQ], M_LMQ + SFT[SHQ]."
    )
    above = {cell: {"sft.avg": {"value": 26.1, "se": 3.0}} for cell in cells}
    assert "floor" not in caveats(3, above, tabulated=guessing, is_paper=True)[-1]


def test_the_point_after_rl_stands_beside_the_number_that_is_judged() -> None:
    effect = {"value": 28.5, "se": 1.65}
    rows = [{"id": "H13_rl_gap", "effect": effect}]
    assert "judged on flat 8" in rl_lead(rows)
    assert "leads by +28.50 +- 1.65" in rl_lead(rows)
    assert rl_lead([{"id": "H13_rl_gap", "effect": None}]) == ""


def test_the_report_of_the_same_study_has_the_same_bytes(
    found: dict[str, list[Path]], tabulated: Path, page: Path, tmp_path: Path
) -> None:
    again = write_report(request(found, tabulated, tmp_path / "b" / "out"))
    assert again.read_bytes() == page.read_bytes()
    for figure in sorted((page.parent / "figures").iterdir()):
        assert figure.read_bytes() == (again.parent / "figures" / figure.name).read_bytes()


def test_on_a_narrow_page_a_figure_scrolls_and_its_letters_stay_readable(page: Path) -> None:
    """A point of a figure's text is never less than a pixel."""
    text = page.read_text()
    drawn = re.search(r"figure svg {[^}]*min-width: (\d+)px", text)
    assert drawn
    assert re.search(r"figure {[^}]*overflow-x: auto", text)
    widths = re.findall(r'<svg[^>]* width="([\d.]+)pt"', text)
    assert len(widths) >= 4
    assert int(drawn[1]) >= max(map(float, widths))


def test_printed_nothing_lies_behind_a_scroll_bar(page: Path) -> None:
    printed = page.read_text().partition("@media print {")[2].partition("</style>")[0]
    assert re.search(r"\.scroll, figure, pre {[^}]*overflow: visible", printed)
    assert re.search(r"figure svg {[^}]*min-width: 0", printed)


def test_words_over_a_figure_do_not_begin_with_a_blank_that_a_page_drops(page: Path) -> None:
    words = re.findall(r"<text[^>]*>([^<]*)</text>", page.read_text())
    assert "reasoning data starts" in words
    assert all(word == word.lstrip() for word in words)


def test_only_a_study_of_several_seeds_speaks_of_other_seeds(page: Path, tmp_path: Path) -> None:
    assert "Faint lines: other seeds." in page.read_text()
    found = evaluations(tmp_path / "study", seeds=1, per_family=2)
    recipe, inputs = tabulate_recipe(found)
    work = workspace(tmp_path / "tables")
    tabulate(recipe, inputs, work)
    text = write_report(request(found, work.path, tmp_path / "out" / "out")).read_text()
    assert "Pretraining loss on all tokens" in text
    assert "SFT loss on answer tokens" in text
    assert "other seeds" not in text
    assert "one standard error over questions only;" in text
    assert "(one seed: questions only)" in text
    assert text.count("one seed only") > 10
    assert not re.search(r">(supported|undecided|contradicted)<", text)
    tables = (work.path / "tables.md").read_text()
    assert "with one training seed the error holds questions only" in tables


def test_one_seed_tells_what_another_would_move() -> None:
    cells = {"pt:base>sft:SHQ": {"sft.avg": {"value": 30.0, "se": 1.0, "seeds": [30.0]}}}
    stated = {"floors": {}, "stated_spreads": {"sft/sft.avg": 3.84}}
    assert (
        "moves a tuned cell's Average by 3.8 points"
        in caveats(1, cells, tabulated=stated, is_paper=True)[0]
    )
    unknown = {"floors": {}, "stated_spreads": {}}
    assert caveats(1, cells, tabulated=unknown, is_paper=True)[0].endswith(
        "and no verdict is given."
    )
    assert caveats(3, cells, tabulated=unknown, is_paper=True)[0].startswith("3 training seeds")


OWN_CELLS = {
    "pt:base": 0.3,
    "pt:OWN": 0.5,
    "pt:base>sft:OWN": 0.4,
    "pt:OWN>sft:OWN": 0.6,
    "pt:base>sft:OWN*2": 0.5,
}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, list[Path]], Path]:
    """A study of other data at two seeds, tabulated."""
    folder = tmp_path_factory.mktemp("own")
    found = evaluations(folder / "study", seeds=2, per_family=2, cells=OWN_CELLS)
    recipe, inputs = tabulate_recipe(found)
    work = workspace(folder / "tables")
    tabulate(recipe, inputs, work)
    return found, work.path


def test_a_study_of_own_data_asks_its_own_questions(
    own: tuple[dict[str, list[Path]], Path],
) -> None:
    verdicts = read(own[1] / "verdicts.json")
    asked = {row["id"]: row["statement"] for row in verdicts["hypotheses"]}
    tuned, base, twice = "M_OWN + SFT[OWN]", "M_base + SFT[OWN]", "M_base + SFT[2 x OWN]"
    lower, more = "has a lower loss on held-out worked answers than", "answers more questions than"
    assert asked == {
        "Q1": f"{tuned} {lower} {base}",
        "Q2": f"{tuned} {lower} {twice}",
        "Q3": f"M_OWN {lower} M_base",
        "Q4": f"{tuned} {more} {base}",
        "Q5": f"{tuned} {more} {twice}",
    }
    assert verdicts["claims"] == []
    cells = read(own[1] / "cells.json")["cells"]
    losses = {cell: cells[cell]["heldout.loss"]["value"] for cell in OWN_CELLS}
    (first, second, third, fourth, _) = verdicts["hypotheses"]
    for row, (worse, better) in (
        (first, ("pt:base>sft:OWN", "pt:OWN>sft:OWN")),
        (second, ("pt:base>sft:OWN*2", "pt:OWN>sft:OWN")),
        (third, ("pt:base", "pt:OWN")),
    ):
        assert row["effect"]["value"] == pytest.approx(losses[worse] - losses[better])
        assert row["parts"][0]["threshold"] == 0.0
        assert row["measure"] == "held-out loss, nats per token"
    gain = [cells[f"pt:{name}>sft:OWN"]["sft.avg"]["value"] for name in ("OWN", "base")]
    assert fourth["effect"]["value"] == pytest.approx(gain[0] - gain[1])
    assert fourth["parts"][0]["threshold"] == 0.5, "min_effect of the recipe"


def test_nothing_of_the_paper_stands_beside_own_data(
    own: tuple[dict[str, list[Path]], Path], tmp_path: Path
) -> None:
    found, tabulated = own
    tables = read(tabulated / "tables.json")
    assert [table["id"] for table in tables["tables"]] == ["Cells", "Heldout", "Guessing"]
    assert not any(
        number for table in tables["tables"] for row in table["rows"] for number in row["paper"]
    )
    asked = replace(request(found, tabulated, tmp_path / "out" / "out"), checkpoints={})
    page = write_report(asked).read_text()
    text = (tabulated / "tables.md").read_text()
    seen = re.sub(r"<style>.*?</style>|<script>.*?</script>|<[^>]*>", " ", page, flags=re.DOTALL)
    for shown in (seen, text):
        for word in ("paper", "SHQ", "LDQ", "Front-Loading", "not testable"):
            assert word not in shown, shown[shown.index(word) - 200 :][:400]
    assert "M_OWN + SFT[OWN] has a lower loss on held-out worked answers than" in page
    assert re.search(r"by \d\.\d{3} &plusmn; \d\.\d{3} nats per token \(that it has a lower", page)
    assert "M_OWN + SFT[OWN] loss against M_base + SFT[OWN]" in text


def test_rl_cells_fill_table_3_the_change_and_their_hypotheses(tmp_path: Path) -> None:
    base = {"pt:base": 0.3, "pt:LMQ": 0.4}
    start = {f"{cell}>sft:SHQ": level for cell, level in base.items()}
    after = {f"{cell}>rl:CrossThink": level + 0.3 for cell, level in start.items()}
    found = evaluations(tmp_path / "study", seeds=3, per_family=4, cells=base | start | after)
    recipe, inputs = tabulate_recipe(found)
    work = workspace(tmp_path / "tables")
    tabulate(recipe, inputs, work)
    tables = {table["id"]: table for table in read(work.path / "tables.json")["tables"]}
    third = tables["T3"]["rows"]
    average = tables["T3"]["columns"].index("Avg.")
    before, trained, change = tables["RL"]["rows"][:3]
    names = tables["RL"]["columns"]
    assert [row["cell"] for row in (before, trained)] == [
        "pt:base>sft:SHQ",
        "pt:base>sft:SHQ>rl:CrossThink",
    ]
    assert third[0]["ours"][average] == trained["ours"][names.index("Avg.")]
    for place in range(len(names)):
        values = [row["ours"][place]["value"] for row in (trained, before)]
        assert change["ours"][place]["value"] == pytest.approx(values[0] - values[1])
    passed, average_of_samples = (
        sum(trained["ours"][names.index(name)]["value"] for name in group)
        for group in (("pass@k",), ("Avg.",))
    )
    assert passed >= average_of_samples
    verdicts = {one["id"][:3]: one for one in read(work.path / "verdicts.json")["hypotheses"]}
    for name in ("H13", "H14"):
        assert verdicts[name]["verdict"] in ("supported", "undecided", "contradicted")
        assert verdicts[name]["num_seeds"] == 3
    gaps = read(work.path / "tables.json")["gap_by_stage"]
    assert {gap["stage"] for gap in gaps if gap["mix"] == "LMQ"} >= {1, 2}


def test_the_headline_turns_a_statement_whose_number_has_the_other_sign() -> None:
    row = {"statement": "M_A has a lower loss on held-out worked answers than M_base"}
    row |= {"measure": "held-out loss, nats per token", "verdict": "contradicted"}
    (worse,) = [own_headline([row | {"effect": {"value": -0.2394, "se": 0.015}}])]
    assert worse == (
        "M_A has a higher loss on held-out worked answers than M_base, by 0.239 +- 0.015 nats per "
        "token (that it has a lower loss is contradicted)."
    )
    row |= {"statement": "M_A answers more questions than M_base", "measure": "Average, SFT suite"}
    assert own_headline([row | {"effect": {"value": 2.5, "se": 1.0}}]) == (
        "M_A answers more questions than M_base, by 2.50 +- 1.00 points, Average, SFT suite "
        "(that it answers more is contradicted)."
    )
    assert "open here" in own_headline([])
