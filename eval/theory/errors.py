"""Errors of given weights at the test, as a share of what the guess 0 gets: formula and draws."""

import numpy as np

from frontload.eval.statistics.stats import Estimate, clustered_mean
from frontload.eval.theory.task import Task, draw_moments


def expected_error(weights: np.ndarray, task: Task) -> float:
    """The expected squared error of one step over d, which is what the guess 0 gets.

    Source: (5.1): |I + V Sigma|^2 + (tr(V Sigma^2 V') + tr(V Sigma V') tr Sigma) / n.
    """
    test = task.test
    read = weights * test  # V Sigma: Sigma is diagonal
    spread = (read**2).sum() + (weights**2 * test).sum() * test.sum()
    total = ((np.eye(task.dim) + read) ** 2).sum() + spread / task.prompt_length
    return float(total / task.dim)


def simulated_error(
    weights: np.ndarray, task: Task, *, num_prompts: int, rng: np.random.Generator
) -> Estimate:
    """The same from drawn inputs, labels and true weights."""
    root = np.sqrt(task.test)
    errors = []
    for _ in range(num_prompts):
        inputs = rng.standard_normal((task.prompt_length, task.dim)) * root
        truth = rng.standard_normal(task.dim)
        guess = -weights @ (inputs.T @ (inputs @ truth)) / task.prompt_length
        errors.append(float(((guess - truth) ** 2).sum()) / task.dim)
    return clustered_mean(errors)


def errors_by_step(
    weights: np.ndarray, task: Task, *, steps: int, num_prompts: int, rng: np.random.Generator
) -> list[Estimate]:
    """The error after 1, 2, ... steps of thought, over drawn inputs, exact over true weights.

    After k steps what is missing of w* is (I + V S)^k w*, so over w* it is |(I + V S)^k|^2 / d.
    """
    moments = draw_moments(
        task.test, prompt_length=task.prompt_length, num_prompts=num_prompts, rng=rng
    )
    step = np.eye(task.dim) + weights @ moments
    power, found = step, []
    for _ in range(steps):
        found.append(clustered_mean(((power**2).sum(axis=(1, 2)) / task.dim).tolist()))
        power = power @ step
    return found
