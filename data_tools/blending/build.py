"""A planned blend as a folder that appears whole: the ledger, and a folder of each phase.

It is written beside its name as `NAME.partial`, under a lock that ends with the process, and
renamed when every byte is on the disk. A killed run leaves only that, and the next one starts anew.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from frontload.data_tools.blending.budget import Budget
from frontload.data_tools.blending.phases import PhaseFolder, write_phases
from frontload.data_tools.blending.report import ledger_json
from frontload.data_tools.blending.source import SourceIndex
from frontload.data_tools.files import read_json, write_json
from frontload.recipes.errors import RecipeError

LEDGER = "ledger.json"
MANIFEST = "manifest.json"
TOKEN_BYTES = (2, 4, 8)  # uint16 and int32 are Megatron's; a loss mask has one byte


def build_blend(budget: Budget, sources: Mapping[str, SourceIndex], out: Path) -> bool:
    """Writes every phase of a budget; False when `out` holds this very blend already.

    Raises: RecipeError, with nothing written, for indexes that do not go together, or an `out` that
            holds something else or has a writer.
    """
    _check_tokens(sources)
    ledger = ledger_json(budget)
    for name, source in sources.items():
        ledger["sources"][name] |= {"dtype": source.dtype.name, "index_sha256": source.index_sha256}
    if _is_there(out, ledger):
        return False
    with _published(out) as folder:
        phases = [
            PhaseFolder(recipe=blend, folder=folder / blend.phase, mix_of=phase.mix_of)
            for blend, phase in zip(budget.blends(), budget.phases, strict=True)
        ]
        for phase in phases:
            phase.folder.mkdir()
        write_phases(phases, sources)
        for phase in phases:
            write_json(phase.folder / MANIFEST, {"format": 1, "files": _digests(phase.folder)})
        write_json(folder / LEDGER, ledger)
    return True


def check_tokenizers(prefixes: Mapping[str, Path]) -> None:
    """Refuses sources whose manifests name different tokenizers; without manifests, nothing.

    Raises: RecipeError naming two sources.
    """
    known: dict[str, str] = {}
    for name, prefix in prefixes.items():
        manifest = prefix.with_name(prefix.name + ".manifest.json")
        if manifest.is_file():
            known[name] = str(read_json(manifest).get("tokenizer_sha256", ""))
    first = next((name for name in known if known[name]), None)
    for name, digest in known.items():
        if first is not None and digest and digest != known[first]:
            raise RecipeError(
                f"--index {name}={prefixes[name]}",
                found=f"its manifest names tokenizer {digest[:12]}; that of {first}"
                f" {known[first][:12]}",
                rule="all sources of a blend are tokens of one tokenizer",
                do=f"preprocess {name} again with the tokenizer of {first}",
            )


def _check_tokens(sources: Mapping[str, SourceIndex]) -> None:
    first = next(iter(sources.values()))
    for source in sources.values():
        is_token = source.dtype.kind in "iu" and source.dtype.itemsize in TOKEN_BYTES
        if is_token and source.dtype == first.dtype:
            continue
        known = source.dtype.name if not is_token else f"{source.dtype}; {first.name} {first.dtype}"
        raise RecipeError(
            f"source {source.name}",
            found=f"an index of {known}",
            rule="all sources of a blend are tokens of one tokenizer, in one dtype",
            do=f"name the index of {source.name} that was written with the same tokenizer",
        )


def _is_there(out: Path, ledger: Mapping[str, Any]) -> bool:
    if not out.absolute().parent.is_dir():
        raise RecipeError(
            f"--out {out}",
            found=f"no folder {out.absolute().parent}",
            rule="the blend is a new folder in a folder that exists",
            do="make that folder first",
        )
    if not out.exists():
        return False
    if (out / LEDGER).is_file() and read_json(out / LEDGER) == json.loads(json.dumps(ledger)):
        return True
    raise RecipeError(
        f"--out {out}",
        found="something else is there",
        rule="a blend never replaces what is there",
        do="name another folder, or remove this one",
    )


@contextmanager
def _published(out: Path) -> Iterator[Path]:
    """A folder to write in that becomes `out` when the block ends well, and is removed if not."""
    folder = out.with_name(out.name + ".partial")
    folder.mkdir(exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        _lock(handle, folder, out)
        for left in folder.iterdir():  # of a run that was killed
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        try:
            yield folder
        except BaseException:
            shutil.rmtree(folder)
            raise
        for path in (*folder.rglob("*"), folder):
            _sync(path)
        os.rename(folder, out)
        _sync(out.absolute().parent)
    finally:
        os.close(handle)


def _lock(handle: int, folder: Path, out: Path) -> None:
    """Locks the folder itself: the lock goes where the folder goes and ends with the process."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_ours = os.path.samestat(os.fstat(handle), os.stat(folder))
    except (BlockingIOError, FileNotFoundError):
        is_ours = False
    if not is_ours:
        raise RecipeError(
            f"--out {out}",
            found="another run is writing it now",
            rule="a folder has one writer",
            do="wait for it, or name another folder",
        )


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _digests(folder: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.iterdir()):
        with open(path, "rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        found[path.name] = {"sha256": digest, "size_bytes": path.stat().st_size}
    return found
