"""What `frontload data curate` may be told: sources, their policies, and the sets made of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from frontload.recipes.errors import RecipeError
from frontload.recipes.grammar.load import RECIPES, Loaded, load_recipe, nearest, recipe_names

CURATIONS = "curations"
UNSPLIT = ("drop", "whole_text")
TRUNCATED = ("keep", "drop")
MULTI_TURN = ("last", "sum")
DUPLICATES = ("exact", "near", "near_question")
SPECIAL_TEXT = ("drop", "encode", "text")
NEEDS_ANSWER = ("never", "weak", "always")
SOURCE_POLICIES = {"unsplit": UNSPLIT, "truncated": TRUNCATED}


def _neutral[Value](value: Value) -> Value:
    """A field that, left out, says nothing."""
    return field(default=value, metadata={"neutral": value})


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What becomes of rows that the paper says nothing about. A source may differ."""

    unsplit: str  # no reliable marker of turns: "drop" or "whole_text" (kept as base text)
    truncated: str  # <think> that is never closed: "keep" (flagged) or "drop"
    special_text: str = _neutral("drop")  # a row that spells a special token of the tokenizer:
    # "drop", or keep it and count the token's id ("encode"), or its letters ("text")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Files of one schema."""

    files: tuple[str, ...]  # names or globs, seen from the folder of the command
    adapter: str  # one of frontload.data_tools.curation.adapters
    domain: str = _neutral("")  # of every row; "" = the row's own
    text_field: str = _neutral("text")  # plain_text only: the field that holds the text
    question_field: str = _neutral("question")  # worked_answer only, like the next two
    answer_field: str = _neutral("answer")  # holds steps, then the separator, then the final answer
    separator: str = _neutral("####")  # "" = the whole answer is the final one
    unsplit: str = _neutral("")  # "" = as in `policy`
    truncated: str = _neutral("")


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """MinHash with banding: two texts are compared if one band of their signatures is equal."""

    shingle_words: int  # words of a shingle
    permutations: int  # length of a signature
    bands: int  # divides permutations
    threshold: float  # estimated Jaccard similarity from which on two texts are one
    seed: int


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Evaluation items that must not be trained on."""

    files: tuple[str, ...]  # names or globs
    fields: tuple[str, ...]  # text of an item; of these, those that the row has are joined
    name_field: str = _neutral("")  # field that names the row's own benchmark; "" = none
    answer_fields: tuple[str, ...] = _neutral(())  # text of an item's answer; () = not known
    choices_field: str = _neutral("")  # the answer is a number (from 0) or letter of this list


@dataclass(frozen=True, kw_only=True)
class Decontamination:
    """Which rows share too much text with an evaluation item. Words are runs of letters, digits.

    An item is weak when it has fewer than `rare_words` rare words: any page may hold it.
    """

    benchmarks: dict[str, Benchmark]
    ngram_words: int  # a hit is this many words in a row, in row and item alike
    overlap_words: int  # a row goes when its longest overlap with one item has this many words ...
    item_share: float  # ... or when this share of an item's n-grams stands in it
    shortest_item_words: int  # shorter items are not looked for; up to ngram_words as a whole
    line_item_words: int = _neutral(0)  # ... but from so many words on as a whole line; 0 = never
    item_jaccard: float = _neutral(0.0)  # ... or when the n-grams of row and item are so similar
    rare_words: int = _neutral(0)  # 0 = no item is weak
    rare_word_items: int = _neutral(0)  # a rare word stands in at most so many items
    needs_answer: str = _neutral("never")  # which items the answer has to follow in the row
    answer_within_words: int = _neutral(64)  # behind the item
    remove: bool = _neutral(True)  # false = rows are reported, and stay


@dataclass(frozen=True, kw_only=True)
class CuratedSet:
    """One named set: a union of sources and earlier sets, then what is left out of it."""

    members: tuple[str, ...]
    share_of_member: dict[str, float] = field(default_factory=dict, metadata={"neutral": {}})
    part_of_member: dict[str, tuple[float, ...]] = field(
        default_factory=dict, metadata={"neutral": {}}
    )  # member -> [from, to) of its seeded order, instead of a share: disjoint parts share no row
    answer_tokens_above: int = field(default=0, metadata={"neutral": 0})  # strictly; 0 = all rows
    duplicates: tuple[str, ...] = field(default=(), metadata={"neutral": ()})  # of DUPLICATES
    answers_per_question: int = field(default=0, metadata={"neutral": 0})  # first n; 0 = all
    text_copy: bool = field(default=False, metadata={"neutral": False})  # and SET.text.jsonl too


@dataclass(frozen=True, kw_only=True)
class Curation:
    """Everything that decides a byte of the result."""

    tokenizer: str  # a tokenizer.json or a folder with one: what a token is, everywhere here
    seed: int  # of shares and of the held-out questions
    heldout_share: float  # of questions; with all of their answers in SET.heldout.jsonl
    multi_turn_answer: str  # length of a dialogue's answer: "last" turn, or "sum" of all
    policy: Policy
    duplicates: Duplicates
    decontamination: Decontamination | None  # null = nothing is looked for
    sources: dict[str, Source]
    sets: dict[str, CuratedSet]
    overlaps: dict[str, tuple[str, ...]]  # name -> two sets: measured, never removed
    rows_a_file: int = field(default=0, metadata={"neutral": 0})  # of a set; 0 = one file


def load_curation(name: str, *, overrides: Sequence[str] = ()) -> Loaded[Curation]:
    """Reads a file, or one of recipes/curations by its name, and checks it against itself.

    Raises: RecipeError naming file, line and key.
    """
    path = Path(name)
    if path.suffix != ".yaml":
        path = RECIPES / CURATIONS / f"{name}.yaml"
        if not path.is_file():
            raise RecipeError(
                f"recipe {name}",
                found=f"no file, and no name in recipes/{CURATIONS}",
                rule="a curation is a .yaml file, or one that ships by its name",
                do=nearest(name, recipe_names(CURATIONS)),
            )
    loaded = load_recipe(path, Curation, overrides=overrides)
    check_curation(loaded)
    return loaded


def check_curation(loaded: Loaded[Curation]) -> None:
    """Refuses what no source could make right.

    Raises: RecipeError at the line that set the value.
    """
    recipe = loaded.value
    for path, value, allowed in _choices(recipe):
        if value not in allowed:
            raise loaded.refuse(
                path,
                found=f"'{value}'",
                rule=f"it is one of {', '.join(allowed)}",
                do=nearest(value, allowed),
            )
    for path, number, holds, rule in _numbers(recipe):
        if not holds:
            raise loaded.refuse(path, found=f"{number}", rule=rule, do="change the number")
    for section in ("sources", "sets"):
        if not getattr(recipe, section):
            raise loaded.refuse(
                section,
                found="empty",
                rule="sets are made of sources, and both are named in the recipe",
                do=f"name at least one of the {section}",
            )
    _check_answers(loaded)
    _check_sets(loaded)
    _check_overlaps(loaded)


def _check_answers(loaded: Loaded[Curation]) -> None:
    """An answer that is asked for is one that some benchmark states."""
    rules = loaded.value.decontamination
    if rules is None:
        return
    for name, each in rules.benchmarks.items():
        if each.choices_field and not each.answer_fields:
            raise loaded.refuse(
                f"decontamination.benchmarks.{name}.choices_field",
                found=f"{each.choices_field}, without answer_fields",
                rule="the answer names one of the choices",
                do="write answer_fields: [answer], or as the field is called",
            )
    if rules.needs_answer != "never" and not any(
        each.answer_fields for each in rules.benchmarks.values()
    ):
        raise loaded.refuse(
            "decontamination.needs_answer",
            found=f"{rules.needs_answer}, and no benchmark states an answer",
            rule="an answer is looked for where answer_fields name it",
            do="add answer_fields to a benchmark, or write never",
        )


def _choices(recipe: Curation) -> list[tuple[str, str, tuple[str, ...]]]:
    """Path, value and what it may be, of every value that is one of a few."""
    found: list[tuple[str, str, tuple[str, ...]]] = []
    found += [("multi_turn_answer", recipe.multi_turn_answer, MULTI_TURN)]
    found += [("policy.special_text", recipe.policy.special_text, SPECIAL_TEXT)]
    if rules := recipe.decontamination:
        found += [("decontamination.needs_answer", rules.needs_answer, NEEDS_ANSWER)]
    for name, allowed in SOURCE_POLICIES.items():
        found.append((f"policy.{name}", getattr(recipe.policy, name), allowed))
        for source_name, source in recipe.sources.items():
            if own := getattr(source, name):
                found.append((f"sources.{source_name}.{name}", own, allowed))
    for set_name, each in recipe.sets.items():
        for place, kind in enumerate(each.duplicates):
            found.append((f"sets.{set_name}.duplicates.{place}", kind, DUPLICATES))
    return found


Numbered = list[tuple[str, float, bool, str]]
"""Path, value, whether it is right, and the rule."""

SHARE_RULE = "a share is above 0 and at most 1"


def _numbers(recipe: Curation) -> Numbered:
    """Every number that can be wrong."""
    near, held = recipe.duplicates, recipe.heldout_share
    divides = near.bands > 0 and near.permutations % near.bands == 0
    bands_rule = f"bands divide the {near.permutations} permutations"
    return [
        ("seed", recipe.seed, recipe.seed >= 0, "a seed is 0 or more"),
        ("heldout_share", held, 0 <= held < 1, "a share from 0 to below 1"),
        ("duplicates.shingle_words", near.shingle_words, 0 < near.shingle_words <= 64, "1 to 64"),
        ("duplicates.permutations", near.permutations, 0 < near.permutations <= 1024, "1 to 1024"),
        ("duplicates.bands", near.bands, divides, bands_rule),
        ("duplicates.threshold", near.threshold, 0 < near.threshold <= 1, SHARE_RULE),
        ("rows_a_file", recipe.rows_a_file, recipe.rows_a_file >= 0, "0 (one file) or more"),
        ("duplicates.seed", near.seed, near.seed >= 0, "a seed is 0 or more"),
        *_decontamination_numbers(recipe.decontamination),
        *(number for name, each in recipe.sets.items() for number in _set_numbers(name, each)),
    ]


def _decontamination_numbers(rules: Decontamination | None) -> Numbered:
    if rules is None:
        return []
    at, size, shortest = "decontamination", rules.ngram_words, rules.shortest_item_words
    has_share = rules.item_share > 0 or (rules.item_share == 0 and rules.item_jaccard > 0)
    share_rule = "a share is above 0 and at most 1, or 0 (not used) beside item_jaccard"
    line, rare = rules.line_item_words, rules.rare_words
    overlap_rule = f"an overlap is made of n-grams, so it has ngram_words ({size}) or more"
    return [
        (f"{at}.ngram_words", size, 1 < size <= 64, "2 to 64 words"),
        (f"{at}.overlap_words", rules.overlap_words, rules.overlap_words >= size, overlap_rule),
        (f"{at}.item_share", rules.item_share, has_share and rules.item_share <= 1, share_rule),
        (f"{at}.item_jaccard", rules.item_jaccard, 0 <= rules.item_jaccard <= 1, "0 to 1"),
        (
            f"{at}.line_item_words",
            line,
            0 <= line < shortest,
            f"0 (never), or below shortest_item_words ({shortest}): longer items are looked for"
            " everywhere",
        ),
        (f"{at}.rare_words", rare, 0 <= rare <= 64, "0 to 64 words"),
        (
            f"{at}.rare_word_items",
            rules.rare_word_items,
            (rules.rare_word_items > 0) == (rare > 0) and rules.rare_word_items >= 0,
            "it says with rare_words which items are weak: both are above 0, or both 0",
        ),
        (
            f"{at}.answer_within_words",
            rules.answer_within_words,
            rules.answer_within_words > 0,
            "1 word or more",
        ),
        (
            f"{at}.shortest_item_words",
            shortest,
            0 < shortest <= size,
            f"1 to ngram_words ({size})",
        ),
    ]


def _set_numbers(name: str, each: CuratedSet) -> Numbered:
    shares = [
        (f"sets.{name}.share_of_member.{member}", value, 0 < value <= 1, SHARE_RULE)
        for member, value in each.share_of_member.items()
    ]
    shares += [
        (
            f"sets.{name}.part_of_member.{member}",
            part[0] if part else 0.0,
            len(part) == 2 and 0 <= part[0] < part[1] <= 1,
            "a part is [from, to), from 0 to 1",
        )
        for member, part in each.part_of_member.items()
    ]
    counts = [
        (f"sets.{name}.{field_name}", value, value >= 0, "0 or more")
        for field_name in ("answer_tokens_above", "answers_per_question")
        for value in [getattr(each, field_name)]
    ]
    return [*shares, *counts]


def _check_sets(loaded: Loaded[Curation]) -> None:
    """Members are sources, or sets written above; names are one word and used once."""
    recipe = loaded.value
    known = list(recipe.sources)
    for name, each in recipe.sets.items():
        if name in recipe.sources or not name.replace("_", "").isalnum():
            raise loaded.refuse(
                f"sets.{name}",
                found="the name of a source" if name in recipe.sources else "no plain word",
                rule="a set has a name of letters, digits and _ that no source has",
                do="rename the set",
            )
        if not each.members or len(set(each.members)) != len(each.members):
            raise loaded.refuse(
                f"sets.{name}.members",
                found=", ".join(each.members) or "no member",
                rule="a set is the union of one or more members, each named once",
                do=f"name some of {', '.join(known)}",
            )
        for field_name, names, allowed in (
            ("members", each.members, known),
            ("share_of_member", tuple(each.share_of_member), list(each.members)),
            ("part_of_member", tuple(each.part_of_member), list(each.members)),
        ):
            for member in names:
                if member not in allowed:
                    raise loaded.refuse(
                        f"sets.{name}.{field_name}",
                        found=f"'{member}'",
                        rule="members are sources, or sets written above; shares are of members",
                        do=nearest(member, allowed),
                    )
        known.append(name)


def _check_overlaps(loaded: Loaded[Curation]) -> None:
    recipe = loaded.value
    for name, pair in recipe.overlaps.items():
        wrong = [each for each in pair if each not in recipe.sets]
        if len(pair) != 2 or pair[0] == pair[1] or wrong:
            raise loaded.refuse(
                f"overlaps.{name}",
                found=", ".join(pair) or "no set",
                rule="an overlap is measured between two sets of this recipe",
                do=nearest(wrong[0], list(recipe.sets)) if wrong else "name two sets",
            )
