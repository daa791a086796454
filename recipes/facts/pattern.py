"""The layer pattern: its letters, and how a model splits over ranks. No torch."""

from dataclasses import fields
from enum import Enum

from frontload.recipes.errors import RecipeError
from frontload.recipes.machines.placement import Placement
from frontload.recipes.schema import Model

NUM_CONV_TAPS = 4  # megatron/core/ssm/mamba_mixer.py MambaMixer(d_conv=4)


class Layer(Enum):
    """A layer kind that this engine builds, by Megatron's letter."""

    MAMBA = "M"
    ATTENTION = "*"
    MLP = "-"


# The rest of Megatron's grammar (models/hybrid/hybrid_layer_allocation.py, 0.19.2): name, hint.
_REFUSED = {
    "G": ("gated delta net", "the nearest layer here is M (Mamba-2)"),
    "D": ("sparse attention", "the nearest layer here is * (attention)"),
    "+": ("latent attention", "the nearest layer here is * (attention)"),
    "E": ("mixture of experts", "the nearest layer here is - (MLP)"),
    "|": ("pipeline stage border", "leave it out and set pipeline_parallel in the placement"),
    "/": ("multi-token prediction", "leave out everything from / on"),
}
_NEAREST = {"m": "M", "A": "*", "a": "*", "x": "*", "X": "*", "_": "-", "F": "-", "f": "-"}


def parse_pattern(pattern: str) -> tuple[Layer, ...]:
    """Reads one letter a layer.

    Raises: RecipeError for an empty pattern, a letter of Megatron's grammar that is not built
        here (by its name), or any other character (with the nearest letter).
    """
    known = "M (Mamba-2), * (attention), - (MLP)"
    if not pattern:
        raise RecipeError(
            "model.pattern", found="is empty", rule=f"letters are {known}", do='write e.g. "M-M*-"'
        )
    letters = {layer.value: layer for layer in Layer}
    for index, letter in enumerate(pattern):
        if letter in letters:
            continue
        name, hint = _REFUSED.get(letter, ("", ""))
        if not name:
            nearest = _NEAREST.get(letter)
            hint = f"did you mean {nearest}?" if nearest else "write one of these letters"
        found = f"layer {index} of {pattern!r} is {letter!r}" + (f" ({name})" if name else "")
        raise RecipeError("model.pattern", found=found, rule=f"letters are {known}", do=hint)
    return tuple(letters[letter] for letter in pattern)


def check_model(model: Model) -> None:
    """Checks the numbers of a model, alone and against each other.

    Raises: RecipeError naming the field, or the two fields that do not fit.
    """
    parse_pattern(model.pattern)
    for field in fields(model):
        size = getattr(model, field.name)
        if type(size) in (int, float) and not size > 0:
            raise RecipeError(
                f"model.{field.name}",
                found=f"is {size}",
                rule="sizes of a model are above 0",
                do="write 1 or more",
            )
    for name, of in (
        ("num_attention_heads", "num_query_groups"),
        ("mamba_num_heads", "mamba_num_groups"),
    ):
        count, groups = getattr(model, name), getattr(model, of)
        if count % groups:
            raise RecipeError(
                f"model.{name}",
                found=f"is {count} with model.{of} {groups}",
                rule=f"{of} must divide {name}",
                do=f"change one of them (divisors of {count}: {_divisors(count)})",
            )


def short_ends(num_layers: int, num_stages: int) -> tuple[int, ...]:
    """Layers a stage where they do not divide: equal in the middle, fewer at both ends.

    The ends also hold the embedding and the output layer. Where no such cut exists, the middle
    stages take the layers that are left over.

    Source: megatron-core 0.16's num_layers_in_first/last_pipeline_stage knows only this form; 52
        layers on 8 stages are 5, 7, 7, 7, 7, 7, 7, 5.
    """
    even, middle = num_layers // num_stages, num_stages - 2
    if num_layers % num_stages and middle > 0:
        for end in range(even, 0, -1):
            if (num_layers - 2 * end) % middle == 0:
                return (end, *(middle * [(num_layers - 2 * end) // middle]), end)
    counts = [even] * num_stages
    first = (num_stages - num_layers % num_stages) // 2
    for stage in range(first, first + num_layers % num_stages):
        counts[stage] += 1
    return tuple(counts)


def split_pipeline(model: Model, placement: Placement) -> tuple[str, ...]:
    """Cuts the pattern into one part a pipeline stage, as `pipeline_layers` says or evenly.

    Raises: RecipeError if the stages do not divide the layers, or the stated parts do not add up.
    """
    num_layers, stages = len(parse_pattern(model.pattern)), placement.pipeline_parallel
    counts = placement.pipeline_layers
    if not counts and (stages < 1 or num_layers % stages):
        do = f"use one of {_divisors(num_layers)}"
        if 1 < stages <= num_layers:
            do += f", or write placement.pipeline_layers {list(short_ends(num_layers, stages))}"
        raise RecipeError(
            "placement.pipeline_parallel",
            found=f"is {stages} with {num_layers} layers ({model.pattern})",
            rule="pipeline stages hold the same number of layers unless pipeline_layers says",
            do=do,
        )
    counts = counts or stages * (num_layers // stages,)
    if len(counts) != stages or sum(counts) != num_layers or min(counts) < 1:
        fitting = list(short_ends(num_layers, stages)) if 1 <= stages <= num_layers else []
        raise RecipeError(
            "placement.pipeline_layers",
            found=f"is {list(counts)}, {sum(counts)} layers on {len(counts)} stages, with "
            f"pipeline_parallel {stages} and {num_layers} layers ({model.pattern})",
            rule="it names the layers of every stage, each at least 1, and all layers",
            do=f"write e.g. {fitting}" if fitting else "use fewer stages",
        )
    starts = [sum(counts[:stage]) for stage in range(stages)]
    return tuple(
        model.pattern[start : start + count] for start, count in zip(starts, counts, strict=True)
    )


def check_layout(model: Model, placement: Placement) -> None:
    """Checks that the model can be cut as the placement asks.

    Raises: RecipeError naming the axis, the field it does not divide, and the sizes that fit.
    """
    check_model(model)
    split_pipeline(model, placement)
    layers, tp = parse_pattern(model.pattern), placement.tensor_parallel
    cut = {"vocab_size": model.vocab_size}
    if Layer.ATTENTION in layers:
        cut["num_query_groups"] = model.num_query_groups
    if Layer.MAMBA in layers:
        cut["mamba_num_heads"] = model.mamba_num_heads
        cut["mamba_num_groups"] = model.mamba_num_groups
    if Layer.MLP in layers:
        cut["ffn_hidden_size"] = model.ffn_hidden_size
    fitting = [size for size in _divisors(min(cut.values())) if not any(_rest(cut, size))]
    for name, count in cut.items():
        if tp < 1 or count % tp:
            raise RecipeError(
                "placement.tensor_parallel",
                found=f"is {tp} with model.{name} {count}",
                rule=f"tensor_parallel must divide {name}",
                do=f"use one of {fitting}",
            )
    ranks = tp * placement.pipeline_parallel * placement.context_parallel
    if placement.world_size % ranks:
        raise RecipeError(
            "placement",
            found=f"has {placement.world_size} ranks for tp x pp x cp = {ranks}",
            rule="tp x pp x cp must divide num_nodes x ranks_per_node",
            do=f"use a multiple of {ranks} ranks",
        )


def _divisors(count: int) -> list[int]:
    return [size for size in range(1, count + 1) if count % size == 0]


def _rest(cut: dict[str, int], size: int) -> list[int]:
    return [count % size for count in cut.values()]
