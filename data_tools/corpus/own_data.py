"""A user's own files, read into the form of a corpus. Nothing is trained or tokenized.

Files of any format that `data_tools/raw` reads go through the adapters of `data curate`. Evaluation
questions never enter training: a row is left out when its question, normalised, is a question of
the held-out set, or when its text holds one of them (`leaks.py`), and so is base text.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice, product
from operator import attrgetter
from pathlib import Path

from frontload.data_tools.corpus.leaks import LeakFilter
from frontload.data_tools.corpus.own_counts import COUNTS
from frontload.data_tools.corpus.own_items import write_heldout, write_items
from frontload.data_tools.curation.adapters import (
    ADAPTERS,
    ROWS,
    WORKED,
    Adapter,
    Rules,
    special_token_drop,
)
from frontload.data_tools.curation.inputs import check_fields, columns_to_read, first_fields
from frontload.data_tools.preprocess.vocabulary import Spellings
from frontload.data_tools.raw.bad_rate import MAX_BAD_RATE
from frontload.data_tools.raw.inputs import Format, file_format
from frontload.data_tools.raw.manifest import (
    RawFile,
    check_sizes,
    list_files,
    read_digests,
    write_manifest,
)
from frontload.data_tools.raw.parse import BadRow
from frontload.data_tools.raw.plain import FIELD
from frontload.data_tools.raw.rows import read_rows
from frontload.data_tools.text.document import BaseText, Conversation, write_rows
from frontload.data_tools.text.example import USER, Drop, Example, split_think
from frontload.data_tools.text.tokenizer import SPECIAL_TOKENS
from frontload.data_tools.text.words import normalise_question, question_key
from frontload.recipes.artifact import corpus_heldout, corpus_items, corpus_set, write_json
from frontload.recipes.errors import RecipeError
from frontload.recipes.schema import OwnData

FAMILY = "own"
DOMAIN = "math"
FILE_FIELDS = ("base_files", "reasoning_files", "heldout_files")
MANIFEST = "inputs.json"
LEAK = "holds a held-out question"


@dataclass(frozen=True, kw_only=True)
class Question:
    """A worked question with the number that ranks it for the seeded draws."""

    row: Conversation
    rank: str


def list_own_files(recipe: OwnData) -> tuple[RawFile, ...]:
    """Every file of a recipe by name and size; none is opened.

    Raises: RecipeError naming the field and a pattern that names no file.
    """
    for field in ("base_files", "reasoning_files"):
        if not getattr(recipe, field):
            raise RecipeError(
                f"own.{field}",
                found="no file",
                rule="the study compares base text with reasoning data and needs both",
                do="name at least one file",
            )
    return tuple(
        file
        for field in FILE_FIELDS
        for file in list_files(
            getattr(recipe, field), revision=recipe.revision, asked_by=f"own.{field}"
        )
    )


def write_own_corpus(recipe: OwnData, folder: Path) -> None:
    """Writes base.jsonl, own.jsonl, items.jsonl, heldout.jsonl, inputs.json and counts.json.

    Raises: RecipeError naming file and field.
    """
    listed = list_own_files(recipe)
    if recipe.files:
        check_sizes(listed, dict(recipe.files), asked_by="own.files")
    dropped: Counter[str] = Counter()
    heldout, closed, training = _split_questions(recipe, dropped)
    leaks = LeakFilter(closed)
    training = list(
        leaks.clean(training, _worked_text, on_drop=partial(_count, dropped, f"own: {LEAK}"))
    )
    if not training:
        raise RecipeError(
            "own.reasoning_files",
            found=f"no row left for training; dropped {dict(dropped)}",
            rule="at least one question outside the held-out set is trained on",
            do="add rows, lower heldout_rows, or check that train and test files differ",
        )
    num_base = write_rows(corpus_set(folder, "base"), _base_rows(recipe, dropped, leaks))
    if num_base == 0:
        counts = [f"{name} {count}" for name, count in dropped.items() if name.startswith("base:")]
        raise RecipeError(
            "own.base_files",
            found=f"no text in {', '.join(recipe.base_files)}"
            + (f" (dropped {', '.join(counts)})" if counts else ""),
            rule="the base text holds at least one document",
            do="name files that hold text",
        )
    num_own = write_rows(corpus_set(folder, "own"), (question.row for question in training))
    write_heldout(corpus_heldout(folder), [question.row for question in heldout])
    num_items = write_items(
        corpus_items(folder),
        [question.row for question in heldout],
        ranked_training=[q.row for q in sorted(training, key=lambda question: question.rank)],
    )
    write_manifest(folder / MANIFEST, read_digests(listed))
    counts = {
        "format": 2,
        "rows": {"base": num_base, "own": num_own, "heldout": len(heldout)},
        "distinct_questions": len({_normal(question) for question in training}),
        "items": num_items,
        "dropped": dict(dropped),
    }
    write_json(folder / COUNTS, counts)


def _rules(recipe: OwnData, file: Path) -> Rules:
    is_plain = file_format(file) is Format.TEXT
    return Rules(
        domain=DOMAIN,
        text_field=FIELD if is_plain else recipe.base_text_field,
        unsplit="drop",
        truncated="keep",
        question_field=recipe.question_field,
        answer_field=recipe.answer_field,
        separator=recipe.final_answer_separator,
    )


def _examples(
    recipe: OwnData, file: Path, *, field: str, dropped: Counter[str]
) -> Iterator[Example]:
    """The usable rows of a file; `dropped` counts the others by reason.

    Raises: RecipeError when the file lacks the fields, or has too many rows that cannot be read.
    """
    label = "base" if field == "base_files" else field
    adapter, rules = _reader(recipe, file, field=field)
    num_rows, bad = 0, []
    ours = Spellings(SPECIAL_TOKENS)
    for row in read_rows(file, columns=columns_to_read(file, adapter, rules)):
        num_rows += 1
        if isinstance(row, BadRow):
            bad.append(row)
            dropped[f"{label}: {row.reason}"] += 1
            continue
        found = adapter.convert(row.value, rules)
        drop = found if isinstance(found, Drop) else special_token_drop(found, ours)
        if drop is not None:
            dropped[f"{label}: {drop.reason}"] += 1
        elif isinstance(found, Example):
            yield found
    if len(bad) > num_rows * MAX_BAD_RATE:
        raise RecipeError(
            f"{file}:{bad[0].number}",
            found=f"{bad[0].reason}, and {len(bad)} of {num_rows} rows like it",
            rule=f"at most {MAX_BAD_RATE:.0%} of the rows of a file cannot be read",
            do="mend or delete these rows",
        )


def check_first_rows(recipe: OwnData) -> None:
    """Reads the first row of every file.

    Raises: RecipeError for a file that cannot be read, or whose first row lacks a field.
    """
    for field in FILE_FIELDS:
        for file in list_files(getattr(recipe, field), revision="", asked_by=f"own.{field}"):
            _reader(recipe, file.path, field=field)


def check_split(recipe: OwnData) -> None:
    """Reads as many rows as are held out, and compares files of one size.

    Raises: RecipeError for a test file that is a training file, or too few rows to hold out.
    """
    files = {
        field: list_files(getattr(recipe, field), revision="", asked_by=f"own.{field}")
        for field in ("reasoning_files", "heldout_files")
    }
    for test, training in product(files["heldout_files"], files["reasoning_files"]):
        if _is_same(test, training):
            raise RecipeError(
                f"own.heldout_files: {test.name}",
                found=f"the bytes of {training.name}, which own.reasoning_files names",
                rule="a question that scores the models is in no training file",
                do="name another test file, or write heldout_files: [] to hold out heldout_rows "
                "of the reasoning files",
            )
    field = "heldout_files" if files["heldout_files"] else "reasoning_files"
    rows = chain.from_iterable(read_rows(file.path) for file in files[field])
    needed = recipe.heldout_rows + (field == "reasoning_files")  # one at least is trained on
    num_rows = sum(1 for _ in islice(rows, needed))
    if num_rows < needed:
        most = num_rows - (field == "reasoning_files")
        raise RecipeError(
            "own.heldout_rows",
            found=f"is {recipe.heldout_rows}, and own.{field} has {num_rows} rows",
            rule="each row that is held out is asked once"
            + (", and one row at least is trained on" if field == "reasoning_files" else ""),
            do=f"write at most {most}" if most > 0 else f"name more files in own.{field}",
        )


def _is_same(one: RawFile, other: RawFile) -> bool:
    if one.path.resolve() == other.path.resolve():
        return True
    if one.size_bytes != other.size_bytes:
        return False
    digests = [file.sha256 for file in read_digests([one, other])]
    return digests[0] == digests[1]


def _reader(recipe: OwnData, file: Path, *, field: str) -> tuple[Adapter, Rules]:
    """How the rows of a file are read, after a look at its first one."""
    rules = _rules(recipe, file)
    name = "plain_text" if field == "base_files" else WORKED
    if field != "base_files" and "messages" in (first_fields(file) or ()):
        name = ROWS
    check_fields(file, ADAPTERS[name], rules, asked=f"own.{field}")
    return ADAPTERS[name], rules


def _worked_text(question: Question) -> str:
    row = question.row
    return f"{row.question}\n\n{row.trace}\n\n{row.answer}"


def _count(dropped: Counter[str], reason: str) -> None:
    dropped[reason] += 1


def _base_rows(recipe: OwnData, dropped: Counter[str], leaks: LeakFilter) -> Iterator[BaseText]:
    number = 0
    for file in list_files(recipe.base_files, revision="", asked_by="own.base_files"):
        examples = _examples(recipe, file.path, field="base_files", dropped=dropped)
        on_drop = partial(_count, dropped, f"base: {LEAK}")
        for example in leaks.clean(examples, attrgetter("text"), on_drop=on_drop):
            yield BaseText(id=f"base-{number}", text=example.text.strip())
            number += 1


def _split_questions(
    recipe: OwnData, dropped: Counter[str]
) -> tuple[list[Question], list[str], list[Question]]:
    """(held out, questions that may not train, for training).

    Which rows are held out depends on seed and question only.
    """
    reasoning = _read_questions(recipe, "reasoning_files", dropped)
    source = reasoning
    if recipe.heldout_files:
        source = _read_questions(recipe, "heldout_files", dropped)
    distinct = {_normal(question): question for question in reversed(source)}
    if not 0 < recipe.heldout_rows <= len(distinct):
        field = "heldout_files" if recipe.heldout_files else "reasoning_files"
        raise RecipeError(
            "own.heldout_rows",
            found=f"{recipe.heldout_rows}, and own.{field} has {len(distinct)} distinct questions",
            rule="evaluation needs at least one question and each is asked once",
            do=f"write 1 to {len(distinct)}",
        )
    ranked = sorted(distinct.values(), key=lambda question: question.rank)
    heldout = ranked[: recipe.heldout_rows]
    closed = [*distinct] if recipe.heldout_files else [*map(_normal, heldout)]
    known = set(closed)
    training = []
    for question in reasoning:
        if _normal(question) in known:
            dropped["own: its question is held out"] += 1
        else:
            training.append(question)
    return heldout, closed, training


def _normal(question: Question) -> str:
    return question_key(question.row.question)


def _read_questions(recipe: OwnData, field: str, dropped: Counter[str]) -> list[Question]:
    """All usable rows of the files of one field.

    Raises: RecipeError when a file has no row, or no row with a final answer.
    """
    questions: list[Question] = []
    for file in list_files(getattr(recipe, field), revision="", asked_by=f"own.{field}"):
        before, already = len(questions), dropped.total()
        for example in _examples(recipe, file.path, field=field, dropped=dropped):
            name = f"{FAMILY}-{field.removesuffix('_files')}-{len(questions)}"
            row = _conversation(example, name=name)
            if row is None:
                dropped[f"{field}: more than one question"] += 1
                continue
            rank = hashlib.sha256(f"{recipe.seed}\n{normalise_question(row.question)}".encode())
            questions.append(Question(row=row, rank=rank.hexdigest()))
        if len(questions) == before:
            num_rows = dropped.total() - already
            raise RecipeError(
                f"own.{field}: {file.name}",
                found=f"{num_rows} rows, none with a question and a final answer"
                if num_rows
                else "no row",
                rule=f"{recipe.answer_field!r} holds steps, then {recipe.final_answer_separator!r},"
                " then the final answer",
                do="name another file, or correct own.final_answer_separator",
            )
    return questions


def _conversation(example: Example, *, name: str) -> Conversation | None:
    """The row with one question; None for a dialogue of more."""
    if [turn.role for turn in example.turns[:1]] != [USER] or len(example.turns) != 2:
        return None
    trace, answer = split_think(_unix_lines(example.turns[1].text))
    return Conversation(
        id=name,
        question=_unix_lines(example.turns[0].text).strip(),
        trace=trace,
        answer=answer.strip(),
        family=FAMILY,
        domain=DOMAIN,
    )


def _unix_lines(text: str) -> str:
    """Line ends of Windows and of old Macs as those of everybody else."""
    return text.replace("\r\n", "\n").replace("\r", "\n")
