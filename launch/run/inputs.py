"""The data and the start model that a training run is given, checked against its recipe."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frontload.recipes.artifact import index_prefix
from frontload.recipes.errors import ArtifactError, RecipeError
from frontload.recipes.runs.training import ROWS, SFT_STAGE, PretrainRecipe, SftRecipe
from frontload.recipes.runs.training_checks import check_phase_plan

PLAN = "plan.json"
STATE = "training_state.json"
NAMING_FILES = {
    "blend": (PLAN,),
    "pack": ("pack.json",),
    "start": ("weights/.metadata", "model.safetensors.index.json", "model.safetensors"),
    "tokenizer": ("tokenizer.json",),
}
"""Role -> the small file that names the bytes of such a folder, or the file itself."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """What the command line names."""

    blends: Sequence[Path] = ()
    indexes: Sequence[Path] = ()
    pack: Path | None = None
    start: Path | None = None
    until: str = ""  # last phase to train; "" = all


Roles = dict[str, Path]
"""Role -> the folder that a user named for it."""


def check_inputs(recipe: PretrainRecipe | SftRecipe, given: Given) -> dict[str, Roles]:
    """Stage -> what it reads, for the stages to train: found and checked before the first begins.

    Raises: RecipeError for what is missing, too much, or not this recipe's; ArtifactError for a
        folder that is not what it should be.
    """
    if isinstance(recipe, SftRecipe):
        return _of_sft(recipe, given)
    phases = phases_to_train(recipe, given)
    if given.pack is not None:
        raise _unused("--pack", "pretraining reads blends", "give --blend FOLDER... in its place")
    check_blends(given.blends, phases)
    stages: dict[str, Roles] = {}
    for name, blend in zip(phases, given.blends, strict=True):
        plan = read_json(blend / PLAN, "blend")
        check_phase_plan(recipe, name, plan)
        stages[name] = {"blend": blend, **find_indexes(blend, plan, given.indexes)}
    if given.start is not None:
        stages[phases[0]]["start"] = given.start
    return stages


def _of_sft(recipe: SftRecipe, given: Given) -> dict[str, Roles]:
    if given.blends or given.until:
        asked = "--blend" if given.blends else "--until"
        raise _unused(asked, "fine-tuning reads one pack", "give --pack FOLDER in its place")
    if given.pack is None or given.start is None:
        missing = "--pack" if given.pack is None else "--start"
        raise RecipeError(
            f"train {missing}",
            found="is not given",
            rule="fine-tuning reads a pack and goes on from a checkpoint",
            do=f"add {missing} FOLDER",
        )
    read_json(given.start / STATE, "checkpoint")
    pack = read_json(given.pack / "pack.json", "pack")
    rows = int(pack["sequence_tokens"])
    if rows != recipe.sequence_tokens:
        raise RecipeError(
            f"train --pack {given.pack}",
            found=f"rows of {rows} tokens",
            rule=f"the recipe's sequence_tokens is {recipe.sequence_tokens}",
            do="make the pack with the recipe's sequence_tokens",
        )
    _check_budget(recipe, given.pack, pack=pack)
    return {SFT_STAGE: {"pack": given.pack, "start": given.start}}


def _check_budget(recipe: SftRecipe, path: Path, *, pack: Mapping[str, Any]) -> None:
    """A pack of a budget in real tokens holds its steps: they are the recipe's."""
    asked = found = ROWS
    do = "make the pack without --budget-unit"
    if recipe.budget_unit != ROWS:
        rows, steps = recipe.global_batch_sequences, recipe.num_steps(recipe.tokens)
        asked = _budget_text(recipe.budget_unit, recipe.tokens, steps=steps, rows=rows)
        do = (
            f"frontload data pack ... --budget-unit {recipe.budget_unit} --budget-tokens "
            f"{recipe.tokens} --step-tokens {recipe.step_tokens} --batch-sequences {rows}"
        )
    if step := pack.get("step_budget"):
        found = _budget_text(
            step["unit"], pack["budget_tokens"], steps=step["steps"], rows=step["batch_rows"]
        )
    if found != asked:
        raise RecipeError(
            f"train --pack {path}",
            found=f"a budget in {found}",
            rule=f"the recipe's budget is in {asked}",
            do=do,
        )


