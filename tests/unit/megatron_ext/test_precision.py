"""Emulated FP8 against a plain reference, and what it does to a model."""

import itertools

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from frontload.megatron_ext import cpu

cpu.prepare()
from frontload.megatron_ext.inference.emulate import emulate_precisions  # noqa: E402
from frontload.megatron_ext.inference.quantise import (  # noqa: E402
    FORMATS,
    Emulation,
    emulated_linear,
    round_trip,
)
from frontload.recipes.errors import RecipeError  # noqa: E402
from frontload.recipes.facts.gemms import check_precision, check_tokens, list_gemms  # noqa: E402
from frontload.recipes.machines.placement import Placement  # noqa: E402
from frontload.recipes.machines.precision import (  # noqa: E402
    PRECISIONS,
    Precision,
    find_precision,
    refuse_mixing,
)
from tests.training_inputs import tiny_model  # noqa: E402

FP8 = [name for name, precision in PRECISIONS.items() if precision.is_fp8]
TENSOR, BLOCK = find_precision("nemotron_h_current_scaling"), find_precision("nano2_blockwise")


def grid(fp8_format: str) -> list[float]:
    """Every finite value of a format, from its 256 codes, smallest first."""
    codes = torch.arange(256, dtype=torch.int16).to(torch.uint8).view(FORMATS[fp8_format])
    values = codes.float()
    return sorted(set(values[values.isfinite()].tolist()))


def reference(values: list[list[float]], fp8_format: str, block: tuple[int, int]) -> Tensor:
    """Value by value: scale of its block, nearest code (ties to the even one), scale back."""
    points = grid(fp8_format)
    rows, columns = len(values), len(values[0])
    found = torch.zeros(rows, columns, dtype=torch.float64)
    height, width = block[0] or rows, block[1] or columns
    for top, left in itertools.product(range(0, rows, height), range(0, columns, width)):
        places = [
            (row, column)
            for row in range(top, min(top + height, rows))
            for column in range(left, min(left + width, columns))
        ]
        largest = max(abs(values[row][column]) for row, column in places)
        # the scale is a float32, as in round_trip and on a GPU
        scale = float(torch.tensor(points[-1]) / torch.tensor(largest)) if largest else 1.0
        for row, column in places:
            scaled = float(torch.tensor(values[row][column]) * torch.tensor(scale))
            nearest = min(points, key=lambda point: (abs(point - scaled), _odd(point, points)))
            found[row, column] = nearest / scale
    return found.float()


def _odd(point: float, points: list[float]) -> int:
    return (points.index(point) - points.index(0.0)) % 2


@pytest.mark.parametrize("fp8_format", FORMATS)
@pytest.mark.parametrize("block", [(0, 0), (1, 4), (4, 4), (3, 5)])
def test_round_trip_is_the_plain_reference(fp8_format: str, block: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(3)
    values = torch.randn(6, 10, generator=generator)
    values[0] *= 1e-3
    values[2:4] *= 40.0
    values[5] = 0.0
    found = round_trip(values, fp8_format, block=block, power_of_two=False)
    expected = reference(values.tolist(), fp8_format, block)
    # 1e-6: division by the scale in float32 here, in float64 there
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0.0)


@settings(max_examples=50)
@given(
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=12, max_size=12),
    st.sampled_from([(0, 0), (1, 2), (2, 2)]),
    st.booleans(),
)
@example([0.0] * 11 + [2.0**-126], (0, 0), False)  # 448 over it is no float32
@example([0.0] * 11 + [2.0**-126], (0, 0), True)
@example([0.0] * 11 + [2.0**-149], (0, 0), False)
def test_no_value_moves_further_than_half_a_step(
    numbers: list[float], block: tuple[int, int], power_of_two: bool
) -> None:
    """E4M3 has 3 bits: half a step is 2^-4 of a value, or of its smallest normal number."""
    values = torch.tensor(numbers).view(3, 4)
    found = round_trip(values, "e4m3", block=block, power_of_two=power_of_two)
    values, found = values.double(), found.double()
    largest = values.abs().max()  # bounds the maximum of every block
    lost = 2.0 if power_of_two else 1.0  # the power below leaves up to one bit unused
    unit = (largest / 448).clamp(min=2.0**-128)  # one over a scale, which is a float32
    allowed = values.abs() * 2.0**-4 + lost * unit * 2.0**-6 * 2.0**-4
    assert ((found - values).abs() <= allowed * (1 + 1e-5) + 2.0**-150).all()  # float32's own step


