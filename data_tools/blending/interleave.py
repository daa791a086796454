"""The order of a phase's samples: every prefix has the sources' ratios. Integers only.

Sample k of a source's n stands at (2k + 1) / 2n of the phase, so after m samples a source has had
its exact share of m to within (sources + 1) / 2 samples. Samples that stand at the same place
follow a seeded order of the sources. The order is made block by block, each from the places in one
equal part of the phase: neither the blocks' number nor a float can change it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from frontload.data_tools.disk.seeds import permutation
from frontload.recipes.errors import RecipeError
from frontload.recipes.runs.blend import MAX_SOURCES

BLOCK_SAMPLES = 1 << 17  # found: smaller ones pay for calls, larger ones leave the cache
MAX_SAMPLES = 1 << 31  # of a phase, so that every product below fits 64 bits
RANK_BITS = 16  # of the order of sources at one place: more than MAX_SOURCES
COARSE_BITS = 31  # of a place inside its block; a second division gives the fine ones


@dataclass(frozen=True, kw_only=True)
class Block:
    """Samples that follow each other. Shapes: int64 [samples of the block]."""

    sources: np.ndarray  # source number of each
    numbers: np.ndarray  # which of its source's samples, from 0


def interleave(
    num_samples: Sequence[int], *, seed: int, phase: str, block_samples: int = BLOCK_SAMPLES
) -> Iterator[Block]:
    """The samples of a phase in training order, about `block_samples` at a time.

    Raises: RecipeError beyond 2^31 samples or 32,766 sources.
    """
    _check_size(num_samples, phase=phase)
    rank = np.argsort(permutation(len(num_samples), seed, "interleave", phase))
    num_blocks = max(1, -(-sum(num_samples) // block_samples))
    firsts = [0] * len(num_samples)
    for block in range(num_blocks):
        ends = [_samples_before(n, block + 1, num_blocks) for n in num_samples]
        keys = [
            _keys(n, range(first, end), block=block, num_blocks=num_blocks, rank=int(rank[source]))
            for source, (n, first, end) in enumerate(zip(num_samples, firsts, ends, strict=True))
        ]
        # all keys differ, so any sort gives this order; this one merges the sources' sorted runs
        order = np.argsort(np.concatenate(keys), kind="stable")
        counts = [len(part) for part in keys]
        sources = np.repeat(np.arange(len(counts)), counts)
        numbers = np.concatenate([np.arange(f, e) for f, e in zip(firsts, ends, strict=True)])
        yield Block(sources=sources[order], numbers=numbers[order])
        firsts = ends


def _samples_before(num_samples: int, block: int, num_blocks: int) -> int:
    """How many of a source's samples stand before block / num_blocks of the phase."""
    return max(0, -((num_blocks - 2 * num_samples * block) // (2 * num_blocks)))


def _keys(
    num_samples: int, numbers: range, *, block: int, num_blocks: int, rank: int
) -> np.ndarray:
    """Integers in the order of the samples' places, and of `rank` at equal places.

    The place inside the block is u / 2n with u < 2n. Its first 31 + 17 bits are exact. Two places
    of sources of n and m samples differ by num_blocks / 2nm or more, which is 2^-47 or more: n + m
    is at most 2^31, and a block has at most 2^17 samples.
    """
    whole = np.uint64(2 * num_samples)
    inside = np.arange(numbers.start, numbers.stop, dtype=np.int64)
    inside = (2 * inside + 1) * num_blocks - 2 * num_samples * block
    shifted = inside.astype(np.uint64) << np.uint64(COARSE_BITS)
    coarse = shifted // whole
    rest = shifted - coarse * whole  # np.divmod takes ten times as long
    fine_bits = np.uint64(64 - COARSE_BITS - RANK_BITS)
    fine = (rest << fine_bits) // whole
    return (((coarse << fine_bits) | fine) << np.uint64(RANK_BITS)) | np.uint64(rank)


def _check_size(num_samples: Sequence[int], *, phase: str) -> None:
    if sum(num_samples) > MAX_SAMPLES:
        raise RecipeError(
            f"phase {phase}: samples",
            found=f"{sum(num_samples)} samples",
            rule=f"a phase has at most {MAX_SAMPLES} samples, so that its order is exact",
            do="cut the phase in two",
        )
    if len(num_samples) > MAX_SOURCES:
        raise RecipeError(
            f"phase {phase}: sources",
            found=f"{len(num_samples)} sources",
            rule=f"a phase has at most {MAX_SOURCES} sources, as Megatron numbers them in int16",
            do="join sources into one index",
        )
