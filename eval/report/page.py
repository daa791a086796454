"""What stands on the report's page: headline, verdict rows, tables, samples, ledger. No HTML."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from frontload.data_tools.disk.files import read_json
from frontload.eval.results import GeneratedResult, read_results
from frontload.eval.tables.build import label_of
from frontload.eval.tables.ledger import ledger_entry
from frontload.eval.tables.questions import FEWER, HIGHER, LOWER, MORE
from frontload.eval.tables.text import ledger_row, models_of
from frontload.eval.tables.verdict_rows import Card, VerdictGroup, own_cards, verdict_groups
from frontload.eval.tables.verdict_rows import cards as cards_of
from frontload.eval.tables.verdict_text import MEASURES_TEXT, decimals_of
from frontload.eval.tables.views import disagreement
from frontload.recipes.artifact import item_results_file

SAMPLE_CELLS = ("pt:base>sft:SHQ", "pt:LMQ>sft:SHQ", "pt:LMQ>sft:LDQ")


PAPER_CAVEATS = (
    "A small hybrid on procedural tasks is not an 8B model: only signs and orderings can be "
    "compared with the paper, never sizes.",
    "Every mix has the same reasoning budget in pretraining, so small sets repeat (ledger below); "
    "diversity, size and repetition stay confounded, as in the paper.",
)
OWN_CAVEATS = (
    "The answer holds for a model of this size, this data and this many tokens: compare the "
    "models of this page with each other, and repeat the comparison at a second size before a "
    "large run depends on it.",
    "Models differ in what they have read in pretraining and in SFT, the one with twice the SFT "
    "too: the ledger below says how much.",
)
SUITES_CAVEAT = (
    "Accuracies before and after SFT come from different suites; only the held-out loss is on the "
    "same documents at both stages."
)
BENCHMARKS = "evaluation.json"  # which an evaluation on benchmarks leaves


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One generation of one cell."""

    cell: str
    text: str
    correct: bool
    format_failure: str


@dataclass(frozen=True, kw_only=True)
class ReportQuestion:
    """One question and what some cells wrote."""

    question: str
    gold: str
    family: str
    inside_shq: bool | None
    samples: tuple[Sample, ...]


@dataclass(frozen=True, kw_only=True)
class Page:
    """Everything on the page that is computed from the tabulated files."""

    headline: str
    is_paper_study: bool  # else nothing of the paper stands on the page
    ledger: tuple[Sequence[str], ...]  # rows of eval/tables/text.py LEDGER_HEAD
    rule: str
    cards: tuple[Card, ...]
    verdicts: tuple[VerdictGroup, ...]
    views: tuple[Mapping[str, Any], ...]  # of verdicts.json
    controls: tuple[Mapping[str, Any], ...]  # of verdicts.json
    counts: Mapping[str, int]
    tables: tuple[Mapping[str, Any], ...]
    own_tables: tuple[Mapping[str, Any], ...]
    claims: tuple[Mapping[str, Any], ...]
    questions: tuple[ReportQuestion, ...]
    caveats: tuple[str, ...]
    num_seeds: int
    compared: Mapping[str, Sequence[str]]  # table of the paper -> the models in it, by our names
    measures: str  # what the numbers are that effects are differences of
    rl_lead: str  # the lead after RL as it is judged, beside the Average of a figure; "" without


OWN_TABLES = ("RL", "Forgetting", "Proxies", "Proxy values", "Set perplexity", "Grid", "Averages")
OWN_TABLES += ("Cells", "Heldout", "Guessing")


def build_page(
    *,
    tables: Mapping[str, Any],
    verdicts: Mapping[str, Any],
    tabulated: Mapping[str, Any],
    evaluations: Mapping[str, Sequence[Path]],
) -> Page:
    """Reads the tabulated files into what the page prints; `tabulated` is cells.json."""
    rows = verdicts["hypotheses"]
    cells = tabulated["cells"]
    num_seeds = max((len(m["seeds"]) for c in cells.values() for m in c.values()), default=0)
    is_paper = tables["is_paper_study"]
    entries = [ledger_entry(row) for row in tables["ledger"]]
    return Page(
        headline=(
            f"{headline(rows, cells)} {disagreement(verdicts['views'])}".strip()
            if is_paper
            else own_headline(rows)
        ),
        is_paper_study=is_paper,
        ledger=tuple(ledger_row(entry) for entry in entries),
        rule=verdicts["rule"],
        cards=tuple(cards_of(rows) if is_paper else own_cards(rows)),
        verdicts=tuple(verdict_groups(rows)),
        views=tuple(verdicts["views"]),
        controls=tuple(verdicts["controls"]),
        counts=verdicts["counts"],
        tables=tuple(table for table in tables["tables"] if table["id"] not in OWN_TABLES),
        own_tables=tuple(table for table in tables["tables"] if table["id"] in OWN_TABLES),
        claims=tuple(verdicts["claims"]),
        questions=tuple(
            sample_questions(evaluations, SAMPLE_CELLS if is_paper else own_samples(cells))
        ),
        caveats=(
            *caveats(num_seeds, cells, tabulated=tabulated, is_paper=is_paper),
            *benchmark_marks(evaluations),
        ),
        num_seeds=num_seeds,
        compared={
            table["id"]: models_of(row["cell"] for row in table["rows"])
            for table in tables["tables"]
        },
        measures=MEASURES_TEXT,
        rl_lead=rl_lead(rows),
    )


