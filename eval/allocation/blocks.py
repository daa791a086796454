"""Which cells to run next: whole blocks on shared trunks and seeds, by what they would teach.

A block is every candidate of one arm at a seed that has others, or of several arms at a new seed:
a lone arm at a new seed tells its score from its seed's effect by nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri
from scipy.stats.qmc import Sobol

from frontload.data_tools.disk.seeds import stream_bits
from frontload.eval.allocation.surrogate import Placed, Posterior, ScaleDraw, Space
from frontload.recipes.errors import RecipeError
from frontload.recipes.runs.allocation import AllocationQuestion

type SeededCell = tuple[int, int]
"""Candidate and seed."""

LOG2_DRAWS = 7  # of what a block may show: 128 points that fill the space evenly
MOST_WEIGHED = 6  # draws of the scales that a gain is averaged over, the likeliest
REPEATED = 3  # arms of a block that repeats the best at a new seed


@dataclass(frozen=True, kw_only=True)
class CellBlock:
    """Cells that are run together."""

    name: str
    cells: tuple[SeededCell, ...]
    price: float


@dataclass(frozen=True, kw_only=True)
class RatedBlock:
    """A block and what it would teach: by how much the best candidate's mean is expected to rise
    once its scores are known, in the objective's unit."""

    block: CellBlock
    gain: float


class Prices:
    """What cells cost beside those that were run: parts of one name at one seed are made once."""

    def __init__(self, question: AllocationQuestion, cells: Iterable[SeededCell]) -> None:
        self._parts = [one.parts for one in question.candidates]
        self._made = {(int(s), part) for s, parts in question.made.items() for part in parts}
        for candidate, seed in cells:
            self._made |= {(seed, part) for part in self._parts[candidate]}

    def of(self, cells: Iterable[SeededCell]) -> float:
        """The price of what is missing for these cells."""
        needed = {
            (seed, part): price
            for candidate, seed in cells
            for part, price in self._parts[candidate].items()
        }
        return sum(price for part, price in needed.items() if part not in self._made)


def spent(question: AllocationQuestion, cells: Sequence[SeededCell]) -> float:
    """The price of all that was run for these cells."""
    return Prices(question, ()).of(cells)


def arms_of(question: AllocationQuestion) -> dict[str, list[int]]:
    """Arm -> its candidates, in the order of the question."""
    found: dict[str, list[int]] = {}
    for place, candidate in enumerate(question.candidates):
        found.setdefault(candidate.arm, []).append(place)
    return found


def require_paired(question: AllocationQuestion, cells: Sequence[SeededCell]) -> None:
    """Refuses a design in which a seed has one arm alone.

    Raises: RecipeError naming the seed.
    """
    arms: dict[int, set[str]] = {}
    for candidate, seed in cells:
        arms.setdefault(seed, set()).add(question.candidates[candidate].arm)
    for seed, found in sorted(arms.items()):
        if len(found) < 2:
            raise RecipeError(
                f"cells of seed {seed}",
                found=f"one arm alone, {min(found)}",
                rule="cells are compared within a seed, so a seed has two arms or more: with one, "
                "the effects of seed and arm are one number",
                do="run a second arm at this seed, or leave its cells out",
            )


def first_block(question: AllocationQuestion, cells: Sequence[SeededCell]) -> CellBlock:
    """Arms that fill the space, its edges first, at the first seeds; all their candidates."""
    arms = arms_of(question)
    levels = np.array([question.candidates[members[0]].levels for members in arms.values()])
    chosen = [int(np.argmin(((levels - 0.5) ** 2).sum(1)))]
    while len(chosen) < min(question.first_arms, len(levels)):
        distance = ((levels[:, None] - levels[None, chosen]) ** 2).sum(-1).min(1)
        chosen.append(int(np.argmax(distance)))
    names = list(arms)
    found = tuple(
        (candidate, seed)
        for seed in range(1, question.first_seeds + 1)
        for place in sorted(chosen)
        for candidate in arms[names[place]]
        if (candidate, seed) not in cells
    )
    return CellBlock(
        name=f"first block: {len(chosen)} arms at {question.first_seeds} seeds",
        cells=found,
        price=Prices(question, cells).of(found),
    )


