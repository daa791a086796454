"""A phase of a blend as Megatron-LM's arguments, and how far what it reads is from the blend."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from frontload.data_tools.disk.files import replacing
from frontload.recipes.errors import RecipeError

COUNTED_SAMPLES = 200_000  # ours: 1 s of one core; further on, counts stay as near as before
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True, kw_only=True)
class SourceDeviation:
    """One source of a phase: what the blend reads of it, and what Megatron-LM does."""

    source: str
    samples: int
    largest_gap: float  # samples, over all prefixes that were counted
    start_tokens: int  # of its stream, which Megatron-LM begins anew


def data_args(plan: Mapping[str, Any], prefixes: Mapping[str, Path]) -> list[str]:
    """Weights and prefixes by turns. The weights are the samples of each source, so exact.

    Raises: RecipeError for a prefix that the file's format cannot hold.
    """
    words: list[str] = []
    for source in plan["sources"]:
        prefix = str(prefixes[source["name"]].absolute())
        if prefix.split() != [prefix]:
            raise RecipeError(
                f"--index {source['name']}={prefix}",
                found="a space in the path",
                rule="Megatron-LM cuts the file of --data-args-path at spaces",
                do="move or link the pair to a path without one",
            )
        words += [str(source["num_samples"]), prefix]
    return words


def write_data_args(words: Sequence[str], out: Path) -> None:
    """Writes `data_args.txt` and `per_split_data_args.json` to a folder.

    Source: Megatron-LM, megatron/training/training.py: get_blend_and_blend_per_split.
    """
    with replacing(out / "data_args.txt", "w") as stream:
        for at in range(0, len(words), 2):
            stream.write(f"{words[at]} {words[at + 1]}\n")
    per_split = dict.fromkeys(SPLITS) | {"train": list(words)}
    with replacing(out / "per_split_data_args.json", "w") as stream:
        stream.write(json.dumps(per_split, indent=1) + "\n")


def deviations(plan: Mapping[str, Any]) -> list[SourceDeviation]:
    """How far Megatron-LM's order of samples is from the shares, at the worst prefix.

    Source: megatron-core 0.19.2, core/datasets/helpers.cpp: build_blending_indices, which takes of
            the source that is furthest behind.
    """
    samples = np.array([source["num_samples"] for source in plan["sources"]], dtype=np.float64)
    weights = samples / samples.sum()
    taken, worst = np.zeros(len(weights)), np.zeros(len(weights))
    for done in range(min(int(samples.sum()), COUNTED_SAMPLES)):
        taken[int(np.argmax(weights * max(done, 1.0) - taken))] += 1
        np.maximum(worst, np.abs(weights * (done + 1) - taken), out=worst)
    return [
        SourceDeviation(
            source=source["name"],
            samples=source["num_samples"],
            largest_gap=float(gap),
            start_tokens=source["start_tokens"],
        )
        for source, gap in zip(plan["sources"], worst, strict=True)
    ]


def deviation_lines(phase: str, found: Sequence[SourceDeviation]) -> list[str]:
    """What a person has to know before Megatron-LM reads the phase in the blend's stead."""
    total = sum(one.samples for one in found)
    lines = []
    for one in found:
        line = f"  {phase} {one.source}: {one.samples:,} of {total:,} samples"
        line += f", at most {one.largest_gap:.2f} samples from its share at any prefix"
        if total > COUNTED_SAMPLES:
            line += f" of the first {COUNTED_SAMPLES:,}"
        if one.start_tokens:
            line += (
                f"; the blend goes on at token {one.start_tokens:,} of its stream, Megatron-LM"
                " begins a stream of its own and may read those again"
            )
        lines.append(line)
    lines.append(
        f"  {phase}: which documents come when is Megatron-LM's own shuffle, not the blend's"
    )
    return lines
