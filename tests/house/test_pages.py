"""The log's entries, and the numbers of README and RESULTS.md: each follows from a file."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from frontload.eval.tables.claims import judge, verdicts_json
from frontload.eval.tables.paper import paper_claims
from frontload.recipes.errors import ArtifactError, RecipeError
from tests.pages import __main__ as command
from tests.pages import render
from tests.pages.entries import (
    BENCHES,
    HEADINGS,
    NO_EXPECTATION,
    ROOT,
    STUDIES,
    VERDICTS,
    Entry,
    entries_of,
)
from tests.pages.published import (
    ARTIFACT,
    KEPT,
    TRANSCRIBED,
    About,
    Published,
    of_artifact,
    publish,
    read_published,
    write_published,
)
from tests.simulated_study import WORLDS, simulated_cells, with_effect

ENTRIES = [*entries_of(STUDIES), *entries_of(BENCHES)]
PUBLISHED = render.all_published()
KNOWN_LINES = 60
ABOUT = About(regime="fourth", made="a machine", date="2026-12-02")


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.path.stem)
def test_an_entry_has_the_five_headings_and_a_whole_head(entry: Entry) -> None:
    found = ["Expectation" if one == NO_EXPECTATION else one for one in entry.headings]
    assert found == list(HEADINGS)
    assert entry.path.name.startswith(f"{entry.date}-")
    assert entry.verdict in VERDICTS
    assert entry.question.endswith("?")
    assert re.fullmatch(r"[0-9a-f]{7}", entry.commit)
    text = entry.path.read_text()
    for part, following in zip(HEADINGS, [*HEADINGS[1:], None], strict=True):
        body = text.partition(f"\n## {part}")[2]
        body = body.partition(f"\n## {following}")[0] if following else body
        said = body.partition("\n")[2].strip()
        assert said or body.startswith(": none was written"), part


def test_no_page_of_the_log_lies_elsewhere() -> None:
    pages = {entry.path for entry in ENTRIES}
    assert pages == {*STUDIES.glob("*.md"), *BENCHES.rglob("*.md")}
    kept = {path.name for path in render.DATA.iterdir() if path.is_dir()}
    assert kept == {Path(one.key).name for one in PUBLISHED if one.source["kind"] == ARTIFACT}


@pytest.mark.parametrize("page", render.PAGES, ids=lambda page: page.name)
def test_a_page_is_what_the_command_writes(page: Path) -> None:
    assert render.rewritten(page.read_text()) == page.read_text(), "run `make pages`"


def test_every_part_stands_on_a_page() -> None:
    parts = [name for page in render.PAGES for name in render.parts_of(page.read_text())]
    assert sorted(parts) == sorted(render.PARTS)


def test_the_index_names_every_entry_once_and_no_other() -> None:
    lists = (ROOT / "RESULTS.md").read_text().partition("## Index")[2]
    index = re.findall(r"^\| 20.*\]\((\S+\.md)\) \|$", lists, re.MULTILINE)
    assert sorted(index) == sorted(entry.path.relative_to(ROOT).as_posix() for entry in ENTRIES)


def test_every_published_file_has_a_column() -> None:
    files = [path.stem for path in render.DATA.glob("*.json")]
    assert sorted(render.headline_form()["runs"]) == sorted(files)


def test_what_is_known_fits_a_page() -> None:
    known = (ROOT / "RESULTS.md").read_text().partition("## Index")[0]
    assert len(known.splitlines()) <= KNOWN_LINES


@pytest.mark.parametrize("study", PUBLISHED, ids=lambda study: study.key)
def test_a_published_study_has_an_entry_and_the_papers_hypotheses(study: Published) -> None:
    claims = json.loads(render.CLAIMS.read_text())["hypotheses"]
    assert [one.id for one in study.hypotheses] == [row["id"][:3] for row in claims]
    assert [one.paper for one in study.hypotheses] == [row["paper_effect"] for row in claims]
    assert any(study.key in entry.key for entry in ENTRIES)


@pytest.mark.parametrize(
    "study", [one for one in PUBLISHED if one.source["kind"] == TRANSCRIBED], ids=lambda s: s.key
)
def test_transcribed_numbers_are_those_of_their_entry(study: Published) -> None:
    lines = (ROOT / study.source["from"]).read_text().splitlines()
    for one in study.hypotheses:
        row = next(line for line in lines if line.startswith(f"| {one.id} |"))
        if "H04's part" in row:  # stands in the rows that it names
            continue
        for part in one.parts:
            shown = (f"{part.value:+.1f} +- {part.se:.1f}", f"{part.value:+.2f} +-{part.se:.2f}")
            zero = f"{part.value:.1f} +- {part.se:.1f}"
            assert any(text in row for text in (*shown, zero)), (one.id, part)
        assert one.counted in row


@pytest.mark.parametrize(
    "study", [one for one in PUBLISHED if one.source["kind"] == ARTIFACT], ids=lambda s: s.key
)
def test_numbers_of_an_artifact_are_those_of_its_tables(study: Published) -> None:
    lines = (render.DATA / Path(study.key).name / "tables.md").read_text().splitlines()
    for one in study.hypotheses:
        rows = [line for line in lines if line.startswith((f"| {one.id} ", f"| {one.id}:"))]
        assert str(one.verdict) in rows[0]
        for part in one.parts:
            shown = f"{part.value:+.2f} +-{part.se:.2f}"
            assert any(shown in row and part.label in row for row in rows) or len(one.parts) == 1
            assert any(shown in row for row in rows)


def test_times_are_those_of_their_entries() -> None:
    for run in json.loads((STUDIES / "study_time.json").read_text())["runs"]:
        minutes, seconds = divmod(run["seconds"], 60)
        text = (ROOT / run["entry"]).read_text()
        assert f"{minutes} min {seconds:02d} s" in " ".join(text.split())


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """A tabulate artifact of a simulated study, as the stage writes its verdicts."""
    world = with_effect(WORLDS["seeds as seen"], "pt:LDQ>sft:ALF", 1.5)
    cells = simulated_cells(world, np.random.default_rng(3), seeds=3, draws=200)
    form = verdicts_json(
        judge(cells, paper_claims()["hypotheses"], min_effect=1.0), [], min_effect=1.0
    )
    folder = tmp_path / "simulated-0123456789ab"
    folder.mkdir()
    (folder / "verdicts.json").write_text(json.dumps(form))
    (folder / "tables.md").write_text("# Tables and verdicts\n")
    (folder / "cells.json").write_text("{}\n")
    return folder


def test_an_artifact_is_published_with_its_numbers_and_digest(
    artifact: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    published = of_artifact(artifact, ABOUT)
    tmp_path = tmp_path_factory.mktemp("data")
    path = publish(artifact, ABOUT, folder=tmp_path)
    assert read_published(path) == published
    for name in KEPT:
        assert (tmp_path / artifact.name / name).read_bytes() == (artifact / name).read_bytes()
    rows = json.loads((artifact / "verdicts.json").read_text())["hypotheses"]
    for one, row in zip(published.hypotheses, rows, strict=True):
        assert one.verdict == row["verdict"]
        assert [part.value for part in one.parts] == [p["value"]["value"] for p in row["parts"]]
        for part, judged in zip(one.parts, row["parts"], strict=True):
            against = "critical" if judged["t"] >= 0 else "critical_of_opposite"
            assert part.needed == judged[against]
    assert published.key == "tabulate/simulated-0123456789ab"
    assert published.seeds == 3
    found = render.headline_row(
        published.hypothesis("H10"), {"part": 0, "question": "ALF over LDQ in SFT"}
    )
    part = rows[9]["parts"][0]
    assert found[2] == f"{part['value']['value']:+.1f} +- {part['value']['se']:.1f}"
    assert found[4] == rows[9]["verdict"] == "supported"


def test_an_edited_number_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    shutil.copy(ROOT / "README.md", page)
    value = re.findall(r"\| ([+-]\S+ \+- \S+) \|", page.read_text())[0]
    page.write_text(page.read_text().replace(value, f"{value}1"))
    assert render.write_pages([page]) == [page]
    assert page.read_text() == (ROOT / "README.md").read_text()


def test_a_folder_without_verdicts_and_a_file_of_another_name_are_refused(
    artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RecipeError, match=r"no verdicts\.json, no tables\.md"):
        of_artifact(tmp_path, ABOUT)
    words = [f"--{name}={value}" for name, value in vars(ABOUT).items()]
    assert command.main([f"--artifact={tmp_path}", *words]) == 2
    assert "name its folder" in capsys.readouterr().err
    path = write_published(of_artifact(artifact, ABOUT), tmp_path)
    with pytest.raises(ArtifactError, match="named by its key"):
        read_published(path.rename(tmp_path / "other.json"))
