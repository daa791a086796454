"""The solvable model: each closed form against drawn data, differences or another formula."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from frontload.eval.theory import errors, fine_tuning, limit, outcome, sft_curves, task
from frontload.eval.theory.checks import formula_checks, limit_checks, peak_checks
from frontload.eval.theory.sft_curves import against_length, against_prompts, in_the_limit

SMALL = task.Task(dim=6, shifted=2, prompt_length=5, covered=0.3, scale=0.7, interference=0.2)
HALF = task.Task(dim=400, shifted=200, prompt_length=600, rate=0.2, scale=0.2, interference=0.1)


def rng(*names: str) -> np.random.Generator:
    return task.stream(1, "test", *names)


def differences(loss: Callable[[np.ndarray], float], weights: np.ndarray) -> np.ndarray:
    found = np.empty_like(weights)
    for place in np.ndindex(weights.shape):
        ends = []
        for way in (1e-5, -1e-5):
            moved = weights.copy()
            moved[place] += way
            ends.append(loss(moved))
        found[place] = (ends[0] - ends[1]) / 2e-5
    return found


def attention(
    weights: np.ndarray, inputs: np.ndarray, truth: np.ndarray, *, guess: np.ndarray
) -> np.ndarray:
    """The last column that the paper's whole layer makes of its whole embedding (3.1), (3.2)."""
    prompt_length, dim = inputs.shape
    rows = slice(dim + 1, 2 * dim + 1)
    embedding = np.zeros((2 * dim + 2, prompt_length + 1))
    embedding[:dim, :-1] = inputs.T
    embedding[dim, :-1] = inputs @ truth
    embedding[rows, -1] = guess
    embedding[-1, -1] = 1.0
    value, query = np.zeros((2 * dim + 2,) * 2), np.zeros((2 * dim + 2,) * 2)
    value[rows, :dim] = weights
    query[:dim, rows] = np.eye(dim)
    query[dim, -1] = -1.0
    scores = embedding.T @ query @ embedding[:, -1]
    return embedding[:, -1] + value @ embedding @ scores / prompt_length


def test_the_gradient_of_sft_is_that_of_the_whole_layer() -> None:
    draws, rate, steps = rng("layer"), 0.3, 2
    inputs = draws.standard_normal((3, SMALL.prompt_length, SMALL.dim))
    truths = draws.standard_normal((3, SMALL.dim))

    def loss(weights: np.ndarray) -> float:
        total = 0.0
        for one, truth in zip(inputs, truths, strict=True):
            for step in range(steps + 1):
                now, then = (1 - (1 - rate) ** step), (1 - (1 - rate) ** (step + 1))
                wanted = np.concatenate([np.zeros(SMALL.dim + 1), then * truth, [1.0]])
                made = attention(weights, one, truth, guess=now * truth)
                total += float(((made - wanted) ** 2).sum())
        return total / (2 * len(truths))

    products = np.stack([one.T @ (one @ w) for one, w in zip(inputs, truths, strict=True)], axis=1)
    prompts = task.Prompts(weights=truths.T, products=products / SMALL.prompt_length)
    weights = draws.standard_normal((SMALL.dim, SMALL.dim))
    found = fine_tuning.sft_gradient(weights, prompts, rate=rate, steps=steps)
    np.testing.assert_allclose(found, differences(loss, weights), rtol=1e-6, atol=1e-6)


def test_prompts_have_the_moments_of_drawn_inputs() -> None:
    """E[S w w'] = A and E[S w w' S] = (1 + 1/n) A^2 + tr(A) A / n, by Wishart's moments."""
    prompts = task.draw_prompts(
        SMALL.tuning, prompt_length=5, num_prompts=400_000, rng=rng("moments")
    )
    number, tuning = prompts.weights.shape[1], SMALL.tuning
    first = prompts.products @ prompts.weights.T / number
    second = prompts.products @ prompts.products.T / number
    np.testing.assert_allclose(first, np.diag(tuning), atol=0.012)
    wanted = np.diag(1.2 * tuning**2 + tuning.sum() * tuning / 5)
    np.testing.assert_allclose(second, wanted, atol=0.025)


def test_pretrained_weights_are_the_best_single_step_on_what_pretraining_saw() -> None:
    prompts = task.draw_prompts(
        SMALL.pretraining, prompt_length=5, num_prompts=400_000, rng=rng("pretraining")
    )
    solved = np.linalg.lstsq(prompts.products.T, -prompts.weights.T, rcond=None)[0].T
    np.testing.assert_allclose(solved, np.diag(SMALL.initial), atol=0.02)


def test_the_spectral_radius_is_that_of_the_step_in_a_long_prompt() -> None:
    long = replace(SMALL, prompt_length=10**7)
    step = np.eye(6) + np.diag(long.initial) @ np.diag(long.test)
    assert max(abs(np.linalg.eigvals(step))) == pytest.approx(long.spectral_radius, abs=1e-4)
    assert long.spectral_radius == pytest.approx(1.0 / 0.3, abs=1e-4)


