"""The command `compare`: what it prints and writes of two studies, and what it refuses."""

import json
import math
import re
import shutil
from pathlib import Path

import pytest

from frontload.eval.report.compare import Side, compare_studies
from frontload.eval.report.write import write_report
from frontload.eval.stages import tabulate
from frontload.launch import cli
from frontload.launch.store import Store, Ticket
from frontload.recipes.errors import RecipeError
from frontload.recipes.study.expand import Study, load_study
from tests.unit.eval.fake_study import workspace
from tests.unit.eval.fake_tables import evaluations, tabulate_recipe
from tests.unit.eval.test_report_folder import Page
from tests.unit.eval.test_tables import request

OTHER = "smoke sft.learning_rate=2.0e-3"
CELLS = {"pt:base": 0.3, "pt:LMQ": 0.5, "pt:base>sft:SHQ": 0.4, "pt:LMQ>sft:SHQ": 0.6}
SHQ = "pt:SHQ>sft:SHQ"


def publish(store: Store, study: Study, tables: Path) -> None:
    """Puts tables into a store as those of a study."""
    ticket = Ticket.of(study.tabulate)
    shutil.copytree(tables, store.workspace(ticket) / "path")
    store.publish(ticket)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the tables of two studies, and the report folder of each."""
    root = tmp_path_factory.mktemp("compare")
    store = Store(root / "store")
    for name, cells, seeds in (
        ("smoke", CELLS, 1),
        (OTHER, {cell: level + 0.1 for cell, level in CELLS.items()} | {SHQ: 0.5}, 2),
    ):
        study = load_study("smoke", overrides=name.split()[1:])
        found = evaluations(root / f"made {name}", seeds=seeds, per_family=2, cells=cells)
        recipe, inputs = tabulate_recipe(found)
        work = workspace(root / f"tables {name}")
        tabulate(recipe, inputs, work)
        publish(store, study, work.path)
        named = root / f"smoke-{seeds:012d}"
        shutil.copytree(work.path, named)
        write_report(request(found, named, root / f"{seeds} seeds" / "out"))
    return root


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main(["compare", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def tables_of(folder: Path, name: str) -> dict:
    return json.loads((folder / f"tables {name}" / "out" / "cells.json").read_text())["cells"]


def test_two_studies_stand_beside_each_other_with_the_error_of_their_difference(
    folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    store = ["--store", str(folder / "store")]
    code, out, err = call(capsys, "smoke", OTHER, *store, "--out", str(tmp_path))
    assert (code, err) == (0, "")
    ours, theirs = tables_of(folder, "smoke"), tables_of(folder, OTHER)
    one, two = (cells["pt:LMQ>sft:SHQ"]["sft.avg"] for cells in (ours, theirs))
    gap, error = two["value"] - one["value"], math.hypot(one["se"], two["se"])
    (line,) = [x for x in out.splitlines() if x.startswith("| M_LMQ + SFT[SHQ]")][:1]
    assert [word.strip() for word in line.split("|")[2:7]] == [
        f"{one['value']:.1f} +-{one['se']:.1f}",
        f"{two['value']:.1f} +-{two['se']:.1f}",
        f"{gap:+.1f} +-{error:.1f}",
        "1, 2",
        str(one["num_items"]),
    ]
    told = out.replace("\n", " ")
    assert "as for independent studies" in told
    assert "One training seed: the errors of smoke hold questions only" in told
    assert f"Only in {OTHER}: M_SHQ + SFT[SHQ]." in out
    judged = [
        json.loads((folder / f"tables {name}" / "out" / "verdicts.json").read_text())["hypotheses"]
        for name in ("smoke", OTHER)
    ]
    assert len(judged[0]) == 18
    for mine, other in zip(*judged, strict=True):
        name, verdicts = mine["id"].partition("_")[0], (mine["verdict"], other["verdict"])
        row = rf"\| {name} +\|.*\| +{verdicts[0]} \| +{verdicts[1]} \|"
        assert re.search(row, out), row
    assert f"comparison: {tmp_path / 'compare.html'}" in out
    whole = json.loads((tmp_path / "compare.json").read_text())
    for row in whole["differences"]:
        one, two = (cells[row["cell"]][row["metric"]] for cells in (ours, theirs))
        assert row["value"] == pytest.approx(two["value"] - one["value"])
        assert row["se"] == pytest.approx(math.hypot(one["se"], two["se"]))
        unit = "nats a token" if row["metric"].startswith("heldout.loss") else "points"
        assert row["unit"] == unit
    assert {row["cell"] for row in whole["differences"]} == set(CELLS)


def test_the_fields_that_differ_are_listed_and_no_others(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ["--store", str(folder / "store")]
    code, out, _ = call(capsys, "smoke", f"{OTHER}", *store, "--json")
    assert code == 0
    rate = load_study("smoke").recipe.sft.learning_rate
    wanted = {"field": "sft.learning_rate", "first": str(rate), "second": "0.002"}
    assert json.loads(out)["fields"] == [wanted]


def test_cells_of_the_same_evaluations_are_the_same_and_not_a_difference_of_zero(
    folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The rate of SFT moves no key before SFT; tables of one seed are then of one evaluation."""
    store = Store(tmp_path / "store")
    tables = folder / "tables smoke" / "out"
    for overrides in ([], OTHER.split()[1:]):
        publish(store, load_study("smoke", overrides=overrides), tables)
    names = ["smoke", OTHER, "--store", str(store.root), "--out", str(tmp_path / "out")]
    code, out, _ = call(capsys, *names)
    assert code == 0
    averages = out.partition("| Held-out")[0]
    assert re.search(r"\| M_LMQ +\|.*\| +same \|", averages)
    assert not re.search(r"\| M_LMQ \+ SFT\[SHQ\] +\|.*\| +same \|", averages)
    assert "same evaluations" in (tmp_path / "out" / "compare.html").read_text()


