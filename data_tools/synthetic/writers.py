"""Writers of reasoning sets: problems to conversations, long or short, clean or noisy.

Shares are by token: a set's tokens are the words of its questions, traces and answers, without the
markers of the chat template, as `composition.json` counts them.
"""

import random
from collections.abc import Iterator

from frontload.data_tools.synthetic.families import (
    Problem,
    family_named,
    generate,
    in_order,
    level_at,
)
from frontload.data_tools.synthetic.problem import random_stream
from frontload.data_tools.synthetic.vocabulary import (
    CLASS_MEMBERS,
    CLASS_OF,
    CLOSER_OF,
    CODE_WORDS,
    DIGITS,
    GAINS,
    LABELS,
    LETTERS,
    OBJECTS,
    PHASES,
    PLACES,
    PROPERTIES,
    WORDS,
)
from frontload.data_tools.text.document import Conversation
from frontload.recipes.errors import RecipeError
from frontload.recipes.schema import ReasoningWriter

STATE_SEPARATOR = ","
SHARE_TOLERANCE = 1e-6
TEMPTING_SHARE = 0.8  # of wrong words that stand in the question, where one does
KINDS_OF_WORDS = (
    DIGITS,
    LETTERS,
    LABELS,
    OBJECTS,
    WORDS,
    PHASES,
    tuple(CLOSER_OF.values()),
    PLACES,
    CODE_WORDS,
    tuple(GAINS),
    tuple(CLASS_OF),
    tuple(CLASS_MEMBERS),
    *(tuple(values.values()) for values in PROPERTIES.values()),
)


def write_reasoning(recipe: ReasoningWriter, *, name: str, seed: int) -> Iterator[Conversation]:
    """Yields the conversations of one set until its token budget is met, to within one document.

    Each document goes to the family that is furthest below its share of the tokens so far.
    Raises: RecipeError for shares that do not sum to 1 or an unknown family.
    """
    _check_shares(recipe, name)
    families = in_order(recipe.families)
    streams = {family: random_stream(seed, name, family) for family in families}
    written = dict.fromkeys(families, 0)
    total = count = 0
    while total < recipe.tokens:
        family = max(families, key=lambda one: recipe.families[one] * (total + 1) - written[one])
        row = _write_one(recipe, streams[family], family=family, row_id=f"{name}-{count:07d}")
        tokens = conversation_tokens(row)
        written[family] += tokens
        total += tokens
        count += 1
        yield row


def conversation_tokens(row: Conversation) -> int:
    """Words of a conversation, markers not counted."""
    return sum(len(text.split()) for text in (row.question, row.trace, row.answer))


def long_trace(problem: Problem) -> str:
    """Every step, each restating its operation."""
    return " ".join(problem.solution.steps)


def short_trace(problem: Problem, rng: random.Random) -> str:
    """About half of the bare states, in order."""
    states = problem.solution.states
    kept = sorted(rng.sample(range(len(states)), (len(states) + 1) // 2))
    return f" {STATE_SEPARATOR} ".join(states[place] for place in kept)


def wrong_answer(answer: str, rng: random.Random, *, question: str = "") -> str:
    """The answer with one word replaced by another of its kind.

    Words of the question are preferred: an option that is nowhere in it is no temptation.
    """
    words = answer.split()
    known = [place for place, word in enumerate(words) if kind_of_word(word)]
    place = rng.choice(known)
    others = [word for word in kind_of_word(words[place]) if word != words[place]]
    tempting = sorted(set(others) & set(question.split()) - set(DIGITS))
    words[place] = rng.choice(tempting if tempting and rng.random() < TEMPTING_SHARE else others)
    return " ".join(words)


def kind_of_word(word: str) -> tuple[str, ...]:
    """The list of the vocabulary that a word of an answer belongs to; empty for a function word."""
    for kind in KINDS_OF_WORDS:
        if word in kind:
            return kind
    return ()


def _write_one(
    recipe: ReasoningWriter, rng: random.Random, *, family: str, row_id: str
) -> Conversation:
    share = recipe.level_low + (recipe.level_high - recipe.level_low) * rng.random()
    problem = generate(rng, family, level=level_at(family, share), heldout=False)
    form = rng.random()
    trace = ""
    if form < recipe.long_share:
        trace = long_trace(problem)
    elif form < recipe.long_share + recipe.short_share:
        trace = short_trace(problem, rng)
    answer = problem.solution.answer
    if rng.random() < recipe.wrong_share:
        answer = wrong_answer(answer, rng)
    return Conversation(
        id=row_id,
        question=problem.question,
        trace=trace,
        answer=answer,
        family=family,
        domain=problem.domain,
    )


def _check_shares(recipe: ReasoningWriter, name: str) -> None:
    for family in recipe.families:
        family_named(family)
    total = sum(recipe.families.values())
    if abs(total - 1) > SHARE_TOLERANCE or min(recipe.families.values()) < 0:
        raise RecipeError(
            f"synthesis.{name}.families",
            found=f"shares that sum to {total:g}",
            rule="the shares of tokens are not negative and sum to 1",
            do="scale them, or add the missing family",
        )
