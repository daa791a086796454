"""`frontload data curate`: files to sets in two passes, and everything that is said about them.

The first pass measures every row and keeps numbers, file by file; a file that is measured is not
measured again after a kill. Then the sets are chosen from the numbers. The second pass reads the
files again and writes the chosen rows. Workers and batches decide nothing.
"""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from frontload.data_tools.curation.columns import (
    RECEIPT,
    ColumnPart,
    ColumnWriter,
    Layout,
    RowTable,
)
from frontload.data_tools.curation.decontaminate import RemovalReport
from frontload.data_tools.curation.describe import compose, drops_by_source
from frontload.data_tools.curation.inputs import InputFile, Inputs
from frontload.data_tools.curation.matches import Match
from frontload.data_tools.curation.measure import (
    counted_special,
    current_measurer,
    cut_batches,
    measure_batch,
    open_input,
    sample_texts,
    start_measurer,
)
from frontload.data_tools.curation.overlap import measure_overlap
from frontload.data_tools.curation.sets import ChosenSet, choose_sets
from frontload.data_tools.curation.sketch import shown_probabilities
from frontload.data_tools.curation.workers import Workers, started_workers
from frontload.data_tools.curation.write import Output, write_sets
from frontload.data_tools.disk.files import replacing
from frontload.data_tools.disk.publish import new_folder, publish_folder, workplace
from frontload.data_tools.preprocess.text_encoder import choose_encoder
from frontload.recipes.artifact import write_json
from frontload.recipes.errors import RecipeError
from frontload.recipes.runs.curation import Curation

REVISION = 3  # raised when the same recipe and files give other bytes
# 3: special tokens are those of the recipe's tokenizer; in scripts without spaces each character is
#    a word; marks belong to their letter; the report of items says more
FORMAT = 1
PULSE_SECONDS = 10.0  # ours: a line of a log file says something new
LIBRARIES = ("rensa", "tokenizers", "numpy")
SHOWN_SIMILARITIES = (0.5, 0.6, 0.7, 0.8, 0.9)

Tell = Callable[[str], None]
"""Takes one line of progress."""


class Pulse:
    """Tells every few seconds how many rows of a file were read, and how fast."""

    def __init__(self, place: str, tell: Tell) -> None:
        self._place, self._tell = place, tell
        self._rows = 0
        self._began = self._told = time.monotonic()

    def beat(self, rows: int) -> None:
        """Counts rows."""
        self._rows += rows
        now = time.monotonic()
        if now - self._told >= PULSE_SECONDS:
            self._told = now
            rate = self._rows / (now - self._began)
            self._tell(f"{self._place}, {self._rows:,} rows read, {rate:,.0f} a second")


@dataclass(frozen=True, kw_only=True)
class CurateRequest:
    """What `frontload data curate` was asked for, with inputs that were checked."""

    recipe: Curation
    inputs: Inputs
    out: Path
    workers: int
    rejects: Path | None


def curate(request: CurateRequest, *, tell: Tell) -> dict[str, Any]:
    """Writes the folder, and returns its manifest.

    Raises: RecipeError when a set has no row; StageError when a file changes or a process dies.
    """
    with workplace(request.out, asked="--out") as work:
        manifest = _make(request, work, tell=tell)
        publish_folder(work / "sets", request.out)
    return manifest


