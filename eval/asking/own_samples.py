"""Rejection sampling: a model's own right answers to training questions, as rows for SFT."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from frontload.data_tools.disk.seeds import permutation
from frontload.data_tools.text.document import Conversation, Row, read_documents, write_rows
from frontload.data_tools.text.render import encode_prompts, has_special_token, response
from frontload.data_tools.text.tokenizer import END, TextTokenizer
from frontload.data_tools.text.words import question_key
from frontload.eval.asking.model import ScoringModel
from frontload.eval.grading.grade import ANSWER_MARK, grade_generation
from frontload.eval.suites import ChoiceItem, read_heldout, read_items
from frontload.megatron_ext.inference.draws import Sampling
from frontload.recipes.artifact import (
    Inputs,
    Workspace,
    corpus_heldout,
    corpus_items,
    documents_file,
    write_json,
)
from frontload.recipes.errors import StageError
from frontload.recipes.schema import OwnSamples

SAMPLES = "samples.json"
STREAM = "own_samples"
NO_CONVERSATION, REPEATED = "no conversation", "asked before"
EVALUATED, NOT_DRAWN = "asked by an evaluation", "not among the drawn questions"
TOO_LONG = "longer than the model's context"
SAME_ANSWER, ENOUGH = "the same answer as an earlier one", "more right answers than are kept"
SPECIAL, OTHER_LAYOUT = "spells a special token", "not laid out as the template writes it"


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What became of the answers."""

    rows: tuple[Conversation, ...]  # kept, question by question
    dropped: dict[str, int]  # reason -> answers
    answered: dict[str, int]  # family -> questions with a right answer


def write_own_samples(
    model: ScoringModel, recipe: OwnSamples, *, inputs: Inputs, work: Workspace
) -> None:
    """Writes documents.jsonl and samples.json.

    Raises: StageError when no answer is right.
    """
    tokenizer = TextTokenizer.load_ours(inputs["tokenizer"])
    rows = read_documents(documents_file(inputs["documents"]))
    left_out: Counter[str] = Counter()
    found = training_questions(rows, _evaluated(inputs), left_out=left_out)
    order = permutation(len(found), recipe.seed, STREAM)[: recipe.num_questions]
    left_out[NOT_DRAWN] = len(found) - len(order)
    drawn = [found[int(place)] for place in order]
    prompts = encode_prompts(tokenizer, [row.question for row in drawn])
    fits = [len(prompt) < model.max_sequence_tokens for prompt in prompts]
    left_out[TOO_LONG] = fits.count(False)
    asked = [row for row, is_short in zip(drawn, fits, strict=True) if is_short]
    prompts = [prompt for prompt, is_short in zip(prompts, fits, strict=True) if is_short]
    work.progress(0, 1, note=f"{len(asked)} questions, {recipe.num_samples} answers each")
    sampling = Sampling(
        max_new_tokens=recipe.max_new_tokens,
        temperature=recipe.temperature,
        seed=recipe.seed,
        stop_token=END,
        num_samples=recipe.num_samples,
    )
    made = model.generate(prompts, sampling)
    texts = [[tokenizer.decode(tokens) for tokens in answers] for answers in made]
    chosen = choose_answers(asked, texts, most_kept=recipe.most_kept)
    if not chosen.rows:
        raise StageError(
            f"own samples of {inputs['checkpoint'].name}",
            found=f"no right answer among {sum(map(len, texts)):_} to {len(asked):_} questions; "
            + ", ".join(f"{count:_} {reason}" for reason, count in chosen.dropped.items()),
            rule="an SFT set has one row or more",
            do="let a model answer that saw reasoning or was tuned (`tuned`), or ask more often",
        )
    write_rows(documents_file(work.path), chosen.rows)
    write_json(work.path / SAMPLES, _facts(asked, chosen, texts=texts, left_out=left_out))
    work.progress(1, 1, note=f"{len(chosen.rows)} rows")


def training_questions(
    rows: Iterable[Row], evaluated: set[str], *, left_out: Counter[str]
) -> list[Conversation]:
    """Conversations that ask something for the first time, and nothing that an evaluation asks.

    Two questions are the same where they differ in case, spaces or punctuation alone.
    """
    seen: set[str] = set()
    found: list[Conversation] = []
    for row in rows:
        if not isinstance(row, Conversation):
            left_out[NO_CONVERSATION] += 1
            continue
        key = question_key(row.question)
        if key in evaluated:
            left_out[EVALUATED] += 1
        elif key in seen:
            left_out[REPEATED] += 1
        else:
            seen.add(key)
            found.append(row)
    return found


def choose_answers(
    asked: Sequence[Conversation], texts: Sequence[Sequence[str]], *, most_kept: int
) -> Chosen:
    """The first `most_kept` different right answers to each question, as rows of their own."""
    dropped: Counter[str] = Counter()
    answered: Counter[str] = Counter()
    rows: list[Conversation] = []
    for question, answers in zip(asked, texts, strict=True):
        kept: list[Conversation] = []
        seen: set[tuple[str, str]] = set()
        for text in answers:
            row, reason = _right_row(question, text)
            if row is not None and (row.trace, row.answer) in seen:
                row, reason = None, SAME_ANSWER
            if row is not None and len(kept) == most_kept:
                row, reason = None, ENOUGH
            if row is None:
                dropped[reason] += 1
                continue
            seen.add((row.trace, row.answer))
            kept.append(replace(row, id=f"{question.id}/own-{len(kept)}"))
        rows += kept
        answered[question.family] += bool(kept)
    return Chosen(rows=tuple(rows), dropped=dict(sorted(dropped.items())), answered=dict(answered))


def _right_row(question: Conversation, text: str) -> tuple[Conversation | None, str]:
    """An answer as a row, or why it is none."""
    gold, family = question.answer, question.family
    grade = grade_generation(text, question=question.question, gold=gold, family=family)
    if not grade.reward:
        return None, grade.reason
    steps, _, _ = text.rpartition(ANSWER_MARK)
    row = Conversation(
        id="",
        question=question.question,
        trace=steps.strip(),
        answer=grade.extracted,
        family=family,
        domain=question.domain,
    )
    if has_special_token(row.trace) or has_special_token(row.answer):
        return None, SPECIAL
    if response(row.trace, row.answer).strip() != text.strip():
        return None, OTHER_LAYOUT
    return row, ""


def _evaluated(inputs: Inputs) -> set[str]:
    """What the evaluations of the study ask."""
    return {question_key(one) for one in _evaluation_questions(inputs)}


def _evaluation_questions(inputs: Inputs) -> Iterator[str]:
    for item in read_items(corpus_items(inputs["corpus"])):
        yield item.context if isinstance(item, ChoiceItem) else item.question
    for document in read_heldout(corpus_heldout(inputs["corpus"])):
        yield document.question


def _facts(
    asked: Sequence[Conversation],
    chosen: Chosen,
    *,
    texts: Sequence[Sequence[str]],
    left_out: Counter[str],
) -> dict[str, Any]:
    """samples.json: counts that add up, of questions and of answers."""
    families = Counter(row.family for row in asked)
    kept = Counter(row.family for row in chosen.rows)
    return {
        "format": 1,
        "questions": {
            "asked": len(asked),
            "answered": sum(chosen.answered.values()),
            "left_out": {reason: count for reason, count in sorted(left_out.items()) if count},
        },
        "answers": {
            "made": sum(map(len, texts)),
            "kept": len(chosen.rows),
            "dropped": chosen.dropped,
        },
        "families": {
            name: {"asked": count, "answered": chosen.answered[name], "kept": kept[name]}
            for name, count in sorted(families.items())
        },
    }
