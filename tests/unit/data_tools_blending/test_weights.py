"""Weights by temperature and UniMax: exact, the same everywhere, and within every cap of a plan."""

from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from frontload.data_tools.blending.budget import Budget, plan_budget
from frontload.data_tools.blending.division import Size
from frontload.data_tools.blending.report import ledger_json
from frontload.data_tools.blending.weights import integer_root, tempered, unimax
from frontload.recipes.errors import RecipeError
from frontload.recipes.runs.blend import load_blend
from tests.unit.data_tools_blending.small import RECIPE, write_recipe

TOKENS = st.integers(1, 2**45)


@given(value=st.integers(0, 2**700), degree=st.integers(1, 100))
@example(value=2**640, degree=10)
@example(value=2**640 - 1, degree=10)
def test_a_root_is_the_largest_whole_number_below_it(value: int, degree: int) -> None:
    root = integer_root(value, degree)
    assert root**degree <= value < (root + 1) ** degree


def test_a_temperature_is_a_power_of_the_sizes() -> None:
    """Sizes of 16 to 1 are 4 to 1 at temperature 2, and 8 to 1 at 4/3."""
    assert tempered([16, 1], Fraction(2)) == [4 << 64, 1 << 64]
    assert tempered([16, 1], Fraction(4, 3)) == [8 << 64, 1 << 64]
    assert tempered([16, 1], Fraction(1)) == [16 << 64, 1 << 64]
    (weight,) = tempered([10**12], Fraction(10, 3))
    assert weight / 2**64 == pytest.approx(10**3.6, rel=1e-12)


@given(sizes=st.lists(TOKENS, min_size=2, max_size=6), parts=st.integers(1, 9))
def test_a_higher_temperature_is_nearer_to_equal(sizes: list[int], parts: int) -> None:
    """A smaller source never loses by it, and none passes a larger one."""
    cold, warm = (tempered(sizes, Fraction(t, parts)) for t in (parts + 1, parts + 5))
    smallest, largest = sizes.index(min(sizes)), sizes.index(max(sizes))
    assert warm[smallest] * cold[largest] >= cold[smallest] * warm[largest] * (
        1 - Fraction(1, 2**60)
    )
    for weights in (cold, warm):
        for size, weight in zip(sizes, weights, strict=True):
            assert (weight < weights[largest]) <= (size < sizes[largest])


def by_bisection(budget: int, most: list[int]) -> list[Fraction]:
    """UniMax said otherwise: one level for all, cut where a source has less. By its pieces."""
    for level in sorted({*most}):
        if sum(min(level, one) for one in most) >= budget:
            full = [one for one in most if one < level]
            level_of = Fraction(budget - sum(full), len(most) - len(full))
            return [min(Fraction(one), level_of) for one in most]
    return [Fraction(one) for one in most]


@given(most=st.lists(st.integers(0, 1000), min_size=1, max_size=8), budget=st.integers(1, 5000))
def test_unimax_fills_every_source_to_one_level(most: list[int], budget: int) -> None:
    parts = unimax(budget, most)
    assert parts == by_bisection(budget, most)
    assert sum(parts) == min(budget, sum(most))


def planned(folder: Path, mix: str, *overrides: str, sizes: dict[str, int]) -> Budget:
    text = RECIPE.replace("weighting: token", mix)
    loaded = load_blend(str(write_recipe(folder, text)), overrides=overrides)
    found = {n: Size(tokens=t, documents=9, is_declared=False) for n, t in sizes.items()}
    return plan_budget(loaded, found)


def test_a_mix_by_temperature_is_read_so(tmp_path: Path) -> None:
    """Of 100 samples of the mix, 20 are of a source of a 16th of the tokens: 4 to 1."""
    sizes = {"base": 10**6, "ldq": 16_000, "shq": 1_000}
    mix = "weighting: temperature, temperature: 2"
    budget = planned(tmp_path, mix, "phases.b.tokens=4_000", sizes=sizes)
    assert [budget.parts_of(name)[0].num_samples for name in ("ldq", "shq")] == [80, 20]
    assert ledger_json(budget)["mixes"]["lmq"]["temperature"] == "2"
    plain = ledger_json(planned(tmp_path, "weighting: token", sizes=sizes))
    assert plain["mixes"]["lmq"] == {"members": ["ldq", "shq"], "weighting": "token"}


@pytest.mark.parametrize(
    ("mix", "told"),
    [
        ("weighting: temperature", "is not given; .* write e.g. `temperature: 10/3`"),
        ("weighting: token, temperature: 2", "is 2 beside `token`; .* take it out"),
        ("weighting: temperature, temperature: 1/2", "is 1/2; it is 1 or more"),
        ("weighting: temperature, temperature: 3.141", "is 3141/1000; .* numbers up to 100"),
    ],
)
def test_a_temperature_that_cannot_be_is_refused(tmp_path: Path, mix: str, told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        planned(tmp_path, mix, sizes={"base": 10**6, "ldq": 16_000, "shq": 1_000})


def test_unimax_reads_equally_what_is_there_and_the_rest_elsewhere(tmp_path: Path) -> None:
    """shq has 4 epochs of 100 tokens, 25 sequences: one less for the rounding of its phase."""
    sizes = {"base": 10**6, "ldq": 16_000, "shq": 100}
    budget = planned(tmp_path, "weighting: unimax", "phases.b.tokens=4_000", sizes=sizes)
    assert [budget.parts_of(name)[0].num_samples for name in ("ldq", "shq")] == [76, 24]
    small = planned(tmp_path, "weighting: unimax", "phases.b.tokens=1_600", sizes=sizes)
    assert [small.parts_of(name)[0].num_samples for name in ("ldq", "shq")] == [20, 20]


@settings(max_examples=100)
@given(
    tokens=st.lists(st.integers(200, 5_000), min_size=2, max_size=2),
    phases=st.lists(st.integers(160, 4_000), min_size=2, max_size=2),
    epochs=st.integers(1, 4),
)
def test_unimax_keeps_every_cap_that_can_be_kept(
    tmp_path_factory: pytest.TempPathFactory, tokens: list[int], phases: list[int], epochs: int
) -> None:
    """A plan is refused only where both sources together, less the rounding, are too small."""
    caps = [f"sources.{name}.max_epochs={epochs}" for name in ("ldq", "shq")]
    caps += [f"phases.{name}.tokens={count}" for name, count in zip("ab", phases, strict=True)]
    caps += [
        "phases.a.shares={lmq: 1}",
        "phases.b.shares={lmq: 1}",
        "sources.ldq.reading=repeatable",
    ]
    sizes = {"base": 10**6, "ldq": tokens[0], "shq": tokens[1]}
    room = sum(max(0, epochs * one // 16 - 2) for one in tokens)
    asked = sum(-((16 - 2 * count) // 32) for count in phases)
    try:
        folder = tmp_path_factory.getbasetemp()
        budget = planned(folder, "weighting: unimax", *caps, sizes=sizes)
    except RecipeError:
        if asked <= room:
            raise
        return
    read = [sum(part.tokens for part in budget.parts_of(name)) for name in ("ldq", "shq")]
    assert all(one <= epochs * size for one, size in zip(read, tokens, strict=True))
    assert sum(read) == 16 * asked
