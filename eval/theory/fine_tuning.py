"""SFT of the linear task: its minimiser in closed form, by descent, without end, to first order."""

import numpy as np

from frontload.eval.theory.task import Prompts, Task

NO_RANK = 1e-10  # singular values below this share of the largest are rounding


def sft_minimiser(prompts: Prompts, task: Task) -> np.ndarray:
    """V of the SFT loss's minimum that is nearest to the pretrained one.

    Every prompt asks V S w* = -eta w*, at each step of its chain. Across the span of the prompts'
    S w* nothing is asked, and V stays as pretrained. Source: theorem 4.1.
    """
    missing = -task.rate * prompts.weights - task.initial[:, None] * prompts.products
    inverse = np.linalg.pinv(prompts.products, rcond=NO_RANK)
    return np.diag(task.initial) + missing @ inverse


def sft_gradient(weights: np.ndarray, prompts: Prompts, *, rate: float, steps: int) -> np.ndarray:
    """The gradient of the SFT loss over chains of `steps` + 1 targets, with respect to V.

    Target i + 1 of a chain lies at (1 - (1 - eta)^(i + 1)) w*; the residual at step i is
    -(1 - eta)^i (V S w* + eta w*).
    """
    repeats = sum((1 - rate) ** (2 * step) for step in range(steps + 1))
    residual = weights @ prompts.products + rate * prompts.weights
    return repeats * residual @ prompts.products.T / prompts.weights.shape[1]


def descend(prompts: Prompts, task: Task, *, steps: int, num_updates: int) -> np.ndarray:
    """V after so many updates from the pretrained one, at the step size of theorem 4.2."""
    repeats = sum((1 - task.rate) ** (2 * step) for step in range(steps + 1))
    largest = np.linalg.norm(prompts.products, ord=2) ** 2
    size = prompts.weights.shape[1] / (repeats * largest)
    weights = np.diag(task.initial)
    for _ in range(num_updates):
        weights = weights - size * sft_gradient(weights, prompts, rate=task.rate, steps=steps)
    return weights


def endless_sft(task: Task) -> np.ndarray:
    """The limit of the minimiser over endlessly many prompts. Source: proposition 4.3."""
    tuning = task.tuning
    seen = tuning > 0
    moved = (1 + 1 / task.prompt_length) * tuning + tuning.sum() / task.prompt_length
    return np.diag(np.where(seen, -task.rate / np.where(seen, moved, 1.0), task.initial))


def first_order_sft(prompts: Prompts, task: Task) -> np.ndarray:
    """The minimiser to first order in S - A, which theorem B.1 describes. Source: (B.3), (B.4).

    It is not the minimiser: near B = d its error is several times larger.
    """
    means = task.tuning[:, None] * prompts.weights
    inverse = np.linalg.pinv(means, rcond=NO_RANK)
    missing = -task.rate * prompts.weights - task.initial[:, None] * means
    signal = np.diag(task.initial) + missing @ inverse
    return signal - signal @ (prompts.products - means) @ inverse
