"""The layer pattern: its letters, what each layer costs, and how it splits over ranks. No torch."""

from dataclasses import dataclass
from enum import Enum

from frontload.recipes.errors import RecipeError
from frontload.recipes.placement import Placement
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


@dataclass(frozen=True, kw_only=True)
class ParameterCount:
    """Parameters of a whole model by where they are."""

    embedding: int
    mamba: int
    attention: int
    mlp: int
    final_norm: int
    output: int  # 0 when the output layer is the embedding

    @property
    def total(self) -> int:
        parts = (self.embedding, self.mamba, self.attention, self.mlp, self.final_norm, self.output)
        return sum(parts)


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


def count_layer_parameters(model: Model, layer: Layer) -> int:
    """Parameters of one layer, its norm before it included."""
    width = model.hidden_size
    if layer is Layer.MLP:
        return width + 2 * width * model.ffn_hidden_size
    if layer is Layer.ATTENTION:
        heads = 2 * model.num_attention_heads + 2 * model.num_query_groups  # q, output; k, v
        return width + heads * model.kv_channels * width
    inner, conv = _mamba_inner(model), _mamba_conv_channels(model)
    projections = width * (inner + conv + model.mamba_num_heads) + inner * width
    return width + projections + conv * (NUM_CONV_TAPS + 1) + 3 * model.mamba_num_heads + inner


def count_parameters(model: Model) -> ParameterCount:
    """Counts every parameter of the model, exactly."""
    layers = parse_pattern(model.pattern)
    of_kind = {kind: layers.count(kind) * count_layer_parameters(model, kind) for kind in Layer}
    table = model.vocab_size * model.hidden_size
    return ParameterCount(
        embedding=table,
        mamba=of_kind[Layer.MAMBA],
        attention=of_kind[Layer.ATTENTION],
        mlp=of_kind[Layer.MLP],
        final_norm=model.hidden_size,
        output=0 if model.tie_embeddings else table,
    )


def forward_flops_per_token(model: Model, sequence_tokens: int) -> float:
    """Multiplications and additions of one forward pass, over the tokens of one sequence.

    Counts every matrix product and the convolution, not norms and activations. Attention is
    causal: a token sees (S + 1) / 2 tokens on average. Document resets are not credited.
    """
    heads_mamba, inner = model.mamba_num_heads, _mamba_inner(model)
    conv, state = _mamba_conv_channels(model), model.mamba_state_dim
    chunk = min(model.mamba_chunk_tokens, sequence_tokens)
    width = model.hidden_size
    scores = chunk * model.mamba_num_groups * state  # C B^T of a chunk
    mamba = (
        width * (inner + conv + heads_mamba) + inner * width + conv * NUM_CONV_TAPS
        + scores + inner * chunk + 2 * inner * state
    )  # fmt: skip
    attention = (
        2 * width * model.kv_channels * (model.num_attention_heads + model.num_query_groups)
        + model.num_attention_heads * model.kv_channels * (sequence_tokens + 1)
    )  # fmt: skip
    per_layer = {
        Layer.MAMBA: mamba,
        Layer.ATTENTION: attention,
        Layer.MLP: 2 * width * model.ffn_hidden_size,
    }
    layers = sum(per_layer[layer] for layer in parse_pattern(model.pattern))
    return 2.0 * (layers + width * model.vocab_size)


def training_flops_per_token(model: Model, sequence_tokens: int) -> float:
    """Forward and backward; the backward pass costs twice the forward pass."""
    return 3.0 * forward_flops_per_token(model, sequence_tokens)


def check_model(model: Model) -> None:
    """Checks the numbers of a model against each other.

    Raises: RecipeError naming the two fields that do not fit.
    """
    parse_pattern(model.pattern)
    for name, of in (
        ("num_attention_heads", "num_query_groups"),
        ("mamba_num_heads", "mamba_num_groups"),
    ):
        count, groups = getattr(model, name), getattr(model, of)
        if groups < 1 or count % groups:
            raise RecipeError(
                f"model.{name}",
                found=f"is {count} with model.{of} {groups}",
                rule=f"{of} must divide {name}",
                do=f"change one of them (divisors of {count}: {_divisors(count)})",
            )


def split_pipeline(model: Model, pipeline_parallel: int) -> tuple[str, ...]:
    """Cuts the pattern into one part of equal length a pipeline stage.

    Raises: RecipeError if the stages do not divide the layers.
    """
    num_layers = len(parse_pattern(model.pattern))
    if pipeline_parallel < 1 or num_layers % pipeline_parallel:
        raise RecipeError(
            "placement.pipeline_parallel",
            found=f"is {pipeline_parallel} with {num_layers} layers ({model.pattern})",
            rule="pipeline stages hold the same number of layers",
            do=f"use one of {_divisors(num_layers)}",
        )
    size = num_layers // pipeline_parallel
    return tuple(model.pattern[start : start + size] for start in range(0, num_layers, size))


def check_layout(model: Model, placement: Placement) -> None:
    """Checks that the model can be cut as the placement asks.

    Raises: RecipeError naming the axis, the field it does not divide, and the sizes that fit.
    """
    check_model(model)
    split_pipeline(model, placement.pipeline_parallel)
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


def _mamba_inner(model: Model) -> int:
    return model.mamba_num_heads * model.mamba_head_dim


def _mamba_conv_channels(model: Model) -> int:
    return _mamba_inner(model) + 2 * model.mamba_num_groups * model.mamba_state_dim


def _divisors(count: int) -> list[int]:
    return [size for size in range(1, count + 1) if count % size == 0]


def _rest(cut: dict[str, int], size: int) -> list[int]:
    return [count % size for count in cut.values()]
