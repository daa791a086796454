"""The matrix products of a model by layer, and the number format of each. No torch."""

from dataclasses import dataclass

from frontload.recipes.errors import RecipeError
from frontload.recipes.facts.census import mamba_conv_channels, mamba_inner
from frontload.recipes.facts.pattern import Layer, parse_pattern
from frontload.recipes.machines.cluster import KERNELS, MAMBA_SSM, TORCH, TRANSFORMER_ENGINE
from frontload.recipes.machines.placement import Placement
from frontload.recipes.machines.precision import Precision
from frontload.recipes.schema import Model

KERNEL_MULTIPLE = 8  # causal-conv1d's channels (ssd_combined.py:74), a head of flash attention
FP8_MULTIPLE = 16  # Transformer Engine's assert_dim_for_fp8_exec: cuBLAS's alignment for FP8


@dataclass(frozen=True, kw_only=True)
class Gemm:
    """One product of weights and activations, as one tensor rank computes it."""

    layer: int  # -1: the output layer
    kind: str
    name: str
    inputs: int  # of one rank
    outputs: int
    formats: str  # "bf16", or the FP8 formats of forward and gradient

    @property
    def is_fp8(self) -> bool:
        """It runs in FP8."""
        return self.formats.startswith("e")


def layer_shapes(model: Model, layer: Layer) -> dict[str, tuple[int, int]]:
    """Linear of the layer -> inputs and outputs over all ranks; the first is cut by its outputs."""
    width = model.hidden_size
    if layer is Layer.MLP:
        return {
            "linear_fc1": (width, model.ffn_hidden_size),
            "linear_fc2": (model.ffn_hidden_size, width),
        }
    if layer is Layer.ATTENTION:
        queries = model.num_attention_heads * model.kv_channels
        keys_values = 2 * model.num_query_groups * model.kv_channels
        return {"linear_qkv": (width, queries + keys_values), "linear_proj": (queries, width)}
    inner = mamba_inner(model)
    projected = inner + mamba_conv_channels(model) + model.mamba_num_heads
    return {"in_proj": (width, projected), "out_proj": (inner, width)}


def list_gemms(model: Model, precision: Precision, *, tensor_parallel: int = 1) -> list[Gemm]:
    """Every product with weights, in order; the convolution, the scan and the norms are none."""
    letters = parse_pattern(model.pattern)
    found: list[Gemm] = []
    for number, letter in enumerate(letters):
        formats = precision.dtype
        if precision.is_fp8_layer(number, len(letters)):
            formats = f"{precision.forward}/{precision.gradient}"
        for place, (name, (inputs, outputs)) in enumerate(layer_shapes(model, letter).items()):
            found.append(
                Gemm(
                    layer=number,
                    kind=letter.name.lower(),
                    name=name,
                    inputs=inputs if place == 0 else inputs // tensor_parallel,
                    outputs=outputs // tensor_parallel if place == 0 else outputs,
                    formats=formats,
                )
            )
    output = Gemm(
        layer=-1,
        kind="output",
        name="output_layer",
        inputs=model.hidden_size,
        outputs=model.vocab_size // tensor_parallel,
        formats=precision.dtype,
    )
    return [*found, output]


def check_layers(placement: Placement, precision: Precision) -> None:
    """Checks that the layers a placement asks for exist, and that they run in this precision.

    Raises: RecipeError for an unknown set, for FP8 without Transformer Engine, and for float32
        with attention kernels that have none.
    """
    if placement.kernels not in KERNELS:
        raise RecipeError(
            "placement.kernels",
            found=f"is '{placement.kernels}'",
            rule=f"a model is built of {', '.join(KERNELS[:-1])} or {KERNELS[-1]} layers",
            do=f"write {TORCH}",
        )
    if placement.kernels == MAMBA_SSM and precision.dtype == "fp32":
        raise RecipeError(
            "precision",
            found=f"is {precision.name} with placement.kernels {MAMBA_SSM}",
            rule="its attention of packed documents is a kernel for bf16",
            do=f"write bf16, or kernels: {TORCH}",
        )
    if placement.kernels != TRANSFORMER_ENGINE and precision.is_fp8:
        raise RecipeError(
            "precision",
            found=f"is {precision.name} with placement.kernels {placement.kernels}",
            rule="FP8 products are Transformer Engine's",
            do=f"write kernels: {TRANSFORMER_ENGINE} on CUDA, or bf16; `frontload precision "
            "--emulate` shows its error on any machine",
        )


