"""What must hold before a score is believed: each gate says what it found; one that fails marks it.

A gate never changes a score. `marks` are the sentences that stand beside it.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from frontload.data_tools.corpus.leaks import LeakFilter
from frontload.data_tools.text.words import normalise_question
from frontload.eval.results import ChoiceResult, GeneratedResult

CONTAMINATION = "contamination"
DIGEST_LETTERS = 16
MOST_EMPTY = 0.02  # ours: of texts; a model that answers writes something


@dataclass(frozen=True, kw_only=True)
class ScoreGate:
    """The verdict of one gate on one benchmark of one checkpoint."""

    name: str
    is_passed: bool | None  # None: it could not be asked, which marks nothing
    said: str  # what was found, with its numbers


def marks(gates: Iterable[ScoreGate]) -> tuple[str, ...]:
    """What a reader must know before he believes the number: the gates that it did not pass."""
    return tuple(f"{gate.name}: {gate.said}" for gate in gates if gate.is_passed is False)


def gold_is_right(results: Sequence[GeneratedResult]) -> ScoreGate:
    """The gold answers through the same prompt, tokenizer and grader."""
    wrong = [result.id for result in results if not result.gold_correct]
    shown = f" ({', '.join(wrong[:3])})" if wrong else ""
    return ScoreGate(
        name="gold replay",
        is_passed=not wrong,
        said=f"{len(wrong)} of {len(results)} gold answers are graded wrong{shown}",
    )


def options_differ(results: Sequence[ChoiceResult]) -> ScoreGate:
    """Options that all score alike were not scored: a server that leaves out the echo does this."""
    alike = [one.id for one in results if len(set(one.log_likelihoods)) == 1]
    return ScoreGate(
        name="options",
        is_passed=not alike,
        said=f"all options score alike in {len(alike)} of {len(results)} questions",
    )


def options_are_written(options: Mapping[str, Sequence[str]]) -> ScoreGate:
    """Options of white space alone: what a model thinks of them says nothing of the question."""
    blank = [name for name, texts in options.items() if not all(text.strip() for text in texts)]
    shown = f" ({', '.join(blank[:3])})" if blank else ""
    return ScoreGate(
        name="empty options",
        is_passed=not blank,
        said=f"{len(blank)} of {len(options)} questions have an option without a letter{shown}",
    )


def texts_are_written(results: Sequence[GeneratedResult]) -> ScoreGate:
    """Whether the checkpoint answered at all: the share of texts without a letter in them."""
    texts = [sample.text for result in results for sample in result.samples]
    empty = sum(not text.strip() for text in texts)
    return ScoreGate(
        name="empty answers",
        is_passed=empty <= MOST_EMPTY * len(texts),
        said=f"{empty} of {len(texts)} texts are empty",
    )


def examples_are_others(questions: Iterable[str], examples: Iterable[str]) -> ScoreGate:
    """Worked examples in the prompts that are questions of the test, in any spelling of spaces."""
    shown = {normalise_question(example) for example in examples}
    asked = [question for question in questions if normalise_question(question) in shown]
    return ScoreGate(
        name="worked examples",
        is_passed=not asked,
        said=f"{len(asked)} of the {len(shown)} worked examples are questions of the test",
    )


def prompt_digest(prompts: Mapping[str, str]) -> str:
    """A digest of what was asked: question id -> text, in whatever order."""
    whole = hashlib.sha256(json.dumps(prompts, sort_keys=True).encode()).hexdigest()
    return whole[:DIGEST_LETTERS]


def prompts_are_known(prompts: Mapping[str, str], *, stated: str | None) -> ScoreGate:
    """Whether the prompts are those that the numbers beside this one were measured with."""
    found = prompt_digest(prompts)
    if stated is None:
        said = f"the digest of {len(prompts)} prompts is {found}; no other is stated"
        return ScoreGate(name="prompts", is_passed=None, said=said)
    return ScoreGate(
        name="prompts",
        is_passed=found == stated,
        said=f"the digest of {len(prompts)} prompts is {found}, stated is {stated}",
    )


def corpus_is_clean(
    questions: Mapping[str, Sequence[str]], texts: Iterable[str] | None
) -> dict[str, ScoreGate]:
    """Whether a checkpoint's own training texts hold a benchmark's questions, by the rules of
    `data curate`: benchmark -> its gate, after one pass over the texts; None = not known."""
    if texts is None:
        said = "not looked for: the training texts are not known"
        gate = ScoreGate(name=CONTAMINATION, is_passed=None, said=said)
        return dict.fromkeys(questions, gate)
    filter_ = LeakFilter([one for asked in questions.values() for one in asked])
    leaked, short = filter_.leaked(texts), filter_.too_short
    found: dict[str, ScoreGate] = {}
    start = 0
    for name, asked in questions.items():
        own = range(start, start + len(asked))
        start += len(asked)
        held = sum(number in leaked for number in own)
        unseen = sum(number in short for number in own)
        found[name] = ScoreGate(
            name=CONTAMINATION,
            is_passed=None if unseen == len(asked) else not held,
            said=f"{held} of {len(asked)} questions stand in the training texts"
            + (f"; {unseen} are too short to look for" if unseen else ""),
        )
    return found