def test_scales_of_powers_of_two_keep_powers_of_two() -> None:
    values = torch.tensor([[1.0, 0.5, 2.0**-5, 3.0]])
    found = round_trip(values, "e4m3", block=(1, 0), power_of_two=True)
    assert torch.equal(found, values)


def test_an_outlier_costs_a_tensor_all_and_a_block_only_its_own() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(256, 256, generator=generator)
    values[7, 9] = 1e8
    rest = torch.ones_like(values, dtype=torch.bool)
    rest[7, 9] = False

    def error(block: tuple[int, int]) -> float:
        found = round_trip(values, "e4m3", block=block, power_of_two=False)
        return float((found - values)[rest].norm() / values[rest].norm())

    assert error((0, 0)) == 1.0  # every other value is below half the smallest step: all lost
    # what shares the outlier's block is lost, a quarter of the values, or 127 of 65535
    assert error((128, 128)) == pytest.approx((128 * 128 / 256**2) ** 0.5, rel=0.02)
    assert error((1, 128)) == pytest.approx((127 / 65535 + 0.026**2) ** 0.5, rel=0.1)


def plain_products(
    input_TI: Tensor, weight_OI: Tensor, grad_TO: Tensor, name: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Output and gradients written out for the two published recipes."""
    input_TI, weight_OI, grad_TO = (t.bfloat16().float() for t in (input_TI, weight_OI, grad_TO))

    def tensor(values: Tensor, fp8_format: str) -> Tensor:
        return round_trip(values, fp8_format, block=(0, 0), power_of_two=False)

    def tiles(values: Tensor) -> Tensor:
        return round_trip(values, "e4m3", block=(1, 128), power_of_two=True)

    if name == "nemotron_h_current_scaling":
        weight, kept = tensor(weight_OI, "e4m3"), tensor(input_TI, "e4m3")
        grad = tensor(grad_TO, "e5m2")
        output, grad_input, grad_weight = kept @ weight.t(), grad @ weight, grad.t() @ kept
    else:
        weight = round_trip(weight_OI, "e4m3", block=(128, 128), power_of_two=True)
        output, grad_input = tiles(input_TI) @ weight.t(), tiles(grad_TO) @ weight
        grad_weight = tiles(grad_TO.t()) @ tiles(input_TI.t()).t()
    return output.bfloat16().float(), grad_input.bfloat16().float(), grad_weight


@pytest.mark.parametrize("name", FP8)
def test_a_linear_is_its_three_rounded_products(name: str) -> None:
    generator = torch.Generator().manual_seed(1)
    input_TI, weight_OI, grad_TO = (
        torch.randn(*shape, generator=generator) for shape in ((150, 144), (272, 144), (150, 272))
    )
    kept, weight = (tensor.clone().requires_grad_() for tensor in (input_TI, weight_OI))
    output = emulated_linear(kept, weight, Emulation(find_precision(name), is_fp8=True))
    output.backward(grad_TO)
    expected = plain_products(input_TI, weight_OI, grad_TO, name)
    for found, wanted in zip((output, kept.grad, weight.grad), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_float32_is_left_alone() -> None:
    generator = torch.Generator().manual_seed(2)
    input_TI, weight_OI = (torch.randn(rows, 8, generator=generator) for rows in (5, 3))
    found = emulated_linear(input_TI, weight_OI, Emulation(find_precision("fp32"), is_fp8=False))
    assert torch.equal(found, input_TI @ weight_OI.t())


def test_a_models_error_grows_from_bf16_to_fp8_and_edges_are_spared() -> None:
    model = tiny_model(
        pattern="M-M-M*-M-M-", hidden_size=128, ffn_hidden_size=672, mamba_num_heads=16,
        mamba_head_dim=16, num_attention_heads=8, kv_channels=16, init_std=0.06,
    )  # fmt: skip
    names = ("fp32", "bf16", *FP8)
    found = emulate_precisions(model, names, rows=2, sequence_tokens=64, seed=1)
    plain, bf16, *fp8 = found
    assert [one.precision for one in found] == list(names)
    assert all(layer.output == layer.gradient == 0.0 for layer in plain.layers)
    for one in fp8:
        assert [layer.is_fp8 for layer in one.layers] == [False] * 2 + [True] * 7 + [False] * 2
        for kind in ("mamba", "attention", "mlp"):
            for part in ("output", "gradient"):
                assert 0.0 < 2 * bf16.of_kind(kind, part) < one.of_kind(kind, part) < 0.5
        assert one.layers[0].output == bf16.layers[0].output  # in bf16, on the same input
        assert abs(one.loss - one.loss_fp32) < 0.1


def test_a_model_too_large_to_run_here_is_refused() -> None:
    model = tiny_model(vocab_size=2_000_000, hidden_size=128)
    with pytest.raises(RecipeError, match="up to 200_000_000"):
        emulate_precisions(model, ("bf16",), rows=1, sequence_tokens=8, seed=1)


def test_gemms_of_the_edges_stay_in_bf16() -> None:
    model = tiny_model(pattern="M-M*-M-")
    gemms = list_gemms(model, TENSOR, tensor_parallel=2)
    formats = {gemm.layer: gemm.formats for gemm in gemms}
    assert formats == {
        0: "bf16", 1: "bf16", 2: "e4m3/e5m2", 3: "e4m3/e5m2", 4: "e4m3/e5m2", 5: "bf16", 6: "bf16",
        -1: "bf16",
    }  # fmt: skip
    first = [(one.name, one.inputs, one.outputs) for one in gemms if one.layer in (2, 4)]
    assert first == [
        ("in_proj", 32, 98), ("out_proj", 32, 32), ("linear_fc1", 32, 32), ("linear_fc2", 32, 32),
    ]  # fmt: skip
    assert {gemm.formats for gemm in list_gemms(model, BLOCK) if gemm.is_fp8} == {"e4m3/e4m3"}


def test_precisions_are_never_mixed() -> None:
    with pytest.raises(RecipeError, match=r"gradient: is asked to be e4m3.*nano2_blockwise"):
        refuse_mixing(TENSOR, gradient="e4m3")
    with pytest.raises(RecipeError, match="leave this part out"):
        refuse_mixing(TENSOR, bf16_layers_at_start="4")
    refuse_mixing(BLOCK, weight_block=(128, 128), scaling="block")
    with pytest.raises(RecipeError, match="'hybrid' ?; precisions are named whole"):
        find_precision("hybrid")


@pytest.mark.parametrize(
    ("precision", "tokens", "sequences", "fits"),
    [(TENSOR, 1027, 1, 1024), (TENSOR, 1030, 1, 1024), (BLOCK, 1040, 1, 1024), (TENSOR, 7, 1, 16)],
)
def test_tokens_that_fp8_cannot_align_are_refused(
    precision: Precision, tokens: int, sequences: int, fits: int
) -> None:
    with pytest.raises(RecipeError, match="a rank has a multiple of") as caught:
        check_tokens(precision, Placement(), micro_sequences=sequences, sequence_tokens=tokens)
    assert caught.value.do == f"write {fits} or bf16"
    check_tokens(precision, Placement(), micro_sequences=sequences, sequence_tokens=fits)
    check_tokens(precision, Placement(), micro_sequences=128, sequence_tokens=tokens)
    check_tokens(find_precision("bf16"), Placement(), micro_sequences=1, sequence_tokens=tokens)


def test_tokens_of_a_rank_are_its_share_of_the_sequence() -> None:
    cut = Placement(tensor_parallel=2, sequence_parallel=True)
    with pytest.raises(RecipeError, match="are 8 tokens on a rank") as caught:
        check_tokens(TENSOR, cut, micro_sequences=1, sequence_tokens=16)
    assert caught.value.do == "write 32 or bf16"


def test_fp8_without_a_layer_to_use_it_is_refused() -> None:
    with pytest.raises(RecipeError, match="first 2 and last 2 layers stay in bf16"):
        check_precision(tiny_model(pattern="M-*-"), BLOCK, Placement())
