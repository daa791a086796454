"""Outcome supervision of the linear task: descent on the error after k steps of thought."""

from dataclasses import dataclass

import numpy as np

from frontload.eval.theory.task import Task, draw_moments

STEP = 0.02  # of descent; ours: it learns at every shift of the page within 600 updates
LONGEST = 1.0  # norm of a gradient; longer ones are cut to it, and counted


@dataclass(frozen=True, kw_only=True)
class Supervised:
    """What descent on outcomes made, and how often its gradient was cut."""

    weights: np.ndarray
    num_cut: int


def outcome_gradient(
    weights: np.ndarray, moments: np.ndarray, *, truths: np.ndarray, steps: int
) -> np.ndarray:
    """The gradient of the mean of |(I + V S)^k w*|^2 / 2 with respect to V. Source: appendix E.

    Shapes: moments prompts x d x d, truths prompts x d.
    """
    step = np.eye(len(weights)) + weights @ moments
    missing = [truths[:, :, None]]
    for _ in range(steps):
        missing.append(step @ missing[-1])
    back = missing[steps]
    gradient = np.zeros_like(weights)
    for turn in range(steps):
        read = moments @ missing[steps - 1 - turn]
        gradient += np.einsum("bi,bj->ij", back[:, :, 0], read[:, :, 0])
        back = step.transpose(0, 2, 1) @ back
    return gradient / len(truths)


def supervise_outcomes(
    task: Task, *, num_prompts: int, steps: int, num_updates: int, rng: np.random.Generator
) -> Supervised:
    """Descends from the pretrained weights over prompts of the test's law, drawn once."""
    moments = draw_moments(
        task.test, prompt_length=task.prompt_length, num_prompts=num_prompts, rng=rng
    )
    truths = rng.standard_normal((num_prompts, task.dim))
    weights, num_cut = np.diag(task.initial), 0
    for _ in range(num_updates):
        gradient = outcome_gradient(weights, moments, truths=truths, steps=steps)
        length = float(np.linalg.norm(gradient))
        if length > LONGEST:
            gradient, num_cut = gradient * (LONGEST / length), num_cut + 1
        weights = weights - STEP * gradient
    return Supervised(weights=weights, num_cut=num_cut)
