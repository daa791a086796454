"""What a command writes of README.md and RESULTS.md, between two comments that name the part."""

import ast
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from frontload.eval.tables.verdicts import CONTRADICTED, SUPPORTED, UNDECIDED
from tests.pages.entries import BENCHES, ROOT, STUDIES, VERDICTS, Entry, entries_of
from tests.pages.published import Comparison, Hypothesis, Published, read_published

DATA = STUDIES / "data"
SIGNS = {SUPPORTED: "+", UNDECIDED: "o", CONTRADICTED: "-"}
ROOMS = ("recipes", "data_tools", "megatron_ext", "eval", "rl", "launch")
UNKNOWN = "."
CLAIMS = ROOT / "recipes" / "paper" / "claims.json"
HEADLINE = STUDIES / "headline.json"


def all_published() -> list[Published]:
    """The studies that RESULTS.md has a column for, in its order."""
    return [read_published(DATA / f"{name}.json") for name in headline_form()["runs"]]


def headline_form() -> dict[str, Any]:
    """What the tables show: runs, the study of the headline and its questions."""
    return json.loads(HEADLINE.read_text())


def list_run(name: str) -> None:
    """Gives a study the last column of RESULTS.md, if it has none."""
    form = headline_form()
    if name not in form["runs"]:
        form["runs"].append(name)
        HEADLINE.write_text(json.dumps(form, indent=1) + "\n")


def rewritten(page: str) -> str:
    """The page with each part written anew.

    Raises: KeyError for a part that no function here writes.
    """

    def part(match: re.Match[str]) -> str:
        name, gap = match["name"], match["gap"]
        return f"<!-- pages: {name} -->{gap}{PARTS[name]()}{gap}<!-- /pages -->"

    pattern = r"<!-- pages: (?P<name>[\w ]+) -->(?P<gap>\n*).*?<!-- /pages -->"
    return re.sub(pattern, part, page, flags=re.DOTALL)


def parts_of(page: str) -> list[str]:
    """The names of the parts that a page has."""
    return re.findall(r"<!-- pages: ([\w ]+) -->", page)


def headline() -> str:
    """README's table: the questions of headline.json in the study that it names.

    A row that names another study is marked with a star, and a line below says which.
    """
    form = headline_form()
    head = ["question", "measured in", "here", "t (needed)", "verdict", "the paper (8B, one seed)"]
    rows, others = [head], []
    for row in form["rows"]:
        study = read_published(DATA / f"{row.get('study', form['study'])}.json")
        rows.append(headline_row(study.hypothesis(row["hypothesis"]), row))
        if "study" in row:
            rows[-1][2] += " *"
            others.append(f"`{study.key}`")
    below = f"\n\n\\* of {_listed(list(dict.fromkeys(others)))}" if others else ""
    return table(rows) + below


def headline_study() -> str:
    """The study of the headline, its seeds and its key."""
    study = read_published(DATA / f"{headline_form()['study']}.json")
    return f"Study `{study.study}`, {study.seeds} seeds, {study.date}, key `{study.key}`:"


def headline_row(hypothesis: Hypothesis, row: Mapping[str, Any]) -> list[str]:
    """One question: the comparison that stands beside the verdict."""
    part = hypothesis.parts[int(row["part"])]
    paper = row.get("paper", hypothesis.paper)
    return [
        f"{row['question']} ({hypothesis.id})",
        part.measure,
        points(part),
        t_text(part),
        str(hypothesis.verdict),
        "" if paper is None else f"{paper:+.2f}{row.get('paper_is', '')}",
    ]


def points(part: Comparison) -> str:
    """`+26.0 +- 3.0`."""
    return f"{part.value:+.1f} +- {part.se:.1f}"


def t_text(part: Comparison) -> str:
    """`+8.6 (2.40)`."""
    if part.t is None or part.needed is None:
        return ""
    return f"{part.t:+.1f} ({part.needed:.2f})"