def test_result_folders_and_keys_are_compared_as_names_are(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ["--store", str(folder / "store"), "--json"]
    key = load_study("smoke", overrides=OTHER.split()[1:]).tabulate.key
    _, by_name, _ = call(capsys, "smoke", OTHER, *store)
    code, by_key, err = call(capsys, str(folder / "1 seeds" / "out"), key, *store)
    assert (code, err) == (0, "")
    rows = [json.loads(out)["differences"] for out in (by_name, by_key)]
    plain = [[{**row, "shared": None} for row in side] for side in rows]
    assert plain[0] == plain[1]
    told = json.loads(by_key)
    assert told["keys"] == [f"{1:012d}", key]
    assert told["fields"] is None, "no study that ships makes tables of this key"
    assert told["without_recipe"] == [key]


def test_the_page_of_a_comparison_names_its_tables_and_shows_names_as_text(
    folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    hostile, other, out = tmp_path / "<b>a", tmp_path / "other", tmp_path / "out"
    for copy, seeds in ((hostile, 1), (other, 2)):
        shutil.copytree(folder / f"{seeds} seeds" / "out", copy)
        recipe = f"seeds: {seeds}\nplacement: {{workers: {seeds}}}\n"
        (copy / "recipe.yaml").write_text(recipe)
    code, _, err = call(capsys, str(hostile), str(other), "--out", str(out))
    assert (code, err) == (0, "")
    fields = json.loads((out / "compare.json").read_text())["fields"]
    assert fields == [{"field": "seeds", "first": "1", "second": "2"}], "a placement is no number"
    page = Page(out / "compare.html")
    assert not [a for a in page.of("b") if "a" in a]
    assert str(hostile) not in (out / "compare.html").read_text()
    assert len(page.captions) == len(list(page.of("table"))) == len(set(page.captions))
    assert all(a.get("scope") for a in page.of("th"))
    linked = [str(a["href"]) for a in page.of("a")]
    assert all(name.startswith("#") or (out / name).is_file() for name in linked)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["smoke", "smok"], "no study, no result folder, and no tables of this key"),
        (["smoke", "smok"], "write one of smoke, tabulate/smoke-"),
        (["smoke", "laptop"], "run `frontload run laptop --store"),
        (["smoke", "laptop seeds=[1,2,3]"], "run `frontload run laptop 'seeds=[1,2,3]' --store"),
        (["smoke", "smoke"], "both are tabulate"),
        (["smoke", "laptop 'seeds"], "close the quotes"),
        (["smoke", "store"], "a folder without cells.json"),
        (["smoke", "torn"], "not the fields of a number"),
        (["smoke", "other"], "no cell in common: M_base, M_LMQ"),
        (["smoke", "bare"], "there is no such file"),
        (["smoke", "paper_8b"], "run `frontload run paper_8b --store"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_four_parts(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    names: list[str],
    said: str,
) -> None:
    for name, cells in (
        ("torn", {"pt:base": {"pt.avg": {"value": 1.0}}}),
        ("other", {"pt:XYZ": {}}),
        ("bare", {}),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cells.json").write_text(json.dumps({"cells": cells}))
        if name != "bare":
            verdicts = {"format": 2, "hypotheses": []}
            (tmp_path / name / "verdicts.json").write_text(json.dumps(verdicts))
    (tmp_path / "store").symlink_to(folder / "store")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    code, out, err = call(capsys, *names, "--store", str(folder / "store"))
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("; ") >= 2, "asked, found, rule, what to do"
    assert sorted(tmp_path.iterdir()) == before, "nothing is written"


def side(name: str, **changes: object) -> Side:
    metric = {"value": 40.0, "se": 3.0, "seeds": [39.0, 41.0], "num_items": 60}
    plain = {
        "name": name,
        "key": name,
        "cells": {"pt:base": {"pt.avg": metric}},
        "verdicts": [],
        "verdicts_format": 2,
        "evaluations": {},
        "recipe": {},
    }
    return Side(**(plain | changes))  # pyright: ignore[reportArgumentType]


def test_a_shared_seed_is_told_and_a_whole_cell_of_them_is_the_same() -> None:
    first = side("a", evaluations={"pt:base": {1: "k1", 2: "k2"}})
    (partly,) = compare_studies(
        first, side("b", evaluations={"pt:base": {1: "k1", 2: "other"}})
    ).differences
    assert (partly.shared, partly.is_same) == ((1,), False)
    assert partly.se == pytest.approx(math.hypot(3.0, 3.0))
    (whole,) = compare_studies(first, side("b", evaluations=first.evaluations)).differences
    assert whole.is_same
    (unknown,) = compare_studies(side("a"), side("b")).differences
    assert not unknown.is_same


def test_fields_are_compared_at_their_path() -> None:
    ours = {"a": {"b": 1, "c": [1, 2]}, "cells": [{"arm": "x"}, {"arm": "y"}], "gone": None}
    theirs = {"a": {"b": 1, "c": [1, 3]}, "cells": [{"arm": "x", "n": 2}], "new": True}
    told = compare_studies(side("a", recipe=ours), side("b", recipe=theirs)).fields
    assert told is not None
    assert [(one.field, one.first, one.second) for one in told] == [
        ("a.c", "[1, 2]", "[1, 3]"),
        ("cells[0].n", "absent", "2"),
        ("cells[1]", "{arm: y}", "absent"),
        ("gone", "null", "absent"),
        ("new", "absent", "true"),
    ]
    assert compare_studies(side("a"), side("b")).fields == ()
    assert compare_studies(side("a"), side("b", recipe=None)).fields is None


def test_verdicts_of_two_rules_are_not_compared_in_silence() -> None:
    row = {"id": "H02_x", "name": "pays", "verdict": "supported", "detail": "d"}
    found = compare_studies(side("a", verdicts=[row], verdicts_format=1), side("b", verdicts=[]))
    assert "different rules (forms 1 and 2" in found.rules
    assert [(one.first, one.second) for one in found.verdicts] == [("supported", None)]
    assert compare_studies(side("a"), side("b")).rules == ""


def test_studies_without_a_common_metric_are_refused() -> None:
    other = side("b", cells={"pt:base": {}})
    with pytest.raises(RecipeError, match="no cell in common"):
        compare_studies(side("a"), other)
