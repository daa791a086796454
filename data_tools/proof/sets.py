"""Proves the folder of `data curate`: every file of every set against the manifest's digests."""

from pathlib import Path

from frontload.data_tools.disk.digests import read_pieces
from frontload.data_tools.disk.files import read_json
from frontload.data_tools.proof.bytes_of import FileDigest, prove_bytes
from frontload.data_tools.proof.checks import Check, check, equal


def prove_sets(folder: Path) -> list[Check]:
    """Checks that each file is there, with its rows and its digest, and that no other is."""
    manifest = read_json(folder / "manifest.json")
    checks: list[Check] = []
    for name, stated in manifest["files"].items():
        file = folder / name
        if not file.is_file():
            checks.append(check(name, "missing", False, where=file))
            continue
        rows = sum(piece.count(b"\n") for _, piece in read_pieces(file))
        checks.append(equal(f"{name}: rows", rows, stated["rows"], where=file))
        checks += prove_bytes(file, FileDigest(sha256=stated["sha256"]))
    strange = sorted(
        file.name for file in folder.glob("*.jsonl") if file.name not in manifest["files"]
    )
    shown = ", ".join(strange) or "none"
    return [*checks, check("files of no set", shown, not strange, where=folder)]
