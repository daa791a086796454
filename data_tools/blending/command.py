"""`frontload data blend`: budgets to a table and, with indexes, to a folder of phases."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from frontload.data_tools.blending.budget import Budget, plan_budget, sources_read
from frontload.data_tools.blending.build import build_blend, check_tokenizers
from frontload.data_tools.blending.division import Size
from frontload.data_tools.blending.report import budget_text, ledger_json
from frontload.data_tools.blending.source import SourceIndex, read_source
from frontload.recipes.errors import RecipeError
from frontload.recipes.index_flag import HELP, named_prefixes
from frontload.recipes.runs.blend import BlendRecipe, load_blend

SHOWN_NAMES = 8  # ours: of sources without an index; a line
BLEND_KEYS = {field.name for field in fields(BlendRecipe)}


def add_arguments(one: argparse.ArgumentParser) -> None:
    """Those of `blend`; `run` goes from them to an exit code."""
    one.add_argument("recipe", help="a name under recipes/blends, or a path ending in .yaml")
    one.add_argument(
        "--index",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=PREFIX",
        help=HELP,
    )
    one.add_argument("--out", type=Path, metavar="FOLDER", help="where the phases go")
    one.add_argument(
        "--plan-only",
        action="store_true",
        help="price the plan, by declared sizes where no index is given; writes nothing",
    )
    one.add_argument("--json", action="store_true", help="print the ledger instead of the table")
    one.set_defaults(run=run_blend)


def run_blend(arguments: argparse.Namespace) -> int:
    """Checks the whole plan, then prints it and, without --plan-only, writes it."""
    out: Path | None = arguments.out
    if (out is None) != arguments.plan_only:
        raise RecipeError(
            "blend --out",
            found="--out with --plan-only" if out else "neither --out nor --plan-only",
            rule="a blend is written to a folder, or only planned",
            do="keep --out FOLDER or --plan-only",
        )
    loaded = load_blend(arguments.recipe, overrides=arguments.overrides)
    read = sources_read(loaded.value)
    prefixes = named_prefixes(arguments.index, loaded.value.sources, keys=BLEND_KEYS)
    missing = [name for name in read if name not in prefixes]
    if missing and not arguments.plan_only:
        raise RecipeError(
            "blend --index",
            found=f"no index of {', '.join(missing[:SHOWN_NAMES])}"
            + (f" and {len(missing) - SHOWN_NAMES:_} more" if len(missing) > SHOWN_NAMES else ""),
            rule="every source that a phase reads has an index",
            do=f"add --index {missing[0]}=PREFIX, or plan by declared sizes with --plan-only",
        )
    check_tokenizers({name: prefixes[name] for name in read if name in prefixes})
    sources = {name: read_source(name, prefixes[name]) for name in read if name in prefixes}
    budget = plan_budget(loaded, _sizes(loaded.value, sources))
    is_new = out is None or build_blend(budget, sources, out)
    print(json.dumps(ledger_json(budget), indent=1) if arguments.json else budget_text(budget))
    _tell(budget, out, is_new=is_new, unread=[name for name in prefixes if name not in read])
    return 0


def _tell(budget: Budget, out: Path | None, *, is_new: bool, unread: Sequence[str]) -> None:
    lines = [f"--index {name} is not used: no phase reads it" for name in unread]
    declared = [name for name in sources_read(budget.recipe) if budget.sizes[name].is_declared]
    if declared:
        lines.append(f"sizes of {', '.join(declared)} are declared, not counted")
    if out is not None:
        folders = ", ".join(str(out / phase.name) for phase in budget.phases)
        lines.append(f"wrote {folders}" if is_new else f"{out} holds this very blend: nothing done")
    for line in lines:
        print(line, file=sys.stderr)


def _sizes(recipe: BlendRecipe, sources: Mapping[str, SourceIndex]) -> dict[str, Size]:
    sizes = {
        name: Size(tokens=knobs.declared_tokens, documents=knobs.declared_samples, is_declared=True)
        for name, knobs in recipe.sources.items()
    }
    for name, source in sources.items():
        sizes[name] = Size(
            tokens=source.num_tokens, documents=source.num_documents, is_declared=False
        )
    return sizes
