"""The learning rate of every sample."""

import dataclasses

import pytest

from frontload.megatron_ext.training.schedule import check_schedule, learning_rate
from frontload.recipes.errors import RecipeError
from frontload.recipes.schema import Schedule
from tests.training_inputs import tiny_training

OPTIMIZER = dataclasses.replace(
    tiny_training(1).optimizer, learning_rate=1.0, min_learning_rate=0.1
)


def schedule(kind: str, **changes: float) -> Schedule:
    values = {"warmup_share": 0.1, "decay_share": 0.2} | changes
    return Schedule(kind=kind, total_samples=1000, **values)  # type: ignore[arg-type]


def test_warm_up_is_linear_from_zero() -> None:
    for kind in ("cosine", "wsd", "constant"):
        assert learning_rate(OPTIMIZER, schedule(kind), 25) == pytest.approx(0.25)
        assert learning_rate(OPTIMIZER, schedule(kind), 100) == pytest.approx(1.0)


def test_cosine_passes_its_middle_and_ends_at_the_minimum() -> None:
    cosine = schedule("cosine")
    assert learning_rate(OPTIMIZER, cosine, 550) == pytest.approx(0.55)
    assert learning_rate(OPTIMIZER, cosine, 1000) == pytest.approx(0.1)
    assert learning_rate(OPTIMIZER, cosine, 1500) == pytest.approx(0.1)


def test_wsd_is_stable_and_then_falls_as_one_minus_root() -> None:
    wsd = schedule("wsd")
    assert learning_rate(OPTIMIZER, wsd, 799) == 1.0
    assert learning_rate(OPTIMIZER, wsd, 850) == pytest.approx(0.1 + 0.9 * 0.5)
    assert learning_rate(OPTIMIZER, wsd, 1000) == pytest.approx(0.1)


def test_constant_never_falls() -> None:
    assert learning_rate(OPTIMIZER, schedule("constant"), 10**6) == 1.0


@pytest.mark.parametrize(
    "wrong",
    [
        schedule("linear"),
        schedule("wsd", warmup_share=0.9),
        schedule("cosine", warmup_share=-0.1),
        dataclasses.replace(schedule("cosine"), total_samples=0),
    ],
)
def test_impossible_schedules_are_refused(wrong: Schedule) -> None:
    with pytest.raises(RecipeError, match="schedule"):
        check_schedule(wrong)
