"""What a model holds and does: parameters and floating-point operations by layer kind. No torch."""

from dataclasses import dataclass

from frontload.recipes.facts.pattern import NUM_CONV_TAPS, Layer, parse_pattern
from frontload.recipes.schema import Model

BACKWARD_FACTOR = 2.0  # products of the backward pass in units of the forward pass


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


@dataclass(frozen=True, kw_only=True)
class Work:
    """Floating-point operations of one token in one forward pass, by what does them."""

    projections: float  # products with weights
    mixing: float  # between tokens: attention's two products, the chunked scan's four
    convolution: float  # the taps of a Mamba layer; no matrix product

    @property
    def total(self) -> float:
        return self.projections + self.mixing + self.convolution


def count_layer_parameters(model: Model, layer: Layer) -> int:
    """Parameters of one layer, its norm before it included."""
    width = model.hidden_size
    if layer is Layer.MLP:
        return width + 2 * width * model.ffn_hidden_size
    if layer is Layer.ATTENTION:
        heads = 2 * model.num_attention_heads + 2 * model.num_query_groups  # q, output; k, v
        return width + heads * model.kv_channels * width
    inner, conv = mamba_inner(model), mamba_conv_channels(model)
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


def count_masked(model: Model, sparsity: float) -> int:
    """Weights that stay 0 in sparse pretraining: a share of each matrix of each layer."""
    width, inner = model.hidden_size, mamba_inner(model)
    query = model.num_attention_heads * model.kv_channels
    sizes = {
        Layer.MLP: (width * model.ffn_hidden_size, model.ffn_hidden_size * width),
        Layer.ATTENTION: (
            (query + 2 * model.num_query_groups * model.kv_channels) * width,
            query * width,
        ),
        Layer.MAMBA: (
            (inner + mamba_conv_channels(model) + model.mamba_num_heads) * width,
            inner * width,
        ),
    }
    layers = parse_pattern(model.pattern)
    return sum(masked_of(size, sparsity) for layer in layers for size in sizes[layer])


def masked_of(size: int, sparsity: float) -> int:
    """How many of a matrix's weights a share of them is."""
    return round(size * sparsity)


def layer_work(model: Model, layer: Layer, sequence_tokens: int) -> Work:
    """Operations a token of one layer, over the tokens of one sequence.

    Attention is causal: a token sees (S + 1) / 2 tokens on average. Norms and activations are not
    counted, document resets are not credited.
    """
    width = model.hidden_size
    if layer is Layer.MLP:
        return Work(projections=4.0 * width * model.ffn_hidden_size, mixing=0.0, convolution=0.0)
    if layer is Layer.ATTENTION:
        heads = model.num_attention_heads + model.num_query_groups
        return Work(
            projections=4.0 * width * model.kv_channels * heads,
            mixing=2.0 * model.num_attention_heads * model.kv_channels * (sequence_tokens + 1),
            convolution=0.0,
        )
    inner, conv, state = mamba_inner(model), mamba_conv_channels(model), model.mamba_state_dim
    chunk = min(model.mamba_chunk_tokens, sequence_tokens)
    scores = chunk * model.mamba_num_groups * state  # C B^T of a chunk
    return Work(
        projections=2.0 * (width * (inner + conv + model.mamba_num_heads) + inner * width),
        mixing=2.0 * (scores + inner * chunk + 2 * inner * state),
        convolution=2.0 * conv * NUM_CONV_TAPS,
    )


def mixer_values(model: Model, layer: Layer, sequence_tokens: int) -> float:
    """Values a token that a Mamba layer's kernels move between its two projections, forward.

    The convolution reads and writes its channels; the scan reads its inputs three times (state of a
    chunk, scores, result), writes the result, and moves the states of a chunk four times; the gated
    norm reads two and writes one. Other layers: their norms are in the rate of the products.
    """
    if layer is not Layer.MAMBA:
        return 0.0
    inner, conv = mamba_inner(model), mamba_conv_channels(model)
    chunk = min(model.mamba_chunk_tokens, sequence_tokens)
    return 2.0 * conv + 7.0 * inner + 4.0 * inner * model.mamba_state_dim / chunk


def output_work(model: Model) -> Work:
    """Operations a token of the product with the output table."""
    table = float(model.hidden_size * model.vocab_size)
    return Work(projections=2.0 * table, mixing=0.0, convolution=0.0)


def forward_flops_per_token(model: Model, sequence_tokens: int) -> float:
    """Multiplications and additions of one forward pass, over the tokens of one sequence."""
    layers = parse_pattern(model.pattern)
    work = [layer_work(model, layer, sequence_tokens).total for layer in layers]
    return sum(work) + output_work(model).total


def training_flops_per_token(model: Model, sequence_tokens: int) -> float:
    """Forward and backward; the backward pass costs twice the forward pass."""
    return (1.0 + BACKWARD_FACTOR) * forward_flops_per_token(model, sequence_tokens)


def mamba_inner(model: Model) -> int:
    """Channels of a Mamba layer between its two projections."""
    return model.mamba_num_heads * model.mamba_head_dim


def mamba_conv_channels(model: Model) -> int:
    """Channels that a Mamba layer convolves: the inner ones, B and C."""
    return mamba_inner(model) + 2 * model.mamba_num_groups * model.mamba_state_dim
