"""Question-answer pairs without a model: a number or a name of a sentence, asked for by a gap.

What a gap asks for can often be guessed: these pairs test a pipeline and warm a model up. They
stand in for a generator where none can be had.
"""

import re
from collections.abc import Iterator

from frontload.data_tools.generation.question_pairs import Pair, broken_rule, stands_in
from frontload.data_tools.text.words import normalise_question

GAP = "____"
LEAST_WORDS, MOST_WORDS = 6, 40  # of a sentence with a gap; ours
ASKS = "Which word or number fills the gap?"
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9])|\n+")
_CANDIDATE = re.compile(
    r"(?<![\w.,])\d[\d,]*(?:\.\d+)?(?![\w]|[.,]\d)"  # a number
    r"|(?<=[a-z,;] )[A-Z][\w-]+(?: [A-Z][\w-]+)*"  # a name, not the first word of a sentence
)


def extracted_pairs(document: str, *, most: int) -> Iterator[Pair]:
    """At most `most` pairs of a document, one of a sentence, in its order.

    A pair's answer stands once in its sentence and the pair breaks none of the rules of a generated
    one.
    """
    given = 0
    for sentence in _SENTENCE_END.split(document):
        if given == most:
            return
        words = " ".join(sentence.split())
        if not LEAST_WORDS <= len(words.split()) <= MOST_WORDS:
            continue
        pair = next(_pairs(words, document), None)
        if pair is not None:
            given += 1
            yield pair


def _pairs(sentence: str, document: str) -> Iterator[Pair]:
    for found in _CANDIDATE.finditer(sentence):
        answer = found.group()
        gapped = sentence[: found.start()] + GAP + sentence[found.end() :]
        if stands_in(answer, gapped) or normalise_question(answer) in normalise_question(gapped):
            continue
        pair = Pair(question=f"{gapped} {ASKS}", answer=answer)
        if broken_rule(pair, document=document) is None:
            yield pair
