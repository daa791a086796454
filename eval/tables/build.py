"""The paper's tables with our numbers beside its printed ones, as data. No text form, no files."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from frontload.eval.statistics.cells import Cells, MissingCell
from frontload.eval.statistics.contrasts import Contrast, estimate
from frontload.eval.statistics.score import AVERAGING_RULES
from frontload.eval.statistics.spread import SUITE_OF_STAGE, stage_of
from frontload.eval.tables.paper import paper_tables, printed
from frontload.recipes.study.points import RL_DATA

ROW_CELLS: dict[str, tuple[str, ...]] = {
    "T1": ("pt:base", "pt:SHQ", "pt:LDQ", "pt:LMQ", "pt:res"),
    "T2": ("pt:base>sft:all", "pt:res>sft:all"),
    "T3": ("pt:base>sft:SHQ>rl:CrossThink", "pt:LMQ>sft:SHQ>rl:CrossThink"),
    "T4": (
        "pt:base>sft:SHQ",
        "pt:base>sft:SHQ*2",
        "pt:SHQ>sft:SHQ",
        "pt:LDQ>sft:SHQ",
        "pt:LMQ>sft:SHQ",
    ),
    "T5": ("pt:base>sft:SHQ", "pt:res>sft:LMQ", "pt:res>sft:LDQ", "pt:res>sft:SHQ"),
    "T6": ("pt:LDQ>sft:LDQ", "pt:LDQ>sft:LDQ*2", "pt:LDQ>sft:ALF", "pt:LDQ>sft:ALF'"),
    "T7": ("pt:LDQ>sft:LDQ", "pt:LDQ>sft:ALF"),
    "overview_T6_ratio": ("pt:LMQ", "pt:LMQ@60-40"),
}
"""Table of the paper -> our cell of each of its rows, in its order."""

CAPTIONS = {
    "T1": "Pretrained models on the base suite, by reasoning data in pretraining.",
    "T2": "The same after SFT, mean over the SFT sets LDQ, SHQ and LMQ.",
    "T3": "After SFT on SHQ and RL, by reasoning data in pretraining.",
    "T4": "After SFT on SHQ, by reasoning data in pretraining; M_base also with twice the SFT.",
    "T5": "By SFT set: mean over the models with reasoning data in pretraining, beside M_base.",
    "T6": "M_LDQ by SFT set: LDQ once and twice, its long answers (ALF), those and SHQ (ALF').",
    "T7": "M_LDQ after SFT on LDQ and on its long answers (ALF).",
    "overview_T6_ratio": "M_LMQ before SFT, by its share of reasoning data in pretraining.",
}
"""Table -> what stands in it. The paper's own captions conclude from its own numbers."""

SHOWN_AS = {"overview_T6_ratio": "Ratio"}

METRIC_OF_COLUMN = {
    "Average": "{stage}.avg",
    "MATH_PT": "pt.math",
    "SCIENCE_PT": "pt.science",
    "CODE_PT": "pt.code",
    "GPR_PT": "pt.gpr",
    "MATH_SFT": "sft.math",
    "SCIENCE_SFT": "sft.science",
    "CODE_SFT": "sft.code",
    "INS_SFT": "sft.ins",
    "Avg.": "rl.avg",
    "MATH-500": "bench.math500",
    "GSM8K": "bench.gsm8k",
    "AIME24": "bench.aime24",
    "AIME25": "bench.aime25",
    "GPQA": "bench.gpqa",
    "MMLU": "bench.mmlu",
    "MMLU-PRO": "bench.mmlu_pro",
    "LCB": "bench.livecodebench",
}

FIGURE2_CELLS = ("pt:base>sft:SHQ", "pt:SHQ>sft:SHQ", "pt:LDQ>sft:SHQ", "pt:LMQ>sft:SHQ")

MODEL_ORDER = ("base", "SHQ", "LDQ", "LMQ")

STAGE_METRICS = {
    "pt": ("math", "science", "code", "gpr"),
    "sft": ("math", "science", "code", "ins"),
}


