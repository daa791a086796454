"""Phases to files: each source's stream is run through once for all the phases that read it.

A phase's folder holds `samples.npy`, and of each source `<source>.order.npy` and
`<source>.offsets.npy`; `plan.json` comes last. Everything is written as it is made.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from frontload.data_tools.blending.arrays import ArrayWriter
from frontload.data_tools.blending.interleave import interleave
from frontload.data_tools.blending.ledger import plan_json
from frontload.data_tools.blending.source import SourceIndex
from frontload.data_tools.blending.stream import Cut, Slice, list_documents
from frontload.data_tools.blending.windows import Reading, check_blend, check_disjoint
from frontload.recipes.artifact import write_json
from frontload.recipes.schema import Blend, Window


@dataclass(frozen=True, kw_only=True)
class PhaseFolder:
    """One phase, and where its files go."""

    recipe: Blend
    folder: Path
    mix_of: Mapping[str, str] = field(default_factory=dict)  # source -> mix that it is read in


def write_phases(
    phases: Sequence[PhaseFolder],
    sources: Mapping[str, SourceIndex],
    *,
    earlier: Sequence[Reading] = (),
) -> list[Reading]:
    """Checks every window, then writes every phase; returns all readings, oldest first.

    `earlier` are readings of phases that were planned before. Two phases with another seed or
    another index of one source are refused: they would not read one stream.

    Raises: RecipeError, before anything is written.
    """
    sizes = {name: source.num_tokens for name, source in sources.items()}
    before: list[list[Reading]] = []
    readings = list(earlier)
    for phase in phases:
        check_blend(phase.recipe, sizes)
        own = [_reading(phase.recipe, window, sources) for window in phase.recipe.windows]
        check_disjoint(own, readings)
        before.append(readings)
        readings = [*readings, *own]
    cuts = _write_documents(phases, sources)
    for number, phase in enumerate(phases):
        found = {window.source: cuts[number, window.source] for window in phase.recipe.windows}
        _write_samples(phase, found)
        own = [_reading(phase.recipe, window, sources) for window in phase.recipe.windows]
        plan = plan_json(phase.recipe, readings=own, earlier=before[number], cuts=found)
        for source in plan["sources"]:
            if source["name"] in phase.mix_of:
                source["mix"] = phase.mix_of[source["name"]]
        write_json(phase.folder / "plan.json", plan)
    return readings


def _reading(recipe: Blend, window: Window, sources: Mapping[str, SourceIndex]) -> Reading:
    source = sources[window.source]
    return Reading(
        phase=recipe.phase,
        source=window.source,
        start_tokens=window.start_tokens,
        tokens=window.tokens,
        document_tokens=source.num_tokens,
        num_documents=source.num_documents,
        seed=recipe.seed,
        index_sha256=source.index_sha256,
    )


def _write_documents(
    phases: Sequence[PhaseFolder], sources: Mapping[str, SourceIndex]
) -> dict[tuple[int, str], Cut]:
    """Order and offsets of every window; (phase number, source) -> what was found."""
    windows: dict[str, dict[int, Window]] = {}
    for number, phase in enumerate(phases):
        for window in phase.recipe.windows:
            windows.setdefault(window.source, {})[number] = window
    cuts: dict[tuple[int, str], Cut] = {}
    for name, source in sources.items():
        with ExitStack() as files:
            slices = {}
            for number, window in windows.get(name, {}).items():
                order, offsets = (
                    files.enter_context(
                        ArrayWriter(phases[number].folder / f"{name}.{what}.npy", dtype)
                    )
                    for what, dtype in (("order", np.int32), ("offsets", np.int64))
                )
                slices[number] = Slice(
                    window, one_epoch=source.num_tokens, order=order, offsets=offsets
                )
            if not slices:
                continue
            seed = phases[min(slices)].recipe.seed
            list_documents(name, list(slices.values()), source.lengths(), seed=seed)
            cuts |= {(number, name): one.finish() for number, one in slices.items()}
    return cuts


def _write_samples(phase: PhaseFolder, cuts: Mapping[str, Cut]) -> None:
    """The phase's samples in training order.

    Shapes: int64 [num_samples, 2]: source number, place of the first token relative to the start
            of the first document that the source's slice lists.
    """
    recipe = phase.recipe
    counts = [window.tokens // recipe.sequence_tokens for window in recipe.windows]
    starts = np.array(
        [window.start_tokens - cuts[window.source].stream_start for window in recipe.windows]
    )
    with ArrayWriter(phase.folder / "samples.npy", np.int64, (2,)) as file:
        for block in interleave(counts, seed=recipe.seed, phase=recipe.phase):
            samples = np.empty((len(block.sources), 2), dtype=np.int64)
            samples[:, 0] = block.sources
            samples[:, 1] = starts[block.sources] + block.numbers * recipe.sequence_tokens
            file.append(samples)
