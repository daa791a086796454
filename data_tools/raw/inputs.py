"""Which files a command reads: patterns to a checked list of files, and the format of each."""

import glob
import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from frontload.data_tools.stores.path import StorePath, files_at, is_url
from frontload.recipes.errors import RecipeError


class Format(StrEnum):
    """How the rows of a file are stored."""

    JSONL = "jsonl"
    GZIP = "jsonl.gz"
    ZSTD = "jsonl.zst"
    PARQUET = "parquet"
    TEXT = "txt"


FORMAT_OF_SUFFIX = {
    ".jsonl": Format.JSONL,
    ".json": Format.JSONL,
    ".ndjson": Format.JSONL,
    ".gz": Format.GZIP,
    ".zst": Format.ZSTD,
    ".zstd": Format.ZSTD,
    ".parquet": Format.PARQUET,
    ".txt": Format.TEXT,
    ".md": Format.TEXT,
}
FORMATS_SHOWN = ".jsonl, .jsonl.gz, .jsonl.zst, .parquet, .txt"


def expand_inputs(patterns: Sequence[str], *, asked_by: str = "--input") -> tuple[Path, ...]:
    """The files that names and globs stand for: in the order given, the files of a glob sorted.

    Raises: RecipeError for a pattern without a file, a folder, a file that cannot be read, that is
            named twice (also through a link), or whose suffix tells no format.
    """
    named: dict[Path, Path] = {}
    files: list[Path] = []
    for pattern in map(str, patterns):
        for file in _matches(pattern, asked_by):
            if isinstance(file, StorePath):
                file_format(file, asked_by=asked_by)
            else:
                _check_file(file, asked_by)
            real = file.resolve()
            if real in named:
                link = f", the same file as {named[real]}" if named[real] != file else ""
                raise RecipeError(
                    f"{asked_by} {pattern}",
                    found=f"{file}{link}, which is already named",
                    rule="a file is read once",
                    do="name it once; a source is repeated by giving it epochs in a blend",
                )
            named[real] = file
            files.append(file)
    return tuple(files)


def file_format(file: Path, *, asked_by: str = "--input") -> Format:
    """The format that a file's name tells.

    Raises: RecipeError when it tells none.
    """
    known = FORMAT_OF_SUFFIX.get(file.suffix.lower())
    if known is None:
        raise RecipeError(
            f"{asked_by} {file}",
            found=f"a name that ends in {file.suffix!r}"
            if file.suffix
            else "a name with no suffix",
            rule=f"the suffix tells the format: {FORMATS_SHOWN}",
            do="rename the file after what it holds, or convert it",
        )
    return known


def _matches(pattern: str, asked_by: str) -> Sequence[Path]:
    if is_url(pattern):
        files = files_at(pattern)
        if not files:
            raise RecipeError(
                f"{asked_by} {StorePath(pattern)}",
                found="no file",
                rule="every pattern names at least one file",
                do="correct the URL; only stores that list their files have globs",
            )
        return files
    if Path(pattern).is_file() or not glob.has_magic(pattern):
        return [Path(pattern)]  # a real file wins over a glob that its name happens to spell
    found = sorted(Path(name) for name in glob.glob(pattern, recursive=True))
    files = [file for file in found if not file.is_dir()]
    if not files:
        raise RecipeError(
            f"{asked_by} {pattern}",
            found="no file" + (f", only folders such as {found[0]}" if found else ""),
            rule="every pattern names at least one file",
            do="correct the pattern; quote it if the shell should leave it alone",
        )
    return files


def _check_file(file: Path, asked_by: str) -> None:
    if file.is_dir():
        raise RecipeError(
            f"{asked_by} {file}",
            found="a folder",
            rule=f"inputs are files: {FORMATS_SHOWN}",
            do=f"name the files in it, for example '{file}/*.jsonl'",
        )
    if not file.exists():
        raise RecipeError(
            f"{asked_by} {file}",
            found="there is no such file",
            rule=f"inputs are files: {FORMATS_SHOWN}",
            do="correct the path",
        )
    if not file.is_file():
        raise RecipeError(
            f"{asked_by} {file}",
            found="no plain file (a pipe or a device)",
            rule="an input is read more than once, in parts",
            do="write it to a file first",
        )
    if not os.access(file, os.R_OK):
        raise RecipeError(
            f"{asked_by} {file}",
            found="no permission to read it",
            rule="every input is readable",
            do=f"ask its owner, or run chmod u+r {file}",
        )
    file_format(file, asked_by=asked_by)
