"""The reward of a response that holds a program: for RL's rows, by the function that grades."""

from functools import cache

from frontload.eval.sandbox.grade import ProgramVerdict, grade_program
from frontload.eval.sandbox.isolation import Isolation, find_isolation
from frontload.eval.sandbox.livecode_rows import item_of_ground_truth


def program_reward(response: str, ground_truth: str) -> ProgramVerdict:
    """The verdict of a response; its `reward` is 1 when the program passes every test, else 0.

    `ground_truth` is JSON as `livecode_rows.item_of_ground_truth` reads it. Several threads may
    call this at once: each call waits for a sandbox of its own.

    Raises: RecipeError for a ground truth that is not readable; StageError without a sandbox.
    """
    return grade_program(item_of_ground_truth(ground_truth), response, isolation=_isolation())


@cache
def _isolation() -> Isolation:
    """Tried once a process. A reward never runs without walls: RL repeats what it rewards."""
    return find_isolation()
