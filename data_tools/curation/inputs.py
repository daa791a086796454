"""The files of a curation, checked before anything is written."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frontload.data_tools.curation.adapters import ADAPTERS, Adapter, Rules
from frontload.data_tools.curation.items import Item, all_items, benchmark_files
from frontload.data_tools.disk.files import file_sha256
from frontload.data_tools.preprocess.request import SpecialText
from frontload.data_tools.preprocess.vocabulary import Vocabulary, load_vocabulary
from frontload.data_tools.raw.inputs import Format, expand_inputs, file_format
from frontload.data_tools.raw.parse import nearest_name
from frontload.data_tools.raw.rows import BadRow, read_rows
from frontload.recipes.errors import RecipeError, StageError
from frontload.recipes.grammar.load import Loaded, nearest
from frontload.recipes.runs.curation import Curation

PEEKED_ROWS = 100  # ours: that many broken rows in front, and a file is refused


@dataclass(frozen=True, kw_only=True)
class InputFile:
    """One file of one source, as it was when the command began."""

    source: str
    file: Path
    size_bytes: int
    changed_ns: int
    sha256: str

    @property
    def name(self) -> str:
        """The path as it is written in rows and manifests."""
        return self.file.as_posix()

    def check_unchanged(self) -> None:
        """Refuses to go on with a file that changed while it was worked on.

        Raises: StageError.
        """
        now = self.file.stat()
        if (now.st_size, now.st_mtime_ns) != (self.size_bytes, self.changed_ns):
            raise StageError(
                f"reading {self.file}",
                found="the file changed while it was read",
                rule="a file is read twice and has to be the same",
                do="run the command again when nothing writes to it",
            )


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """All that a curation reads."""

    files: tuple[InputFile, ...]  # in the order of the recipe's sources
    benchmarks: dict[str, str]  # file -> sha256
    items: tuple[Item, ...]
    tokenizer_sha256: str


def check_inputs(loaded: Loaded[Curation]) -> Inputs:
    """Finds and digests every file, and looks at the first row of each.

    Raises: RecipeError for an unknown adapter, a missing or doubly named file, a source without
            a row, a file without its adapter's fields, a tokenizer or a benchmark that is none.
    """
    recipe = loaded.value
    named: dict[Path, tuple[str, Path]] = {}
    for name, source in recipe.sources.items():
        adapter = _adapter(loaded, name)
        if not source.files:
            raise loaded.refuse(
                f"sources.{name}.files",
                found="no file",
                rule="a source has one file or more",
                do="name a file or a glob",
            )
        has_rows = False
        for file in expand_inputs(source.files, asked_by=f"sources.{name}.files"):
            if file.resolve() in named:
                raise loaded.refuse(
                    f"sources.{name}.files",
                    found=f"{file}, which is a file of source {named[file.resolve()][0]} too",
                    rule="a file is read once",
                    do="name it in one source; a set may have several sources",
                )
            named[file.resolve()] = (name, file)
            rules = Rules.of(source, recipe.policy)
            has_rows |= check_fields(file, adapter, rules, asked=f"sources.{name}")
        if not has_rows:
            files = [file.as_posix() for source, file in named.values() if source == name]
            raise loaded.refuse(
                f"sources.{name}.files",
                found=f"no row in {', '.join(files[:3])}" + (", ..." if files[3:] else ""),
                rule="a source has a row or more; one file of several may be empty",
                do="fetch them again, or remove the source",
            )
    tokenizer = _tokenizer(loaded)
    return Inputs(
        files=tuple(_digested(source, file) for source, file in named.values()),
        benchmarks={
            file.as_posix(): file_sha256(file) for file in benchmark_files(recipe.decontamination)
        },
        items=tuple(all_items(recipe.decontamination)) if recipe.decontamination else (),
        tokenizer_sha256=tokenizer.sha256,
    )


def _adapter(loaded: Loaded[Curation], name: str) -> Adapter:
    source = loaded.value.sources[name]
    if source.adapter not in ADAPTERS:
        raise loaded.refuse(
            f"sources.{name}.adapter",
            found=f"'{source.adapter}'",
            rule=f"an adapter is one of {', '.join(ADAPTERS)}",
            do=nearest(source.adapter, list(ADAPTERS)),
        )
    adapter = ADAPTERS[source.adapter]
    if not source.domain and not adapter.has_domain:
        raise loaded.refuse(
            f"sources.{name}.domain",
            found="not stated",
            rule=f"rows of {source.adapter} do not say their domain, and it is not guessed",
            do="add a line `domain: math` (or code, science, general, web)",
        )
    return adapter


def _tokenizer(loaded: Loaded[Curation]) -> Vocabulary:
    asked, special = loaded.value.tokenizer, loaded.value.policy.special_text
    found = "not stated"
    if asked:
        try:
            return load_vocabulary(Path(asked), special_text=SpecialText(special))
        except RecipeError as error:
            found = f"'{asked}': {error.found}"
    raise loaded.refuse(
        "tokenizer",
        found=found,
        rule="lengths are in tokens of a named tokenizer: a tokenizer.json or a folder with it",
        do="name the tokenizer of the model that is to be trained",
    )


def wanted_fields(adapter: Adapter, rules: Rules) -> tuple[tuple[str, ...], ...]:
    """The fields that a row must have; of each group one."""
    return (*adapter.needs, *((getattr(rules, name),) for name in adapter.named))


def check_fields(file: Path, adapter: Adapter, rules: Rules, *, asked: str) -> bool:
    """Looks at the first readable row of a file, and returns whether it has any row.

    Raises: RecipeError when none of its first rows can be read, or the adapter's fields lack.
    """
    present = first_fields(file)
    if present is None:
        if not has_rows(file):
            return False
        raise RecipeError(
            f"{asked}: {file}",
            found="no row that can be read",
            rule="rows are objects with named fields",
            do="remove the file from the source, or fetch it again",
        )
    for names in wanted_fields(adapter, rules):
        if not set(names) & set(present):
            raise RecipeError(
                f"{asked}: first row of {file}",
                found=f"fields {', '.join(sorted(present)) or 'none'}"
                + nearest_name(names[0], present),
                rule=f"its adapter reads {' or '.join(names)}",
                do="name another adapter, or leave the file out"
                + (f"; {', '.join(adapter.named)} may name other fields" * bool(adapter.named)),
            )
    return True


def has_rows(file: Path) -> bool:
    """Whether a file has a row, readable or not."""
    if file_format(file) is Format.PARQUET:
        from frontload.data_tools.raw.parquet import open_table

        with open_table(file) as table:
            return table.metadata.num_rows > 0
    return next(read_rows(file), None) is not None


def first_fields(file: Path) -> tuple[str, ...] | None:
    """The fields of the first readable row, None when there is none near the beginning."""
    if file_format(file) is Format.PARQUET:
        from frontload.data_tools.raw.parquet import open_table

        with open_table(file) as table:
            names = tuple(table.schema_arrow.names)
            return names if table.metadata.num_rows else None
    for number, row in enumerate(read_rows(file)):
        if not isinstance(row, BadRow):
            return tuple(row.value)
        if number >= PEEKED_ROWS:
            break
    return None


def columns_to_read(file: Path, adapter: Adapter, rules: Rules) -> Sequence[str] | None:
    """Of a table, the columns that the adapter reads and that are there; None for JSONL."""
    if file_format(file) is not Format.PARQUET or adapter.reads_all:
        return None
    present: Any = first_fields(file) or ()
    named = (getattr(rules, name) for name in adapter.named)
    return [name for name in (*adapter.columns, *named) if name in present]


def _digested(source: str, file: Path) -> InputFile:
    found = file.stat()
    return InputFile(
        source=source,
        file=file,
        size_bytes=found.st_size,
        changed_ns=found.st_mtime_ns,
        sha256=file_sha256(file),
    )