@dataclass(frozen=True, kw_only=True)
class Number:
    """A measured value with its error, both over seeds and questions; None where it has none."""

    value: float
    se: float | None
    num_seeds: int
    num_items: int


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """One row: ours and the paper's, column by column; None where there is nothing."""

    label: str
    cell: str
    ours: tuple[Number | None, ...]
    paper: tuple[float | None, ...]
    note: str


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table. `decimals` is for printing; accuracies are in percent, losses in nats a token."""

    id: str
    caption: str  # ours: what stands in it, not what to conclude
    source: str
    average_rule: str
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]
    decimals: int = 1
    has_paper: bool = True
    in_paper: str = ""  # the paper's caption over its own numbers


def build_tables(cells: Cells) -> list[Table]:
    """The paper's tables, then ours: the whole grid, the averaging rules, every cell, held-out."""
    tables = [_paper_table(cells, name) for name in ROW_CELLS]
    own = [_grid(cells), _averages(cells), _all_cells(cells), _heldout(cells), guessing(cells)]
    return tables + [table for table in own if table.rows]


def figure2(cells: Cells) -> dict[str, Any]:
    """Figure 2: accuracy by category after SFT on SHQ, ours and the paper's (its T4, T5).

    Bars are lists in the order of `categories`.
    """
    categories = STAGE_METRICS["sft"]
    bars = []
    for cell in FIGURE2_CELLS:
        metrics = [f"sft.{category}" for category in categories]
        bars.append(
            {
                "cell": cell,
                "label": label_of(cell),
                "ours": [number_json(measured(cells, cell, metric)) for metric in metrics],
                "paper": [printed(cell, metric) for metric in metrics],
            }
        )
    return {"categories": list(categories), "bars": bars}


def stage_gaps(cells: Cells) -> list[dict[str, Any]]:
    """Each mix's lead over M_base after pretraining (stage 0), the same SFT (1) and RL on top (2).

    The SFT set is SHQ, or in a study without it the first set that M_base was tuned on. Paired by
    question and seed. `measure` is accuracy (points, each stage's own suite) or heldout (nats a
    token by which the loss on the same worked answers is lower).
    """
    tuned = sft_suffix(cells)
    stages = (("", "pt.avg"), (tuned, "sft.avg"), (f"{tuned}>rl:{RL_DATA}", "sft.avg"))
    found = []
    for mix in study_mixes(cells):
        for stage, (suffix, average) in enumerate(stages):
            for measure, metric, sign in (
                ("accuracy", average, 1.0),
                ("heldout", "heldout.loss", -1.0),
            ):
                gap = difference(cells, (f"pt:{mix}{suffix}", f"pt:base{suffix}"), metric)
                if gap is not None:
                    found.append(
                        {
                            "mix": mix,
                            "stage": stage,
                            "sft": suffix,
                            "measure": measure,
                            "value": sign * gap.value,
                            "se": gap.se,
                            "num_seeds": gap.num_seeds,
                        }
                    )
    return found


def study_mixes(cells: Cells) -> list[str]:
    """The mixes other than base that a model was pretrained on at the study's own ratio."""
    models = [cell.removeprefix("pt:") for cell in cells.files if ">" not in cell]
    return [name for name in models if name != "base" and "@" not in name]


def sft_suffix(cells: Cells) -> str:
    """`>sft:SHQ`, or the first SFT set of M_base; empty when it was never tuned."""
    tuned = [cell.removeprefix("pt:base") for cell in cells.files if cell.startswith("pt:base>")]
    return ">sft:SHQ" if ">sft:SHQ" in tuned else next(iter(tuned), "")


def difference(cells: Cells, names: tuple[str, str], metric: str) -> Number | None:
    """First cell minus second, paired by seed and question; None when one of them is missing."""
    first, second = names
    contrast = Contrast(weights={(first, metric): 1.0, (second, metric): -1.0})
    try:
        found = estimate(cells, contrast)
    except MissingCell:
        return None
    return Number(
        value=found.estimate.value,
        se=found.estimate.se,
        num_seeds=len(found.seeds),
        num_items=found.num_items,
    )


