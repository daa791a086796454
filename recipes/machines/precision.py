"""The precisions by name: number formats, scaling, and which layers stay in bf16. Never mixed.

A name is one published recipe, whole: its format, scaling and edges were found together. None of
them is in the paper, which does not mention FP8: a run that names one departs from it.
"""

from dataclasses import dataclass, fields

from frontload.recipes.errors import RecipeError
from frontload.recipes.grammar.load import nearest


@dataclass(frozen=True, kw_only=True)
class Precision:
    """One precision. The empty word and 0 stand for what a precision without FP8 lacks."""

    name: str
    dtype: str  # "fp32" or "bf16": of weights, activations, and of every GEMM that is not FP8
    forward: str = ""  # FP8 format of inputs and weights: "e4m3"
    gradient: str = ""  # FP8 format of output gradients: "e4m3" or "e5m2"
    scaling: str = ""  # "tensor" (one scale a tensor, of its current maximum) or "block"
    weight_block: tuple[int, int] = (0, 0)  # rows, columns that share a scale
    input_block: int = 0  # values along the summed dim that share a scale; of gradients too
    power_of_two_scales: bool = False
    bf16_layers_at_start: int = 0  # layers of the pattern, not GEMMs
    bf16_layers_at_end: int = 0
    source: str

    @property
    def is_fp8(self) -> bool:
        """Some GEMMs run in FP8."""
        return bool(self.scaling)

    def is_fp8_layer(self, layer: int, num_layers: int) -> bool:
        """The GEMMs of this layer of the whole model run in FP8.

        Source: megatron/core/fp8_utils.py is_first_last_bf16_layer, which counts layers globally.
        """
        end = num_layers - self.bf16_layers_at_end
        return self.is_fp8 and self.bf16_layers_at_start <= layer < end


PRECISIONS: dict[str, Precision] = {
    one.name: one
    for one in (
        Precision(name="fp32", dtype="fp32", source="a CPU's precision"),
        Precision(
            name="bf16",
            dtype="bf16",
            source="the released Nemotron-H-8B: its paper names FP8 for the 56B only",
        ),
        Precision(
            name="nemotron_h_current_scaling",
            dtype="bf16",
            forward="e4m3",
            gradient="e5m2",
            scaling="tensor",
            bf16_layers_at_start=2,
            bf16_layers_at_end=2,
            source="Megatron-Bridge training/mixed_precision.py, "
            "nemotron_h_bf16_with_fp8_current_scaling_mixed: hybrid, tensorwise, 2 + 2 layers",
        ),
        Precision(
            name="nano2_blockwise",
            dtype="bf16",
            forward="e4m3",
            gradient="e4m3",
            scaling="block",
            weight_block=(128, 128),
            input_block=128,
            power_of_two_scales=True,  # Transformer Engine's default for Float8BlockScaling
            bf16_layers_at_start=2,  # the paper's "first and last four GEMMs": `M-` has four
            bf16_layers_at_end=2,
            source="Nemotron Nano 2 paper: E4M3 for all tensors, blocks of 128 x 128 and 1 x 128, "
            "first and last four GEMMs in bf16",
        ),
    )
}


def find_precision(name: str) -> Precision:
    """The precision of this name.

    Raises: RecipeError for any other name.
    """
    if name not in PRECISIONS:
        raise RecipeError(
            "precision",
            found=f"is '{name}'",
            rule="precisions are named whole and never mixed: " + ", ".join(PRECISIONS),
            do=nearest(name, list(PRECISIONS)),
        )
    return PRECISIONS[name]


def refuse_mixing(precision: Precision, **asked: object) -> None:
    """Refuses to change a part of a precision, by naming the precision that has it, if one does.

    Raises: RecipeError for a part that `precision` does not have as asked, and for an unknown one.
    """
    parts = [item.name for item in fields(Precision) if item.name not in ("name", "source")]
    for part, value in asked.items():
        if part not in parts:
            raise RecipeError(
                f"precision.{part}",
                found=f"'{part}' is no part of a precision",
                rule="its parts are " + ", ".join(parts),
                do=nearest(part, parts),
            )
        if str(getattr(precision, part)) == str(value):
            continue
        having = [one.name for one in PRECISIONS.values() if str(getattr(one, part)) == str(value)]
        has = getattr(precision, part)
        raise RecipeError(
            f"precision.{part}",
            found=f"is asked to be {value}; {precision.name} has {has if has != '' else 'none'}",
            rule="a precision is one published recipe, whole; its parts are never mixed",
            do=f"choose precision {' or '.join(having)}" if having else "leave this part out",
        )
