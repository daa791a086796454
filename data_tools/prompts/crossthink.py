"""Nemotron-CrossThink, the reinforcement learning data of the paper, as prompts for veRL.

The two JSONL files have the fields data_source, prompt, reward_model {ground_truth, style} and
meta_data {index, question, ...}. They are read one by one: loading both as one table takes the
schema of the first and fails on the second.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frontload.data_tools.disk.files import file_sha256
from frontload.data_tools.prompts.choices import (
    LETTERS,
    chosen_letter,
    find_options,
    label_text,
    option_key,
)
from frontload.data_tools.prompts.length import PromptLimit
from frontload.data_tools.prompts.rl_parquet import Prompt, write_prompts
from frontload.data_tools.raw.parse import BadRow, RejectReason, nearest_name
from frontload.data_tools.raw.rows import read_rows
from frontload.data_tools.text.document import require_row
from frontload.data_tools.text.render import has_special_token
from frontload.data_tools.text.words import normalise_question
from frontload.recipes.artifact import write_json
from frontload.recipes.errors import RecipeError

GENERAL, MATH = "general", "math"
MOST_OPEN_WORDS = 10  # Nemotron-CrossThink, "Data Filtering and Formatting"
Options = tuple[str, ...]
ROLES = ("system", "user", "assistant")
HALF = "holds half a character"  # parquet holds UTF-8, which has no such character

# Nemotron-CrossThink drops open questions that make no sense without the options they had.
_NEEDS_OPTIONS = (
    "which of the following",
    "which one of the following",
    "which of these",
    "all of the above",
    "none of the above",
    "of the options below",
)


@dataclass(frozen=True, kw_only=True)
class CrossThinkRequest:
    """What `frontload data crossthink` was asked for."""

    qa: Path
    math: Path
    out: Path
    limit: PromptLimit  # of the model that is trained on them
    general_to_math: str = "2:1"  # Nemotron-CrossThink, table 4: the blend with the best average
    seed: int = 1
    instruction: str = ""  # added to prompts that do not name \boxed
    validation_rows: int = 0  # prompts that are kept out of training
    validation_out: Path | None = None  # where they go


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A row that passes the filters."""

    prompt: Prompt
    key: str  # two rows with the same key ask the same question


@dataclass(frozen=True, kw_only=True)
class UngradableRow:
    """A row that does not, and the rule that it fails."""

    reason: str


def convert_crossthink(request: CrossThinkRequest) -> dict[str, Any]:
    """Writes the parquet file and, last, its manifest (`OUT.manifest.json`), and returns it.

    Rows are ranked by a hash of seed and question; as many whole parts of the ratio are taken from
    the top as both files allow, and written in the order of the ranks, so that the file is shuffled
    and every count is exact.

    Raises: RecipeError for a bad ratio, file or row, or when no part of the ratio can be filled.
    """
    parts = parse_ratio(request.general_to_math)
    _check_files(request)
    dropped: dict[str, Counter[str]] = {GENERAL: Counter(), MATH: Counter()}
    read: Counter[str] = Counter()
    answers: dict[str, str] = {}  # question key -> the answer of the row that was kept
    ranked: dict[str, list[tuple[str, Prompt]]] = {GENERAL: [], MATH: []}
    for domain, file in ((GENERAL, request.qa), (MATH, request.math)):
        for outcome in read_file(file, domain=domain, instruction=request.instruction):
            read[domain] += 1
            if isinstance(outcome, Kept):
                outcome = _first_of_its_question(outcome, answers)
            if isinstance(outcome, UngradableRow):
                dropped[domain][outcome.reason] += 1
                continue
            digest = hashlib.sha256(f"{request.seed}\n{outcome.key}".encode("utf-8", "replace"))
            ranked[domain].append((digest.hexdigest(), outcome.prompt))
    for domain, rows in ranked.items():
        misfits = list(request.limit.misfits(prompt.messages for _, prompt in rows))
        dropped[domain].update(filter(None, misfits))
        ranked[domain] = [row for row, why in zip(rows, misfits, strict=True) if not why]
    taken = blend_counts({domain: len(rows) for domain, rows in ranked.items()}, parts)
    if not taken[GENERAL]:
        kept = {domain: len(rows) for domain, rows in ranked.items()}
        raise RecipeError(
            f"--general-to-math {request.general_to_math}",
            found=f"{kept} rows kept; dropped { {d: dict(c) for d, c in dropped.items()} }",
            rule="every part of the ratio is filled at least once",
            do="give files with more usable rows, or another ratio",
        )
    chosen = [row for domain, rows in ranked.items() for row in sorted(rows)[: taken[domain]]]
    prompts = [prompt for _, prompt in sorted(chosen, key=lambda row: row[0])]
    prompts, validation = _hold_out(request, prompts)
    manifest = _describe(request, prompts) | {
        "rows": {"read": dict(read), "written": taken},
        "dropped": {domain: dict(counts) for domain, counts in dropped.items()},
        "left_out_by_the_blend": {
            domain: len(rows) - taken[domain] for domain, rows in ranked.items()
        },
        "parquet_sha256": write_prompts(request.out, prompts, split="train"),
    }
    if request.validation_out is not None:
        digest = write_prompts(request.validation_out, validation, split="validation")
        manifest["validation"] = {"rows": len(validation), "parquet_sha256": digest}
    write_json(manifest_file(request.out), manifest)
    return manifest


