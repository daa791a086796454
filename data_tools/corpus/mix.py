"""A study's mix as a curation: sets of its corpus, of which the last one is the mix."""

from pathlib import Path
from typing import Any

from frontload.data_tools.curation.adapters import ROWS
from frontload.data_tools.curation.inputs import check_inputs
from frontload.data_tools.curation.run import CurateRequest, curate
from frontload.data_tools.disk.files import read_json
from frontload.recipes.artifact import corpus_set
from frontload.recipes.errors import RecipeError
from frontload.recipes.grammar.load import Loaded
from frontload.recipes.runs.curation import (
    CuratedSet,
    Curation,
    Duplicates,
    Policy,
    Source,
    check_curation,
)
from frontload.recipes.schema import Mix

FILTERED_MEMBER = "ldq"  # Front-Loading Reasoning, section 4: ALF is the long answers of LDQ
LONG, MIX = "long_answers", "mix"  # names of sets, which no corpus set has
STATED = (
    *("format", "name", "rows", "tokens", "domains", "families", "members"),
    "answer_tokens_histogram",
)
"""What composition.json states of a mix."""
NO_DUPLICATES = Duplicates(shingle_words=1, permutations=1, bands=1, threshold=1.0, seed=0)
"""A corpus is written without them, so nothing is compared."""


def mix_curation(recipe: Mix, corpus: Path, *, tokenizer: Path) -> Curation:
    """The curation of a mix: union, seeded shares, then the length filter of its LDQ.

    Raises: RecipeError for a length filter without LDQ.
    """
    if recipe.min_answer_tokens and FILTERED_MEMBER not in recipe.members:
        raise RecipeError(
            f"mix {recipe.name}: min_answer_tokens",
            found=f"{recipe.min_answer_tokens} with members {', '.join(recipe.members)}",
            rule=f"the length filter keeps long answers of {FILTERED_MEMBER} (set ALF)",
            do=f"write 0, or add {FILTERED_MEMBER} to the members",
        )
    sources = {
        name: Source(files=(str(corpus_set(corpus, name)),), adapter=ROWS)
        for name in recipe.members
    }
    members, sets = recipe.members, {}
    named = {*recipe.share_of_member, *recipe.part_of_member}
    if above := recipe.min_answer_tokens:
        members = tuple(LONG if name == FILTERED_MEMBER else name for name in members)
        named -= {FILTERED_MEMBER}
        sets[LONG] = _drawn(recipe, (FILTERED_MEMBER,), named={FILTERED_MEMBER}, above=above)
    sets[MIX] = _drawn(recipe, members, named=named)
    return Curation(
        tokenizer=str(tokenizer),
        seed=recipe.seed,
        heldout_share=0.0,
        multi_turn_answer="last",
        policy=Policy(unsplit="drop", truncated="keep"),
        duplicates=NO_DUPLICATES,
        decontamination=None,
        sources=sources,
        sets=sets,
        overlaps={},
    )


def _drawn(recipe: Mix, members: tuple[str, ...], *, named: set[str], above: int = 0) -> CuratedSet:
    """A set of members, with the shares and parts that the mix takes of the named ones."""
    shares, parts = recipe.share_of_member.items(), recipe.part_of_member.items()
    return CuratedSet(
        members=members,
        share_of_member={name: share for name, share in shares if name in named},
        part_of_member={name: part for name, part in parts if name in named},
        answer_tokens_above=above,
    )


def mix_file(folder: Path) -> Path:
    """The rows of the mix, in the folder of its sets."""
    return folder / f"{MIX}.jsonl"


def make_mix(recipe: Mix, corpus: Path, *, tokenizer: Path, folder: Path) -> dict[str, Any]:
    """Writes the sets to `folder`, if they are not there yet, and returns the mix's composition.

    Raises: RecipeError for a mix that its corpus cannot make, or of which no row is left.
    """
    loaded = Loaded(
        value=mix_curation(recipe, corpus, tokenizer=tokenizer), places={"": f"mix {recipe.name}"}
    )
    check_curation(loaded)
    if not folder.exists():
        request = CurateRequest(
            recipe=loaded.value, inputs=check_inputs(loaded), out=folder, workers=1, rejects=None
        )
        curate(request, tell=lambda line: None)
    compositions = read_json(folder / "compositions.json")
    dropped = {
        f"{member}: {reason}": count
        for member, reasons in read_json(folder / "manifest.json")["dropped"].items()
        for reason, count in reasons.items()
    }
    for each in loaded.value.sets:
        dropped |= compositions[each]["dropped"]
    found = {name: compositions[MIX][name] for name in STATED}
    return found | {"name": recipe.name, "dropped": dropped}