def test_the_minimiser_is_the_end_of_ridge_towards_the_pretrained_weights() -> None:
    prompts = task.draw_prompts(SMALL.tuning, prompt_length=5, num_prompts=4, rng=rng("ridge"))
    initial = np.diag(SMALL.initial)
    missing = -SMALL.rate * prompts.weights - initial @ prompts.products
    square = prompts.products @ prompts.products.T + 1e-8 * np.eye(6)
    ridge = initial + missing @ prompts.products.T @ np.linalg.inv(square)
    found = fine_tuning.sft_minimiser(prompts, SMALL)
    np.testing.assert_allclose(found, ridge, atol=1e-4)
    np.testing.assert_allclose(found @ prompts.products, -SMALL.rate * prompts.weights, atol=1e-12)


def test_first_order_is_the_minimiser_where_prompts_show_their_means() -> None:
    drawn = task.draw_prompts(SMALL.tuning, prompt_length=5, num_prompts=4, rng=rng("means"))
    means = task.Prompts(weights=drawn.weights, products=SMALL.tuning[:, None] * drawn.weights)
    signal = fine_tuning.sft_minimiser(means, SMALL)
    np.testing.assert_allclose(fine_tuning.first_order_sft(means, SMALL), signal, atol=1e-12)
    noise = fine_tuning.first_order_sft(drawn, SMALL) - signal
    wanted = -signal @ (drawn.products - means.products)
    np.testing.assert_allclose(noise @ means.products, wanted, atol=1e-12)


def test_the_error_is_that_of_drawn_prompts_and_of_the_first_step() -> None:
    weights = rng("weights").standard_normal((6, 6)) * 0.3 + np.diag(SMALL.initial)
    formula = errors.expected_error(weights, SMALL)
    drawn = errors.simulated_error(weights, SMALL, num_prompts=20_000, rng=rng("drawn"))
    steps = errors.errors_by_step(
        weights, SMALL, steps=3, num_prompts=20_000, rng=rng("moments of the test")
    )
    for one in (drawn, steps[0]):
        assert one.se is not None
        assert abs(one.value - formula) < 3 * one.se < 0.05 * formula


def test_errors_by_step_are_those_of_guesses_that_are_refined() -> None:
    weights = 0.4 * np.diag(SMALL.initial)
    found = errors.errors_by_step(weights, SMALL, steps=3, num_prompts=400, rng=rng("chain"))
    moments = task.draw_moments(SMALL.test, prompt_length=5, num_prompts=400, rng=rng("chain"))
    columns = np.tile(np.eye(6), (400, 1, 1))  # every direction of w*: their mean is over w*
    guesses = np.zeros_like(columns)
    for step in range(3):
        guesses = guesses + weights @ moments @ (guesses - columns)
        by_hand = ((guesses - columns) ** 2).sum() / (400 * 6)
        assert found[step].value == pytest.approx(by_hand, rel=1e-12)


def test_every_check_of_a_formula_holds() -> None:
    checks = formula_checks(seed=3)
    assert [one.name for one in checks if not one.holds] == []
    assert len(checks) == 7


@pytest.mark.parametrize("ratio", [0.3, 0.7, 1.5])
def test_the_five_traces_of_the_limit_are_those_of_drawn_projections(ratio: float) -> None:
    found = limit.limit_traces(HALF, ratio, form="corrected")
    d, tuning, test = 400, HALF.tuning, HALF.test
    drawn = []
    for turn in range(3):
        means = tuning[:, None] * rng("limit", str(turn)).standard_normal((d, round(ratio * d)))
        inverse = np.linalg.pinv(means)
        span = means @ inverse
        weights = np.diag(HALF.initial) @ (np.eye(d) - span) - (HALF.rate / tuning)[:, None] * span
        noise = (tuning.sum() * tuning + tuning**2) / d
        square = (inverse**2).sum(axis=0)  # the diagonal of (M M')^+
        drawn.append(
            [
                ((np.eye(d) + weights * test) ** 2).sum() / d,
                (square * test**2).sum(),
                (square * test).sum(),
                (weights**2 * noise).sum() / d,
                (weights**2 * test).sum() / d,
            ]
        )
    wanted = np.mean(drawn, axis=0)
    traces = [found.bias, found.inverse, found.inverse_test, found.noise, found.test]
    np.testing.assert_allclose(traces, wanted, rtol=0.03)
    printed = limit.limit_traces(HALF, ratio, form="printed")
    off = np.abs(np.array([printed.noise, printed.test]) / wanted[3:] - 1)
    assert (off > 0.06).all() if ratio < 1 else (off < 0.03).all()
    assert (printed.bias, printed.inverse) == (found.bias, found.inverse)


def test_the_limit_is_what_the_first_order_does_and_the_minimiser_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sft_curves, "LIMIT_DRAWS", 4)
    figure = in_the_limit(304, seed=2)
    assert [one.name for one in limit_checks(figure) if not one.holds] == []
    lines = {line.label: np.array(line.y) for line in figure.plots[0].lines}
    below = np.array(figure.plots[0].lines[0].x) < 0.8
    gap = 1 - lines["theorem, printed"] / lines["first order, drawn"]
    assert 0.1 < gap[below].max() < 0.2
    assert (lines["SFT's minimiser, drawn"] < lines["theorem, printed"])[below].all()


