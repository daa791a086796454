"""A Gaussian process over candidates with effects of seeds and branches, its scales integrated out.

    y(candidate, seed) = f(candidate) + seed + branch(arm, seed) + cell

f has a Matern 5/2 kernel over the ordered factors, times a correlation between unequal sets. No
scale is given: each is drawn from a broad prior and weighed by its marginal likelihood, so what is
not known about the noise widens the answer. Source: adaptive importance sampling with a mixture
proposal, Cappe et al. 2008; Rasmussen and Williams 2006, chapters 2 and 5.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular

from frontload.data_tools.disk.seeds import stream_bits
from frontload.recipes.runs.allocation import Candidate

DRAWS = 160  # of scales, from the prior and again from what the likelihood leaves
MOST_MEMBERS = 24  # kept of them; the rest weighs less than LEAST_WEIGHT together
LEAST_WEIGHT = 0.01
AT_ONCE = 1 << 20  # numbers in one stack of covariances
VAGUE = 10.0  # standard deviation of the mean level, in units of the scores' own
JITTER = 1e-6
SQRT5 = 5.0**0.5

PRIOR = {  # log of the median, log standard deviation; scales in units of the scores' spread
    "length": (np.log(0.3), 0.7),  # of a factor's range
    "signal": (np.log(0.8), 0.8),
    "seed": (np.log(0.4), 1.0),
    "branch": (np.log(0.4), 1.0),
    "cell": (np.log(0.4), 1.0),
    "sets": (0.5, 1.0),  # logit of the correlation between unequal sets
}
"""Found by simulation (tests/bench/bench_allocate.py): intervals cover 90 to 98%."""


@dataclass(frozen=True, kw_only=True)
class Space:
    """Candidates as arrays: distances on each factor, equality of each set, arms."""

    distance_DCC: np.ndarray
    same_set_KCC: np.ndarray  # bool
    arm_C: np.ndarray

    @classmethod
    def of(cls, candidates: Sequence[Candidate]) -> "Space":
        """Of the candidates of a question."""
        levels_CD = np.array([one.levels for one in candidates], dtype=np.float64)
        distance_CCD = np.abs(levels_CD[:, None] - levels_CD[None])
        sets = list(zip(*[one.sets for one in candidates], strict=True))
        same = [[[a == b for b in column] for a in column] for column in sets]
        arms = {arm: code for code, arm in enumerate(dict.fromkeys(c.arm for c in candidates))}
        size = len(candidates)
        return cls(
            distance_DCC=np.moveaxis(distance_CCD, -1, 0),
            same_set_KCC=np.array(same, dtype=bool).reshape(-1, size, size),
            arm_C=np.array([arms[one.arm] for one in candidates]),
        )


@dataclass(frozen=True, kw_only=True)
class Placed:
    """Cells as (candidate, seed), scored or not."""

    candidate_N: np.ndarray
    seed_N: np.ndarray

    @classmethod
    def at(cls, cells: Sequence[tuple[int, int]]) -> "Placed":
        """Of cells as pairs."""
        return cls(
            candidate_N=np.array([candidate for candidate, _ in cells], dtype=np.int64),
            seed_N=np.array([seed for _, seed in cells], dtype=np.int64),
        )


@dataclass(frozen=True, kw_only=True)
class Observed(Placed):
    """Cells that were run, with the objective of each."""

    value_N: np.ndarray

    @classmethod
    def of(cls, cells: Sequence[tuple[int, int]], values: Sequence[float]) -> "Observed":
        """Of cells as pairs."""
        placed = Placed.at(cells)
        return cls(
            candidate_N=placed.candidate_N,
            seed_N=placed.seed_N,
            value_N=np.array(values, dtype=np.float64),
        )


@dataclass(frozen=True, kw_only=True)
class Scales:
    """One draw of what the likelihood weighs. Deviations in the scores' unit."""

    length_D: np.ndarray
    sets_K: np.ndarray  # correlation between unequal sets
    signal: float
    seed: float
    branch: float
    cell: float

    def signal_kernel(self, space: Space) -> np.ndarray:
        """Covariance of f over all candidates."""
        far_CC = np.sqrt(((space.distance_DCC / self.length_D[:, None, None]) ** 2).sum(0))
        kernel_CC = self.signal**2 * (1 + SQRT5 * far_CC + 5 / 3 * far_CC**2)
        kernel_CC *= np.exp(-SQRT5 * far_CC)
        for same_CC, correlation in zip(space.same_set_KCC, self.sets_K, strict=True):
            kernel_CC = kernel_CC * np.where(same_CC, 1.0, correlation)
        return kernel_CC

    def effects(self, space: Space, *, first: "Placed", second: "Placed") -> np.ndarray:
        """Covariance of two lists of cells besides f: seed, branch, and the cell itself."""
        same_seed = first.seed_N[:, None] == second.seed_N[None]
        same_arm = space.arm_C[first.candidate_N][:, None] == space.arm_C[second.candidate_N][None]
        same_cell = same_seed & (first.candidate_N[:, None] == second.candidate_N[None])
        variance = self.seed**2 * same_seed + self.branch**2 * (same_seed & same_arm)
        return variance + self.cell**2 * same_cell