def measured(cells: Cells, cell: str, metric: str) -> Number | None:
    """Our number of a metric of a cell; None when the study does not have it."""
    try:
        draws = cells.draws(cell, metric)
    except MissingCell:
        return None
    found = draws.estimate()
    return Number(
        value=found.value, se=found.se, num_seeds=draws.num_seeds, num_items=draws.num_items
    )


def number_json(number: Number | None) -> dict[str, float] | None:
    """The form of a number in tables.json."""
    return None if number is None else dict(vars(number))


def cell_order(cell: str) -> tuple[int, int, str]:
    """Sorts cells as the paper does: by pretraining data, then pretrained before fine-tuned."""
    model, _, rest = cell.partition(">")
    name = model.removeprefix("pt:").partition("@")[0]
    place = MODEL_ORDER.index(name) if name in MODEL_ORDER else len(MODEL_ORDER)
    return (int(bool(rest)), place, cell)


def label_of(cell: str) -> str:
    """A cell as the paper writes it: `M_LDQ + SFT[2 x SHQ]`."""
    words = []
    for part in cell.split(">"):
        stage, _, name = part.partition(":")
        name, _, times = name.partition("*")
        if stage == "pt":
            words.append(f"M_{name}")
        else:
            words.append(f"{stage.upper()}[{times + ' x ' if times else ''}{name}]")
    return " + ".join(words)


def _paper_table(cells: Cells, name: str) -> Table:
    source = paper_tables()["tables"][name]
    metrics = [_metric(column, source["stage"]) for column in source["columns"]]
    failures = [f"{source['stage']}.format_failure"] if source["stage"] != "rl" else []
    rows = []
    for row, cell in zip(source["rows"], ROW_CELLS[name], strict=True):
        rows.append(
            TableRow(
                label=row["label"],
                cell=cell,
                ours=tuple(measured(cells, cell, metric) for metric in [*metrics, *failures]),
                paper=(*row["values"], *[None for _ in failures]),
                note=row.get("error", ""),
            )
        )
    return Table(
        id=SHOWN_AS.get(name, name),
        caption=CAPTIONS[name],
        in_paper=source["caption"],
        source=source["source"],
        average_rule=source["average_rule"],
        columns=(*source["columns"], *["no answer %" for _ in failures]),
        rows=tuple(rows),
    )


def _metric(column: str, stage: str) -> str:
    return METRIC_OF_COLUMN.get(column, f"bench.{column}").format(stage=stage)


def _grid(cells: Cells) -> Table:
    sets = ("LDQ", "SHQ", "LMQ")
    rows = []
    for model in ("base", "SHQ", "LDQ", "LMQ"):
        names = [f"pt:{model}>sft:{name}" for name in sets]
        ours = tuple(measured(cells, name, "sft.avg") for name in names)
        if any(ours):
            paper = tuple(printed(name, "sft.avg") for name in names)
            rows.append(TableRow(label=f"M_{model}", cell="", ours=ours, paper=paper, note=""))
    return Table(
        id="Grid",
        caption="Average after SFT: pretraining data (rows) against SFT data (columns).",
        source="the paper prints four of these cells (T4, T5, T6)",
        average_rule=AVERAGING_RULES["avg"],
        columns=tuple(f"SFT[{name}]" for name in sets),
        rows=tuple(rows),
    )


def _averages(cells: Cells) -> Table:
    rows = []
    for cell in cells.files:
        for stage in cells_stages(cells, cell):
            metrics = (f"{stage}.avg", "flat8.avg", "flat9.avg")
            ours = tuple(measured(cells, cell, metric) for metric in metrics)
            paper = tuple(printed(cell, metric) for metric in metrics)
            rows.append(TableRow(label=label_of(cell), cell=cell, ours=ours, paper=paper, note=""))
    return Table(
        id="Averages",
        caption="The paper's three averaging rules on every cell.",
        source="T1, T2, T4 to T7 (category); T3 (flat 8); arXiv Table 8 (flat 9)",
        average_rule="; ".join(f"{name}: {text}" for name, text in AVERAGING_RULES.items()),
        columns=("mean of categories", "flat 8", "flat 9"),
        rows=tuple(rows),
    )