def _hold_out(
    request: CrossThinkRequest, prompts: list[Prompt]
) -> tuple[list[Prompt], list[Prompt]]:
    """Training and validation prompts: the last ones of the shuffled order validate.

    Raises: RecipeError when nothing would be left to train on.
    """
    if request.validation_rows >= len(prompts):
        raise RecipeError(
            f"--validation-rows {request.validation_rows}",
            found=f"{len(prompts)} prompts in all",
            rule="most prompts train",
            do="write a smaller number",
        )
    cut = len(prompts) - request.validation_rows
    return prompts[:cut], prompts[cut:]


def _describe(request: CrossThinkRequest, prompts: list[Prompt]) -> dict[str, Any]:
    """What was asked for, and what kinds of prompts came of it."""
    return {
        "format": 1,
        "inputs": [
            {"domain": domain, "name": file.name, "sha256": file_sha256(file)}
            for domain, file in ((GENERAL, request.qa), (MATH, request.math))
        ],
        "general_to_math": request.general_to_math,
        "seed": request.seed,
        "instruction": request.instruction,
        **request.limit.describe(),
        "kinds": dict(Counter(prompt.kind for prompt in prompts)),
        "prompts_without_boxed": sum(
            not any("\\boxed" in text for _, text in prompt.messages) for prompt in prompts
        ),
    }


def manifest_file(parquet: Path) -> Path:
    return parquet.with_name(parquet.name + ".manifest.json")


def parse_ratio(text: str) -> tuple[int, int]:
    """The two parts of `2:1`.

    Raises: RecipeError when they are not two whole numbers from 1 on.
    """
    parts = text.split(":")
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() for part in parts):
        parts = ["0", "0"]
    general, math = (int(part) for part in parts)
    if not 0 < min(general, math) <= max(general, math) <= 1000:
        raise RecipeError(
            f"--general-to-math {text}",
            found="no ratio of two whole numbers from 1 to 1000",
            rule="the ratio is GENERAL:MATH, in rows",
            do="write for example 2:1",
        )
    return general, math


