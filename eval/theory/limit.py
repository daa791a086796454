"""Theorem B.1 of arXiv 2603.01293: SFT's first-order error where d, m, n and B grow in step.

The theorem as printed is up to 17% low below B = d. Both forms are here; this is where they part.

M holds the columns A w*, P is the projection on their span, G = -Gamma_0^-1 the pretrained weights,
D = Gamma_0^-1 - eta A^-1 what SFT adds where it saw data: V = G + D P to order zero. Write T_ij for
tr(P_ij P_ji) / d over the blocks of P. For any diagonal S, constant on the blocks,

    tr(V S V') / d = sum_k mu_k (g_k^2 + 2 g_k D_k w_k) s_k  +  tr(D P S P D) / d,
    tr(D P S P D) / d = sum_ij D_i^2 T_ij s_j,

because the row block i of P meets D on both outer sides, and S stands between the two P. The paper
expands tr(D P S D P) in its place (C.33): sum_ij D_i D_j T_ij s_j. D and P do not commute, so the
two differ wherever T_12 is not 0, which is where B < d. The bias term (C.7) has the right order.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from frontload.eval.theory.task import Task

Form = Literal["corrected", "printed"]


@dataclass(frozen=True, kw_only=True)
class Projection:
    """What the limit needs of P: the root q, its share w of each block, T."""

    root: float  # infinite where B > d
    share: np.ndarray
    cross: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Traces:
    """The five limits of (B.13) to (B.17)."""

    bias: float
    inverse: float  # T_inv
    inverse_test: float  # T_inv,Sigma
    noise: float  # T_var
    test: float  # T_var,Sigma


def limit_error(task: Task, ratio: float, *, form: Form) -> float:
    """The limit of the first-order error over d at B = `ratio` d. Source: (B.10)."""
    traces = limit_traces(task, ratio, form=form)
    gamma = task.dim / task.prompt_length
    mean = float(_parts(task) @ _levels(task.test))
    return (
        traces.bias
        + gamma * traces.inverse * traces.noise
        + gamma * mean * traces.test
        + gamma**2 * mean * traces.inverse_test * traces.noise
    )


def limit_traces(task: Task, ratio: float, *, form: Form) -> Traces:
    """The parts of `limit_error`. SFT sees all directions, and `ratio` is not 1."""
    parts, test, tuning = _parts(task), _levels(task.test), _levels(task.tuning)
    known = _levels(task.pretraining)
    start = -1.0 / (known + task.dim / task.prompt_length * float(parts @ known))
    change = -start - task.rate / tuning
    found = project(task, ratio)
    cross = np.outer(change, change) if form == "printed" else (change**2)[:, None]

    def quadratic(middle: np.ndarray) -> float:
        linear = parts * middle * (start**2 + 2 * start * change * found.share)
        return float(linear.sum() + (cross * found.cross * middle).sum())

    missing = 1 + start * test
    bias = parts @ (missing**2 + 2 * missing * change * test * found.share)
    bias += ((change**2)[:, None] * found.cross * test**2).sum()
    return Traces(
        bias=float(bias),
        inverse=_inverse(parts, tuning, found=found, ratio=ratio, middle=test**2),
        inverse_test=_inverse(parts, tuning, found=found, ratio=ratio, middle=test),
        noise=quadratic(float(parts @ tuning) * tuning),
        test=quadratic(test),
    )


def project(task: Task, ratio: float) -> Projection:
    """The projection on B = `ratio` d random columns A w*. Source: lemmas C.1 and C.2."""
    parts, squares = _parts(task), _levels(task.tuning) ** 2
    if ratio >= 1:
        return Projection(root=np.inf, share=np.ones(2), cross=np.diag(parts))
    low, high = np.log(1e-12), np.log(1e14)
    for _ in range(200):
        middle = (low + high) / 2
        share = squares * np.exp(middle) / (1 + squares * np.exp(middle))
        low, high = (middle, high) if float(parts @ share) < ratio else (low, middle)
    root = float(np.exp(low))
    share = squares * root / (1 + squares * root)
    spread = parts * share * (1 - share)
    leak = spread[0] * spread[1] / spread.sum()
    cross = np.diag(parts * share - leak) + np.array([[0.0, leak], [leak, 0.0]])
    return Projection(root=root, share=share, cross=cross)


def _inverse(
    parts: np.ndarray, tuning: np.ndarray, *, found: Projection, ratio: float, middle: np.ndarray
) -> float:
    """The limit of tr(middle (M M')^+). Source: (B.14), (B.15)."""
    if ratio > 1:
        return float((parts * middle / tuning**2).sum() / (ratio - 1))
    weight = parts * found.share**2 / tuning**2
    return float(found.root * (weight * middle).sum() / weight.sum())


def _parts(task: Task) -> np.ndarray:
    """mu: the share of each block in d."""
    return np.array([task.shifted, task.dim - task.shifted]) / task.dim


def _levels(diagonal: np.ndarray) -> np.ndarray:
    return diagonal[[0, -1]]