def benchmark_marks(evaluations: Mapping[str, Sequence[Path]]) -> list[str]:
    """The gates that numbers of benchmarks have not passed: each mark once, with its cells."""
    cells: dict[tuple[str, str], dict[str, None]] = {}
    for cell, folders in evaluations.items():
        for found in (one for folder in folders for one in _marks_of(folder)):
            cells.setdefault(found, {})[cell] = None
    return [f"{name}, {mark} (of {', '.join(held)})." for (name, mark), held in cells.items()]


def _marks_of(folder: Path) -> list[tuple[str, str]]:
    """(benchmark, mark) of one evaluation; none of an evaluation on a study's own items."""
    path = folder / BENCHMARKS
    benchmarks = read_json(path)["benchmarks"] if path.is_file() else {}
    return [(name, mark) for name, one in benchmarks.items() for mark in one["marks"]]


def rl_lead(rows: Sequence[Mapping[str, Any]]) -> str:
    """The sentence that tells the RL point of a figure from the number that H13 is judged on."""
    row = next((one for one in rows if one["id"].startswith("H13")), None)
    if row is None or row["effect"] is None:
        return ""
    effect = row["effect"]
    return (
        "The point after RL is in Average as well; H13 and H14 are judged on flat 8, the Avg. of "
        f"T3 and RL, in which M_LMQ leads by {effect['value']:+.2f} +- {effect['se']:.2f}."
    )


def one_seed_caveat(spread: float | None) -> str:
    """What a number of one seed is worth; `spread`: sd of a tuned cell's Average over seeds."""
    said = "One training seed: errors hold questions only, and no verdict is given."
    if spread is None:
        return said
    return (
        f"{said} Another seed moves a tuned cell's Average by {spread:.1f} points (one standard "
        "deviation, which the recipe states), so no number here is a fact about its data."
    )


def headline(rows: Sequence[Mapping[str, Any]], cells: Mapping[str, Any]) -> str:
    """The answer in a sentence or two, made from the verdicts and the best cell."""
    best = best_cell(cells)
    if best is None:
        return "No fine-tuned cell was evaluated, so the question is open here."
    value = cells[best]["sft.avg"]
    only = " (one seed: questions only)" if len(value["seeds"]) == 1 else ""
    shown = f"{value['value']:.1f} +- {value['se']:.1f}%"
    parts = [f"Best here: {label_of(best)}, {shown}{only}."]
    durable = next((row for row in rows if row["id"].startswith("H02")), None)
    if durable and durable["effect"]:
        effect = durable["effect"]
        side = "above" if effect["value"] >= 0 else "below"
        parts.append(
            "After the same SFT, models that saw reasoning data in pretraining stand "
            f"{abs(effect['value']):.1f} +- {effect['se']:.1f} points {side} the one that did not "
            f"({durable['verdict']})."
        )
    return " ".join(parts)


def own_headline(rows: Sequence[Mapping[str, Any]]) -> str:
    """The answers to the first two questions of a study of other data, in their own measures."""
    if not rows:
        return "No two models of this study can be compared, so the question is open here."
    return " ".join(_answer_sentence(row) for row in rows[:2])


def _answer_sentence(row: Mapping[str, Any]) -> str:
    """`M_OWN + SFT[OWN] has a lower loss on ... than M_base, by 0.345 +- 0.012 nats per token`."""
    effect, measure = row["effect"], row["measure"]
    if effect is None:
        return f"{row['statement']}: {row['detail']}."
    digits = decimals_of(measure)
    unit = measure.partition(", ")[2] if digits > 2 else f"points, {measure}"
    statement = row["statement"]
    if effect["value"] < 0:
        statement = statement.replace(LOWER, HIGHER).replace(MORE, FEWER)
    return (
        f"{statement}, by {abs(effect['value']):.{digits}f} +- {effect['se']:.{digits}f} {unit} "
        f"(that it {LOWER if LOWER in row['statement'] else MORE} is {row['verdict']})."
    )


