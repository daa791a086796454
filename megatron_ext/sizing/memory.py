"""Memory of one GPU by part: static state, activations of a micro-batch, the peak. No torch.

Three sets of layers are known. `torch`: the plain torch layers of this engine, tensor by tensor as
autograd keeps them on a CPU, checked by measurement. `mamba_ssm`: the same around mamba-ssm's
mixer, whose saved bytes are measured with its kernels interpreted. `transformer_engine`: its
linears and the same mixer, from reading what their functions save (`ctx.save_for_backward`); not
measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from frontload.recipes.facts.census import count_layer_parameters, mamba_conv_channels, mamba_inner
from frontload.recipes.facts.gemms import layer_shapes
from frontload.recipes.facts.layout import Batch, Batching
from frontload.recipes.facts.pattern import NUM_CONV_TAPS, Layer, parse_pattern, split_pipeline
from frontload.recipes.machines.cluster import MAMBA_SSM, TORCH, TRANSFORMER_ENGINE
from frontload.recipes.machines.placement import Placement
from frontload.recipes.machines.precision import Precision
from frontload.recipes.schema import Model

BYTES = {"fp32": 4, "bf16": 2}
GIB = 2.0**30


@dataclass(frozen=True, kw_only=True)
class Saved:
    """Bytes a token that one layer keeps from its forward to its backward pass."""

    activations: float
    states: float = 0.0  # of the scan, one matrix [inner, N] a chunk
    backward: float = 0.0  # on top, only while this layer's backward pass runs


@dataclass(frozen=True, kw_only=True)
class StageMemory:
    """Bytes of one GPU of one pipeline stage."""

    stage: int
    layers: str  # its part of the pattern
    weights: float
    gradients: float
    optimizer: float
    activations: float  # of all micro-batches in flight
    states: float
    logits: float
    backward: float  # beyond what the layers keep, when their backward passes run
    reserved: float

    @property
    def static(self) -> float:
        """What is there between steps."""
        return self.weights + self.gradients + self.optimizer

    @property
    def total(self) -> float:
        """The peak: the loss is done before the first layer's backward pass begins."""
        kept = self.static + self.activations + self.states + self.reserved
        return kept + max(self.logits, self.backward)


@dataclass(frozen=True, kw_only=True)
class ModelCut:
    """What decides the bytes of a token: how it is computed, and on how many ranks."""

    precision: Precision
    kernels: str  # a name of recipes/machines/cluster.py
    tensor_parallel: int = 1
    sequence_parallel: bool = False
    has_resets: bool = False
    sequence_tokens: int = 1

    @property
    def size(self) -> int:
        """Bytes of a value in the dtype of weights and activations."""
        return BYTES[self.precision.dtype]

    @property
    def outer_ranks(self) -> int:
        """Ranks that share what lies between the layers: norms and the inputs of linears."""
        return self.tensor_parallel if self.sequence_parallel else 1


def layer_saved(model: Model, layer: Layer, cut: ModelCut, *, is_fp8: bool = False) -> Saved:
    """What one layer keeps of a token on one rank."""
    if cut.kernels == TRANSFORMER_ENGINE:
        return _kernels_saved(model, layer, cut, is_fp8=is_fp8)
    if cut.kernels == MAMBA_SSM and layer is Layer.MAMBA:
        return _mixer_saved(model, cut, norm=_torch_norm(model, cut), stored=cut.size)
    return _torch_saved(model, layer, cut)


def _torch_norm(model: Model, cut: ModelCut) -> float:
    """An RMS norm (rms_norm.py: normalised tokens and root, float32) and the linear's input."""
    return (4 * model.hidden_size + 4 + cut.size * model.hidden_size) / cut.outer_ranks