def check_widths(model: Model, placement: Placement) -> None:
    """Checks that the kernels of a placement take the model as it is cut.

    Raises: RecipeError naming the width that they do not take.
    """
    if placement.kernels == TORCH:
        return
    widths = {
        "the convolution's channels on a rank": mamba_conv_channels(model)
        // placement.tensor_parallel,
        "model.kv_channels": model.kv_channels,
    }
    for name, width in widths.items():
        if width % KERNEL_MULTIPLE:
            raise RecipeError(
                "placement.kernels",
                found=f"is {placement.kernels}, and {name} are {width}",
                rule=f"its kernels take multiples of {KERNEL_MULTIPLE}",
                do=f"write kernels: {TORCH}, or change the model's widths",
            )


def check_tokens(
    precision: Precision, placement: Placement, *, micro_sequences: int, sequence_tokens: int
) -> None:
    """Checks that FP8 can align the tokens that a rank has of one micro-batch.

    Raises: RecipeError with the next smaller number of tokens that fits.
    """
    if not precision.is_fp8:
        return
    ranks = placement.tensor_parallel if placement.sequence_parallel else 1
    tokens, multiple = micro_sequences * sequence_tokens // ranks, FP8_MULTIPLE
    if precision.scaling == "block":
        multiple = precision.input_block  # gradients of weights sum over tokens, block by block
    if tokens % multiple == 0:
        return
    fits = sequence_tokens // (multiple * ranks) * multiple * ranks
    raise RecipeError(
        "training.sequence_tokens",
        found=f"is {sequence_tokens}; {micro_sequences} sequences a micro-batch are {tokens} tokens"
        " on a rank",
        rule=f"with precision {precision.name} a rank has a multiple of {multiple} tokens",
        do=f"write {fits} or bf16" if fits else f"write {multiple * ranks} or bf16",
    )


def check_precision(model: Model, precision: Precision, placement: Placement) -> None:
    """Checks that the model as it is cut can run in this precision.

    Raises: RecipeError for edges that cover all layers, and for products FP8 cannot align.
    """
    if not precision.is_fp8:
        return
    edges = precision.bf16_layers_at_start + precision.bf16_layers_at_end
    if len(model.pattern) <= edges:
        raise RecipeError(
            "precision",
            found=f"is {precision.name} with {len(model.pattern)} layers ({model.pattern})",
            rule=f"its first {precision.bf16_layers_at_start} and last "
            f"{precision.bf16_layers_at_end} layers stay in bf16, so none would be FP8",
            do="write bf16, or use a deeper model",
        )
    edge = max(precision.bf16_layers_at_start, precision.bf16_layers_at_end)
    most = len(model.pattern) // placement.pipeline_parallel
    if edge > most:
        raise RecipeError(
            "precision",
            found=f"is {precision.name}, with {edge} layers in bf16 at an end and {most} a stage",
            rule="the bf16 layers of an end are on one pipeline stage (transformer_config.py:1404)",
            do="write bf16, or use fewer pipeline stages",
        )
    for gemm in list_gemms(model, precision, tensor_parallel=placement.tensor_parallel):
        if gemm.is_fp8 and (gemm.inputs % FP8_MULTIPLE or gemm.outputs % FP8_MULTIPLE):
            raise RecipeError(
                "precision",
                found=f"is {precision.name}; {gemm.name} of layer {gemm.layer} is {gemm.inputs} "
                f"x {gemm.outputs} on a rank at tensor_parallel {placement.tensor_parallel}",
                rule=f"both sides of an FP8 product are multiples of {FP8_MULTIPLE}",
                do="write bf16, or change tensor_parallel or the model's widths",
            )
