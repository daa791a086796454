"""Documents to question-answer pairs that a rule can grade: four verdicts of a model, then ours.

A filter says whether a document can be asked about; an identifier names its field and who would
ask; a generator writes a pair for each of them; a checker says whether the answer follows from the
document and whether the question gives it away. What a rule can see is not left to the checker.

Source: Webscale-RL, arXiv 2510.06499, section 3 (the four parts). The wording of the requests, the
limits and the rules are ours; its examples of a field's library are left out.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from frontload.data_tools.generation.thinking import THINK_END, has_control
from frontload.data_tools.text.messages import Message
from frontload.data_tools.text.render import has_special_token
from frontload.data_tools.text.words import normalise_question

DOMAINS = (
    *("commerce", "health", "law and society", "lifestyle", "mathematics", "natural science"),
    *("programming", "technology", "history", "other"),
)
"""Fields of a document; ours, of the width of the paper's list."""
MOST_PERSONAS = 3  # Webscale-RL, section 3.2
MOST_ANSWER_WORDS = 12  # ours: longer answers have too many right wordings for a rule
MOST_QUESTION_WORDS = 200  # ours

FILTER = (
    "{document}\n\nThe text ends here. Is it informative, complete in itself, and does it state a "
    "fact that a question with one short answer can ask for? Reply with one word: yes or no."
)
IDENTIFY = (
    "{document}\n\nThe text ends here. Reply in lines. First `domain: ` and one of: {domains}. "
    "Then up to {personas} lines `persona: ` with who would ask about this text, in a few words."
)
GENERATE = (
    "{document}\n\nThe text ends here. As {persona} write one question whose answer stands in the "
    "text. The question must be understood without the text and must not give the answer away. The "
    "answer is a number, a name or a few words. Reply in two lines: `question: ` and `answer: `."
)
CHECK = (
    "{document}\n\nThe text ends here.\nQuestion: {question}\nAnswer: {answer}\n\nReply in two "
    "lines. `correct: ` yes or no: is this the right answer by the text? `leaks: ` yes or no: can "
    "the answer be read off the question without knowing it?"
)


class DroppedPair(StrEnum):
    """Why a document or a pair gives no prompt."""

    NOT_INFORMATIVE = "filter: no"
    FILTER_UNREAD = "filter: neither yes nor no"
    IDENTIFIER_UNREAD = "identifier: no domain or persona"
    PAIR_UNREAD = "generator: no question and answer"
    LONG_ANSWER = f"generator: an answer over {MOST_ANSWER_WORDS} words"
    LONG_QUESTION = f"generator: a question over {MOST_QUESTION_WORDS} words"
    SPECIAL_TOKEN = "generator: a special token or control character"
    NEEDS_TEXT = "generator: a question that points to the text"
    NOT_IN_TEXT = "rule: the answer does not stand in the document"
    LEAK = "rule: the answer stands in the question"
    WRONG = "checker: wrong"
    CHECKER_LEAK = "checker: the question leaks the answer"
    CHECKER_UNREAD = "checker: no verdict"
    TWICE = "rule: the same question again"


