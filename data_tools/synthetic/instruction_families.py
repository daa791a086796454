"""Families of the domain ins: instructions whose result can be checked."""

import random

from frontload.data_tools.synthetic.problem import Family, Solution
from frontload.data_tools.synthetic.vocabulary import OBJECTS, WORDS

LARGEST_COUNT = 3


def _draw_say(rng: random.Random, level: int) -> str:
    words = " ".join(rng.sample(WORDS, level))
    ending = " then stop" if rng.random() < 0.5 else ""
    return f"say {words} {rng.randint(1, LARGEST_COUNT)} times{ending}"


def _solve_say(question: str) -> Solution:
    words = question.split()
    times = words.index("times")
    said = " ".join(words[1 : times - 1])
    count = int(words[times - 1])
    steps = [f"say {said} {left} times" for left in range(count, 0, -1)]
    states = [said] * count
    if words[-1] == "stop":
        steps.append("then stop")
        states.append("stop")
    return Solution(steps=tuple(steps), states=tuple(states), answer=" ".join(states))


def _draw_next(rng: random.Random, level: int) -> str:
    period = rng.sample(WORDS, level)
    length = rng.randint(level + 1, 2 * level + 1)
    return f"next {' '.join(period[place % level] for place in range(length))}"


def _solve_next(question: str) -> Solution:
    """The two words that follow a repeating list."""
    words = question.split()[1:]
    length = words.index(words[0], 1)
    answer = " ".join(words[(len(words) + ahead) % length] for ahead in range(2))
    period = " ".join(words[:length])
    return Solution(steps=(f"list {period}", f"again {answer}"), states=(period,), answer=answer)


def _draw_omit(rng: random.Random, level: int) -> str:
    objects = rng.sample(OBJECTS, level)
    return f"write {' '.join(objects)} without {rng.choice(objects)}"


def _solve_omit(question: str) -> Solution:
    words = question.split()
    objects, left_out = words[1:-2], words[-1]
    steps = [f"{name} {'no' if name == left_out else 'yes'}" for name in objects]
    kept = tuple(name for name in objects if name != left_out)
    return Solution(steps=tuple(steps), states=kept, answer=" ".join(kept))


INSTRUCTION_FAMILIES = (
    Family(name="say", domain="ins", levels=(1, 3), draw=_draw_say, solve=_solve_say),
    Family(name="next", domain="ins", levels=(2, 4), draw=_draw_next, solve=_solve_next),
    Family(name="omit", domain="ins", levels=(3, 5), draw=_draw_omit, solve=_solve_omit),
)