@dataclass(frozen=True, kw_only=True)
class ScaleDraw:
    """The posterior at one draw of the scales."""

    weight: float
    scales: Scales
    mean_C: np.ndarray
    covariance_CC: np.ndarray
    lower_NN: np.ndarray  # Cholesky factor of the covariance of the scores
    kernel_CC: np.ndarray  # before any score
    half_NC: np.ndarray  # lower_NN^-1 x covariance of the scores with f


@dataclass(frozen=True, kw_only=True)
class Posterior:
    """What the cells so far say of f at every candidate: a mixture over scales."""

    space: Space
    observed: Observed
    members: tuple[ScaleDraw, ...]

    @property
    def mean_C(self) -> np.ndarray:
        return np.asarray(sum(one.weight * one.mean_C for one in self.members))

    @property
    def error_C(self) -> np.ndarray:
        """Standard deviation of f at each candidate."""
        second = sum(
            one.weight * (np.diag(one.covariance_CC) + one.mean_C**2) for one in self.members
        )
        return np.sqrt(np.maximum(second - self.mean_C**2, 0.0))

    def scales(self) -> dict[str, float]:
        """The mean of each deviation, for people."""
        names = ("signal", "seed", "branch", "cell")
        return {
            name: float(sum(one.weight * getattr(one.scales, name) for one in self.members))
            for name in names
        }

    def draws(self, number: int) -> np.ndarray:
        """draws_BC of f at every candidate; the same for the same observed."""
        generator = np.random.Generator(stream_bits(0, "allocation", "posterior"))
        weights = np.array([one.weight for one in self.members])
        counts = np.diff(np.round(np.concatenate([[0.0], weights.cumsum()]) * number)).astype(int)
        found = []
        for one, count in zip(self.members, counts, strict=True):
            normal_BC = generator.standard_normal((count, len(one.mean_C)))
            found.append(one.mean_C + normal_BC @ _factor(one.covariance_CC).T)
        return np.concatenate(found)


def fit(space: Space, observed: Observed, *, least_spread: float) -> Posterior:
    """The posterior of f, with every scale weighed by its marginal likelihood.

    Scores that are nearly one number are taken to spread by `least_spread`: what has not been seen
    to differ is not known to be the same.
    """
    spread = max(float(observed.value_N.std()), least_spread)
    width = len(space.distance_DCC) + len(space.same_set_KCC) + 4
    generator = np.random.Generator(stream_bits(0, "allocation", "scales"))
    centre_P, deviation_P = _prior(space)
    first_HP = centre_P + deviation_P * generator.standard_normal((DRAWS, width))
    first_H = _in_parts(space, observed, draws_HP=first_HP, spread=spread)
    weights_H = np.exp(0.5 * (first_H - first_H.max()))  # flattened: a few draws would carry all
    weights_H /= weights_H.sum()
    middle_P = weights_H @ first_HP
    around_HP = first_HP - middle_P
    covariance_PP = 1.3 * (around_HP.T * weights_H) @ around_HP + 0.02 * np.eye(width)
    lower_PP = np.linalg.cholesky(covariance_PP)
    second_HP = middle_P + generator.standard_normal((DRAWS, width)) @ lower_PP.T
    second_H = _in_parts(space, observed, draws_HP=second_HP, spread=spread)
    draws_HP, likelihood_H = (
        np.concatenate([first_HP, second_HP]),
        np.concatenate([first_H, second_H]),
    )
    prior_H = _log_normal(draws_HP, centre_P, lower_PP=np.diag(deviation_P))
    proposed_H = np.logaddexp(prior_H, _log_normal(draws_HP, middle_P, lower_PP=lower_PP))
    log_H = likelihood_H + prior_H - proposed_H
    weights_H = np.exp(log_H - log_H.max())
    weights_H /= weights_H.sum()
    kept, total = [], 0.0
    for place in np.argsort(-weights_H, kind="stable")[:MOST_MEMBERS]:
        kept.append(int(place))
        total += float(weights_H[place])
        if total > 1.0 - LEAST_WEIGHT:
            break
    members = tuple(
        _member(
            space, observed, draw_P=draws_HP[place], spread=spread, weight=weights_H[place] / total
        )
        for place in kept
    )
    return Posterior(space=space, observed=observed, members=members)


def _prior(space: Space) -> tuple[np.ndarray, np.ndarray]:
    """Centre and deviation of each unbounded parameter: lengths, sets, then the four deviations."""
    names = ["length"] * len(space.distance_DCC) + ["sets"] * len(space.same_set_KCC)
    names += ["signal", "seed", "branch", "cell"]
    return tuple(np.array([PRIOR[name][place] for name in names]) for place in (0, 1))  # type: ignore[return-value]


