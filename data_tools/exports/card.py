"""A data set card: what the data are made of, under which licences, and how to make them again."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frontload.data_tools.artifacts.kind import MADE_OF
from frontload.data_tools.artifacts.read import as_prefix
from frontload.data_tools.disk.files import read_json
from frontload.data_tools.disk.indexed import manifest_file
from frontload.recipes.errors import RecipeError

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M"))
LARGEST = "n>1M"


@dataclass(frozen=True, kw_only=True)
class CardOrigin:
    """One file that data were made of."""

    name: str
    digest: str
    size_bytes: int
    version: str
    licence: str


def parse_licences(given: Sequence[str]) -> dict[str, str]:
    """The beginning of a name -> its licence.

    Raises: RecipeError for what is no NAME=LICENCE.
    """
    found: dict[str, str] = {}
    for one in given:
        name, equals, licence = one.rpartition("=")
        if not equals or not licence.strip():
            raise RecipeError(
                f"--licence {one}",
                found="no NAME=LICENCE",
                rule="a licence is given with the beginning of the names of its files",
                do="write for example --licence hf://datasets/org/set=cc-by-4.0, or '=odc-by' for"
                " all other files",
            )
        found[name] = licence.strip()
    return found


def card_origins(path: Path, kind: str, *, licences: Mapping[str, str]) -> list[CardOrigin]:
    """The files behind an artifact, as its manifest names them.

    Raises: RecipeError for an artifact without a list of them, or a file without a licence.
    """
    found = [_origin(one, licences) for one in _inputs(path, kind)]
    missing = [one.name for one in found if not one.licence]
    if missing:
        raise RecipeError(
            f"--licence for {', '.join(missing[:3])}" + (", ..." if missing[3:] else ""),
            found=f"{len(missing)} of {len(found)} files without one",
            rule="a card states the licence of every file, and none is guessed",
            do=f"add --licence '{missing[0]}=...' as its publisher states it",
        )
    return found


def _inputs(path: Path, kind: str) -> list[dict[str, Any]]:
    if kind == "prefix":
        return read_json(manifest_file(as_prefix(path) or path))["inputs"]
    if kind == "pack":
        return read_json(path / MADE_OF[kind])["inputs"]
    if kind == "sets":
        return read_json(path / "manifest.json")["inputs"]
    raise RecipeError(
        f"a card of {path}",
        found=f"an artifact of kind {kind}",
        rule="sets, packs and prefixes name the files that they were made of",
        do="name one of those",
    )


def _origin(one: Mapping[str, Any], licences: Mapping[str, str]) -> CardOrigin:
    name = str(one.get("url") or one.get("file") or one["name"])
    fitting = [start for start in licences if name.startswith(start)]
    return CardOrigin(
        name=name,
        digest=str(one.get("sha256") or f"xxh3 {one.get('xxh3_of_parts')}"),
        size_bytes=int(one.get("bytes") or one.get("size_bytes") or 0),
        version=str(one.get("version", "")),
        licence=licences[max(fitting, key=len)] if fitting else "",
    )


def card_text(title: str, *, counts: Mapping[str, int], files: Sequence[CardOrigin]) -> str:
    """The card: a YAML head as the hub reads it, counts, and a table of origins."""
    licences = sorted({one.licence for one in files})
    size = next((name for most, name in SIZES if counts["rows"] < most), LARGEST)
    head = [
        "---",
        f"pretty_name: {json.dumps(title)}",
        f"license: {licences[0] if len(licences) == 1 else 'other'}",
        *([] if len(licences) == 1 else [f"license_name: {json.dumps(' and '.join(licences))}"]),
        f"size_categories: [{json.dumps(size)}]",
        "---",
        f"# {title}",
        "",
        *(f"- {name}: {number:,}" for name, number in counts.items()),
        "",
        "## Made of",
        "",
        "| file | version | bytes | digest | licence |",
        "|---|---|---|---|---|",
    ]
    rows = [
        f"| {one.name} | {one.version or '-'} | {one.size_bytes:,} | {one.digest} | {one.licence} |"
        for one in files
    ]
    return "\n".join([*head, *rows]) + "\n"
