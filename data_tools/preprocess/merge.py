"""`frontload data merge`: shards of one preprocess to the bytes of the run without shards."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from frontload.data_tools.disk.files import read_object
from frontload.data_tools.disk.indexed import IndexedReader, bin_file, idx_file, manifest_file
from frontload.data_tools.disk.publish import check_place, clear, disk_told, work_folder, workplace
from frontload.data_tools.preprocess.publish import (
    MANIFEST,
    JoinedFile,
    describe_inputs,
    digests_of_file,
    publish,
)
from frontload.data_tools.preprocess.work import enter_plan, find_published
from frontload.recipes.errors import ArtifactError, RecipeError

PAIR = ("bin", "idx")
LENGTHS_AT_A_TIME = 1 << 20
SAME = (
    "format", "tokenizer_sha256", "eod_token", "eod_id", "json_key", "append_eod", "special_text",
    "max_row_bytes", "part_bytes", "dtype", "vocab_size", "template_sha256",
    "day", "ids_around", "left_out_around",
)  # fmt: skip
"""What all shards of one output have in common."""


def merge(shards: Sequence[Path], *, output_prefix: Path) -> dict[str, Any]:
    """Writes `P.bin`, `P.idx` and `P.manifest.json` from all shards of one request.

    Raises: RecipeError when one is missing, named twice, or of another request; ArtifactError when
            its files are not what its manifest says.
    """
    prefixes = [as_prefix(path) for path in shards]
    manifests = {prefix: _manifest(prefix) for prefix in prefixes}
    ordered = sorted(manifests, key=lambda prefix: manifests[prefix]["shard"]["number"])
    _check_complete(prefixes, manifests)
    _check_alike(ordered, manifests)
    if not any(manifest["num_documents"] for manifest in manifests.values()):
        raise RecipeError(
            f"merging {len(prefixes)} shards",
            found="no document in any of them",
            rule="at least one row has text",
            do="check the files and --json-key of the shards",
        )
    check_place(output_prefix, asked="--output-prefix")
    with workplace(output_prefix, asked="--output-prefix") as folder:
        digests = [[manifests[prefix][f"{part}_sha256"] for part in PAIR] for prefix in ordered]
        key = hashlib.sha256(json.dumps(digests).encode()).hexdigest()[:16]
        if earlier := find_published(output_prefix, key):
            return earlier
        enter_plan(folder, output_prefix, {"key": key, "request": {"merged": key}, "sources": []})
        try:
            return _join(ordered, manifests, output_prefix, key=key)
        except ArtifactError:
            clear(folder)
            raise


def as_prefix(path: Path) -> Path:
    """The prefix that a path names, itself or by its manifest."""
    return path.with_name(path.name.removesuffix(".manifest.json"))


def _manifest(prefix: Path) -> dict[str, Any]:
    file = manifest_file(prefix)
    if not file.is_file():
        raise RecipeError(
            f"merging {prefix}",
            found=f"no file {file.name}",
            rule="a finished shard has a manifest",
            do="run its `preprocess --shard` to the end",
        )
    manifest = read_object(file, MANIFEST)
    if not manifest["shard"]:
        raise RecipeError(
            f"merging {prefix}",
            found="an output that is no shard",
            rule="the shards of one `preprocess --shard i/n` are merged",
            do="blend separate outputs with `frontload data blend`",
        )
    return read_object(file, {"shard": {"number": int, "of": int}})


def _check_complete(prefixes: Sequence[Path], manifests: dict[Path, dict[str, Any]]) -> None:
    counted = Counter(manifests[prefix]["shard"]["number"] for prefix in prefixes)
    of = {manifest["shard"]["of"] for manifest in manifests.values()}
    wanted = max(of)
    twice = sorted(number for number, count in counted.items() if count > 1)
    missing = sorted(set(range(1, wanted + 1)) - set(counted))
    if len(of) > 1 or twice or missing:
        found = f"shards of {' and of '.join(map(str, sorted(of)))}" if len(of) > 1 else ""
        found = found or (f"shard {twice[0]} twice" if twice else _listed(missing, wanted))
        raise RecipeError(
            f"merging {len(prefixes)} shards",
            found=found,
            rule="each of 1 to n is given once",
            do="name all shards of one run; run those that are missing",
        )


def _listed(missing: Sequence[int], of: int) -> str:
    shown = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
    return f"no shard {shown} of {of}"


def _check_alike(ordered: Sequence[Path], manifests: dict[Path, dict[str, Any]]) -> None:
    first = manifests[ordered[0]]
    inputs = [(source["name"], source["bytes"]) for source in first["inputs"]]
    for prefix in ordered[1:]:
        other = manifests[prefix]
        different = [name for name in SAME if other.get(name) != first.get(name)]
        if [(source["name"], source["bytes"]) for source in other["inputs"]] != inputs:
            different.append("inputs")
        if different:
            raise RecipeError(
                f"merging {prefix} with {ordered[0]}",
                found=", ".join(
                    f"{name} {other.get(name)!r}, not {first.get(name)!r}"
                    if name != "inputs"
                    else "other inputs"
                    for name in different
                ),
                rule="shards of one output differ in nothing but their number",
                do="run the shard again with the options of the others",
            )
    ends = [
        (part["input"], part["start"]) for prefix in ordered for part in manifests[prefix]["parts"]
    ]
    assert ends == sorted(ends), f"shards overlap: {ends}"


def _join(
    ordered: Sequence[Path],
    manifests: dict[Path, dict[str, Any]],
    output_prefix: Path,
    *,
    key: str,
) -> dict[str, Any]:
    for prefix in ordered:
        _check_digest(idx_file(prefix), manifests[prefix]["idx_sha256"])
    readers = [IndexedReader(prefix) for prefix in ordered]
    with disk_told(output_prefix):
        joined = JoinedFile(work_folder(output_prefix) / "joined.bin")
    try:
        for prefix in ordered:
            _check_digest(bin_file(prefix), manifests[prefix]["bin_sha256"])
            with disk_told(output_prefix):
                joined.append(bin_file(prefix))
        return publish(
            output_prefix,
            joined=joined,
            dtype=readers[0].dtype,
            lengths=lambda: _lengths(readers),
            manifest=_merged(ordered, manifests, key=key),
        )
    except BaseException:
        joined.discard()
        raise


def _lengths(readers: Sequence[IndexedReader]) -> Iterator[np.ndarray]:
    for reader in readers:
        lengths = reader.sequence_lengths
        for first in range(0, len(lengths), LENGTHS_AT_A_TIME):
            yield lengths[first : first + LENGTHS_AT_A_TIME]


def _check_digest(file: Path, stated: str) -> None:
    found = digests_of_file(file)["sha256"] if file.is_file() else "no such file"
    if found != stated:
        raise ArtifactError(
            f"merging {file}",
            found=f"sha256 {found[:16]}",
            rule=f"its manifest says {stated[:16]}",
            do="delete the shard's files and run `preprocess --shard` again",
        )


def _merged(
    ordered: Sequence[Path], manifests: dict[Path, dict[str, Any]], *, key: str
) -> dict[str, Any]:
    shards = [manifests[prefix] for prefix in ordered]
    first = shards[0]
    parts = [part for shard in shards for part in shard["parts"]]
    dropped: Counter[str] = Counter()
    for shard in shards:
        dropped.update(shard["dropped"])
    totals = {
        name: sum(shard[name] for shard in shards)
        for name in ("num_rows", "num_documents", "num_tokens", "text_bytes")
    }
    sources = [{"name": source["name"], "bytes": source["bytes"]} for source in first["inputs"]]
    made_by = [shard["made_by"] for shard in shards]
    return {
        **{name: first[name] for name in SAME if name in first},
        **totals,
        "inputs": describe_inputs(sources, parts),
        "parts": parts,
        "shard": None,
        "dropped": dict(sorted(dropped.items())),
        "made_by": {
            "plan": key,
            "encoder": " and ".join(sorted({made["encoder"] for made in made_by})),
            "encoder_reason": "; ".join(sorted({made["encoder_reason"] for made in made_by})),
            "documents_compared": sum(made["documents_compared"] for made in made_by),
            "merged_shards": len(shards),
            "packages": first["made_by"]["packages"],
        },
    }
