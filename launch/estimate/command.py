"""The command `frontload estimate`: what a model costs in memory, time and money before it runs."""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from frontload.launch.estimate import show
from frontload.launch.estimate.answer import Answer, LayerCost, Workload, as_json
from frontload.megatron_ext.sizing.search import (
    LayoutEstimate,
    Refused,
    estimate_layout,
    search_layouts,
)
from frontload.recipes.errors import RecipeError
from frontload.recipes.facts.census import (
    BACKWARD_FACTOR,
    count_layer_parameters,
    count_parameters,
    layer_work,
    output_work,
)
from frontload.recipes.facts.pattern import Layer, check_model, parse_pattern
from frontload.recipes.grammar.load import find_recipe, load_recipe, nearest, recipe_names
from frontload.recipes.machines.precision import find_precision, refuse_mixing
from frontload.recipes.runs.load import KINDS, load_placement, load_training, split_overrides
from frontload.recipes.schema import Model
from frontload.recipes.study.checks import check_study
from frontload.recipes.study.schema import StudyRecipe

TRAINING = ("pretrain", "sft")
PARTS = ("pretraining", "sft")
PRECISION = "precision."
LONGEST = 8_192  # of a bare model: the paper's


def add_arguments(one: argparse.ArgumentParser) -> None:
    """Adds what `estimate` takes."""
    one.add_argument(
        "recipe",
        metavar="RECIPE",
        help="a name under recipes/training, recipes/models or recipes/studies, or a path: files "
        "named pretrain_* and sft_* are training recipes, those in a folder `models` are models, "
        "others are studies",
    )
    one.add_argument(
        "--placement",
        required=True,
        help="a name under recipes/placements, or a path ending in .yaml",
    )
    one.add_argument("--part", choices=PARTS, default=PARTS[0], help="which part of a study")
    one.add_argument(
        "--sequence-tokens",
        type=int,
        help=f"of a bare model (default {LONGEST:_}, or the model's longest if that is less)",
    )
    one.add_argument(
        "--batch-sequences", type=int, default=768, help="of a bare model (default 768)"
    )
    one.add_argument("--tokens", type=int, help="budget in tokens, instead of the recipe's")
    one.add_argument("--precision", help="instead of the recipe's (bf16 for a bare model)")
    one.add_argument("--layouts", type=int, default=10, help="legal layouts to print (default 10)")
    one.add_argument("--gemms", action="store_true", help="list every GEMM with its format")
    one.add_argument("--json", action="store_true", help="print everything as JSON")
    one.set_defaults(run=estimate)


def estimate(options: argparse.Namespace) -> int:
    """Prints the estimate.

    Raises: RecipeError for wrong input; after printing what is legal if the layout is not.
    """
    mine, placed = split_overrides(options.overrides)
    mixed = [text.removeprefix(PRECISION) for text in mine if text.startswith(PRECISION)]
    mine = [text for text in mine if not text.startswith(PRECISION)]
    placement = load_placement(options.placement, placed).value
    workload = read_workload(options, mine)
    precision = find_precision(workload.precision)
    refuse_mixing(precision, **dict(text.split("=", 1) for text in mixed))
    check_model(workload.model)
    asked, switched, error = None, None, None
    flipped = replace(placement, recompute=not placement.recompute)
    try:
        asked, switched = (
            estimate_layout(workload.model, workload, placement=one, precision=precision)
            for one in (placement, flipped)
        )
    except RecipeError as refused:
        error = refused
    legal: list[LayoutEstimate] = []
    reasons: list[Refused] = []
    if placement.gpus is not None:
        legal, reasons = search_layouts(
            workload.model, workload, placement=placement, precision=precision
        )
    answer = Answer(
        workload=workload,
        costs=layer_costs(workload.model, workload.sequence_tokens),
        precision=precision,
        placement=placement,
        asked=asked,
        switched=switched,
        layouts=tuple(legal),
        refused=tuple(reasons),
    )
    if options.json:
        print(json.dumps(as_json(answer, gemms=options.gemms), indent=1))
    else:
        show.show(answer, num_layouts=options.layouts, gemms=options.gemms)
    if error is not None:
        raise error
    return 0