def _make(request: CurateRequest, work: Path, *, tell: Tell) -> dict[str, Any]:
    """Writes everything to the folder `sets` of the work folder."""
    recipe = request.recipe
    with ExitStack() as stack:
        choice, reason = choose_encoder(
            Path(recipe.tokenizer),
            sample_texts(recipe, request.inputs.files),
            special_text=counted_special(recipe),
        )
        tell(f"tokens are counted by {choice}" + (f", since {reason}" if reason else ""))
        workers = stack.enter_context(
            started_workers(request.workers, start_measurer, (recipe, choice, request.inputs.items))
        )
        parts = measure_files(request, work, workers=workers, tell=tell)
        table = RowTable(parts, Layout.of(recipe))
        tell(f"{table.num_rows:,} rows are kept; choosing sets")
        chosen = choose_sets(recipe, table)
        _check_not_empty(chosen, table)
        rejects = None
        if request.rejects is not None:
            rejects = stack.enter_context(replacing(request.rejects))
            for part in parts:
                rejects.write((part.folder / "rejects.jsonl").read_bytes())
        folder = new_folder(work / "sets")
        output = Output(folder=folder, rejects=rejects, workers=workers)
        written = write_sets(request.inputs.files, table, chosen, recipe=recipe, output=output)
        compositions = {name: compose(recipe, each, table) for name, each in chosen.items()}
        write_json(folder / "compositions.json", compositions)
        if recipe.decontamination is not None:
            write_json(folder / "decontamination.json", removal_report(table).to_json())
        if recipe.overlaps:
            overlaps = {
                name: measure_overlap(chosen[pair[0]], chosen[pair[1]], table)
                for name, pair in recipe.overlaps.items()
            }
            write_json(folder / "overlaps.json", overlaps)
        for file in request.inputs.files:
            file.check_unchanged()
        manifest = describe_run(request, table) | {
            "sets": {
                name: {"rows": found["rows"], "tokens": found["tokens"]}
                for name, found in compositions.items()
            },
            "files": written,
            "set_order": list(chosen),
        }
        write_json(folder / "manifest.json", manifest)
    return manifest


def request_key(recipe: Curation, inputs: Inputs) -> str:
    """The digest of everything that decides a byte of the result."""
    return _digest(
        {
            "revision": REVISION,
            "recipe": asdict(recipe),
            "inputs": [[file.source, file.name, file.sha256] for file in inputs.files],
            "benchmarks": inputs.benchmarks,
            "tokenizer": inputs.tokenizer_sha256,
            "libraries": {name: version(name) for name in LIBRARIES},
        }
    )


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def describe_run(request: CurateRequest, table: RowTable) -> dict[str, Any]:
    """The manifest without the sets: what went in, what was dropped, with which versions."""
    recipe, inputs = request.recipe, request.inputs
    return {
        "format": FORMAT,
        "key": request_key(recipe, inputs),
        "recipe": asdict(recipe),
        "inputs": [
            {
                "source": file.source,
                "file": file.name,
                "bytes": file.size_bytes,
                "sha256": file.sha256,
                "rows_read": receipt["rows_read"],
                "rows_kept": receipt["rows_kept"],
            }
            for file, receipt in zip(inputs.files, table.receipts, strict=True)
        ],
        "dropped": drops_by_source(table.receipts),
        "benchmarks": inputs.benchmarks,
        "tokenizer_sha256": inputs.tokenizer_sha256,
        "libraries": {name: version(name) for name in LIBRARIES},
        "near_search": {
            "compared_at_similarity": shown_probabilities(recipe.duplicates, SHOWN_SIMILARITIES),
            "working_bytes_a_row": table.layout.bytes_a_row,
        },
    }


def _check_not_empty(chosen: dict[str, ChosenSet], table: RowTable) -> None:
    sources, names = table.source_of_row()
    for name, each in chosen.items():
        if not each.is_member.any():
            raise RecipeError(
                f"sets.{name}",
                found="no row left" + _told(each.dropped(sources, names), table.receipts),
                rule="a set has at least one row",
                do="change its rules, or remove it; what was measured is kept for the next run",
            )


def _told(left_out: Mapping[str, int], receipts: list[dict[str, Any]]) -> str:
    """The rows that are in no set, as a message says them."""
    told = [f"{count} left out ({reason})" for reason, count in sorted(left_out.items())]
    for source, counts in drops_by_source(receipts).items():
        told += [f"{count} of {source} dropped ({reason})" for reason, count in counts.items()]
    return "".join(f", {one}" for one in told)


# ---------------------------------------------------------------- first pass