def own_samples(cells: Mapping[str, Any]) -> tuple[str, ...]:
    """The models of a study of other data whose answers stand side by side: M_base's first."""
    return tuple(cell for cell in cells if cell.count(">") == 1 and "*" not in cell)[:3]


def best_cell(cells: Mapping[str, Any]) -> str | None:
    """The fine-tuned cell of highest Average."""
    scored = {cell: m["sft.avg"]["value"] for cell, m in cells.items() if "sft.avg" in m}
    return max(scored, key=lambda cell: scored[cell]) if scored else None


def caveats(
    num_seeds: int, cells: Mapping[str, Any], *, tabulated: Mapping[str, Any], is_paper: bool
) -> list[str]:
    """What a reader must know before quoting a number."""
    guessing = tabulated["floors"].get("sft", {}).get("sft.avg")
    floor = [
        label_of(cell)
        for cell, metrics in cells.items()
        if guessing is not None and "sft.avg" in metrics
        for found in [metrics["sft.avg"]]
        if found["value"] - guessing <= 2 * found["se"]
    ]
    said = [*(PAPER_CAVEATS if is_paper else OWN_CAVEATS), SUITES_CAVEAT]
    if num_seeds == 1:
        said.insert(0, one_seed_caveat(tabulated["stated_spreads"].get("sft/sft.avg")))
    elif num_seeds < 5:
        said.insert(0, f"{num_seeds} training seeds: the spread over seeds is itself uncertain.")
    if floor:
        said.append(
            f"At the floor (Average within two errors of the {guessing:.1f}% that guessing gets): "
            f"{', '.join(floor)}."
        )
    return said


def sample_questions(
    evaluations: Mapping[str, Sequence[Path]], shown: Sequence[str]
) -> list[ReportQuestion]:
    """A question inside and one outside SHQ's families on which the shown cells differ, if any."""
    found = {
        cell: {
            result.id: result
            for result in read_results(item_results_file(evaluations[cell][0])).results
            if isinstance(result, GeneratedResult)
        }
        for cell in shown
        if evaluations.get(cell)
    }
    if not found:
        return []
    first = next(iter(found.values()))
    questions = []
    for inside in (True, False):
        ids = [name for name, result in first.items() if result.inside_shq == inside]
        if ids:
            differing = [name for name in ids if _differ(found, name)]
            questions.append(_question(found, (differing or ids)[0]))
    return questions


def _differ(found: Mapping[str, Mapping[str, GeneratedResult]], name: str) -> bool:
    return len({results[name].samples[0].correct for results in found.values()}) > 1


def _question(found: Mapping[str, Mapping[str, GeneratedResult]], name: str) -> ReportQuestion:
    results = {cell: by_id[name] for cell, by_id in found.items()}
    any_result = next(iter(results.values()))
    return ReportQuestion(
        question=any_result.question,
        gold=any_result.gold,
        family=any_result.family,
        inside_shq=any_result.inside_shq,
        samples=tuple(
            Sample(
                cell=label_of(cell),
                text=result.samples[0].text,
                correct=result.samples[0].correct,
                format_failure=result.samples[0].format_failure,
            )
            for cell, result in results.items()
        ),
    )


def ledger_rows(blends: Mapping[str, Path]) -> list[dict[str, Any]]:
    """One row for each source of each phase: tokens, epochs, repeats."""
    rows = []
    for label, folder in blends.items():
        plan = read_json(folder / "plan.json")
        for source in plan["sources"]:
            line = plan["ledger"][source["name"]]
            rows.append(
                {
                    "label": label,
                    "phase": plan["phase"],
                    "source": source["name"],
                    "tokens": source["tokens"],
                    "share": float(Fraction(line["share"])),
                    "one_epoch": source["document_tokens"],
                    "epochs": float(Fraction(source["epochs"])),
                    "unique": line["unique_tokens"],
                    "repeated": line["repeated_tokens"],
                    "start": source["start_tokens"],
                }
            )
    return rows


def pack_rows(packs: Mapping[str, Path]) -> list[dict[str, Any]]:
    """One row for each SFT set: budget, epochs, what was dropped."""
    rows = []
    for label, folder in packs.items():
        pack = read_json(folder / "pack.json")
        rows.append(
            {
                "label": label,
                "conversations": pack["conversations"],
                "dropped": sum(pack["dropped"].values()),
                "rows": pack["rows"],
                "budget": pack["budget_tokens"],
                "epochs": float(Fraction(pack["epochs"])),
                "loss_share": pack["loss_tokens"] / max(1, pack["tokens"]),
                "padding": float(Fraction(pack["padding_share"])),
            }
        )
    return rows
