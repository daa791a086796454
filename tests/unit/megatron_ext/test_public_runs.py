"""The model of a step's time against runs that others published, all on H100.

Three shares of the placement `slurm` are found on four runs of Megatron-Core with Transformer
Engine and mamba-ssm; the other runs of that stack are predicted with them. torchtitan is another
stack: its share is found on 8 GPUs and predicts 128.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from frontload.megatron_ext.ranks.settings import ddp_config, transformer_config
from frontload.megatron_ext.sizing.search import LayoutEstimate, estimate_layout
from frontload.megatron_ext.sizing.timing import Overlap, engine_overlap
from frontload.recipes.grammar.load import RECIPES, load_recipe
from frontload.recipes.machines.cluster import TRANSFORMER_ENGINE, Gpus
from frontload.recipes.machines.placement import Placement
from frontload.recipes.machines.precision import find_precision
from frontload.recipes.schema import Model
from tests.training_inputs import tiny_model

ROOT = Path(__file__).resolve().parents[3]
FP8 = "nemotron_h_current_scaling"
TOLERANCE = (
    0.10  # issue of the planner: a plan is for a decision, and the runs of one stack differ by 6%
)


def cluster() -> Gpus:
    """What the placement `slurm` states of its GPUs."""
    gpus = load_recipe(RECIPES / "placements" / "slurm.yaml", Placement).value.gpus
    assert gpus is not None
    return gpus


CLUSTER = cluster()
HYBRID_8B = load_recipe(RECIPES / "models" / "hybrid_8b.yaml", Model).value
LUCIOLE_8B = replace(HYBRID_8B, vocab_size=128_000)  # its model card
# dgxc-benchmarking nemotronh/README.md, Notes: 54 -, 54 M, 10 *; the order does not matter here
NEMOTRON_H_56B = replace(
    HYBRID_8B,
    pattern="M-" * 44 + "M*-" * 10,
    hidden_size=8_192,
    ffn_hidden_size=32_768,
    num_attention_heads=64,
    mamba_num_heads=256,
    mamba_state_dim=256,
    mamba_chunk_tokens=256,
)
# Llama-3-8B; its gated FFN of 14336 has as many weights as an ungated one of 21504
LLAMA_8B = replace(
    HYBRID_8B, pattern="*-" * 32, ffn_hidden_size=21_504, num_query_groups=8, vocab_size=128_256
)

# NeMo's Llama recipes and Megatron's FSDP: gradients, weights, and the products of tensor ranks
ALL_HIDDEN = Overlap(gradients=1.0, weights=1.0, tensor=1.0)
# NeMo 2.3.1 recipes/nemotronh_8b.py: overlap_grad_reduce=True, overlap_param_gather=False. Tensor
# ranks overlap with sequence parallelism only, and Luciole has none at 4096 tokens (train_model.py)
GRADIENTS_HIDDEN = Overlap(gradients=1.0)
# torch.compile, selective recomputation, and H100 of 500 W with 2.4 TB/s: found on 8 GPUs
TITAN = Gpus(kind="h100_sxm", kernel_mfu=0.35)


@dataclass(frozen=True, kw_only=True)
class PublicRun:
    """A run, and the tokens per second and GPU that its authors report."""

    model: Model
    precision: str
    batch: tuple[int, int]  # sequences, tokens of one
    nodes: tuple[int, int]  # nodes, GPUs of one
    micro_sequences: int = 1
    tensor_parallel: int = 1
    sequence_parallel: bool = False
    overlap: Overlap = ALL_HIDDEN
    gpus: Gpus = CLUSTER
    tokens_per_second: float

    @property
    def global_batch_sequences(self) -> int:
        return self.batch[0]

    @property
    def sequence_tokens(self) -> int:
        return self.batch[1]

    def estimate(
        self, *, overlap: Overlap | None = None, gpus: Gpus | None = None
    ) -> LayoutEstimate:
        """What `frontload estimate` says of it."""
        placement = Placement(
            num_nodes=self.nodes[0],
            ranks_per_node=self.nodes[1],
            tensor_parallel=self.tensor_parallel,
            sequence_parallel=self.sequence_parallel,
            distributed_optimizer=True,
            micro_batch_sequences=self.micro_sequences,
            kernels=TRANSFORMER_ENGINE,
            gpus=gpus or self.gpus,
        )
        return estimate_layout(
            self.model,
            self,
            placement=placement,
            precision=find_precision(self.precision),
            overlap=self.overlap if overlap is None else overlap,
        )


def rate(one: LayoutEstimate) -> float:
    """Tokens per second and GPU."""
    assert one.time is not None
    return one.time.tokens_per_second / one.time.gpus


LLAMA_BF16 = PublicRun(  # two GPUs share a sequence (CP 2); counted as data ranks
    model=LLAMA_8B, precision="bf16", batch=(128, 8_192), nodes=(1, 8),
    tokens_per_second=81_222 / 8,  # dgxc-benchmarking llama3.1/README_8b.md, NeMo 24.09
)  # fmt: skip
LLAMA_FP8 = replace(
    LLAMA_BF16,
    precision=FP8,  # the source: current scaling; its first and last layers may be in FP8 too
    tokens_per_second=14_451,  # Megatron-Bridge docs/performance-summary.md, 25.11, FSDP
)
NEMOTRON_FP8 = PublicRun(
    model=NEMOTRON_H_56B, precision=FP8, batch=(192, 8_192), nodes=(8, 8), tensor_parallel=8,
    sequence_parallel=True,
    tokens_per_second=104_454 / 64,  # dgxc-benchmarking nemotronh/README.md (25.07)
)  # fmt: skip
LUCIOLE = PublicRun(  # micro-batch: the recipe's default; nodes of 4 H100: its model card
    model=LUCIOLE_8B, precision="bf16", batch=(1_024, 4_096), nodes=(64, 4), tensor_parallel=2,
    overlap=GRADIENTS_HIDDEN,
    tokens_per_second=6_489,  # Luciole-Training metadata/training_logs: 637 G tokens, 98.16 M GPU s
)  # fmt: skip
TITAN_8 = PublicRun(
    model=LLAMA_8B, precision="bf16", batch=(16, 8_192), nodes=(1, 8), micro_sequences=2,
    gpus=TITAN,
    tokens_per_second=6_667,  # torchtitan benchmarks/llama3_h100_202412_torchtitan.md, table 1
)  # fmt: skip
FOUND_ON = {
    "Llama-3.1-8B bf16, 8 GPUs, NeMo 24.09": LLAMA_BF16,
    "Llama-3-8B FP8, 8 GPUs, Megatron-Bridge 25.11": LLAMA_FP8,
    "Nemotron-H-56B FP8, 64 GPUs, NeMo": NEMOTRON_FP8,
    "Luciole-8B bf16, 256 GPUs, NeMo 2.3.1": LUCIOLE,
    "Llama-3.1-8B bf16, 8 GPUs, torchtitan": TITAN_8,
}
PREDICTED = {
    "Llama-3.1-8B bf16, 128 GPUs, NeMo 24.09": replace(  # dgxc-benchmarking llama3.1/README_8b.md
        LLAMA_BF16, batch=(2_048, 8_192), nodes=(16, 8), tokens_per_second=1_280_704 / 128
    ),
    "Llama-3.1-8B FP8, 8 GPUs, NeMo 24.09": replace(LLAMA_FP8, tokens_per_second=108_436 / 8),
    "Llama-3-8B FP8, 8 GPUs, Megatron-Bridge 25.09": replace(LLAMA_FP8, tokens_per_second=14_079),
    "Nemotron-H-56B FP8, 512 GPUs, NeMo": replace(  # dgxc-benchmarking nemotronh/README.md
        NEMOTRON_FP8, batch=(1_536, 8_192), nodes=(64, 8), tokens_per_second=807_321 / 512
    ),
    "Llama-3.1-8B bf16, 128 GPUs, torchtitan": replace(  # its table 3
        TITAN_8, batch=(256, 8_192), nodes=(16, 8), tokens_per_second=6_514
    ),
}
RUNS = FOUND_ON | PREDICTED


@pytest.mark.parametrize("name", RUNS)
def test_a_public_run_is_estimated_within_ten_percent(name: str) -> None:
    run = RUNS[name]
    assert rate(run.estimate()) == pytest.approx(run.tokens_per_second, rel=TOLERANCE)


def test_the_page_shows_measured_and_estimated() -> None:
    """The rows of launch/estimate/README.md, as this model gives them."""
    page = (ROOT / "launch" / "estimate" / "README.md").read_text()
    for name, run in RUNS.items():
        use = "found on it" if name in FOUND_ON else "predicted"
        estimate = rate(run.estimate())
        off = estimate / run.tokens_per_second - 1
        row = f"| {name} | {run.tokens_per_second:,.0f} | {estimate:,.0f} | {off:+.1%} | {use} |"
        assert row in page, row


@pytest.mark.parametrize(("found_on", "share"), [(LUCIOLE, 0.108), (NEMOTRON_FP8, 0.135)])
def test_either_hybrid_predicts_the_other(found_on: PublicRun, share: float) -> None:
    """The share of the memory's rate at which one of them is met, within 1%, meets the other."""
    gpus = replace(CLUSTER, memory_share=share)
    assert rate(found_on.estimate(gpus=gpus)) == pytest.approx(found_on.tokens_per_second, rel=0.01)
    other = NEMOTRON_FP8 if found_on is LUCIOLE else LUCIOLE
    assert rate(other.estimate(gpus=gpus)) == pytest.approx(other.tokens_per_second, rel=TOLERANCE)


