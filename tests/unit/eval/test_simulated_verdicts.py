"""Verdicts of simulated studies, of which the truth is known. tests/bench/bench_verdicts.py: more.

The bounds are those of the rule with three standard errors of a rate over this many studies.
"""

from tests.simulated_study import WORLDS, Rates, found_rate, rates, with_effect

STUDIES = 40
DRAWS = 100  # of the questions: an error of 7% in each se, which averages out over studies


def test_where_nothing_is_true_few_verdicts_are_given_and_intervals_cover() -> None:
    found = {name: rates(WORLDS[name], seeds=3, studies=STUDIES, draws=DRAWS) for name in WORLDS}
    together = Rates.mean(list(found.values()))
    assert together.supported < 0.5, "18 hypotheses at 2.5%, and less: parts must all hold"
    assert together.contradicted < 0.5
    assert 0.93 < together.coverage < 0.985
    for name, one in found.items():
        assert one.supported < 0.5 + 3 * (0.5 / STUDIES) ** 0.5, name
        assert one.contradicted < 0.5 + 3 * (0.5 / STUDIES) ** 0.5, name
        assert one.coverage > 0.92, name


def test_more_seeds_do_not_make_a_wrong_verdict_surer() -> None:
    """The minima of seeds once made `contradicted` of H08 certain at 20 seeds."""
    many = rates(WORLDS["jumps"], seeds=20, studies=12, draws=50)
    assert many.contradicted < 0.5 + 3 * (0.5 / 12) ** 0.5
    assert many.of_hypothesis["H08"]["contradicted"] < 0.3
    assert many.of_hypothesis["H03"]["contradicted"] < 0.3


def test_a_true_effect_of_ten_points_is_found_with_three_seeds() -> None:
    world = with_effect(WORLDS["seeds as seen"], "pt:LDQ>sft:ALF", 0.63)
    effect, found = found_rate(world, "H10", seeds=3, studies=STUDIES, draws=DRAWS)
    assert 9.0 < effect < 10.5
    assert found > 0.85
