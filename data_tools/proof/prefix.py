"""Proves a preprocessed prefix P: P.bin and P.idx against each other and against P.manifest.json.

A pair of another origin, without a manifest, is proven as far as the pair goes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frontload.data_tools.disk.files import read_json
from frontload.data_tools.disk.indexed import bin_file, idx_file, manifest_file
from frontload.data_tools.proof.bytes_of import FileDigest, TokenLook, prove_bytes
from frontload.data_tools.proof.checks import Check, check, equal, wrong
from frontload.data_tools.proof.pair import Stated, prove_index
from frontload.data_tools.text.tokenizer import END, TextTokenizer
from frontload.recipes.artifact import index_prefix
from frontload.recipes.errors import ArtifactError

STATED = {
    "append_eod": bool,
    "bin_bytes": int,
    "bin_sha256": str,
    "dtype": str,
    "idx_bytes": int,
    "idx_sha256": str,
    "num_documents": int,
    "num_tokens": int,
}
"""Fields of every manifest, with their types: without them nothing would be compared.

With `append_eod` it states `eod_id` too.
"""


@dataclass(frozen=True, kw_only=True)
class Digests:
    """What a manifest states of the two files of a pair; None where it states nothing."""

    idx: FileDigest | None = None
    data: FileDigest | None = None


def prove_prefix(prefix: Path, *, tokenizer: TextTokenizer | None = None) -> list[Check]:
    """Checks a pair, and its manifest when there is one.

    Raises: ArtifactError when a file of the pair is missing.
    """
    manifest: Mapping[str, Any] = {}
    checks: list[Check] = []
    if manifest_file(prefix).is_file():
        manifest = read_json(manifest_file(prefix))
        checks += _misdescribed(prefix, manifest) or _sums(prefix, manifest)
    else:
        checks.append(check("manifest", "none: counts and digests are not compared", True))
    if tokenizer and "tokenizer_sha256" in manifest:
        checks.append(
            equal(
                "tokenizer",
                tokenizer.sha256(),
                manifest["tokenizer_sha256"],
                where=tokenizer.file,
            )
        )
        stated_size = manifest.get("vocab_size", tokenizer.vocab_size)
        file = manifest_file(prefix)
        checks.append(equal("vocab_size", stated_size, tokenizer.vocab_size, where=file))
    stated = Stated(
        num_documents=manifest.get("num_documents"),
        num_tokens=manifest.get("num_tokens"),
        dtype=manifest.get("dtype"),
        vocab_size=tokenizer.vocab_size if tokenizer else manifest.get("vocab_size"),
        end=_end_of(manifest),
        is_flat="num_documents" in manifest,  # preprocess writes one sequence a document
    )
    digests = Digests(idx=_digest(manifest, "idx"), data=_digest(manifest, "bin"))
    return [*checks, *prove_pair(prefix, stated, digests, known=_known_near(prefix))]


def prove_index_folder(folder: Path) -> list[Check]:
    """Checks the artifact of the stage `index` against its index.json and the store's manifest."""
    counts = read_json(folder / "index.json")
    stated = Stated(
        num_documents=counts["num_documents"],
        num_tokens=counts["num_tokens"],
        dtype=counts["dtype"],
        vocab_size=counts["vocab_size"],
        end=counts.get("eod_id", END) if counts["append_eod"] else None,
        is_flat=True,
    )
    prefix = index_prefix(folder)
    return prove_pair(prefix, stated, digests_in_store(folder, prefix.name))


def digests_in_store(folder: Path, name: str) -> Digests:
    """What the store's manifest.json, where there is one, states of the pair `name`."""
    file = folder / "manifest.json"
    if not file.is_file():
        return Digests()
    files = read_json(file)["files"]
    found = {
        part: FileDigest(sha256=entry["sha256"], size_bytes=entry["size_bytes"])
        for part in ("idx", "bin")
        if (entry := files.get(f"{name}.{part}"))
    }
    return Digests(idx=found.get("idx"), data=found.get("bin"))


def prove_pair(
    prefix: Path, stated: Stated, digests: Digests, *, known: Callable[[str], str] | None = None
) -> list[Check]:
    """Checks structure, digests, token ids and document ends of a pair, each file read once.

    Raises: ArtifactError when a file of the pair is missing.
    """
    for file in (bin_file(prefix), idx_file(prefix)):
        if not file.is_file():
            raise ArtifactError(
                f"verifying {prefix}",
                found=f"no file {file.name}",
                rule="an indexed data set is a pair of files, .bin and .idx",
                do="correct the prefix, or write the pair again",
            )
    checks, layout = prove_index(prefix, stated)
    checks += prove_bytes(idx_file(prefix), digests.idx, known=known)
    if layout is not None and not wrong(checks):
        if stated.num_documents is not None:
            documents = layout.num_indices - 1
            checks.append(equal("documents", documents, stated.num_documents, where=layout.file))
        look = TokenLook(bin_file(prefix), layout, stated)
        found = prove_bytes(bin_file(prefix), digests.data, look=look, known=known)
        return [*checks, *look.checks(), *found]
    return [*checks, *prove_bytes(bin_file(prefix), digests.data, known=known)]


def _misdescribed(prefix: Path, manifest: Mapping[str, Any]) -> list[Check]:
    """The fields that a manifest has to state and does not: what it leaves out is not compared."""
    wanted = STATED | ({"eod_id": int} if manifest.get("append_eod") else {})
    return [
        check(f"manifest states {name}", found, False, where=f"{manifest_file(prefix)} {name}")
        for name, kind in wanted.items()
        if not isinstance(found := manifest.get(name), kind)
    ]


def _sums(prefix: Path, manifest: Mapping[str, Any]) -> list[Check]:
    """Whether the counts of a manifest of `preprocess` follow from each other."""
    file = manifest_file(prefix)
    checks: list[Check] = []
    if "parts" in manifest:
        for name in ("rows", "documents", "tokens"):
            found = sum(part[name] for part in manifest["parts"])
            stated = manifest[f"num_{name}"]
            checks.append(equal(f"{name} of the parts", found, stated, where=f"{file} parts"))
    if "dropped" in manifest:
        found = manifest["num_documents"] + sum(manifest["dropped"].values())
        where = f"{file} dropped"
        checks.append(equal("documents and drops", found, manifest["num_rows"], where=where))
    if not manifest["append_eod"] and manifest.get("eod_id") is not None:
        found = f"id {manifest['eod_id']}, but append_eod is false"
        checks.append(check("end of document", found, False, where=f"{file} append_eod"))
    return checks


def _end_of(manifest: Mapping[str, Any]) -> int | None:
    end = manifest.get("eod_id")
    return end if manifest.get("append_eod") and isinstance(end, int) else None


def _digest(manifest: Mapping[str, Any], part: str) -> FileDigest | None:
    if f"{part}_sha256" not in manifest:
        return None
    return FileDigest(
        sha256=manifest[f"{part}_sha256"],
        size_bytes=manifest.get(f"{part}_bytes"),
        blocks=manifest.get(f"{part}_blocks"),
    )


def _known_near(prefix: Path) -> Callable[[str], str]:
    """A function from a sha256 to the file of a neighbouring prefix that has it by its manifest."""

    def look_up(sha256: str) -> str:
        for file in sorted(prefix.parent.glob("*.manifest.json")):
            if file == manifest_file(prefix):
                continue
            text = file.read_text(encoding="utf-8", errors="replace")
            for part in ("bin", "idx"):
                if f'"{part}_sha256": "{sha256}"' in text:
                    return f"{file.name.removesuffix('.manifest.json')}.{part}"
        return ""

    return look_up