NONE = engine_overlap(Placement())


def test_a_run_of_this_engine_is_planned_without_overlap() -> None:
    """The same layout, placement and shares as Luciole: what NeMo hides is charged."""
    ours, theirs = LUCIOLE.estimate(overlap=NONE), LUCIOLE.estimate()
    assert 0.85 < rate(ours) / rate(theirs) < 0.95
    assert ours.time is not None and theirs.time is not None  # noqa: PT018
    assert ours.time.compute == theirs.time.compute
    # 8.1e9 / 2 weights of 4 and 2 bytes, 127 of 128 parts, by the 2 adapters of a node's 2 replicas
    assert ours.time.data == pytest.approx(8.1e9 / 2 * 6 / (2 * 50e9 * 0.7), rel=0.02)


def test_with_overlap_it_is_planned_as_fast_as_the_public_run() -> None:
    """6,489 tokens a second and GPU at TP2 DP128; NeMo hides the gradients, this engine both."""
    whole = engine_overlap(Placement(overlap_communication=True))
    ours, theirs = LUCIOLE.estimate(overlap=whole), LUCIOLE.estimate()
    assert 1.0 < rate(ours) / rate(theirs) < 1.06
    assert rate(ours) == pytest.approx(6_489, rel=TOLERANCE)


@pytest.mark.parametrize("is_on", [False, True])
@pytest.mark.parametrize("is_cut", [False, True])
def test_the_stated_overlap_is_that_of_the_engine(*, is_on: bool, is_cut: bool) -> None:
    placement = Placement(overlap_communication=is_on, distributed_optimizer=is_cut)
    stated = float(is_on)
    assert engine_overlap(placement) == Overlap(gradients=stated, weights=stated, tensor=0.0)
    config = ddp_config(placement)
    assert config.overlap_grad_reduce == is_on
    assert config.overlap_param_gather == (is_on and is_cut), "else there are none to gather"
    sharded = Placement(ranks_per_node=2, tensor_parallel=2, sequence_parallel=True)
    assert not transformer_config(tiny_model(), sharded, precision="bf16").tp_comm_overlap


