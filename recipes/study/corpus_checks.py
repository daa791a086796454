"""What must hold in the corpus of a study, its mixes, and the cells that name them."""

from frontload.recipes.artifact import CORPUS_SETS, FAMILIES
from frontload.recipes.grammar.limits import (
    TOLERANCE,
    require_choice,
    require_distinct,
    require_levels,
    require_share,
    require_shares,
)
from frontload.recipes.grammar.load import Loaded
from frontload.recipes.schema import ReasoningWriter
from frontload.recipes.study.points import BASE, ratio_name
from frontload.recipes.study.raw_checks import check_raw, set_names
from frontload.recipes.study.schema import StudyRecipe

CORPORA = ("synthesis", "own", "raw")
PART_ENDS = 2


def check_corpus(loaded: Loaded[StudyRecipe]) -> None:
    """Refuses a corpus that is none or several, or whose writers are stated wrongly.

    Raises: RecipeError naming file, line and key.
    """
    recipe = loaded.value
    given = [name for name in CORPORA if getattr(recipe, name) is not None]
    if len(given) != 1:
        raise loaded.refuse(
            given[1] if given else CORPORA[0],
            found=" and ".join(given) + " are set" if given else f"none of {', '.join(CORPORA)}",
            rule="a study's corpus comes from exactly one of them",
            do="set all but one to null" if given else "add one of these sections",
        )
    if (recipe.raw is None) == (recipe.tokenizer is None):
        raise loaded.refuse(
            "tokenizer",
            found="is missing" if recipe.tokenizer is None else "is stated beside raw.tokenizer",
            rule="a study trains a tokenizer, or names one with its raw files",
            do="add the section" if recipe.tokenizer is None else "set it to null",
        )
    if recipe.synthesis is None:
        if recipe.draws_data_per_seed:
            raise loaded.refuse(
                "draws_data_per_seed",
                found=f"is true beside `{given[0]}`",
                rule="only a corpus that is written here can be drawn anew",
                do="write false: the seeds then share one draw, and the tables say so",
            )
        return
    for name in ("ldq", "shq"):
        writer: ReasoningWriter = getattr(recipe.synthesis, name)
        for family in writer.families:
            path = f"synthesis.{name}.families.{family}"
            require_choice(loaded, path, value=family, names=FAMILIES)
        require_shares(loaded, f"synthesis.{name}.families", of=writer.families, what="family")
        for knob in ("long_share", "short_share", "wrong_share"):
            require_share(loaded, f"synthesis.{name}.{knob}", value=getattr(writer, knob))
        if writer.long_share + writer.short_share > 1.0 + TOLERANCE:
            raise loaded.refuse(
                f"synthesis.{name}.short_share",
                found=f"long_share + short_share is {writer.long_share + writer.short_share:g}",
                rule="together they are at most 1; the rest has no trace",
                do="lower one of them",
            )
        require_levels(loaded, f"synthesis.{name}", low=writer.level_low, high=writer.level_high)


