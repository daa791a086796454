"""A user's own files, read into the form of the synthetic corpus. Nothing is trained or tokenized.

Base text is JSONL (`.jsonl`, `.json`, also with `.gz`) or plain text, which is cut at blank lines.
Evaluation questions never enter training: a row is left out when its question, normalised, is a
question of the held-out set.
"""

import glob
import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from frontload.data_tools.document import (
    BaseText,
    Conversation,
    TextField,
    open_bytes,
    read_objects,
    take_text,
    write_rows,
)
from frontload.data_tools.own_items import write_heldout, write_items
from frontload.data_tools.render import has_special_token
from frontload.recipes.artifact import corpus_heldout, corpus_items, corpus_set, write_json
from frontload.recipes.errors import RecipeError
from frontload.recipes.schema import OwnData

PLAIN_DOCUMENT_CHARACTERS = 2000  # ours: about 500 BPE tokens, two rows of the own-data study
FAMILY = "own"
DOMAIN = "math"
JSON_SUFFIXES = (".jsonl", ".json")


@dataclass(frozen=True, kw_only=True)
class Question:
    """A worked question with the number that ranks it for the seeded draws."""

    row: Conversation
    rank: str


def expand_files(patterns: Sequence[str], *, field: str) -> list[Path]:
    """The files that the patterns name, pattern by pattern, each pattern's sorted by name.

    Raises: RecipeError naming the pattern that names no file, or the file named twice.
    """
    files: list[Path] = []
    for pattern in patterns:
        found = sorted(Path(name) for name in glob.glob(pattern, recursive=True))
        found = [file for file in found if file.is_file()]
        if not found:
            is_folder = Path(pattern).is_dir()
            raise RecipeError(
                f"own.{field}: {pattern}",
                found="a folder" if is_folder else "no such file",
                rule="every pattern names at least one file, seen from the folder of the command",
                do=f"write e.g. {Path(pattern, '*')}" if is_folder else "correct the path",
            )
        files.extend(found)
    repeated = [str(file) for file, count in Counter(files).items() if count > 1]
    if repeated:
        raise RecipeError(
            f"own.{field}",
            found=f"{repeated[0]} named {Counter(files)[Path(repeated[0])]} times",
            rule="a file is read once",
            do="remove the repeated name, or narrow the pattern",
        )
    return files


def digest_files(patterns: Sequence[str]) -> str:
    """sha256 of the bytes of all files that the patterns name, in order, as one stream.

    For `OwnData` the patterns are base_files, reasoning_files and heldout_files together:
    `cat FILES | sha256sum` gives the same digits.
    """
    digest = hashlib.sha256()
    for file in expand_files(patterns, field="files"):
        with open(file, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def normalise_question(question: str) -> str:
    """The form in which two questions are the same: compatibility characters, case, spaces."""
    return " ".join(unicodedata.normalize("NFKC", question).casefold().split())


def write_own_corpus(recipe: OwnData, folder: Path) -> None:
    """Writes base.jsonl, own.jsonl, items.jsonl, heldout.jsonl and counts.json.

    Raises: RecipeError naming file, line and field.
    """
    digest = _checked_digest(recipe)
    dropped: Counter[str] = Counter()
    heldout, training = _split_questions(recipe, dropped)
    if not training:
        raise RecipeError(
            "own.reasoning_files",
            found=f"no row left for training; dropped {dict(dropped)}",
            rule="at least one question outside the held-out set is trained on",
            do="add rows, lower heldout_rows, or check that train and test files differ",
        )
    num_base = write_rows(corpus_set(folder, "base"), _base_rows(recipe, dropped))
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
        seed=recipe.seed,
    )
    counts = {
        "format": 1,
        "files_sha256": digest,
        "rows": {"base": num_base, "own": num_own, "heldout": len(heldout)},
        "items": num_items,
        "dropped": dict(dropped),
    }
    write_json(folder / "counts.json", counts)


def _checked_digest(recipe: OwnData) -> str:
    patterns = (*recipe.base_files, *recipe.reasoning_files, *recipe.heldout_files)
    for field in ("base_files", "reasoning_files"):
        if not getattr(recipe, field):
            raise RecipeError(
                f"own.{field}",
                found="no file",
                rule="the study compares base text with reasoning data and needs both",
                do="name at least one file",
            )
    for field in ("base_files", "reasoning_files", "heldout_files"):
        expand_files(getattr(recipe, field), field=field)
    digest = digest_files(patterns)
    if recipe.base_digest not in ("", digest):
        raise RecipeError(
            "own.base_digest",
            found=f"the files' bytes have sha256 {digest}",
            rule=f"the recipe was written for {recipe.base_digest}",
            do="restore the files, or write the new digest (or '') to accept them",
        )
    return digest


