"""GPU kinds: what a datasheet says of one. Nothing here was measured by this project."""

from dataclasses import dataclass

from frontload.recipes.errors import RecipeError
from frontload.recipes.grammar.load import nearest


@dataclass(frozen=True, kw_only=True)
class GpuKind:
    """One GPU. Rates are dense, not with sparsity."""

    name: str
    memory_gib: float  # as nvidia-smi names it
    bf16_tflops: float
    fp8_tflops: float  # 0.0 = it has no FP8 GEMM
    memory_gbyte_per_second: float
    link_gbyte_per_second: float  # one direction, to the other GPUs of its node
    source: str


KINDS: dict[str, GpuKind] = {
    kind.name: kind
    for kind in (
        GpuKind(
            name="a100_sxm_80gb",
            memory_gib=80.0,
            bf16_tflops=312.0,
            fp8_tflops=0.0,
            memory_gbyte_per_second=2_039.0,
            link_gbyte_per_second=300.0,
            source="NVIDIA A100 datasheet: 312 TFLOPS BF16, 80 GB, memory 2.039 TB/s, "
            "NVLink 600 GB/s both ways",
        ),
        GpuKind(
            name="h100_sxm",
            memory_gib=79.6,
            bf16_tflops=989.4,
            fp8_tflops=1978.9,
            memory_gbyte_per_second=3_350.0,
            link_gbyte_per_second=450.0,
            source="NVIDIA H100 whitepaper, SXM5: dense 989.4 TFLOPS BF16, 1978.9 FP8, 80 GB, "
            "memory 3.35 TB/s, NVLink 900 GB/s both ways",
        ),
        GpuKind(
            name="h200_sxm",
            memory_gib=140.4,
            bf16_tflops=989.4,
            fp8_tflops=1978.9,
            memory_gbyte_per_second=4_800.0,
            link_gbyte_per_second=450.0,
            source="NVIDIA H200 datasheet: as H100 SXM, with 141 GB, memory 4.8 TB/s",
        ),
        GpuKind(
            name="b200",
            memory_gib=179.0,
            bf16_tflops=2250.0,
            fp8_tflops=4500.0,
            memory_gbyte_per_second=8_000.0,
            link_gbyte_per_second=900.0,
            source="NVIDIA DGX B200 datasheet, an eighth: 36 PFLOPS dense FP8, half of it BF16, "
            "1440 GB, memory 64 TB/s, NVLink 1.8 TB/s both ways",
        ),
    )
}


def find_gpu(name: str) -> GpuKind:
    """The kind of this name.

    Raises: RecipeError for any other name.
    """
    if name not in KINDS:
        raise RecipeError(
            "placement.gpus.kind",
            found=f"is '{name}'",
            rule="kinds with known rates are " + ", ".join(KINDS),
            do=nearest(name, list(KINDS)),
        )
    return KINDS[name]