def next_blocks(
    question: AllocationQuestion, cells: Sequence[SeededCell], *, mean_C: np.ndarray
) -> list[CellBlock]:
    """Every block that may follow: an arm at a seed that is there, or several arms at a new one."""
    arms, prices, done = arms_of(question), Prices(question, cells), set(cells)
    seeds = sorted({seed for _, seed in cells})
    found: list[CellBlock] = []

    def add(name: str, names: Iterable[str], *, seed: int) -> None:
        asked = [(c, seed) for arm in names for c in arms[arm] if (c, seed) not in done]
        if asked:
            found.append(CellBlock(name=name, cells=tuple(asked), price=prices.of(asked)))

    for seed in seeds:
        for arm in arms:
            add(f"{arm} at seed {seed}", [arm], seed=seed)
    new = next(seed for seed in range(1, len(seeds) + 2) if seed not in seeds)
    order = sorted(arms, key=lambda arm: -max(float(mean_C[place]) for place in arms[arm]))
    best = order[0]
    for arm in order[1:]:
        add(f"{best} and {arm} at a new seed {new}", [best, arm], seed=new)
    seen = {question.candidates[candidate].arm for candidate, _ in cells}
    repeated = [arm for arm in order if arm in seen or arm == best][:REPEATED]
    if len(repeated) > 2:
        add(f"the best {len(repeated)} arms at a new seed {new}", repeated, seed=new)
    return found


def rate(posterior: Posterior, blocks: Sequence[CellBlock]) -> list[RatedBlock]:
    """The knowledge gradient of each block: its cells are seen together.

    Source: Frazier, Powell and Dayanik 2009; for several cells at once by a Sobol sequence.
    """
    cells = list(dict.fromkeys(cell for block in blocks for cell in block.cells))
    if not cells:
        return []
    place = {cell: number for number, cell in enumerate(cells)}
    rows = [[place[cell] for cell in block.cells] for block in blocks]
    widest = max(map(len, rows))
    uniform_BQ = Sobol(widest, rng=np.random.Generator(stream_bits(0, "allocation", "gain")))
    normal_QB = ndtri(uniform_BQ.random_base2(LOG2_DRAWS)).T
    mean_C = posterior.mean_C
    likeliest = posterior.members[:MOST_WEIGHED]
    total = sum(one.weight for one in likeliest)
    gains = np.zeros(len(blocks))
    for member in likeliest:
        shift_CM, new_MM = _foreseen(posterior, member, cells=Placed.at(cells))
        for number, row in enumerate(rows):
            lower_QQ = np.linalg.cholesky(new_MM[np.ix_(row, row)])
            root_CQ = np.linalg.solve(lower_QQ, shift_CM[:, row].T).T
            highest_B = (mean_C[:, None] + root_CQ @ normal_QB[: len(row)]).max(0)
            gains[number] += member.weight / total * (highest_B.mean() - mean_C.max())
    return [
        RatedBlock(block=block, gain=max(0.0, float(gain)))
        for block, gain in zip(blocks, gains, strict=True)
    ]


def _foreseen(
    posterior: Posterior, member: ScaleDraw, *, cells: Placed
) -> tuple[np.ndarray, np.ndarray]:
    """Covariance of f with scores to come, and of those with each other, given those seen."""
    space, observed, scales = posterior.space, posterior.observed, member.scales
    seen_NM = member.kernel_CC[np.ix_(observed.candidate_N, cells.candidate_N)]
    seen_NM = seen_NM + scales.effects(space, first=observed, second=cells)
    half_NM = np.linalg.solve(member.lower_NN, seen_NM)
    shift_CM = member.kernel_CC[:, cells.candidate_N] - member.half_NC.T @ half_NM
    new_MM = member.kernel_CC[np.ix_(cells.candidate_N, cells.candidate_N)]
    new_MM = new_MM + scales.effects(space, first=cells, second=cells) - half_NM.T @ half_NM
    ridge = 1e-9 * float(np.trace(new_MM)) / len(new_MM) + 1e-12
    return shift_CM, new_MM + ridge * np.eye(len(new_MM))


def space_of(question: AllocationQuestion) -> Space:
    """The candidates of a question as arrays."""
    return Space.of(question.candidates)