def _torch_saved(model: Model, layer: Layer, cut: ModelCut) -> Saved:
    size, tp, norm = cut.size, cut.tensor_parallel, _torch_norm(model, cut)
    if layer is Layer.MLP:  # the root and the square
        wide = size * model.ffn_hidden_size / tp
        return Saved(activations=norm + 2 * wide, backward=2 * wide)
    if layer is Layer.ATTENTION:
        heads, keys = model.num_attention_heads, 2 * model.num_query_groups
        width = size * model.kv_channels
        kept = (3 * heads + keys) * width + 4 * heads  # qkv, queries again, result; log-sum-exp
        if cut.has_resets and cut.kernels == MAMBA_SSM:
            # a query, a key and a value of each head; the result by documents and by rows
            kept = 5 * heads * width + 4 * heads
        return Saved(activations=norm + kept / tp, backward=(2 * heads + keys) * width / tp)
    inner, conv = mamba_inner(model), mamba_conv_channels(model)
    heads, groups = model.mamba_num_heads, model.mamba_num_groups
    both, chunk = groups * model.mamba_state_dim, _chunk(model, cut)
    in_model_dtype = (
        (inner + conv + heads)  # the whole projection, held by the gate
        + 2 * conv  # the convolution's input and output
        + 3 * inner  # y, the gate after silu, the input of out_proj
    )
    in_float32 = (
        inner  # x after silu
        + (4 if cut.has_resets else 2) * both  # B and C in chunks; without what resets hide
        + chunk * groups  # scores
        + 3 * inner  # the scan's inputs, its sums, the normed y
        + 4 * heads  # dt before and after softplus, its weights
        + groups  # roots of the gated norm
    )
    states = 4 * inner * model.mamba_state_dim / chunk / tp
    # while the scan runs backwards: what comes after it is freed, its gradients are there
    gradients = 4 * (5 * inner + 2 * both + chunk * groups) + size * inner
    freed = 4 * inner + size * 4 * inner
    return Saved(
        activations=norm + (size * in_model_dtype + 4 * in_float32) / tp,
        states=2 * states,  # what enters a chunk, and what it adds
        backward=(gradients - freed) / tp + 3 * states,
    )


def _torch_masks(model: Model, layers: Sequence[Layer], cut: ModelCut) -> float:
    """Bytes a token of the masks of documents, which all layers of a stage share."""
    if not cut.has_resets or cut.kernels != TORCH:
        return 0.0
    of_attention = cut.size * cut.sequence_tokens  # what is added to the scores of a query
    taps = cut.size * (NUM_CONV_TAPS - 1)  # is the token so far before it of the same document
    of_scan = 4 * (_chunk(model, cut) + 2)  # its chunk, and the states before and after it
    return of_attention * (Layer.ATTENTION in layers) + (taps + of_scan) * (Layer.MAMBA in layers)


def _kernels_saved(model: Model, layer: Layer, cut: ModelCut, *, is_fp8: bool) -> Saved:
    """TELayerNormColumnParallelLinear keeps its input, the root and the normed input; in FP8 the
    inputs of linears are kept as FP8."""
    size, tp, width = cut.size, cut.tensor_parallel, model.hidden_size
    stored = 1 if is_fp8 else size
    norm = (size * width + 4 + stored * width) / cut.outer_ranks
    if layer is Layer.MLP:
        wide = model.ffn_hidden_size / tp
        return Saved(activations=norm + (size + stored) * wide, backward=2 * size * wide)
    if layer is Layer.ATTENTION:
        heads, keys = model.num_attention_heads, 2 * model.num_query_groups
        channels = model.kv_channels / tp
        # qkv, queries again (attention.py copies them out of their groups), result, log-sum-exp
        kept = (3 * heads + keys) * size * channels + 4 * heads / tp
        kept += heads * stored * channels if is_fp8 else 0  # a copy; in bf16 it is the result
        return Saved(activations=norm + kept, backward=2 * (heads + keys) * size * channels)
    return _mixer_saved(model, cut, norm=norm, stored=stored)


def _mixer_saved(model: Model, cut: ModelCut, *, norm: float, stored: int) -> Saved:
    """Megatron's mixer on mamba-ssm's kernels; `stored` bytes a value of out_proj's input."""
    size, tp = cut.size, cut.tensor_parallel
    inner, conv = mamba_inner(model), mamba_conv_channels(model)
    # mamba_split_conv1d_scan_combined keeps the projection and its result before the gate, and
    # makes convolution and states again; then the gated norm's input, and out_proj's
    projected = inner + conv + model.mamba_num_heads
    kept = size * (projected + 2 * inner) + stored * inner
    # MambaMixer keeps states in the dtype of the weights unless mamba_training_ssm_states_dtype
    states = size * inner * model.mamba_state_dim / _chunk(model, cut) / tp
    return Saved(
        activations=norm + kept / tp,
        backward=2 * states + size * (projected + conv + 2 * inner) / tp,
    )


def _chunk(model: Model, cut: ModelCut) -> int:
    return min(model.mamba_chunk_tokens, cut.sequence_tokens)


def logits_bytes(model: Model, cut: ModelCut) -> float:
    """Bytes a token of the last stage for the final norm, logits and loss, at their peak.

    One tensor rank: torch's cross entropy holds log-probabilities and two gradients, float32.
    Several: Megatron's holds the logits and their exponentials, in place.
    """
    values = model.vocab_size / cut.tensor_parallel
    per_value = 12 if cut.tensor_parallel == 1 else 4 + cut.size * (cut.size < 4)
    return per_value * values + _torch_norm(model, cut) + 8


