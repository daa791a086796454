"""Evaluations made by hand: cells of one benchmark whose share of right samples is given."""

import numpy as np

from frontload.eval.results import (
    GeneratedResult,
    Generation,
    HeldoutResult,
    Protocol,
    ResultFile,
)
from frontload.eval.statistics.cells import Cells, Draws


def one_file(
    accuracies: dict[str, float],
    *,
    num_samples: int = 4,
    seed: int = 1,
    suite: str = "sft",
    benchmark: str = "chain",
    category: str = "math",
    gold: str = "",
) -> ResultFile:
    """One evaluation: as many questions of a benchmark as there are accuracies."""
    protocol = Protocol(
        suite=suite,
        num_samples=num_samples,
        num_hard_samples=num_samples,
        temperature=1.0,
        max_new_tokens=8,
        max_sequence_tokens=64,
        num_shots=0,
        seed=seed,
    )
    results = []
    for name, accuracy in accuracies.items():
        right = round(accuracy * num_samples)
        samples = tuple(
            Generation(text="", answer="", correct=n < right, format_failure="", tokens=1)
            for n in range(num_samples)
        )
        results.append(
            GeneratedResult(
                id=name,
                benchmark=benchmark,
                category=category,
                family=benchmark,
                question="",
                gold=gold or name,
                inside_shq=True,
                hard=False,
                prompt_tokens=1,
                num_shots=0,
                gold_correct=True,
                samples=samples,
            )
        )
    return ResultFile(protocol=protocol, results=tuple(results))


def study(levels: dict[str, list[float]], *, num_items: int = 60) -> Cells:
    """Cells with one evaluation a seed; questions differ in difficulty, which all cells share."""
    difficulty = np.random.default_rng(0).uniform(-0.3, 0.3, num_items)
    files = {}
    for place, (cell, seeds) in enumerate(levels.items()):
        taste = np.random.default_rng(place).uniform(-0.1, 0.1, num_items)
        files[cell] = [
            one_file(
                {
                    f"q{n}": float(np.clip(level + difficulty[n] + taste[n], 0, 1))
                    for n in range(num_items)
                },
                seed=seed,
            )
            for seed, level in enumerate(seeds, start=1)
        ]
    return Cells(files=files)


def exact(
    values: dict[str, list[float]], *, metric: str = "sft.avg", seeds: dict | None = None
) -> Cells:
    """Cells whose questions have no error: the numbers of each seed, and nothing else."""
    return Cells.of_metrics(
        {
            cell: {
                metric: Draws(
                    draws_AB=np.array(numbers, dtype=float)[:, None] * np.ones((1, 201)),
                    seeds=(seeds or {}).get(cell, tuple(range(1, len(numbers) + 1))),
                    questions=frozenset(f"q{n}" for n in range(100)),
                )
            }
            for cell, numbers in values.items()
        }
    )


def replayed(
    name: str, *, loss: float, tokens: int, greedy: int, inside: bool = True
) -> HeldoutResult:
    """One held-out document of family `chain`."""
    return HeldoutResult(
        id=name,
        family="chain",
        domain="math",
        inside_shq=inside,
        is_cut=False,
        num_tokens=tokens,
        loss_sum=loss,
        num_greedy_tokens=greedy,
    )