def test_double_descent_peaks_where_it_must_and_small_sets_win_under_interference_only() -> None:
    figure = against_prompts(80, seed=1)
    assert [one.name for one in peak_checks(figure) if not one.holds] == []
    best_small, largest = {}, {}
    for plot in figure.plots:
        line = plot.lines[-1]  # n = 3 d
        best_small[plot.title] = min(y for x, y in zip(line.x, line.y, strict=True) if x <= 0.5)
        largest[plot.title] = line.y[-1]
    strong, weak, none = (f"interference r = {one}" for one in ("0.01", "0.1", "0"))
    assert largest[strong] > 5 * best_small[strong]
    assert largest[weak] < best_small[weak]
    assert largest[none] < 0.2 * best_small[none]


def test_a_small_set_has_a_best_prompt_length_inside() -> None:
    for plot in against_length(80, seed=1).plots:
        small = plot.lines[0].y
        assert min(small[1:-1]) < 0.9 * min(small[0], small[-1])


def test_the_gradient_of_outcomes_is_that_of_the_error_after_the_chain() -> None:
    draws = rng("outcome")
    moments = task.draw_moments(SMALL.test, prompt_length=5, num_prompts=4, rng=draws)
    truths = draws.standard_normal((4, 6))
    weights = draws.standard_normal((6, 6)) * 0.3

    def loss(moved: np.ndarray) -> float:
        total = 0.0
        for moment, truth in zip(moments, truths, strict=True):
            guess = np.zeros(6)
            for _ in range(3):
                guess = guess + moved @ moment @ (guess - truth)
            total += float(((guess - truth) ** 2).sum())
        return total / (2 * 4)

    found = outcome.outcome_gradient(weights, moments, truths=truths, steps=3)
    np.testing.assert_allclose(found, differences(loss, weights), rtol=1e-5, atol=1e-6)


def test_outcomes_need_prompts_where_pretraining_does_not_cover_the_shift() -> None:
    shifted = task.Task(dim=12, shifted=3, prompt_length=48, covered=0.5, shift=2.0)
    made = {
        count: outcome.supervise_outcomes(
            shifted, num_prompts=count, steps=3, num_updates=200, rng=rng("scale")
        )
        for count in (3, 64)
    }
    after = {
        count: errors.errors_by_step(
            one.weights, shifted, steps=3, num_prompts=200, rng=rng("after")
        )[-1].value
        for count, one in made.items()
    }
    assert after[64] < 0.1 < 1.0 < after[3]
    covered = outcome.supervise_outcomes(
        replace(shifted, shift=0.1), num_prompts=64, steps=3, num_updates=200, rng=rng("scale")
    )
    assert covered.num_cut == 0 < 20 < made[64].num_cut


def test_endless_sft_is_least_squares_where_it_saw_data_and_pretrained_elsewhere() -> None:
    prompts = task.draw_prompts(
        SMALL.tuning, prompt_length=5, num_prompts=400_000, rng=rng("endless")
    )
    asked = -SMALL.rate * prompts.weights.T
    solved = np.linalg.lstsq(prompts.products.T, asked, rcond=None)[0].T
    np.testing.assert_allclose(fine_tuning.endless_sft(SMALL), np.diag(np.diag(solved)), atol=0.01)
    hard = replace(SMALL, interference=0.0)
    np.testing.assert_array_equal(np.diag(fine_tuning.endless_sft(hard))[2:], hard.initial[2:])


def test_the_limit_follows_a_large_shift() -> None:
    shifted = replace(HALF, dim=200, shifted=100, prompt_length=300, shift=3.0)
    drawn = []
    for turn in range(6):
        prompts = task.draw_prompts(
            shifted.tuning, prompt_length=300, num_prompts=100, rng=rng("shift", str(turn))
        )
        drawn.append(errors.expected_error(fine_tuning.first_order_sft(prompts, shifted), shifted))
    found = limit.limit_error(shifted, 0.5, form="corrected")
    assert found == pytest.approx(np.mean(drawn), rel=0.03)


def test_a_long_gradient_is_cut_to_length_one() -> None:
    shifted = task.Task(dim=12, shifted=3, prompt_length=48, covered=0.5, shift=0.3)
    one = outcome.supervise_outcomes(
        shifted, num_prompts=8, steps=3, num_updates=1, rng=rng("long")
    )
    draws = rng("long")
    moments = task.draw_moments(shifted.test, prompt_length=48, num_prompts=8, rng=draws)
    truths = draws.standard_normal((8, 12))
    start = np.diag(shifted.initial)
    length = np.linalg.norm(outcome.outcome_gradient(start, moments, truths=truths, steps=3))
    assert one.num_cut == 1 < length < 5
    assert np.linalg.norm(one.weights - start) == pytest.approx(outcome.STEP)
