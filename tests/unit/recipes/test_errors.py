"""What an error tells scripts and other processes."""

import pickle

import pytest

from frontload.recipes.errors import (
    ArtifactError,
    FrontloadError,
    RecipeError,
    StageError,
    Stopped,
)


@pytest.mark.parametrize(
    ("kind", "code"),
    [(FrontloadError, 1), (RecipeError, 2), (ArtifactError, 2), (StageError, 1), (Stopped, 75)],
)
def test_an_error_ends_with_the_code_of_its_kind(kind: type[FrontloadError], code: int) -> None:
    """2: mend what you wrote or what lies on disk; 1: it failed; 75: start it again."""
    assert kind("asked", found="found", rule="rule", do="do").exit_code == code


def test_an_error_of_a_worker_has_its_four_parts_in_the_run() -> None:
    error = StageError("asked", found="found", rule="rule", do="do")
    told = pickle.loads(pickle.dumps(error))
    assert type(told) is StageError
    assert (told.asked, told.found, told.rule, told.do) == ("asked", "found", "rule", "do")
    assert str(told) == "asked: found; rule; do"