def _budget_text(unit: str, tokens: int, *, steps: int, rows: int) -> str:
    return f"{unit}: {tokens:_} tokens in {steps:_} steps of at most {rows} rows"


def check_blends(blends: Sequence[object], phases: Sequence[str]) -> None:
    """Checks that there is one blend for each phase.

    Raises: RecipeError for another number.
    """
    if len(blends) != len(phases):
        raise RecipeError(
            "train --blend",
            found=f"{len(blends)} blends for the phases {', '.join(phases)}",
            rule="each phase that is trained reads one blend, in their order",
            do="name one folder for each of them, or end earlier with --until PHASE",
        )


def phases_to_train(recipe: PretrainRecipe, given: Given) -> list[str]:
    """The phases after the start model's position, up to `until`.

    Raises: RecipeError for a start that stands inside a phase, or an `until` that is none.
    """
    stages = recipe.stages()
    names = list(stages)
    if given.until and given.until not in names:
        raise RecipeError(
            f"train --until {given.until}",
            found="no phase of that name",
            rule="phases of this recipe are " + ", ".join(names),
            do=f"write --until {names[0]}",
        )
    wanted = names[: names.index(given.until) + 1] if given.until else names
    if given.start is None:
        return wanted
    state = read_json(given.start / STATE, "checkpoint")
    ends = {stages[name].start_sample: name for name in names[1:]}
    name = ends.get(int(state["samples"]))
    if name is None or name not in wanted or not state["has_optimizer"]:
        raise RecipeError(
            f"train --start {given.start}",
            found=f"a model after {state['samples']} samples"
            + ("" if state["has_optimizer"] else ", without its optimizer"),
            rule="a run goes on at the end of one of its phases: "
            + (", ".join(f"{at} ({one} is next)" for at, one in ends.items()) or "it has only one"),
            do="give the checkpoint of a phase of this recipe",
        )
    return wanted[wanted.index(name) :]


def find_indexes(blend: Path, plan: Mapping[str, Any], folders: Sequence[Path]) -> dict[str, Path]:
    """Source -> index folder: the one whose .idx has the digest that the plan states.

    Looks in `folders`, then beside the blend as a store lays artifacts out.

    Raises: RecipeError naming the source that has none.
    """
    left = {str(one["index_sha256"]): str(one["name"]) for one in plan["sources"]}
    found: dict[str, Path] = {}
    beside = blend.resolve().parent.parent.glob("index/*")
    for folder, digest in _digests([*folders, *sorted(beside)]):
        if digest in left:
            found[left.pop(digest)] = folder
        if not left:
            return found
    names = ", ".join(sorted(left.values()))
    raise RecipeError(
        f"train --index, for blend {blend}",
        found=f"no index of {names}",
        rule="the index of each source is the one that the blend was planned on, by its digest",
        do=f"add --index FOLDER of {names}",
    )


def _digests(folders: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    for folder in folders:
        path = index_prefix(folder).with_suffix(".idx")
        if path.is_file():
            with open(path, "rb") as file:
                yield folder, hashlib.file_digest(file, "sha256").hexdigest()


def digest_input(role: str, path: Path) -> str:
    """What tells one input from another: the digest of the small file that names its bytes.

    An input that is a file is its own.

    Raises: ArtifactError if the folder has none.
    """
    names = NAMING_FILES.get(role, ("documents.idx",))
    files = [path] if path.is_file() else [path / name for name in names]
    for file in files:
        if file.is_file():
            with open(file, "rb") as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest()
    raise ArtifactError(
        f"{role} {path}",
        found="no " + " or ".join(names),
        rule="a model is a checkpoint or a Hugging Face folder"
        if role == "start"
        else f"a folder for {role} has one",
        do="correct the path, or make it again",
    )


def read_json(path: Path, what: str) -> dict[str, Any]:
    """A JSON file of an input.

    Raises: ArtifactError if it is missing or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _torn(what, path.parent, path.name) from error


def _torn(what: str, folder: Path, name: str) -> ArtifactError:
    return ArtifactError(
        f"{what} {folder}",
        found=f"no usable {name}",
        rule=f"a {what} has one",
        do="check the path, or make it again",
    )


def _unused(flag: str, rule: str, do: str) -> RecipeError:
    return RecipeError(f"train {flag}", found="is given", rule=rule, do=do)