def read_workload(options: argparse.Namespace, overrides: list[str]) -> Workload:
    """The model, batch and budget that a recipe of any of the three kinds states.

    Raises: RecipeError for an unknown name, and for a stage that this command cannot price.
    """
    path, folder = _find(options.recipe)
    if folder == "training":
        kind = path.stem.partition("_")[0]
        if kind not in TRAINING:
            raise RecipeError(
                f"estimate {options.recipe}",
                found=f"is a recipe of kind '{kind}'",
                rule="training on a fixed batch is estimated: " + ", ".join(TRAINING),
                do="name a model instead, e.g. hybrid_8b",
            )
        found: Any = load_training(options.recipe, overrides).value
        tokens, model = found.total_tokens, found.model
    elif folder == "studies":
        loaded = load_recipe(path, StudyRecipe, overrides=overrides)
        check_study(loaded)
        study = loaded.value
        found, model = getattr(study, options.part), study.model
        tokens = found.tokens
    else:
        model = load_recipe(path, Model, overrides=overrides).value
        found, tokens = _bare(options, model), 0
    workload = Workload(
        name=path.stem,
        model=model,
        sequence_tokens=found.sequence_tokens,
        global_batch_sequences=found.global_batch_sequences,
        tokens=tokens if options.tokens is None else options.tokens,
        precision=options.precision or found.precision,
        reset_at_document_boundaries=found.reset_at_document_boundaries,
    )
    for name in ("sequence_tokens", "global_batch_sequences", "tokens"):
        least = 0 if name == "tokens" else 1
        if getattr(workload, name) < least:
            raise RecipeError(
                f"estimate {options.recipe}: {name}",
                found=f"is {getattr(workload, name)}",
                rule=f"it is {least} or more",
                do=f"write e.g. {least or 1_000_000_000}",
            )
    return workload


def layer_costs(model: Model, sequence_tokens: int) -> tuple[LayerCost, ...]:
    """Parameters and operations of embedding, each layer kind, and output."""
    count, letters = count_parameters(model), parse_pattern(model.pattern)
    found = [_cost("embedding", 1, count.embedding, work=0.0)]
    for layer in Layer:
        number = letters.count(layer)
        work = number * layer_work(model, layer, sequence_tokens).total
        found.append(
            _cost(layer.name.lower(), number, count_layer_parameters(model, layer), work=work)
        )
    output = count.output + count.final_norm
    return (*found, _cost("output and norm", 1, output, work=output_work(model).total))


def _bare(options: argparse.Namespace, model: Model) -> argparse.Namespace:
    """The batch of a model that is named alone: the flags'.

    Raises: RecipeError for a sequence that is longer than the model takes.
    """
    asked, longest = options.sequence_tokens, model.max_sequence_tokens
    if asked is not None and asked > longest:
        raise RecipeError(
            f"estimate {options.recipe} --sequence-tokens",
            found=f"is {asked}",
            rule=f"the model's max_sequence_tokens is {longest}",
            do=f"write at most {longest}, or add max_sequence_tokens={asked}",
        )
    return argparse.Namespace(
        sequence_tokens=min(LONGEST, longest) if asked is None else asked,
        global_batch_sequences=options.batch_sequences,
        precision="bf16",
        reset_at_document_boundaries=True,
    )


def _cost(kind: str, layers: int, parameters: int, *, work: float) -> LayerCost:
    return LayerCost(
        kind=kind,
        layers=layers,
        parameters_a_layer=parameters,
        parameters=layers * parameters,
        forward_flops=work,
        training_flops=(1.0 + BACKWARD_FACTOR) * work,
    )


def _find(name: str) -> tuple[Path, str]:
    """The file of a recipe, and the folder of recipes that it belongs to."""
    if name.endswith(".yaml"):
        path = Path(name)
        kind = path.stem.partition("_")[0]
        folder = "training" if kind in KINDS else path.absolute().parent.name
        return path, folder if folder in ("training", "models") else "studies"
    folders = ("training", "models", "studies")
    for folder in folders:
        path = find_recipe(folder, name)
        if path is not None:
            return path, folder
    names = [found for folder in folders for found in recipe_names(folder)]
    raise RecipeError(
        f"estimate {name}",
        found="no such recipe",
        rule="a recipe is a name under recipes/training, models or studies, or a .yaml path",
        do=nearest(name, names),
    )
