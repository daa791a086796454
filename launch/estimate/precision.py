"""The command `frontload precision`: which GEMMs are FP8, and the error of a precision here."""

import argparse
import importlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from frontload.launch.text.tables import make_table, open_console, print_table
from frontload.recipes.errors import RecipeError
from frontload.recipes.facts.gemms import Gemm, check_precision, list_gemms
from frontload.recipes.facts.pattern import check_model
from frontload.recipes.grammar.load import find_recipe, load_recipe, nearest, recipe_names
from frontload.recipes.machines.placement import Placement
from frontload.recipes.machines.precision import PRECISIONS, Precision, find_precision
from frontload.recipes.schema import Model

if TYPE_CHECKING:
    from frontload.megatron_ext.inference.emulate import PrecisionError


def add_arguments(one: argparse.ArgumentParser) -> None:
    """Adds what `precision` takes."""
    one.add_argument(
        "model", metavar="MODEL", help="a name under recipes/models, or a path ending in .yaml"
    )
    one.add_argument(
        "--precision", action="append", help="one to show; may be repeated (default all)"
    )
    one.add_argument(
        "--tensor-parallel", type=int, default=1, help="ranks that cut the GEMMs (default 1)"
    )
    one.add_argument("--emulate", action="store_true", help="run the model here in each precision")
    one.add_argument(
        "--rows", type=int, default=2, help="sequences of the emulated batch (default 2)"
    )
    one.add_argument(
        "--sequence-tokens", type=int, default=128, help="tokens of one of them (default 128)"
    )
    one.add_argument("--seed", type=int, default=1, help="of weights and tokens (default 1)")
    one.add_argument("--json", action="store_true", help="print everything as JSON")
    one.set_defaults(run=precision)


def precision(options: argparse.Namespace) -> int:
    """Prints the table of GEMMs and, if asked, the errors.

    Raises: RecipeError for an unknown model or precision, and for a model that cannot run in it.
    """
    model = _load(options.model, options.overrides)
    chosen = [find_precision(name) for name in options.precision or PRECISIONS]
    for name in ("rows", "sequence_tokens", "tensor_parallel"):
        if getattr(options, name) < 1:
            raise RecipeError(
                f"precision --{name.replace('_', '-')}",
                found=f"is {getattr(options, name)}",
                rule="it is 1 or more",
                do="write e.g. 1",
            )
    tensor = options.tensor_parallel
    gemms: dict[str, list[Gemm]] = {}
    for one in chosen:
        if options.precision:
            check_precision(model, one, Placement(tensor_parallel=tensor))
        gemms[one.name] = list_gemms(model, one, tensor_parallel=tensor)
    errors: list[Any] = []
    if options.emulate:
        importlib.import_module("frontload.megatron_ext.cpu").prepare()
        module: Any = importlib.import_module("frontload.megatron_ext.inference.emulate")
        errors = module.emulate_precisions(
            model,
            tuple(gemms),
            rows=options.rows,
            sequence_tokens=options.sequence_tokens,
            seed=options.seed,
        )
    if options.json:
        found = {name: [asdict(gemm) for gemm in listed] for name, listed in gemms.items()}
        print(json.dumps({"gemms": found, "errors": [asdict(one) for one in errors]}, indent=1))
        return 0
    console = open_console()
    _show_gemms(console, chosen, gemms)
    if errors:
        _show_errors(console, errors, options)
    return 0


def _show_gemms(
    console: Console, chosen: Sequence[Precision], gemms: dict[str, list[Gemm]]
) -> None:
    table = make_table("GEMMs of a rank, inputs x outputs; formats of forward/gradient", "layer")
    for name in ("kind", "first", "second", *gemms):
        table.add_column(name, no_wrap=True)
    first = gemms[chosen[0].name]
    for layer in dict.fromkeys(gemm.layer for gemm in first):
        places = [place for place, gemm in enumerate(first) if gemm.layer == layer]
        products = [first[at] for at in places]
        words = [f"{one.name} {one.inputs} x {one.outputs}" for one in products]
        table.add_row(
            "-" if layer < 0 else str(layer),
            products[0].kind,
            *(words if len(words) == 2 else (words[0], "")),
            *(listed[places[0]].formats for listed in gemms.values()),
        )
    print_table(console, table)
    for one in chosen:
        listed = gemms[one.name]
        work = sum(gemm.inputs * gemm.outputs for gemm in listed if gemm.is_fp8)
        whole = sum(gemm.inputs * gemm.outputs for gemm in listed)
        count = sum(gemm.is_fp8 for gemm in listed)
        console.print(
            f"{one.name}: {count} of {len(listed)} GEMMs are FP8, {work / whole:.0%} of their "
            f"operations. Source: {one.source}"
        )
    console.print("embedding, convolution, scan, attention scores and norms are never FP8\n")


def _show_errors(
    console: Console, errors: "Sequence[PrecisionError]", options: argparse.Namespace
) -> None:
    title = "relative error against fp32, mean over the layers of a kind"
    table = make_table(title, "kind", "output", "gradient", "precision", "loss")
    for one in errors:
        for kind in dict.fromkeys(layer.kind for layer in one.layers):
            values = [f"{one.of_kind(kind, part):.2e}" for part in ("output", "gradient")]
            table.add_row(kind, *values, one.precision, f"{one.loss:.5f}")
        table.add_section()
    print_table(console, table)
    console.print(
        f"emulated: fresh weights of seed {options.seed}, {options.rows} x "
        f"{options.sequence_tokens} random tokens; operands rounded, sums in float32; errors "
        "add up from layer to layer\n"
    )


def _load(name: str, overrides: Sequence[str]) -> Model:
    found = find_recipe("models", name)
    if not name.endswith(".yaml") and found is None:
        raise RecipeError(
            f"precision {name}",
            found="no such model",
            rule="a model is a name under recipes/models or a path ending in .yaml",
            do=nearest(name, recipe_names("models")),
        )
    model = load_recipe(found or Path(name), Model, overrides=overrides).value
    check_model(model)
    return model
