"""`frontload data curate`: parses, calls, prints; exit code."""

import argparse
import sys
from pathlib import Path
from typing import Any

from frontload.data_tools.curation.describe import (
    shown_composition,
    shown_overlap,
    shown_removals,
)
from frontload.data_tools.curation.inputs import check_inputs
from frontload.data_tools.curation.run import CurateRequest, curate, request_key
from frontload.data_tools.disk.files import file_sha256, read_json
from frontload.data_tools.disk.publish import check_place, tidy, work_folder
from frontload.data_tools.raw.rejects import check_rejects
from frontload.recipes.errors import ArtifactError, RecipeError
from frontload.recipes.runs.curation import load_curation


def add_arguments(one: argparse.ArgumentParser) -> None:
    """Those of `curate`."""
    one.add_argument(
        "recipe", metavar="RECIPE", help="a .yaml file, or a name of recipes/curations"
    )
    one.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="made by this")
    one.add_argument("--workers", type=int, default=1, help="processes; the bytes do not depend")
    one.add_argument("--rejects", type=Path, metavar="FILE", help="JSONL of every dropped row")
    one.set_defaults(run=run_curate)


def run_curate(arguments: argparse.Namespace) -> int:
    """Writes the folder, and prints what each set is made of."""
    if arguments.workers < 1:
        raise RecipeError(
            "--workers",
            found=str(arguments.workers),
            rule="at least one process works",
            do="write 1 or more",
        )
    loaded = load_curation(arguments.recipe, overrides=arguments.overrides)
    check_place(arguments.out, asked="--out")
    _check_kind(arguments.out)
    inputs = check_inputs(loaded)
    check_rejects(
        arguments.rejects,
        read=[file.file for file in inputs.files],
        written=[arguments.out, work_folder(arguments.out)],
    )
    if arguments.out.exists():
        _check_made(arguments.out, request_key(loaded.value, inputs))
        tidy(arguments.out, asked="--out")
        print(f"{arguments.out} is already made from this recipe and these files")
    else:
        request = CurateRequest(
            recipe=loaded.value,
            inputs=inputs,
            out=arguments.out,
            workers=arguments.workers,
            rejects=arguments.rejects,
        )
        curate(request, tell=lambda line: print(line, file=sys.stderr, flush=True))
    print(show_folder(arguments.out))
    return 0


def _check_kind(out: Path) -> None:
    """Refuses a name that something else has."""
    if out.exists() and not (out / "manifest.json").is_file():
        raise RecipeError(
            f"--out {out}",
            found="something that is no curation is there",
            rule="a result never replaces what it did not make",
            do="name another folder, or remove this one",
        )


def _check_made(out: Path, key: str) -> None:
    """Accepts a folder that is the result of this very request, whole.

    Raises: RecipeError when it is another's; ArtifactError when a file is not what was written.
    """
    manifest: Any = read_json(out / "manifest.json")
    if not isinstance(manifest, dict) or manifest.get("key") != key:
        raise RecipeError(
            f"--out {out}",
            found="the result of another recipe, or of other files",
            rule="a result is never written over",
            do="name another folder, or remove this one",
        )
    for name, found in manifest["files"].items():
        if not (out / name).is_file() or file_sha256(out / name) != found["sha256"]:
            raise ArtifactError(
                f"{out / name}",
                found="not the bytes that its manifest states",
                rule="nothing edits a result",
                do="remove the folder and run the command again",
            )


def show_folder(out: Path) -> str:
    """A finished folder's counts, as tables."""
    manifest = read_json(out / "manifest.json")
    lines: list[str] = []
    for source, counts in manifest["dropped"].items():
        files = [each for each in manifest["inputs"] if each["source"] == source]
        kept = sum(each["rows_kept"] for each in files)
        read = sum(each["rows_read"] for each in files)
        lines.append(f"{source}: {kept:,} of {read:,} rows kept")
        lines.extend(f"  dropped   {count:>12,}  {reason}" for reason, count in counts.items())
    lines.append("")
    compositions = read_json(out / "compositions.json")
    for name in manifest["set_order"]:
        lines += [shown_composition(compositions[name]), ""]
    if (out / "decontamination.json").is_file():
        lines += ["evaluation items", shown_removals(read_json(out / "decontamination.json")), ""]
    if (out / "overlaps.json").is_file():
        lines += [shown_overlap(each) for each in read_json(out / "overlaps.json").values()]
    return "\n".join(lines).rstrip()