def blend_counts(kept: dict[str, int], parts: tuple[int, int]) -> dict[str, int]:
    """Rows to take of each domain: the most whole parts of the ratio that both can fill."""
    times = min(kept[GENERAL] // parts[0], kept[MATH] // parts[1])
    return {GENERAL: times * parts[0], MATH: times * parts[1]}


def _check_files(request: CrossThinkRequest) -> None:
    for flag, file in (("--qa", request.qa), ("--math", request.math)):
        if not file.is_file():
            raise RecipeError(
                f"{flag} {file}",
                found="there is no such file",
                rule="it is one of the two JSONL files of Nemotron-CrossThink, plain or .gz",
                do="correct the path",
            )
    for flag, out in (("--out", request.out), ("--validation-out", request.validation_out)):
        if out is None or (out.suffix == ".parquet" and out.parent.is_dir()):
            continue
        raise RecipeError(
            f"{flag} {out}",
            found="no parquet file in a folder that exists",
            rule="veRL reads a prompt file by its ending, .parquet",
            do="name a file that ends in .parquet, in a folder that exists",
        )
    has_file = request.validation_out not in (None, request.out)
    if has_file != (request.validation_rows > 0):
        raise RecipeError(
            "--validation-out",
            found=f"is {request.validation_out} with --validation-rows {request.validation_rows}",
            rule="the two are given together, with at least one row and a file of its own",
            do="add the other one, or leave both out",
        )


def read_file(file: Path, *, domain: str, instruction: str = "") -> Iterator[Kept | UngradableRow]:
    """What becomes of each row of a file, in its order.

    Raises: RecipeError naming file, line and field, when a row has another schema.
    """
    for row in read_rows(file):
        if isinstance(row, BadRow) and row.reason is RejectReason.LONE_SURROGATE:
            yield UngradableRow(reason=HALF)
            continue
        value, where = require_row(row, error_type=RecipeError).value, f"{file}:{row.number}"
        yield read_row(value, domain=domain, where=where, instruction=instruction)


def read_row(
    row: dict[str, Any], *, domain: str, where: str, instruction: str = ""
) -> Kept | UngradableRow:
    """A row as a prompt, or the rule that drops it.

    Raises: RecipeError when a field is missing or has another type than in the public files.
    """
    reward = _mapping(row, "reward_model", where=where)
    meta = _mapping(row, "meta_data", where=where)
    messages = _messages(row, where=where)
    asked = meta.get("question")
    question = asked.strip() if isinstance(asked, str) else ""
    question = question or next((m[1] for m in reversed(messages) if m[0] == "user"), "").strip()
    gold = _gold(reward.get("ground_truth"))
    options = _options(meta, (question, messages[-1][1]), gold=gold or "", domain=domain)
    reason = (
        _drop_any(messages, question, gold)
        or ("the reward is not by rule" if reward.get("style", "rule") != "rule" else "")
        or _drop_verifiable(question, gold or "", options=options, domain=domain)
    )
    if reason:
        return UngradableRow(reason=reason)
    if instruction and not any("\\boxed" in text for _, text in messages):
        messages = (*messages[:-1], ("user", f"{messages[-1][1]}\n\n{instruction}"))
    prompt = Prompt(
        data_source=str(row.get("data_source") or f"nemotron-crossthink-{domain}"),
        messages=messages,
        ability=domain,
        ground_truth=gold or "",
        kind="choice" if options else "answer",
        question=question,
        options=options,
        source_index=str(meta.get("index", "")),
    )
    key = "\x1f".join((normalise_question(question), *map(option_key, options)))
    return Kept(prompt=prompt, key=key)


def _drop_any(messages: tuple[tuple[str, str], ...], question: str, gold: str | None) -> str:
    if not question:
        return "no question"
    if messages[-1][0] != "user" or not messages[-1][1].strip():
        return "the prompt does not end with the user"
    if gold is None:
        return "the answer is no text or number"
    if not gold:
        return "no answer"
    texts = [question, gold, *(text for _, text in messages)]
    if any(has_special_token(text) for text in texts):
        return "spells a special token"
    return ""


def _drop_verifiable(question: str, gold: str, *, options: Options, domain: str) -> str:
    """The filters of the paper: gold among the options, short open answers, maths as it is."""
    if options:
        return "" if chosen_letter(gold, options) else "gold answer not among the options"
    if domain == MATH:
        return ""
    if len(gold.split()) > MOST_OPEN_WORDS:
        return f"open answer over {MOST_OPEN_WORDS} words"
    asked = normalise_question(question)
    if any(phrase in asked for phrase in _NEEDS_OPTIONS):
        return "asks for options that it does not list"
    return ""


def _first_of_its_question(kept: Kept, answers: dict[str, str]) -> Kept | UngradableRow:
    answer = option_key(kept.prompt.ground_truth)
    if kept.key not in answers:
        answers[kept.key] = answer
        return kept
    is_same = answers[kept.key] == answer
    return UngradableRow(
        reason="question seen before" + ("" if is_same else ", with another answer")
    )


def _gold(value: object) -> str | None:
    """The gold answer as text, "" when it is missing, None when it is of another type."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    return None


def _options(meta: dict[str, Any], texts: Sequence[str], *, gold: str, domain: str) -> Options:
    """The options of a multiple-choice row, empty for an open one.

    They stand in meta_data, in the question or in the prompt. Labels in running text (`A. Smith and
    B. Jones`) make a choice only where the gold answer is a letter or one of the options; in maths
    a gold answer that is no option is the answer itself.
    """
    given = meta.get("options") or meta.get("choices")
    if isinstance(given, dict):
        given = [given[letter] for letter in LETTERS if letter in given]
    if isinstance(given, list) and len(given) >= 2:
        return tuple(
            _without_label(str(option), letter)
            for letter, option in zip(LETTERS, given, strict=False)
        )
    for text in texts:
        options = find_options(text)
        if chosen_letter(gold, options) and options:
            return options
    listed = next(filter(None, map(find_options, texts)), ())
    in_lines = any(find_options(text, inline=False) for text in texts)
    is_choice = domain == GENERAL and (in_lines or bool(label_text(gold)[0]))
    return listed if is_choice else ()


def _without_label(option: str, letter: str) -> str:
    """`A) Paris` as `Paris`, where the label is the option's own letter."""
    label, text = label_text(option)
    return text if label == letter and text else option


def _mapping(row: dict[str, Any], name: str, *, where: str) -> dict[str, Any]:
    value = row.get(name)
    if isinstance(value, dict):
        return value
    found = f"a JSON {type(value).__name__}" if name in row else f"fields {', '.join(sorted(row))}"
    raise RecipeError(
        f"{where}: field {name!r}",
        found=found + ("" if name in row else nearest_name(name, row)),
        rule="a row of Nemotron-CrossThink has the objects reward_model and meta_data, and prompt",
        do="give Nemotron-CrossThink-QA.jsonl as --qa and Nemotron-CrossThink-Math.jsonl as --math",
    )


def _messages(row: dict[str, Any], *, where: str) -> tuple[tuple[str, str], ...]:
    """(role, text) of each message; a prompt that is one text is the user's."""
    prompt = row.get("prompt")
    if isinstance(prompt, str):
        return (("user", prompt),)
    listed = prompt if isinstance(prompt, list) else []
    read: list[tuple[str, str]] = []
    for message in listed:
        role, text = (
            (message.get(name) for name in ("role", "content"))
            if isinstance(message, dict)
            else (None, None)
        )
        if role in ROLES and isinstance(text, str):
            read.append((role, text))
    if listed and len(read) == len(listed):
        return tuple(read)
    raise RecipeError(
        f"{where}: field 'prompt'",
        found=f"{str(prompt)[:60]!r}",
        rule=f"it is text, or messages with content and a role of {', '.join(ROLES)}",
        do="mend or delete this row",
    )