def _scales(space: Space, draw_P: np.ndarray, *, spread: float) -> Scales:
    lengths = len(space.distance_DCC)
    sets = lengths + len(space.same_set_KCC)
    signal, seed, branch, cell = np.exp(draw_P[sets:]) * spread
    return Scales(
        length_D=np.exp(draw_P[:lengths]),
        sets_K=1.0 / (1.0 + np.exp(-draw_P[lengths:sets])),
        signal=float(signal),
        seed=float(seed),
        branch=float(branch),
        cell=float(cell),
    )


def _in_parts(
    space: Space, observed: Observed, *, draws_HP: np.ndarray, spread: float
) -> np.ndarray:
    """`_log_likelihoods`, so many draws at once that their matrices fit in AT_ONCE numbers."""
    step = max(1, AT_ONCE // max(len(observed.value_N), 1) ** 2)
    parts = [draws_HP[first : first + step] for first in range(0, len(draws_HP), step)]
    found = [_log_likelihoods(space, observed, draws_HP=part, spread=spread) for part in parts]
    return np.concatenate(found)


def _log_likelihoods(
    space: Space, observed: Observed, *, draws_HP: np.ndarray, spread: float
) -> np.ndarray:
    """The log marginal likelihood of the scores at each draw of the scales."""
    at = np.ix_(observed.candidate_N, observed.candidate_N)
    distance_DNN = space.distance_DCC[:, *at]
    same_KNN = space.same_set_KCC[:, *at]
    same_seed = observed.seed_N[:, None] == observed.seed_N[None]
    arm_N = space.arm_C[observed.candidate_N]
    same_branch = same_seed & (arm_N[:, None] == arm_N[None])
    lengths, size = len(distance_DNN), len(observed.value_N)
    sets = lengths + len(same_KNN)
    far_HNN = np.zeros((len(draws_HP), size, size))
    for place in range(lengths):
        far_HNN += (distance_DNN[place] / np.exp(draws_HP[:, place])[:, None, None]) ** 2
    far_HNN = np.sqrt(far_HNN)
    kernel = (1 + SQRT5 * far_HNN + 5 / 3 * far_HNN**2) * np.exp(-SQRT5 * far_HNN)
    for place in range(len(same_KNN)):
        correlation_H = 1.0 / (1.0 + np.exp(-draws_HP[:, lengths + place]))
        kernel = kernel * np.where(same_KNN[place], 1.0, correlation_H[:, None, None])
    signal, seed, branch, cell = np.exp(2 * draws_HP[:, sets:]).T[:, :, None, None]
    kernel = signal * kernel + seed * same_seed + branch * same_branch
    kernel += (cell + JITTER) * np.eye(size) + VAGUE**2
    lower_HNN = np.linalg.cholesky(kernel)
    centred_N = (observed.value_N - observed.value_N.mean()) / spread
    whitened_HN = np.linalg.solve(
        lower_HNN, np.broadcast_to(centred_N[:, None], (len(draws_HP), size, 1))
    )[..., 0]
    half_log = np.log(np.diagonal(lower_HNN, axis1=1, axis2=2)).sum(1)
    return -0.5 * (whitened_HN**2).sum(1) - half_log


def _log_normal(draws_HP: np.ndarray, middle_P: np.ndarray, *, lower_PP: np.ndarray) -> np.ndarray:
    """Log density of a normal, constants that all share left out."""
    whitened = np.linalg.solve(lower_PP, (draws_HP - middle_P).T)
    return -0.5 * (whitened**2).sum(0) - np.log(np.diag(lower_PP)).sum()


def _member(
    space: Space, observed: Observed, *, draw_P: np.ndarray, spread: float, weight: float
) -> ScaleDraw:
    scales = _scales(space, draw_P, spread=spread)
    vague = (VAGUE * spread) ** 2
    kernel_CC = scales.signal_kernel(space) + vague
    cross_CN = kernel_CC[:, observed.candidate_N]
    covariance_NN = cross_CN[observed.candidate_N] + scales.effects(
        space, first=observed, second=observed
    )
    covariance_NN += JITTER * spread**2 * np.eye(len(observed.value_N))
    lower_NN = np.linalg.cholesky(covariance_NN)
    centre = float(observed.value_N.mean())
    half_NC = solve_triangular(lower_NN, cross_CN.T, lower=True)
    whitened_N = solve_triangular(lower_NN, observed.value_N - centre, lower=True)
    return ScaleDraw(
        weight=float(weight),
        scales=scales,
        mean_C=centre + half_NC.T @ whitened_N,
        covariance_CC=kernel_CC - half_NC.T @ half_NC,
        lower_NN=lower_NN,
        kernel_CC=kernel_CC,
        half_NC=half_NC,
    )


def _factor(covariance: np.ndarray) -> np.ndarray:
    """A root of a covariance that rounding may have made slightly indefinite."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0.0))
