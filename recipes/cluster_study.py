"""What a crossed study for a cluster may say, and what must hold in it; cluster_runs.py expands it.

`study/expand.py` makes stages for one machine, in one store. Here a run is a job of its own with a
folder of its own, and its numbers stand in recipes that it names: recipes/training, recipes/blends.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from frontload.recipes.grammar.limits import TOLERANCE, at_least, distinct
from frontload.recipes.grammar.load import Loaded, nearest
from frontload.recipes.runs.blend import BlendRecipe
from frontload.recipes.runs.grpo import GrpoRecipe
from frontload.recipes.runs.training import PretrainRecipe, SftRecipe
from frontload.recipes.study.schema import RlCell, SftCell

PRETRAIN, SFT, CONVERT, GRPO = "pretrain", "sft", "convert", "grpo"
ONCE = "1"
NUM_PROMPT_FILES = 2


@dataclass(frozen=True, kw_only=True)
class ArmRun:
    """One pretraining, from the end of the trunk on."""

    recipe: str  # of recipes/training; its phases up to the trunk's end are the trunk's
    blend: str  # of recipes/blends: what `frontload data blend` makes its phases of


@dataclass(frozen=True, kw_only=True)
class TuneRuns:
    """Every arm is tuned on every mix of `mixes`; `cells` lie off that grid."""

    recipes: dict[str, str]  # multiple of the budget, as "1" and "2" -> recipe of recipes/training
    mixes: tuple[str, ...]
    cells: tuple[SftCell, ...]


@dataclass(frozen=True, kw_only=True)
class RlRuns:
    """GRPO on top of some cells of the SFT grid."""

    recipe: str
    cells: tuple[RlCell, ...]


@dataclass(frozen=True, kw_only=True)
class ClusterData:
    """What the data tools make before the first run. Paths: below the data folder."""

    tokenizer: str  # a tokenizer.json, or a folder with one
    base_files: tuple[str, ...]  # base text, as `data preprocess --input` takes it
    base_field: str
    curation: str  # of recipes/curations: makes the sets that arms and packs are named after
    pack_epochs: dict[str, int]  # mix -> passes over it in its pack, enough for the longest run
    over_long: str  # of `data pack`: drop or split_at_turn
    prompts: tuple[str, ...] = ()  # the two files of `data crossthink`, general and math; for `rl`
    validation_prompts: int = 0  # of them, kept out of training


@dataclass(frozen=True, kw_only=True)
class ClusterPlacements:
    """Where each kind of run goes: names of recipes/placements, or paths."""

    pretrain: str
    sft: str
    convert: str
    grpo: str = ""


@dataclass(frozen=True, kw_only=True)
class ClusterStudy:
    """The paper's matrix as runs: a shared trunk, its branches, SFT, the bridge to RL, and RL."""

    trunk: str  # the arm whose first phases every arm shares
    branch_after: str  # the last phase of the trunk
    arms: dict[str, ArmRun]  # a mix, or a mix at another ratio as `lmq@60-40`
    without: tuple[str, ...] = ()  # arms of the parent that are left out
    sft: TuneRuns
    rl: RlRuns | None = None
    data: ClusterData
    placements: ClusterPlacements


@dataclass(frozen=True, kw_only=True)
class Recipes:
    """The training recipes that a study names, loaded and checked each by itself."""

    pretrain: dict[str, PretrainRecipe]
    sft: dict[str, SftRecipe]
    grpo: dict[str, GrpoRecipe]
    blends: dict[str, BlendRecipe]


def leave_out(loaded: Loaded[ClusterStudy]) -> Loaded[ClusterStudy]:
    """The study without the arms that it leaves out.

    Raises: RecipeError for a name that is no arm.
    """
    study = loaded.value
    for place, name in enumerate(study.without):
        _known(loaded, f"without.{place}", name, tuple(study.arms))
    arms = {name: arm for name, arm in study.arms.items() if name not in study.without}
    return replace(loaded, value=replace(study, arms=arms))


