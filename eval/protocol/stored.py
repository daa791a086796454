"""A finished evaluation in a folder: what it asked, and how its scores are kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frontload.data_tools.disk.files import read_object
from frontload.eval.protocol.summary import FORMAT
from frontload.recipes.errors import ArtifactError, RecipeError

SUMMARY = "evaluation.json"


@dataclass(frozen=True, kw_only=True)
class AskedBenchmark:
    """What decides the answers to one benchmark, beside the model and the seed."""

    prompts: str  # digest
    settings: str  # digest of the sampling
    num_samples: int


@dataclass(frozen=True, kw_only=True)
class AskedSuite:
    """What decides all answers of an evaluation."""

    model: str
    seed: int
    size: str
    benchmarks: Mapping[str, AskedBenchmark]


def read_summary(folder: Path) -> dict[str, Any]:
    """The summary that an evaluation left.

    Raises: ArtifactError when there is none, or one of another version.
    """
    path = folder / SUMMARY
    shape = {"format": int, "model": str, "seed": int, "size": str, "benchmarks": dict}
    found = read_object(path, shape)
    if found["format"] != FORMAT:
        raise ArtifactError(
            str(path),
            found=f"format {found['format']}",
            rule=f"this version reads and writes format {FORMAT}",
            do="evaluate again: delete this file alone, and the answers beside it are kept",
        )
    return found


def require_own_folder(folder: Path, asked: AskedSuite) -> None:
    """Refuses a folder whose scores are of other answers, which this evaluation would replace.

    More benchmarks, more samples and another metric of the same answers are welcome.

    Raises: RecipeError naming the first difference; ArtifactError for a damaged summary.
    """
    if not (folder / SUMMARY).is_file():
        return
    difference = _difference(read_summary(folder), asked)
    if difference:
        raise RecipeError(
            f"eval --out {folder}",
            found=f"scores of another evaluation: {difference}",
            rule="a folder holds the scores of one model, seed and size, and loses none of them",
            do="name another folder with --out; the answers and scores there stay",
        )


def _difference(held: Mapping[str, Any], asked: AskedSuite) -> str:
    for name, new in (("model", asked.model), ("seed", asked.seed), ("size", asked.size)):
        if held[name] != new:
            return f"{name} {held[name]}, and {new} is asked"
    for name, old in held["benchmarks"].items():
        if old["accuracy"] is None:
            continue
        one = asked.benchmarks.get(name)
        if one is None:
            return f"{name}, which is not asked now"
        if (old["prompts"], old["settings"]) != (one.prompts, one.settings):
            what = "prompts" if old["prompts"] != one.prompts else "sampling"
            return f"{name} with other {what}"
        if old["num_samples"] > one.num_samples:
            return f"{old['num_samples']} samples of {name}, and {one.num_samples} are asked"
    return ""