def _base_rows(recipe: OwnData, dropped: Counter[str]) -> Iterator[BaseText]:
    number = 0
    for file in expand_files(recipe.base_files, field="base_files"):
        is_json = Path(file.name.removesuffix(".gz")).suffix in JSON_SUFFIXES
        texts = _json_texts(file, recipe.base_text_field) if is_json else _plain_texts(file)
        for text in texts:
            reason = "empty text" if not text.strip() else None
            if has_special_token(text):
                reason = "spells a special token"
            if reason:
                dropped[f"base: {reason}"] += 1
                continue
            yield BaseText(id=f"base-{number}", text=text.strip())
            number += 1


def _json_texts(file: Path, field: str) -> Iterator[str]:
    asked = TextField(name=field, asked_by="own.base_text_field", error_type=RecipeError)
    for number, row in read_objects(file, error_type=RecipeError):
        yield take_text(row, asked, where=f"{file}:{number}")


def _plain_texts(file: Path) -> Iterator[str]:
    """Paragraphs joined, with the blank line between them, until a document is long enough."""
    held: list[str] = []
    for paragraph in _paragraphs(file):
        held.append(paragraph)
        if sum(len(part) for part in held) >= PLAIN_DOCUMENT_CHARACTERS:
            yield "\n\n".join(held)
            held = []
    if held:
        yield "\n\n".join(held)


def _paragraphs(file: Path) -> Iterator[str]:
    lines: list[str] = []
    with open_bytes(file) as stream:
        for number, raw in enumerate(stream, start=1):
            try:
                line = raw.decode("utf-8").rstrip()
            except UnicodeDecodeError as error:
                raise RecipeError(
                    f"{file}:{number}",
                    found=f"byte {raw[error.start]:#04x} at column {error.start + 1}",
                    rule="plain text is UTF-8",
                    do="convert the file, for example with iconv",
                ) from error
            if line.strip():
                lines.append(line)
            elif lines:
                yield "\n".join(lines)
                lines = []
    if lines:
        yield "\n".join(lines)


def _split_questions(
    recipe: OwnData, dropped: Counter[str]
) -> tuple[list[Question], list[Question]]:
    """(held out, for training). Which rows are held out depends on seed and question only."""
    reasoning = _read_questions(recipe, "reasoning_files", dropped)
    source = reasoning
    if recipe.heldout_files:
        source = _read_questions(recipe, "heldout_files", dropped)
    distinct = {
        normalise_question(question.row.question): question for question in reversed(source)
    }
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
    closed = (
        distinct
        if recipe.heldout_files
        else {normalise_question(question.row.question) for question in heldout}
    )
    training = []
    for question in reasoning:
        if normalise_question(question.row.question) in closed:
            dropped["own: its question is held out"] += 1
        else:
            training.append(question)
    return heldout, training


def _read_questions(recipe: OwnData, field: str, dropped: Counter[str]) -> list[Question]:
    """All usable rows of the files of one field.

    Raises: RecipeError when a file has no row, or no row with a final answer.
    """
    questions: list[Question] = []
    for file in expand_files(getattr(recipe, field), field=field):
        usable_before, num_rows = len(questions), 0
        for number, row in read_objects(file, error_type=RecipeError):
            num_rows += 1
            texts = [
                take_text(
                    row,
                    TextField(name=name, asked_by=f"own.{asked_by}", error_type=RecipeError),
                    where=f"{file}:{number}",
                ).strip()
                for name, asked_by in (
                    (recipe.question_field, "question_field"),
                    (recipe.answer_field, "answer_field"),
                )
            ]
            name = f"{FAMILY}-{field.removesuffix('_files')}-{len(questions)}"
            found = _conversation(recipe, texts, name=name)
            if isinstance(found, str):
                dropped[f"{field}: {found}"] += 1
                continue
            digest = hashlib.sha256(f"{recipe.seed}\n{normalise_question(texts[0])}".encode())
            questions.append(Question(row=found, rank=digest.hexdigest()))
        if not num_rows:
            raise RecipeError(
                f"own.{field}: {file}",
                found="no row",
                rule="a file has rows, objects with a question and an answer",
                do="fetch or write it again, or take it out of the list",
            )
        if len(questions) == usable_before:
            raise RecipeError(
                f"own.{field}: {file}",
                found=f"{num_rows} rows, none with a question and a final answer",
                rule=f"{recipe.answer_field!r} holds steps, then {recipe.final_answer_separator!r},"
                " then the final answer",
                do="name another file, or correct own.final_answer_separator",
            )
    return questions


def _conversation(recipe: OwnData, texts: Sequence[str], *, name: str) -> Conversation | str:
    """The row as a conversation, or why it is dropped."""
    question, worked = texts
    steps, separator, final = worked.rpartition(recipe.final_answer_separator or "\0")
    if recipe.final_answer_separator and not separator:
        return "no final answer separator"
    trace, answer = re.sub(r"[ \t]+\n", "\n", steps).strip(), final.strip()
    if not question:
        return "empty question"
    if not answer:
        return "empty answer"
    if any(has_special_token(text) for text in (question, trace, answer)):
        return "spells a special token"
    return Conversation(
        id=name, question=question, trace=trace, answer=answer, family=FAMILY, domain=DOMAIN
    )