def test_only_what_fits_beside_a_micro_batch_is_hidden() -> None:
    small = replace(NEMOTRON_FP8, batch=(64, 512))
    hidden, plain = small.estimate(), small.estimate(overlap=NONE)
    assert hidden.time is not None and plain.time is not None  # noqa: PT018
    micro = hidden.time.compute / hidden.batching.num_micro_batches
    assert plain.time.data > micro, "the exchange is longer than a micro-batch"
    assert plain.time.data - hidden.time.data == pytest.approx(micro, rel=0.2)


def test_the_scan_takes_its_traffic_and_the_products_their_operations() -> None:
    alone = replace(LUCIOLE, batch=(2, 4_096), nodes=(1, 1), tensor_parallel=1)
    with_scan, without = (
        alone.estimate(gpus=replace(CLUSTER, memory_share=share)) for share in (0.12, 0.0)
    )
    assert with_scan.time is not None and without.time is not None  # noqa: PT018
    assert without.time.mfu == pytest.approx(CLUSTER.kernel_mfu)
    values = 24 * (2 * 10_240 + 7 * 8_192 + 4 * 8_192 * 128 / 128)  # a token's, one pass forward
    seconds = 8_192 * values * 2 * (1 + 2.5) / (0.12 * 3.35e12)
    mixing = 24 * 3 * 2 * (128 * 8 * 128 + 3 * 8_192 * 128 + 4 * 10_240)  # its operations
    saved = 8_192 * mixing / (CLUSTER.kernel_mfu * 989.4e12)
    assert with_scan.time.total - without.time.total == pytest.approx(seconds - saved, rel=0.01)