def load_recipes(
    study: ClusterStudy, train: Callable[[str], Any], blend: Callable[[str], BlendRecipe]
) -> Recipes:
    """Everything that the study names, by two loaders, which refuse what they do not find."""
    return Recipes(
        pretrain={arm.recipe: train(arm.recipe) for arm in study.arms.values()},
        sft={name: train(name) for name in study.sft.recipes.values()},
        grpo={} if study.rl is None else {study.rl.recipe: train(study.rl.recipe)},
        blends={arm.blend: blend(arm.blend) for arm in study.arms.values()},
    )


def check_cluster_study(loaded: Loaded[ClusterStudy], recipes: Recipes) -> None:
    """Refuses a study whose runs do not fit together.

    Raises: RecipeError naming file, line and key of what is wrong.
    """
    study = loaded.value
    _check_kinds(loaded, recipes)
    _known(loaded, "trunk", study.trunk, tuple(study.arms))
    trunk = recipes.pretrain[study.arms[study.trunk].recipe]
    names = [phase.name for phase in trunk.phases]
    _known(loaded, "branch_after", study.branch_after, tuple(names[:-1]))
    shared = names.index(study.branch_after) + 1
    for name, arm in study.arms.items():
        recipe = recipes.pretrain[arm.recipe]
        differs = _first_difference(trunk, recipe, shared=shared)
        if differs:
            raise loaded.refuse(
                f"arms.{name}.recipe",
                found=f"{arm.recipe} and {study.arms[study.trunk].recipe} differ in {differs}",
                rule=f"arms share what is trained up to the end of phase {study.branch_after}",
                do="give them the same value, or leave the arm to a study of its own",
            )
        _check_blend(loaded, name, recipe, recipes.blends[arm.blend])
    _check_cells(loaded, recipes)


def _check_kinds(loaded: Loaded[ClusterStudy], recipes: Recipes) -> None:
    study = loaded.value
    groups: list[tuple[str, type, dict[str, Any]]] = [
        ("arms", PretrainRecipe, recipes.pretrain),
        ("sft.recipes", SftRecipe, recipes.sft),
        ("rl.recipe", GrpoRecipe, recipes.grpo),
    ]
    for path, kind, found in groups:
        for name, recipe in found.items():
            if not isinstance(recipe, kind):
                raise loaded.refuse(
                    path,
                    found=f"'{name}' is a {type(recipe).__name__}",
                    rule=f"here stands a {kind.__name__}, a file of recipes/training",
                    do="name one whose file begins with "
                    + {PretrainRecipe: PRETRAIN, SftRecipe: SFT, GrpoRecipe: GRPO}[kind],
                )
    if study.rl is None:
        return
    for path, is_there in (
        ("placements.grpo", bool(study.placements.grpo)),
        ("data.prompts", len(study.data.prompts) == NUM_PROMPT_FILES),
        ("data.validation_prompts", study.data.validation_prompts > 0),
    ):
        if not is_there:
            raise loaded.refuse(
                path,
                found="is missing",
                rule="a study with `rl` says where it runs, from which two files of prompts, and "
                "how many of them validate",
                do="add it as paper_8b has it, or write rl: null",
            )


def _first_difference(trunk: PretrainRecipe, arm: PretrainRecipe, *, shared: int) -> str:
    """The first field in which an arm is not the trunk's before it branches; "" if none."""
    if trunk.training() != arm.training():
        mine, theirs = trunk.training(), arm.training()
        names = [name for name in vars(mine) if getattr(mine, name) != getattr(theirs, name)]
        return names[0]
    if trunk.model != arm.model:
        return "model"
    if trunk.phases[:shared] != arm.phases[:shared]:
        return "phases"
    return ""


