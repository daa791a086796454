"""Gathers rows into a data root: from local files, from the hub or a copy of it, or made up."""

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from frontload.data_tools.disk.files import file_sha256, replacing
from frontload.data_tools.disk.publish import check_place, make_folder, workplace
from frontload.eval.protocol.data_root import (
    MADE,
    MANIFEST,
    DataRoot,
    SplitEntry,
    SplitName,
    hub_card,
    manifest_json,
)
from frontload.eval.protocol.known_splits import KNOWN, KnownSplit, known_datasets
from frontload.eval.protocol.made_rows import made_parts, made_rows
from frontload.recipes.artifact import write_json
from frontload.recipes.errors import RecipeError
from frontload.recipes.grammar.load import nearest

Parts = dict[str, list[dict[str, Any]]]
"""Part of a split -> its rows."""

HUB = "hub"
ASKED = "eval data --root"


@dataclass(frozen=True, kw_only=True)
class GatherRequest:
    """What `frontload eval data` was asked to gather."""

    sources: tuple[str, ...]  # folders, "hub" or "made": of each split the first that has it
    datasets: tuple[str, ...]  # () = all that the suites read
    token: str | None  # of the user, for gated data sets


@dataclass(frozen=True, kw_only=True)
class GatherReport:
    """What became of one split."""

    split: KnownSplit
    num_rows: int  # 0 = absent
    origin: str  # where its rows come from, or why there are none


def gather(root: Path, request: GatherRequest) -> list[GatherReport]:
    """Adds what the root lacks of the asked data sets; what it has stays as it is.

    Raises: RecipeError for a source that is none, or whose rows are not those of the benchmark:
            then nothing is written.
    """
    _check(request)
    make_folder(root.absolute().parent, asked=ASKED)
    check_place(root, asked=ASKED)
    with workplace(root, asked=ASKED):
        entries = dict(DataRoot.open(root).entries) if (root / MANIFEST).is_file() else {}
        asked = [one for one in KNOWN if one.dataset in (request.datasets or known_datasets())]
        found = {split: _find(split, entries=entries, request=request) for split in asked}
        reports: list[GatherReport] = []
        for split, (parts, origin) in found.items():
            for part, rows in parts.items():
                name = split.name(part)
                entries[name] = _write(root, name, rows=rows, origin=origin)
            total = sum(one.num_rows for name, one in entries.items() if split.is_of(name))
            reports.append(GatherReport(split=split, num_rows=total, origin=origin))
        for dataset in {split.dataset for split, (parts, _) in found.items() if parts}:
            with replacing(root / dataset / "README.md", "w") as card:
                card.write(hub_card(name for name in entries if name.dataset == dataset))
        if entries:
            write_json(root / MANIFEST, manifest_json(entries.values()))
    return reports


def _find(
    split: KnownSplit, *, entries: Mapping[SplitName, SplitEntry], request: GatherRequest
) -> tuple[Parts, str]:
    """The rows of a split by part and their origin; no part, and why, where there are none."""
    origins = {entry.origin for name, entry in entries.items() if split.is_of(name)}
    if origins:
        return {}, "there already: " + ", ".join(sorted(origins))
    reason = "none of the sources has it"
    for source in request.sources:
        found = _from(split, source, token=request.token)
        if isinstance(found, str):
            reason = found
            continue
        if found[1] != MADE:
            _check_rows(split, found[0], source=source)
        return found
    return {}, reason


def _write(
    root: Path, name: SplitName, *, rows: Iterable[dict[str, Any]], origin: str
) -> SplitEntry:
    path = root / name.file
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with replacing(path, "w") as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return SplitEntry(name=name, num_rows=count, sha256=file_sha256(path), origin=origin)


def _from(split: KnownSplit, source: str, *, token: str | None) -> tuple[Parts, str] | str:
    """Rows by part and their origin; or why this source has none."""
    if source == MADE:
        return {part: made_rows(split, part) for part in made_parts(split)}, MADE
    if source == HUB:
        return _from_hub(split, split.dataset, token=token)
    folder = Path(source)
    if (folder / split.dataset).is_dir():
        return _from_hub(split, str((folder / split.dataset).absolute()), token=None)
    files = split.local_files(folder)
    if not files or split.reader is None:
        wanted = split.file or f"{split.dataset}/, as the hub lays it out"
        return f"{source} has no {wanted}"
    parts = {part: list(split.reader(path)) for part, path in files.items()}
    return parts, Path(split.file).name


def _from_hub(split: KnownSplit, path: str, *, token: str | None) -> tuple[Parts, str] | str:
    """Rows through `datasets`, of the hub or of a folder in its layout; or why it has none.

    Raises: RecipeError for a file that does not read.
    """
    import datasets
    from datasets.exceptions import DatasetGenerationError

    with tempfile.TemporaryDirectory() as cache, redirect_stderr(StringIO()):
        try:
            names: Sequence[str] = (
                datasets.get_dataset_config_names(path, token=token)
                if split.part == "*"
                else [split.part]
            )
            parts: Parts = {}
            for part in names:
                loaded = datasets.load_dataset(
                    path, part, split=split.split, token=token, cache_dir=cache
                )
                parts[part] = [dict(row) for row in loaded]
        except DatasetGenerationError as error:
            raise RecipeError(
                f"{split.dataset} {split.split} from {path}",
                found=f"a file that does not read ({error.__cause__})"[:200],
                rule="a folder of the hub's layout holds files that `datasets` reads",
                do="fetch it again, or leave the data set out with --only",
            ) from error
        except (OSError, ValueError, RuntimeError) as error:  # not there, gated, not reached
            first = str(error).strip().splitlines()[:1]
            return f"{path}: {type(error).__name__}: {first[0][:160] if first else ''}"
    return parts, f"{HUB}:{split.dataset}"


def _check_rows(split: KnownSplit, parts: Parts, *, source: str) -> None:
    """Refuses rows that are not those of the benchmark.

    Raises: RecipeError.
    """
    total = sum(map(len, parts.values()))
    where = f"{split.dataset} {split.split} from {source}"
    if total != split.num_rows:
        raise RecipeError(
            where,
            found=f"{total} rows",
            rule=f"this split has {split.num_rows}: a score of other rows is another number",
            do="fetch the files again, or leave the data set out with --only",
        )
    for part, rows in parts.items():
        for number, row in enumerate(rows):
            if missing := split.missing_field(row):
                raise RecipeError(
                    f"{where}, {part} row {number}",
                    found=f"no field '{missing}', but {', '.join(row)}",
                    rule=f"a row has {split.required}",
                    do=nearest(missing, list(row)) if row else "fetch the file again",
                )


def _check(request: GatherRequest) -> None:
    known = known_datasets()
    for name in request.datasets:
        if name not in known:
            raise RecipeError(
                f"eval data --only {name}",
                found="no data set of a suite",
                rule="data sets are " + ", ".join(known),
                do=nearest(name, known),
            )
    if not request.sources:
        raise RecipeError(
            "eval data",
            found="no --from",
            rule="rows come from a folder of local files or of the hub's layout, from hub or made",
            do="add --from FOLDER, --from hub or --from made",
        )
    for source in request.sources:
        if source not in (HUB, MADE) and not Path(source).is_dir():
            raise RecipeError(
                f"eval data --from {source}",
                found="no such folder",
                rule="a source is a folder, `hub` or `made`",
                do="correct the path",
            )
