"""The files of a user that a study reads: pinned by name and size, watched for changes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from frontload.recipes.artifact import raw_listing
from frontload.recipes.errors import RecipeError
from frontload.recipes.grammar.load import Loaded
from frontload.recipes.runs.training import ROWS
from frontload.recipes.stage import Stage
from frontload.recipes.study.points import BASE, Point, grid_arms, study_points
from frontload.recipes.study.schema import StudyRecipe

PLAIN_FILES = (".jsonl", ".txt")  # of the formats that are read: what lies on the disk is the text


def pin_own_files(loaded: Loaded[StudyRecipe]) -> Loaded[StudyRecipe]:
    """The same study with its files by name and size; of each the first row is read.

    Raises: RecipeError naming file, line and pattern if a pattern names no file, a first row lacks
            a field, a test file is a training file, or files are too small for what is asked.
    """
    own = loaded.value.own
    if own is None:
        return loaded
    from frontload.data_tools.corpus.own_data import check_first_rows, check_split, list_own_files
    from frontload.data_tools.raw.manifest import sizes_of

    try:
        files = sizes_of(list_own_files(own))
        check_first_rows(own)
        check_split(own)
    except RecipeError as error:
        field, _, pattern = error.asked.partition(" ")
        found = f"{pattern}: {error.found}" if pattern else error.found
        raise loaded.refuse(field.rstrip(":"), found=found, rule=error.rule, do=error.do) from error
    _refuse_too_small(loaded, dict(files))
    return replace(loaded, value=replace(loaded.value, own=replace(own, files=files)))


def _refuse_too_small(loaded: Loaded[StudyRecipe], sizes: Mapping[str, int]) -> None:
    """Refuses files that cannot hold the tokens that pretraining reads of them.

    A token of a byte-level tokenizer is at least one byte, so the bytes of plain files are a bound;
    what a compressed file holds is not known.
    """
    from frontload.data_tools.raw.manifest import list_files

    recipe = loaded.value
    own, knobs = recipe.own, recipe.pretraining
    assert own is not None, "of a user's own files"
    largest = max(arm.reasoning_tokens for arm in grid_arms(recipe).values())
    tuned = {
        point.tuning.mix: point.tuning.tokens
        for point in sorted(study_points(recipe), key=_sft_tokens)
        if point.tuning is not None
    }
    sft = recipe.sft.max_epochs if recipe.sft.budget_unit != ROWS else {}  # rows count padding too
    for field, section, mix, tokens in (
        ("base_files", "pretraining", BASE, knobs.tokens - largest),
        ("reasoning_files", "pretraining", "own", largest),
        ("reasoning_files", "sft", "own", tuned.get("own", 0)),
    ):
        allowed = knobs.max_epochs if section == "pretraining" else sft
        names = [file.name for file in list_files(getattr(own, field), revision="")]
        if not all(name.endswith(PLAIN_FILES) for name in names) or mix not in allowed:
            continue
        size, passes = sum(sizes[name] for name in names), allowed[mix]
        if tokens > size * passes:
            raise loaded.refuse(
                f"own.{field}",
                found=f"{size:_} bytes, at most as many tokens, for {tokens:_} tokens of "
                f"{section} in at most {passes:g} passes",
                rule=f"a set is read at most {section}.max_epochs times",
                do=f"name more files, or lower {section}.tokens",
            )


def _sft_tokens(point: Point) -> int:
    return point.tuning.tokens if point.tuning is not None else 0


def changed_files(stages: Sequence[Stage], built: Mapping[str, Path]) -> tuple[str, ...]:
    """Raw files that were written after a built stage read or listed them; none is opened.

    Their bytes are in no key, so what was made from them is found as before.
    """
    found: dict[str, None] = {}
    for stage in stages:
        if stage.kind not in ("import_own", "import_raw") or stage.key not in built:
            continue
        from frontload.data_tools.corpus.listing import read_listing
        from frontload.data_tools.corpus.own_data import MANIFEST
        from frontload.data_tools.raw.manifest import changed_since, read_manifest

        folder = built[stage.key]
        if stage.kind == "import_raw":
            listing = raw_listing(folder)
            files = [file for group in read_listing(folder).values() for file in group]
        else:
            listing = folder / MANIFEST
            files = list(read_manifest(listing))
        found |= dict.fromkeys(changed_since(files, listing=listing))
    return tuple(found)
