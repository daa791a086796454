"""The budget of a blend for people and as JSON. Nothing here is rounded but what is shown."""

from dataclasses import asdict, replace
from fractions import Fraction
from typing import Any

from frontload.data_tools.blending.budget import Budget, PhaseBudget, PhasePart, sources_read
from frontload.recipes.runs.blend import BlendMix
from frontload.recipes.stage import canonical

LEDGER_FORMAT = 1
HEAD = ("phase", "source", "target", "actual", "share", "samples", "epochs", "repeated", "unique")


def budget_text(budget: Budget) -> str:
    """One line a phase and source, with the sums; then each source over all phases."""
    rows: list[tuple[str, ...]] = [HEAD]
    for phase in budget.phases:
        rows += [_row(phase, part) for part in phase.parts]
        if len(phase.parts) > 1:
            rows.append(_sum_row(phase.name, phase.target_tokens, phase.tokens, phase.num_samples))
    rows.append(
        _sum_row(
            "all",
            sum(phase.target_tokens for phase in budget.phases),
            sum(phase.tokens for phase in budget.phases),
            sum(phase.num_samples for phase in budget.phases),
        )
    )
    lines = _aligned(rows, left=2)
    lines.append("")
    over_all: list[tuple[str, ...]] = [
        ("source", "one pass", "size is", "reading", "read", "epochs", "cap", "unread")
    ]
    for source in sources_read(budget.recipe):
        size, knobs = budget.sizes[source], budget.recipe.sources[source]
        read = budget.parts_of(source)[-1].end_tokens
        over_all.append(
            (
                source,
                f"{size.tokens:_}",
                "declared" if size.is_declared else "counted",
                knobs.reading,
                f"{read:_}",
                f"{read / size.tokens:.4f}",
                f"{float(knobs.max_epochs):g}",
                f"{max(size.tokens - read, 0):_}",
            )
        )
    return "\n".join([*lines, *_aligned(over_all, left=1)])


def _row(phase: PhaseBudget, part: PhasePart) -> tuple[str, ...]:
    shown = part.source if part.name == part.source else f"{part.source} ({part.name})"
    return (
        phase.name,
        shown,
        f"{part.target_tokens:_}",
        f"{part.tokens:_}",
        f"{part.num_samples / phase.num_samples:.4%}",
        f"{part.num_samples:_}",
        f"{float(part.epochs):.4f}",
        f"{part.repeated_tokens:_}",
        f"{float(part.unique_share):.2%}",
    )


def _sum_row(name: str, target: int, actual: int, samples: int) -> tuple[str, ...]:
    return (name, "sum", f"{target:_}", f"{actual:_}", "", f"{samples:_}", "", "", "")


def _aligned(rows: list[tuple[str, ...]], *, left: int) -> list[str]:
    """Columns side by side: the first `left` flush left, numbers flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def ledger_json(budget: Budget) -> dict[str, Any]:
    """The whole budget in exact integers and fractions; tokens unless a name says otherwise."""
    recipe = budget.recipe
    first = 0
    phases = []
    for phase in budget.phases:
        phases.append(
            {
                "name": phase.name,
                "target_tokens": phase.target_tokens,
                "tokens": phase.tokens,
                "first_sample": first,
                "num_samples": phase.num_samples,
                "sources": [_part_json(phase, part) for part in phase.parts],
            }
        )
        first += phase.num_samples
    return {
        "format": LEDGER_FORMAT,
        "seed": recipe.seed,
        "sequence_tokens": recipe.sequence_tokens,
        "global_batch_sequences": recipe.global_batch_sequences,
        "target_tokens": sum(phase.target_tokens for phase in budget.phases),
        "tokens": sum(phase.tokens for phase in budget.phases),
        "num_samples": first,
        "mixes": {name: _mix_json(mix) for name, mix in sorted(recipe.mixes.items())},
        "phases": phases,
        "sources": {name: _source_json(budget, name) for name in sources_read(recipe)},
    }


def _mix_json(mix: BlendMix) -> dict[str, Any]:
    found = canonical(replace(mix, temperature=None))
    return found if mix.temperature is None else found | {"temperature": str(mix.temperature)}


def _part_json(phase: PhaseBudget, part: PhasePart) -> dict[str, Any]:
    return {
        "name": part.source,
        "mix": part.name if part.name != part.source else None,
        "target_tokens": part.target_tokens,
        "tokens": part.tokens,
        "num_samples": part.num_samples,
        "share": str(Fraction(part.num_samples, phase.num_samples)),
        "start_tokens": part.start_tokens,
        "end_tokens": part.end_tokens,
        "epochs": str(part.epochs),
        "repeated_tokens": part.repeated_tokens,
        "unique_share": str(part.unique_share),
    }


def _source_json(budget: Budget, name: str) -> dict[str, Any]:
    size, knobs = budget.sizes[name], budget.recipe.sources[name]
    read = budget.parts_of(name)[-1].end_tokens
    return {
        **asdict(size),
        "reading": knobs.reading,
        "max_epochs": str(knobs.max_epochs),
        "read_tokens": read,
        "epochs": str(Fraction(read, size.tokens)),
        "repeated_tokens": max(0, read - size.tokens),
        "unread_tokens": max(0, size.tokens - read),
    }
