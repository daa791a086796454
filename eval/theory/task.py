"""The linear task of arXiv 2603.01293: covariances, the pretrained weights, prompts.

A prompt is n inputs x with labels <w*, x>. One layer of linear self-attention answers with a guess
of w*, and refines it once for each step of its chain of thought: w <- w + V S (w - w*), where S is
the mean of x x'. All covariances here are diagonal with two blocks: the first `shifted` directions
are rare in pretraining and matter at the test, the others are what pretraining saw.
"""

from dataclasses import dataclass

import numpy as np

from frontload.data_tools.disk.seeds import stream_bits


@dataclass(frozen=True, kw_only=True)
class Task:
    """Where the task's inputs come from in pretraining, in SFT and at the test."""

    dim: int  # d
    shifted: int  # m
    prompt_length: int  # n
    covered: float = 0.1  # rho: variance of the shifted directions in pretraining
    rest: float = 1.0  # variance of the other directions in pretraining
    shift: float = 1.0  # Delta: variance that the test adds to the shifted directions
    rate: float = 0.5  # eta: each target of SFT goes this share of the way to w*
    scale: float = 0.5  # SFT's variance of the shifted directions, over the test's
    interference: float = 0.0  # r: SFT's variance of the other directions

    @property
    def pretraining(self) -> np.ndarray:
        """Sigma_0, its diagonal."""
        return self._blocks(self.covered, self.rest)

    @property
    def test(self) -> np.ndarray:
        """Sigma = Sigma_0 + Delta, its diagonal."""
        return self.pretraining + self._blocks(self.shift, 0.0)

    @property
    def tuning(self) -> np.ndarray:
        """A, the covariance of SFT's inputs, its diagonal."""
        return self._blocks(self.scale * (self.covered + self.shift), self.interference)

    @property
    def initial(self) -> np.ndarray:
        """The diagonal of V after pretraining on endlessly many prompts. Source: (3.6), (3.7)."""
        known = self.pretraining
        return -1.0 / ((1 + 1 / self.prompt_length) * known + known.sum() / self.prompt_length)

    @property
    def spectral_radius(self) -> float:
        """rho(Gamma_0^-1 Delta): below 1, longer chains of thought shrink the error at the start.

        Source: section 6.
        """
        return float(np.max(-self.initial * (self.test - self.pretraining)))

    def _blocks(self, shifted: float, others: float) -> np.ndarray:
        return np.repeat([shifted, others], [self.shifted, self.dim - self.shifted])


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """Prompts as SFT sees them: true weights and S w*, a column a prompt."""

    weights: np.ndarray
    products: np.ndarray


def stream(seed: int, *names: str | int | float) -> np.random.Generator:
    """The random numbers of one purpose."""
    return np.random.default_rng(stream_bits(seed, "theory", *(str(name) for name in names)))


def draw_prompts(
    covariance: np.ndarray, *, prompt_length: int, num_prompts: int, rng: np.random.Generator
) -> Prompts:
    """Prompts whose inputs have this diagonal covariance; no input is drawn.

    With Z of n rows of standard normals, root = covariance^1/2, v = root w* and u = v / |v|: Z u is
    standard normal, and Z' Z u is u |Z u|^2 plus, across u, a normal vector of length |Z u|.
    So a column costs d numbers and one chi-square, in place of n d.
    """
    root = np.sqrt(covariance)[:, None]
    weights = rng.standard_normal((len(covariance), num_prompts))
    seen = root * weights
    length = np.linalg.norm(seen, axis=0)
    along = seen / length
    squared = rng.chisquare(prompt_length, num_prompts)
    across = rng.standard_normal(weights.shape)
    across -= along * (along * across).sum(axis=0)
    products = root * (along * squared + across * np.sqrt(squared)) * length / prompt_length
    return Prompts(weights=weights, products=products)


def draw_moments(
    covariance: np.ndarray, *, prompt_length: int, num_prompts: int, rng: np.random.Generator
) -> np.ndarray:
    """S of each prompt, from inputs that are drawn: prompts x d x d."""
    root = np.sqrt(covariance)
    moments = np.empty((num_prompts, len(root), len(root)))
    for moment in moments:
        inputs = rng.standard_normal((prompt_length, len(root))) * root
        moment[:] = inputs.T @ inputs / prompt_length
    return moments