def _check_blend(
    loaded: Loaded[ClusterStudy], name: str, recipe: PretrainRecipe, blend: BlendRecipe
) -> None:
    """The blend's phases are the training's: their names, lengths and shares."""
    found, wanted = "", ""
    batch = recipe.sequence_tokens * recipe.global_batch_sequences
    asked = {phase.name: phase for phase in recipe.phases}
    if (blend.sequence_tokens, tuple(blend.phases)) != (recipe.sequence_tokens, tuple(asked)):
        found = f"phases {', '.join(blend.phases)} of rows of {blend.sequence_tokens} tokens"
        wanted = f"{', '.join(asked)} of {recipe.sequence_tokens}"
    for phase, knobs in blend.phases.items() if not found else ():
        parts = {source: float(share) for source, share in (knobs.shares or {}).items()}
        if knobs.parts:
            parts = {source: part / knobs.tokens for source, part in knobs.parts.items()}
        shares = asked[phase].sources
        moved = [
            one
            for one in sorted({*parts, *shares})
            if abs(parts.get(one, 0.0) - shares.get(one, 0.0)) > TOLERANCE
        ]
        if moved:
            found = f"{parts.get(moved[0], 0.0):g} of {moved[0]} in phase {phase}"
            wanted = f"{shares.get(moved[0], 0.0):g}"
        elif 2 * abs(knobs.tokens - asked[phase].tokens) > batch:
            found = f"{knobs.tokens:_} tokens in phase {phase}"
            wanted = f"{asked[phase].tokens:_}, the nearest whole batches"
    if found:
        arm = loaded.value.arms[name]
        raise loaded.refuse(
            f"arms.{name}.blend",
            found=f"{arm.blend} has {found}",
            rule=f"the data of {arm.recipe} is {wanted}",
            do="name the blend that belongs to it, or mend one of the two",
        )


def _check_cells(loaded: Loaded[ClusterStudy], recipes: Recipes) -> None:
    study = loaded.value
    _known(loaded, "sft.recipes", ONCE, tuple(study.sft.recipes))
    single = recipes.sft[study.sft.recipes[ONCE]]
    for times, name in study.sft.recipes.items():
        if not times.isdigit() or recipes.sft[name].tokens != int(times) * single.tokens:
            raise loaded.refuse(
                f"sft.recipes.{times}",
                found=f"{name} has {recipes.sft[name].tokens:_} tokens",
                rule=f"it is the multiple of {study.sft.recipes[ONCE]}'s {single.tokens:_} that "
                "its key says",
                do="mend the key or the budget",
            )
    packs = tuple(study.data.pack_epochs)
    lists: dict[str, Sequence[Any]] = {"sft.mixes": study.sft.mixes, "sft.cells": study.sft.cells}
    lists |= {"rl.cells": study.rl.cells} if study.rl else {}
    for path, listed in lists.items():
        distinct(loaded, path, names=listed)
    held = study.data.validation_prompts
    at_least(loaded, "data.validation_prompts", value=held, least=0)
    for mix, epochs in study.data.pack_epochs.items():
        at_least(loaded, f"data.pack_epochs.{mix}", value=epochs, least=1)
    for place, mix in enumerate(study.sft.mixes):
        _known(loaded, f"sft.mixes.{place}", mix, packs)
    for place, cell in enumerate(study.sft.cells):
        _known(loaded, f"sft.cells.{place}.arm", cell.arm, tuple(study.arms))
        _known(loaded, f"sft.cells.{place}.mix", cell.mix, packs)
        times = tuple(study.sft.recipes)
        _known(loaded, f"sft.cells.{place}.multiplier", str(cell.multiplier), times)
    for place, one in enumerate(study.rl.cells if study.rl else ()):
        _known(loaded, f"rl.cells.{place}.arm", one.arm, tuple(study.arms))
        _known(loaded, f"rl.cells.{place}.mix", one.mix, study.sft.mixes)


def _known(loaded: Loaded[ClusterStudy], path: str, name: str, names: tuple[str, ...]) -> None:
    if name not in names:
        raise loaded.refuse(
            path,
            found=f"'{name}' is not there",
            rule="it is one of " + (", ".join(names) or "nothing"),
            do=nearest(name, names),
        )