def measure_files(
    request: CurateRequest, work: Path, *, workers: Workers, tell: Tell
) -> list[ColumnPart]:
    """Measures every file that an earlier, killed run has not."""
    parts: list[ColumnPart] = []
    for number, file in enumerate(request.inputs.files):
        part = ColumnPart(source=file.source, file=file.name, folder=work / f"file-{number:05d}")
        key = _measure_key(request, file)
        place = f"file {number + 1} of {len(request.inputs.files)}: {file.name}"
        if not _is_measured(part, key):
            pulse = Pulse(place, tell)
            receipt = _measure_file(request, file, part, run=(workers, pulse))
            write_json(part.folder / RECEIPT, receipt | {"key": key})
        counts = part.receipt()
        tell(f"{place}, {counts['rows_kept']:,} of {counts['rows_read']:,} rows kept")
        parts.append(part)
    return parts


def _measure_key(request: CurateRequest, file: InputFile) -> str:
    """The digest of what decides the numbers of one file: not the sets, which come later."""
    recipe = request.recipe
    source = asdict(recipe.sources[file.source]) | {"files": file.name}
    return _digest(
        {
            "revision": REVISION,
            "source": [file.source, source, file.sha256],
            "policy": asdict(recipe.policy),
            "duplicates": [asdict(recipe.duplicates), Layout.of(recipe).near],
            "decontamination": recipe.decontamination and asdict(recipe.decontamination),
            "benchmarks": request.inputs.benchmarks,
            "tokenizer": request.inputs.tokenizer_sha256,
            "libraries": {name: version(name) for name in LIBRARIES},
            "rejects": request.rejects is not None,
        }
    )


def _is_measured(part: ColumnPart, key: str) -> bool:
    return (part.folder / RECEIPT).is_file() and part.receipt()["key"] == key


def _measure_file(
    request: CurateRequest, file: InputFile, part: ColumnPart, *, run: tuple[Workers, Pulse]
) -> dict[str, Any]:
    """Writes the columns of one file, and returns its receipt."""
    workers, pulse = run
    part.folder.mkdir(exist_ok=True)
    (part.folder / RECEIPT).unlink(missing_ok=True)
    names: dict[str, dict[str, int]] = {"domain": {}, "family": {}}
    dropped: Counter[str] = Counter()
    matches: list[tuple[int, list[dict[str, Any]]]] = []
    rows_kept = 0
    batches = cut_batches(
        file.source, file.file, open_input(file.source, file.file, request.recipe)
    )
    with ExitStack() as stack:
        writer = stack.enter_context(ColumnWriter(part.folder, Layout.of(request.recipe)))
        rejects = stack.enter_context(open(part.folder / "rejects.jsonl", "wb"))
        for found in workers.map(measure_batch, batches):
            for column, values in (("domain", found.domains), ("family", found.families)):
                known = names[column]
                codes = [known.setdefault(name, len(known)) for name in values]
                found.columns[column] = np.array(codes, dtype=np.int64)
            writer.append(found.columns)
            rows_kept += len(found.domains)
            matches.extend((row, [asdict(match) for match in own]) for row, own in found.matches)
            pulse.beat(len(found.domains) + len(found.dropped))
            for each in found.dropped:
                dropped[each.drop.reason] += 1
                if request.rejects is not None:
                    rejects.write(
                        _reject_line(
                            file, each.row, each.drop.reason, each.drop.detail, each.content
                        )
                    )
    return {
        "source": file.source,
        "file": file.name,
        "rows_read": rows_kept + dropped.total(),
        "rows_kept": rows_kept,
        "dropped": dict(sorted(dropped.items())),
        "matches": matches,
        "domain_names": list(names["domain"]),
        "family_names": list(names["family"]),
    }


def _reject_line(file: InputFile, row: int, reason: str, detail: str, content: bytes) -> bytes:
    found = {
        "source": file.source,
        "file": file.name,
        "row": row,
        "reason": reason,
        "detail": detail,
        "content": orjson.Fragment(content),
    }
    return orjson.dumps(found, option=orjson.OPT_APPEND_NEWLINE)


def removal_report(table: RowTable) -> RemovalReport:
    """The matches of all files, by benchmark."""
    measurer = current_measurer()
    assert measurer.index is not None, "no report where nothing is looked for"
    report = RemovalReport(items=measurer.items, index=measurer.index)
    for receipt in table.receipts:
        for row, found in receipt["matches"]:
            report.add(
                [Match(**match) for match in found],
                source=receipt["source"],
                file=receipt["file"],
                row=row,
            )
    return report