@dataclass(frozen=True, kw_only=True)
class Readers:
    """Who asks about a document."""

    domain: str
    personas: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One question with its short answer."""

    question: str
    answer: str


_POINTS = re.compile(
    r"\b(the|this) (text|passage|document|article|author|excerpt)\b|\b(above|below)\b",
    re.IGNORECASE,
)
_SLOT = re.compile(r"\{(\w+)\}")


def filter_messages(document: str) -> tuple[Message, ...]:
    """Asks whether a document can be asked about."""
    return _one_turn(FILTER, document=document)


def identify_messages(document: str) -> tuple[Message, ...]:
    """Asks for the field and the readers of a document."""
    domains, personas = ", ".join(DOMAINS), str(MOST_PERSONAS)
    return _one_turn(IDENTIFY, document=document, domains=domains, personas=personas)


def generate_messages(document: str, persona: str) -> tuple[Message, ...]:
    """Asks for a pair, as one reader."""
    return _one_turn(GENERATE, document=document, persona=persona)


def check_messages(document: str, pair: Pair) -> tuple[Message, ...]:
    """Asks for the two verdicts on a pair."""
    return _one_turn(CHECK, document=document, question=pair.question, answer=pair.answer)


def read_filter(reply: str) -> DroppedPair | None:
    """None of a document that is kept."""
    said = _yes_or_no(_behind_thinking(reply))
    if said is None:
        return DroppedPair.FILTER_UNREAD
    return None if said else DroppedPair.NOT_INFORMATIVE


def read_readers(reply: str) -> Readers | DroppedPair:
    """The field and at most `MOST_PERSONAS` readers."""
    fields = _fields(reply)
    domain = next((one for one in fields.get("domain", ()) if one.casefold() in DOMAINS), "")
    personas = tuple(dict.fromkeys(fields.get("persona", ())))[:MOST_PERSONAS]
    if not domain or not personas:
        return DroppedPair.IDENTIFIER_UNREAD
    return Readers(domain=domain.casefold(), personas=personas)


def read_pair(reply: str, *, document: str) -> Pair | DroppedPair:
    """A pair that passes every rule that needs no model, or the first rule that it breaks."""
    fields = _fields(reply)
    questions, answers = fields.get("question", ()), fields.get("answer", ())
    if len(questions) != 1 or len(answers) != 1:
        return DroppedPair.PAIR_UNREAD
    pair = Pair(question=questions[0], answer=answers[0].rstrip(".").strip())
    return broken_rule(pair, document=document) or pair


def broken_rule(pair: Pair, *, document: str) -> DroppedPair | None:
    """The first rule that a pair breaks; None of one that a rule can grade."""
    both = f"{pair.question} {pair.answer}"
    if not pair.question or not _letters(pair.answer):
        return DroppedPair.PAIR_UNREAD
    if len(pair.answer.split()) > MOST_ANSWER_WORDS:
        return DroppedPair.LONG_ANSWER
    if len(pair.question.split()) > MOST_QUESTION_WORDS:
        return DroppedPair.LONG_QUESTION
    if has_special_token(both) or has_control(both):
        return DroppedPair.SPECIAL_TOKEN
    if _POINTS.search(pair.question):
        return DroppedPair.NEEDS_TEXT
    if not stands_in(pair.answer, document):
        return DroppedPair.NOT_IN_TEXT
    if stands_in(pair.answer, pair.question):
        return DroppedPair.LEAK
    return None


def read_check(reply: str) -> DroppedPair | None:
    """None of a pair that the checker lets pass."""
    fields = _fields(reply)
    correct, leaks = (
        _yes_or_no(fields[name][0]) if len(fields.get(name, ())) == 1 else None
        for name in ("correct", "leaks")
    )
    if correct is None or leaks is None:
        return DroppedPair.CHECKER_UNREAD
    if not correct:
        return DroppedPair.WRONG
    return DroppedPair.CHECKER_LEAK if leaks else None


def stands_in(answer: str, text: str) -> bool:
    """Whether an answer stands in a text as whole words: `4` does not stand in `40` or `4.5`."""
    wanted = re.escape(normalise_question(answer))
    return bool(re.search(rf"(?<![\w.]){wanted}(?![\w]|[.,]\d)", normalise_question(text)))


def _one_turn(request: str, **slots: str) -> tuple[Message, ...]:
    """A request with its slots filled at once: braces in a document stay what they are."""
    text = _SLOT.sub(lambda found: slots[found.group(1)], request)
    return ({"role": "user", "content": text},)


def _behind_thinking(reply: str) -> str:
    return reply.rpartition(THINK_END)[2].strip()


def _fields(reply: str) -> dict[str, list[str]]:
    """`name: value` lines behind the thinking; marks of a list or of bold type are left out."""
    found: dict[str, list[str]] = {}
    for line in _behind_thinking(reply).splitlines():
        name, colon, value = line.strip().lstrip("-*# ").partition(":")
        value = value.strip().strip("*").strip()
        if colon and value:
            found.setdefault(name.strip("* ").casefold(), []).append(value)
    return found


def _yes_or_no(text: str) -> bool | None:
    words = [word.strip(".,!*`\"'") for word in text.casefold().split()]
    return {"yes": True, "no": False}.get(words[0]) if words else None


def _letters(text: str) -> str:
    return "".join(char for char in text if char.isalnum())
