"""A planned blend as a folder that appears whole: the ledger, and a folder of each phase.

A killed run leaves nothing to go on from: the next one starts anew.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from frontload.data_tools.blending.budget import Budget
from frontload.data_tools.blending.phases import PhaseFolder, write_phases
from frontload.data_tools.blending.report import ledger_json
from frontload.data_tools.blending.source import SourceIndex
from frontload.data_tools.disk.files import file_sha256, read_json, read_object
from frontload.data_tools.disk.publish import (
    check_place,
    check_there,
    clear,
    publish_folder,
    tidy,
    workplace,
)
from frontload.recipes.artifact import write_json
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
        tidy(out, asked="--out")
        return False
    with workplace(out, asked="--out") as work:
        clear(work)  # of a run that was killed
        try:
            _write(budget, sources, ledger, folder=work / "blend")
            publish_folder(work / "blend", out)
        except BaseException:
            clear(work)
            raise
    return True


def _write(
    budget: Budget, sources: Mapping[str, SourceIndex], ledger: Mapping[str, Any], *, folder: Path
) -> None:
    phases = [
        PhaseFolder(recipe=blend, folder=folder / blend.phase, mix_of=phase.mix_of)
        for blend, phase in zip(budget.blends(), budget.phases, strict=True)
    ]
    for phase in phases:
        phase.folder.mkdir(parents=True)
    write_phases(phases, sources)
    for phase in phases:
        write_json(phase.folder / MANIFEST, {"format": 1, "files": _digests(phase.folder)})
    write_json(folder / LEDGER, ledger)


def check_tokenizers(prefixes: Mapping[str, Path]) -> None:
    """Refuses sources whose manifests name different tokenizers; without manifests, nothing.

    Raises: RecipeError naming two sources.
    """
    known: dict[str, str] = {}
    for name, prefix in prefixes.items():
        manifest = prefix.with_name(prefix.name + ".manifest.json")
        if manifest.is_file():
            known[name] = str(read_object(manifest, {}).get("tokenizer_sha256", ""))
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
    check_place(out, asked="--out")
    if not out.exists():
        return False
    if (out / LEDGER).is_file() and read_json(out / LEDGER) == json.loads(json.dumps(ledger)):
        for phase in ledger["phases"]:
            folder = out / phase["name"]
            files = read_json(folder / MANIFEST)["files"]
            check_there({folder / name: one["size_bytes"] for name, one in files.items()})
        return True
    raise RecipeError(
        f"--out {out}",
        found="something else is there",
        rule="a blend never replaces what is there",
        do="name another folder, or remove this one",
    )


def _digests(folder: Path) -> dict[str, dict[str, Any]]:
    return {
        path.name: {"sha256": file_sha256(path), "size_bytes": path.stat().st_size}
        for path in sorted(folder.iterdir())
    }
