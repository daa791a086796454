"""The grammar of claims.json on cells, with paired errors."""

import numpy as np
import pytest

from frontload.eval.cells import Cells, MissingCell
from frontload.eval.expressions import Expression
from frontload.eval.results import GeneratedResult, Generation, Protocol, ResultFile
from frontload.recipes.errors import RecipeError


def one_file(accuracies: dict[str, float], *, num_samples: int = 4) -> ResultFile:
    """One evaluation: benchmark math of as many questions as there are accuracies."""
    protocol = Protocol(
        suite="sft",
        num_samples=num_samples,
        num_hard_samples=num_samples,
        temperature=1.0,
        max_new_tokens=8,
        max_sequence_tokens=64,
        num_shots=0,
        seed=0,
    )
    results = []
    for name, accuracy in accuracies.items():
        right = round(accuracy * num_samples)
        samples = tuple(
            Generation(text="", answer="", correct=n < right, format_failure="", tokens=1)
            for n in range(num_samples)
        )
        results.append(
            GeneratedResult(
                id=name,
                benchmark="chain",
                category="math",
                family="chain",
                question="",
                gold="",
                inside_shq=True,
                hard=False,
                prompt_tokens=1,
                num_shots=0,
                gold_correct=True,
                samples=samples,
            )
        )
    return ResultFile(protocol=protocol, results=tuple(results))


def study(**levels: list[float]) -> Cells:
    """Cells a, b, ...: one evaluation a seed, 60 questions whose difficulty all cells share."""
    rng = np.random.default_rng(0)
    difficulty = rng.uniform(-0.4, 0.4, 60)
    return Cells(
        files={
            name: [
                one_file(
                    {f"q{n}": float(np.clip(level + d, 0, 1)) for n, d in enumerate(difficulty)}
                )
                for level in seeds
            ]
            for name, seeds in levels.items()
        }
    )


def test_a_difference_is_paired_by_question() -> None:
    cells = study(a=[0.6], b=[0.5])
    alone = Expression("c('a', 'sft.math')").draws(cells).estimate()
    gap = Expression("c('a', 'sft.math') - c('b', 'sft.math')").draws(cells).estimate()
    assert gap.value == pytest.approx(
        alone.value - Expression("c('b','sft.math')").draws(cells).estimate().value
    )
    assert gap.se < 0.6 * alone.se


def test_a_cell_used_twice_cancels_exactly() -> None:
    cells = study(a=[0.6, 0.4])
    text = "(c('a', 'sft.math') + 3) - mean(c('a', 'sft.math'), c('a', 'sft.avg')) - 3"
    found = Expression(text).draws(cells).estimate()
    assert (found.value, found.se) == (pytest.approx(0), pytest.approx(0, abs=1e-9))


def test_seeds_spread_the_effect_not_the_questions() -> None:
    cells = study(a=[0.8, 0.6, 0.7], b=[0.5, 0.5, 0.5])
    found = Expression("c('a', 'sft.math') - c('b', 'sft.math')").draws(cells).estimate()
    assert len(found.seeds) == 3
    assert found.se_seeds == pytest.approx(np.std(found.seeds, ddof=1) / np.sqrt(3))
    assert found.se > found.se_seeds


def test_minimum_and_maximum_are_taken_for_each_seed() -> None:
    cells = study(a=[0.8, 0.2], b=[0.2, 0.8])
    low = Expression("min(c('a', 'sft.math'), c('b', 'sft.math'))").draws(cells).estimate()
    high = Expression("max(c('a', 'sft.math'), c('b', 'sft.math'))").draws(cells).estimate()
    assert low.value < 40 < 60 < high.value


def test_eps_decides_whether_it_holds_and_not_how_far_it_stands_out() -> None:
    cells = study(a=[0.8, 0.8], b=[0.4, 0.4])
    text = "c('a', 'sft.math') - c('b', 'sft.math') > eps"
    near = Expression(text).find(cells, eps=1.0)
    far = Expression(text).find(cells, eps=90.0)
    assert (near.holds, near.degree, far.holds, far.degree) == (True, 1, False, 0)
    assert near.comparisons[0].margin == far.comparisons[0].margin


def test_and_needs_both_or_needs_one_not_turns_around() -> None:
    cells = study(a=[0.8, 0.8], b=[0.4, 0.4])
    up, down = "c('a','sft.math') > c('b','sft.math')", "c('a','sft.math') < c('b','sft.math')"
    assert Expression(f"{up} and {down}").find(cells, eps=0).degree == -1
    assert Expression(f"{up} or {down}").find(cells, eps=0).degree == 1
    assert Expression(f"not {down}").find(cells, eps=0).degree == 1


def test_cells_that_answer_alike_show_nothing() -> None:
    cells = study(a=[-1.0, -1.0], b=[-1.0, -1.0])
    found = Expression("c('a','sft.math') - c('b','sft.math') > -0.5").find(cells, eps=0)
    assert (found.holds, found.degree) == (True, 0)


def test_a_cell_that_is_not_there_is_named() -> None:
    with pytest.raises(MissingCell, match=r"pt:LDQ pt\.avg"):
        Expression("c('pt:res', 'pt.avg')").draws(
            Cells(files={"pt:SHQ": [base_file()]}),
        )


def base_file() -> ResultFile:
    """One evaluation of a base model."""
    file = one_file({"q0": 1.0, "q1": 0.0})
    return ResultFile(
        protocol=Protocol(**{**vars(file.protocol), "suite": "base"}), results=file.results
    )


def test_groups_are_means_of_their_members_and_80_20_is_the_plain_mix() -> None:
    files = {f"pt:{name}": [base_file()] for name in ("SHQ", "LDQ", "LMQ")}
    cells = Cells(files=files)
    assert Expression("c('pt:res','pt.avg')").draws(cells).estimate().value == pytest.approx(50)
    text = "c('pt:LMQ@80-20','pt.math') - c('pt:LMQ','pt.math')"
    assert Expression(text).draws(cells).estimate().value == 0


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "c('a')",
        "c('a', 'b', 'c')",
        "c(a, 'sft.avg')",
        "open('x')",
        "(1).real",
        "[1, 2][0]",
        "lambda: 1",
        "'text'",
        "1 +",
        "min()",
        "abs(1, 2)",
        "c('a', metric='sft.avg')",
    ],
)
def test_anything_outside_the_grammar_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="allowed are c"):
        Expression(text).draws(Cells(files={}))


def test_plain_arithmetic_needs_no_cells() -> None:
    found = Expression("(4.8e6*10e3)/(4.8e6*336e9/268e6)").number()
    assert found == pytest.approx(7.9762, rel=1e-4)