def power() -> str:
    """How many seeds find an effect of the paper's size, in one sentence per number of seeds."""
    form = headline_form()
    study = read_published(DATA / f"{form['study']}.json")
    groups: dict[tuple[int, int] | None, list[str]] = {}
    for one in (tested for tested in study.hypotheses if tested.parts):
        groups.setdefault(one.seeds_needed, []).append(one.id)
    reached = [need for need in groups if need is not None]
    said = [f"{_seeds(need)} for {_listed(groups[need])}" for need in sorted(reached)]
    if None in groups:
        said.append(f"no number of seeds in reach for {_listed(groups[None])}")
    return f"To find an effect of the paper's size in 8 of 10 studies takes {'; '.join(said)}."


def _seeds(need: tuple[int, int]) -> str:
    low, high = need
    return f"{low} seeds" if low == high else f"{low} to {high} seeds"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def study_time() -> str:
    """The least and the most minutes of the timed runs, in words."""
    runs = json.loads((STUDIES / "study_time.json").read_text())["runs"]
    minutes = [run["seconds"] / 60 for run in runs]
    return f"{min(minutes):.0f} to {max(minutes):.0f} minutes"


def regimes() -> str:
    """One line per run of the laptop study: what its cells are called below, its key."""
    by_key = {key: entry for entry in entries_of(STUDIES) for key in entry.key.split(", ")}
    rows = [["regime", "date", "seeds", "key", "numbers"]]
    for one in all_published():
        entry = by_key[one.key]
        link = f"[{entry.path.stem}]({entry.path.relative_to(ROOT)})"
        rows.append([one.regime, one.date, str(one.seeds), f"`{one.key}`", link])
    return table(rows)


def matrix() -> str:
    """One sign per hypothesis and regime, and the paper's."""
    studies = all_published()
    rows = [["", "hypothesis", *(one.regime for one in studies), "paper, 8B"]]
    for claim in json.loads(CLAIMS.read_text())["hypotheses"]:
        name = claim["id"].partition("_")[0]
        signs = [_sign(study.hypothesis(name).verdict) for study in studies]
        rows.append([name, claim["name"], *signs, "+" if claim["paper_result"] else "-"])
    return table(rows)


def _sign(verdict: str | None) -> str:
    return SIGNS.get(verdict or "", UNKNOWN)


def study_index() -> str:
    """The entries of eval/log."""
    return index(entries_of(STUDIES))


def bench_index() -> str:
    """The entries of tests/bench/log."""
    return index(entries_of(BENCHES))


def index(entries: Sequence[Entry]) -> str:
    """One line per entry, newest first."""
    rows = [["date", "question", "verdict", "key", "commit", "entry"]]
    for entry in entries:
        path = entry.path.relative_to(ROOT)
        verdict = f"{entry.verdict} {VERDICTS[entry.verdict]}"
        if not entry.had_expectation:
            verdict += ", no expectation"
        rows.append(
            [
                entry.date,
                entry.question,
                verdict,
                entry.key,
                entry.commit,
                f"[{entry.path.stem[11:]}]({path})",
            ]
        )
    return table(rows)


def wings() -> str:
    """One line per wing of a room, in the words of its `__init__.py`."""
    rows = [["wing", "holds"]]
    for room in ROOMS:
        for module in sorted((ROOT / room).glob("*/__init__.py")):
            said = ast.get_docstring(ast.parse(module.read_text())) or ""
            rows.append([f"`{room}/{module.parent.name}`", said.partition("\n")[0]])
    return table(rows)


def table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is its head."""
    head, *body = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])


PARTS = {
    "headline": headline,
    "headline study": headline_study,
    "power": power,
    "study time": study_time,
    "regimes": regimes,
    "matrix": matrix,
    "studies": study_index,
    "benches": bench_index,
    "wings": wings,
}
PAGES = (ROOT / "README.md", ROOT / "RESULTS.md")


def write_pages(pages: Sequence[Path] = PAGES) -> list[Path]:
    """Writes every part anew and returns the pages that changed."""
    changed = []
    for page in pages:
        before = page.read_text()
        after = rewritten(before)
        if after != before:
            page.write_text(after)
            changed.append(page)
    return changed
