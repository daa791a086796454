"""The names of a study's sets, and what must hold in one on raw files."""

from frontload.recipes.grammar.limits import require_at_least, require_choice, require_distinct
from frontload.recipes.grammar.load import Loaded
from frontload.recipes.runs.curation import check_curation
from frontload.recipes.study.points import BASE
from frontload.recipes.study.schema import RawKnobs, StudyRecipe

OVER_LONG = ("drop", "split_at_turn")
NUM_PROMPT_FILES = 2


def set_names(recipe: StudyRecipe) -> tuple[str, ...]:
    """What pretraining and SFT may name: mixes of a corpus, or base text and curated sets."""
    if recipe.raw is None:
        return tuple(recipe.mixes)
    return (BASE, *recipe.raw.curation.sets)


def check_raw(loaded: Loaded[StudyRecipe]) -> None:
    """Refuses raw files that a study could not be made of.

    Raises: RecipeError naming file, line and key of what is wrong.
    """
    recipe = loaded.value
    raw = recipe.raw
    assert raw is not None
    if recipe.mixes:
        raise loaded.refuse(
            "mixes",
            found="is stated beside raw.curation",
            rule="the sets of raw files are those of their curation",
            do="set it to {}",
        )
    for knob in ("revision", "tokenizer", "items", "heldout", "base_field"):
        if not getattr(raw, knob):
            raise loaded.refuse(
                f"raw.{knob}", found="is empty", rule="it is a name", do="write one"
            )
    require_at_least(loaded, "raw.seed", value=raw.seed, least=0)
    require_distinct(loaded, "raw.base_files", names=raw.base_files)
    require_choice(loaded, "raw.over_long", value=raw.over_long, names=OVER_LONG)
    check_curation(loaded.section("raw.curation", raw.curation))
    _check_prompts(loaded, raw)
    _check_indexed(loaded, raw)


def _check_prompts(loaded: Loaded[StudyRecipe], raw: RawKnobs) -> None:
    if loaded.value.rl is None:
        return
    if len(raw.prompts) != NUM_PROMPT_FILES or raw.validation_prompts < 1:
        is_short = len(raw.prompts) != NUM_PROMPT_FILES
        raise loaded.refuse(
            "raw.prompts" if is_short else "raw.validation_prompts",
            found=f"{len(raw.prompts)} files" if is_short else f"is {raw.validation_prompts}",
            rule="a study with `rl` names the two files of its prompts, general and math, and how "
            "many of them validate",
            do="add them, or write rl: null",
        )


def _check_indexed(loaded: Loaded[StudyRecipe], raw: RawKnobs) -> None:
    """Sets that pretraining reads have a text copy: their index is made of it."""
    recipe = loaded.value
    parts = recipe.pretraining.parts
    for mix, sizes in parts.items():
        require_choice(
            loaded, f"pretraining.parts.{mix}", value=mix, names=tuple(raw.curation.sets)
        )
        for name, size in sizes.items():
            path = f"pretraining.parts.{mix}.{name}"
            require_choice(loaded, path, value=name, names=tuple(raw.curation.sets))
            require_at_least(loaded, path, value=size, least=1)
    read = [*recipe.arms, *(arm.mix for arm in recipe.ratio_arms)]
    read = [name for mix in read for name in parts.get(mix, {mix: 1})]
    read += [name for point in recipe.points for name in point.windows]
    for name in dict.fromkeys(read):
        if name in raw.curation.sets and not raw.curation.sets[name].text_copy:
            raise loaded.refuse(
                f"raw.curation.sets.{name}",
                found="has no text_copy",
                rule="pretraining reads the text copy of a set",
                do="write text_copy: true, or name its parts in pretraining.parts",
            )