def stage_memory(
    model: Model, batch: Batch, *, placement: Placement, batching: Batching, precision: Precision
) -> list[StageMemory]:
    """Memory of one GPU of every pipeline stage."""
    cut = ModelCut(
        precision=precision,
        kernels=placement.kernels,
        tensor_parallel=placement.tensor_parallel,
        sequence_parallel=placement.sequence_parallel,
        has_resets=getattr(batch, "reset_at_document_boundaries", False),
        sequence_tokens=batch.sequence_tokens,
    )
    parts = split_pipeline(model, placement)
    tokens = batching.micro_sequences * batch.sequence_tokens
    found: list[StageMemory] = []
    first = 0
    for stage, part in enumerate(parts):
        in_flight = min(len(parts) - stage, batching.num_micro_batches)
        fp8 = [precision.is_fp8_layer(first + at, len(model.pattern)) for at in range(len(part))]
        saved = [
            layer_saved(model, layer, cut, is_fp8=is_fp8)
            for layer, is_fp8 in zip(parse_pattern(part), fp8, strict=True)
        ]
        backward = _tide(saved)
        kept, states = sum(one.activations for one in saved), sum(one.states for one in saved)
        masks = _torch_masks(model, parse_pattern(part), cut)
        if placement.recompute:  # a layer's input each, and one layer whole while it runs
            inputs = cut.size * model.hidden_size / cut.outer_ranks
            backward = _tide(saved, keep=inputs)
            kept, states = len(part) * inputs, 0.0
        is_last = stage == len(parts) - 1
        ends = 8 * in_flight if stage == 0 else 0.0  # the tokens that the embedding looked up
        weights = _stage_weights(model, part, placement, is_first=stage == 0, is_last=is_last)
        found.append(
            StageMemory(
                stage=stage,
                layers=part,
                weights=weights * cut.size + _fp8_copies(model, part, fp8, placement),
                gradients=weights * 4.0,  # summed in float32
                optimizer=_optimizer_bytes(weights, cut, placement, batching),
                activations=tokens * ((kept + masks) * in_flight + ends),
                states=tokens * states * in_flight,
                logits=tokens * logits_bytes(model, cut) if is_last else 0.0,
                backward=tokens * backward,
                reserved=placement.gpus.reserved_gib * GIB if placement.gpus else 0.0,
            )
        )
        first += len(part)
    return found


def _tide(saved: list[Saved], *, keep: float | None = None) -> float:
    """Most bytes a token, beyond those of all layers, while the backward pass frees them one by one
    from the end. With recomputation a layer keeps `keep` bytes until it runs again, whole."""
    whole = [one.activations + one.states for one in saved]
    kept = whole if keep is None else [keep] * len(saved)
    tides = [
        sum(kept[:at]) + full + one.backward
        for at, (one, full) in enumerate(zip(saved, whole, strict=True))
    ]
    return max(0.0, max(tides) - sum(kept))


def _optimizer_bytes(
    weights: float, cut: ModelCut, placement: Placement, batching: Batching
) -> float:
    """Two moments and, unless the weights are it, a float32 copy; cut over the replicas or not."""
    per_weight = 8.0 if cut.size == BYTES["fp32"] else 12.0
    replicas = batching.data_parallel if placement.distributed_optimizer else 1
    return weights * per_weight / replicas


def _stage_weights(
    model: Model, part: str, placement: Placement, *, is_first: bool, is_last: bool
) -> float:
    """Parameters of one rank; norms and the like that are not cut are counted as if they were."""
    table = model.vocab_size * model.hidden_size
    count = sum(count_layer_parameters(model, layer) for layer in parse_pattern(part))
    count += table if is_first else 0
    if is_last:
        count += model.hidden_size
        count += table if not (model.tie_embeddings and is_first) else 0
    return count / placement.tensor_parallel


def _fp8_copies(model: Model, part: str, fp8: list[bool], placement: Placement) -> float:
    """Transformer Engine keeps FP8 weights, both ways round, beside the bf16 ones."""
    count = 0
    for layer, is_fp8 in zip(parse_pattern(part), fp8, strict=True):
        if is_fp8:
            count += sum(
                inputs * outputs for inputs, outputs in layer_shapes(model, layer).values()
            )
    return 2.0 * count / placement.tensor_parallel