def _all_cells(cells: Cells) -> Table:
    rows = []
    for cell in cells.files:
        for stage in cells_stages(cells, cell):
            metrics = [f"{stage}.avg", *(f"{stage}.{name}" for name in STAGE_METRICS[stage])]
            metrics += [f"{stage}.inside", f"{stage}.outside", f"{stage}.format_failure"]
            ours = tuple(measured(cells, cell, metric) for metric in metrics)
            if any(ours):
                paper = tuple(None for _ in metrics)
                rows.append(
                    TableRow(label=label_of(cell), cell=cell, ours=ours, paper=paper, note="")
                )
    return Table(
        id="Cells",
        caption="Every cell of this study. Inside and outside: questions of SHQ's families or not.",
        source="this study",
        average_rule=AVERAGING_RULES["avg"],
        columns=(
            "Average",
            "math",
            "science",
            "code",
            "gpr/ins",
            "inside SHQ",
            "outside SHQ",
            "no answer %",
        ),
        rows=tuple(rows),
        has_paper=False,
    )


def _heldout(cells: Cells) -> Table:
    metrics = [
        f"heldout.{name}{group}"
        for name in ("loss", "step_accuracy")
        for group in ("", ".inside", ".outside")
    ]
    rows: list[TableRow] = []
    for cell in cells.files:
        ours = tuple(measured(cells, cell, metric) for metric in metrics)
        if any(ours):
            paper: Sequence[None] = [None for _ in metrics]
            rows.append(
                TableRow(label=label_of(cell), cell=cell, ours=ours, paper=tuple(paper), note="")
            )
    return Table(
        id="Heldout",
        caption="Gold worked answers to questions never trained on: loss in nats a token, and % of "
        "tokens ranked first. The one suite that is the same before and after SFT.",
        source="this study",
        average_rule="all tokens of the group weigh the same",
        columns=("loss", "loss in", "loss out", "steps %", "steps % in", "steps % out"),
        rows=tuple(rows),
        decimals=3,
        has_paper=False,
    )


def guessing(cells: Cells) -> Table:
    """What the best constant answer gets, beside the lowest and the highest cell."""
    rows: list[TableRow] = []
    for suite, floors in cells.floors().items():
        for metric, floor in floors.items():
            found = [
                number
                for cell in cells.names
                if SUITE_OF_STAGE[stage_of(cell)] == suite
                for number in [measured(cells, cell, metric)]
                if number is not None
            ]
            if metric.startswith("bench.") and found:
                ends = (min(found, key=lambda n: n.value), max(found, key=lambda n: n.value))
                guess = Number(value=floor, se=None, num_seeds=0, num_items=ends[0].num_items)
                label = f"{metric.removeprefix('bench.')} ({suite} suite)"
                ours = (guess, *ends)
                rows.append(
                    TableRow(label=label, cell="", ours=ours, paper=(None, None, None), note="")
                )
    return Table(
        id="Guessing",
        caption="What guessing gets: the share of each benchmark's commonest gold answer, beside "
        "the lowest and the highest cell of this study. A number near it is at the floor.",
        source="this study",
        average_rule="none: one benchmark a row",
        columns=("guessing %", "lowest cell %", "highest cell %"),
        rows=tuple(rows),
        has_paper=False,
    )


def cells_stages(cells: Cells, cell: str) -> list[str]:
    """The suites that a cell was asked, as metric prefixes."""
    metrics = cells.metrics(cell)
    return [stage for stage in STAGE_METRICS if any(m.startswith(f"{stage}.") for m in metrics)]
