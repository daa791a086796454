"""The order of a phase's samples: every prefix has the sources' ratios. Integers only."""

from collections.abc import Mapping, Sequence

import numpy as np

from frontload.data_tools.blending.stream import Slice
from frontload.data_tools.seeds import permutation
from frontload.recipes.schema import Blend


def interleave(num_samples: Sequence[int], *, seed: int, phase: str) -> np.ndarray:
    """Source number of every sample of a phase, in training order, int64.

    Sample k of n of a source stands at (2k + 1) / 2n of the phase, so after m samples a source has
    had its exact share of m to within (sources + 1) / 2 samples. Samples that stand at the same
    place follow a seeded order of the sources.
    """
    sources = np.repeat(np.arange(len(num_samples), dtype=np.int64), num_samples)
    places = np.concatenate([(2 * np.arange(n) + 1) / (2 * n) for n in num_samples])
    rank = np.argsort(permutation(len(num_samples), seed, "interleave", phase))
    return sources[np.lexsort((rank[sources], places))]


def order_samples(recipe: Blend, slices: Mapping[str, Slice]) -> np.ndarray:
    """The phase's samples in training order.

    Shapes: int64 [num_samples, 2]: source number, place of the first token relative to the start
            of the first document that the source's slice lists.
    """
    counts = [window.tokens // recipe.sequence_tokens for window in recipe.windows]
    sources = interleave(counts, seed=recipe.seed, phase=recipe.phase)
    samples = np.empty((len(sources), 2), dtype=np.int64)
    samples[:, 0] = sources
    for number, window in enumerate(recipe.windows):
        start = window.start_tokens - slices[window.source].stream_start
        steps = np.arange(counts[number], dtype=np.int64) * recipe.sequence_tokens
        samples[sources == number, 1] = start + steps
    return samples