def check_mixes(loaded: Loaded[StudyRecipe]) -> None:
    """Refuses mixes, arms and SFT cells that name what is not there, or twice.

    Raises: RecipeError naming file, line and key.
    """
    recipe = loaded.value
    if recipe.raw is not None:
        check_raw(loaded)
    members = ("base", "own") if recipe.own is not None else CORPUS_SETS[:3]
    mixes = set_names(recipe)
    for name, mix in recipe.mixes.items():
        require_distinct(loaded, f"mixes.{name}.members", names=mix.members)
        if not mix.members:
            raise loaded.refuse(
                f"mixes.{name}.members",
                found="is empty",
                rule="a mix is the union of one or more sets of the corpus",
                do="name some of " + ", ".join(members),
            )
        for member in mix.members:
            require_choice(loaded, f"mixes.{name}.members", value=member, names=members)
        for member, kept in mix.share_of_member.items():
            path = f"mixes.{name}.share_of_member.{member}"
            require_choice(loaded, path, value=member, names=mix.members)
            require_share(loaded, path, value=kept, is_needed=True)
        _check_parts(loaded, name)
    for path, listed in (
        ("arms", recipe.arms),
        ("ratio_arms", recipe.ratio_arms),
        ("sft.mixes", recipe.sft.mixes),
        ("sft.cells", recipe.sft.cells),
    ):
        require_distinct(loaded, path, names=listed)
    for path, mix in _mixes_used(recipe):
        known = (*mixes, *recipe.own_samples) if path.startswith("sft.") else mixes
        require_choice(loaded, path, value=mix, names=known)
        if path.startswith("sft.") and (mix == BASE or _holds_base(recipe, mix)):
            raise loaded.refuse(
                path,
                found=f"'{mix}' holds base text",
                rule="SFT packs conversations: a question and its answer",
                do="name a mix without the member base",
            )
    arms = _arm_names(loaded)
    for place, cell in enumerate(recipe.sft.cells):
        require_choice(loaded, f"sft.cells.{place}.arm", value=cell.arm, names=arms)
        if cell.multiplier < 1:
            raise loaded.refuse(
                f"sft.cells.{place}.multiplier",
                found=f"is {cell.multiplier}",
                rule="an SFT budget is a whole multiple of sft.tokens",
                do="write 1 or more",
            )


def _holds_base(recipe: StudyRecipe, mix: str) -> bool:
    return mix in recipe.mixes and BASE in recipe.mixes[mix].members


def _check_parts(loaded: Loaded[StudyRecipe], name: str) -> None:
    """A part of a member is [from, to) of its rows; a share is drawn from all of them."""
    mix = loaded.value.mixes[name]
    for member, part in mix.part_of_member.items():
        path = f"mixes.{name}.part_of_member.{member}"
        require_choice(loaded, path, value=member, names=mix.members)
        if len(part) != PART_ENDS or not 0.0 <= part[0] < part[-1] <= 1.0:
            raise loaded.refuse(
                path,
                found=f"is {list(part)}",
                rule="a part begins at a share of the rows and ends at a larger one, up to 1",
                do="write e.g. [0.0, 0.5]",
            )
        if member in mix.share_of_member:
            raise loaded.refuse(
                path,
                found=f"share_of_member names {member} too",
                rule="a member is cut in one way",
                do="leave one of the two out",
            )


def _mixes_used(recipe: StudyRecipe) -> list[tuple[str, str]]:
    used = [(f"arms.{place}", mix) for place, mix in enumerate(recipe.arms)]
    used += [(f"ratio_arms.{place}.mix", arm.mix) for place, arm in enumerate(recipe.ratio_arms)]
    used += [(f"sft.mixes.{place}", mix) for place, mix in enumerate(recipe.sft.mixes)]
    used += [(f"sft.cells.{place}.mix", cell.mix) for place, cell in enumerate(recipe.sft.cells)]
    return [*used, ("mixes", BASE)]


def _arm_names(loaded: Loaded[StudyRecipe]) -> tuple[str, ...]:
    """The arms by name, those off the grid last; each of them is another one."""
    recipe = loaded.value
    if not recipe.arms:
        raise loaded.refuse(
            "arms",
            found="is empty",
            rule="a study compares one pretraining or more",
            do="write e.g. [base, ldq]",
        )
    names = list(recipe.arms)
    for place, arm in enumerate(recipe.ratio_arms):
        name = ratio_name(recipe.pretraining, arm.mix, arm.base_share)
        if arm.mix == BASE or name in names:
            raise loaded.refuse(
                f"ratio_arms.{place}",
                found="has the mix base" if arm.mix == BASE else f"is {name}, as another is",
                rule="an arm off the grid reads another number of reasoning tokens than any other",
                do="name a mix of reasoning"
                if arm.mix == BASE
                else f"write shares that differ by {recipe.pretraining.sequence_tokens} tokens",
            )
        names.append(name)
    return tuple(names)
