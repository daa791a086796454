"""The family that stands for instruction following: in which form a short sum is to be given."""

import random

from frontload.data_tools.synthetic.math_families import add_digits, draw_change
from frontload.data_tools.synthetic.problem import Family, Solution, labelled, run_program
from frontload.data_tools.synthetic.vocabulary import OBJECTS

FORMS = ("twice", "before", "after")


def draw_form(rng: random.Random) -> str:
    """An instruction: say it twice, or before or after a word."""
    form = rng.choice(FORMS)
    return form if form == "twice" else f"{form} {rng.choice(OBJECTS)}"


def apply_form(value: str, form: list[str]) -> str:
    """A value in the form that an instruction asks for."""
    match form:
        case ["twice"]:
            return f"{value} {value}"
        case ["before", word]:
            return f"{value} {word}"
        case ["after", word]:
            return f"{word} {value}"
    raise ValueError(f"no instruction: {' '.join(form)}")


def _draw_format(rng: random.Random, level: int) -> str:
    changes = [draw_change(rng) for _ in range(level)]
    return f"say {draw_form(rng)} {labelled([str(rng.randrange(10)), *changes])}"


def _apply_sum(state: list[str], operation: list[str]) -> list[str]:
    if len(operation) == 1:
        return operation
    sign, operand = operation
    return [str(add_digits(int(state[0]), sign, int(operand)))]


def _solve_format(question: str) -> Solution:
    """The sum as in `chain`, then a last step that follows the instruction."""
    form = question[: question.index(" A ")].split()[1:]
    solved = run_program(question, _apply_sum)
    answer = apply_form(solved.answer, form)
    return Solution(
        steps=(*solved.steps, f"say {' '.join(form)} = {answer}"),
        states=(*solved.states, answer),
        answer=answer,
    )


INSTRUCTION_FAMILIES = (
    Family(name="format", stands_for="ins", levels=(1, 2), draw=_draw_format, solve=_solve_format),
)
