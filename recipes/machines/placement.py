"""Placement: where a stage runs. Recorded in the provenance, never hashed."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from frontload.recipes.machines.cluster import TORCH, Gpus, RlPlacement, Slurm
from frontload.recipes.machines.upkeep import Upkeep


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Hardware and layout of one stage. May not appear inside a recipe."""

    name: str = "cpu"
    num_nodes: int = 1
    ranks_per_node: int = 1
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    pipeline_layers: tuple[int, ...] = ()  # layers of each pipeline stage; () = the same number
    context_parallel: int = 1
    sequence_parallel: bool = False
    distributed_optimizer: bool = False
    overlap_communication: bool = False  # replicas exchange while they compute
    micro_batch_sequences: int = 0  # 0 = the whole share of the rank in one micro-batch
    recompute: bool = False
    kernels: str = TORCH  # or mamba_ssm or transformer_engine, which need CUDA
    gpus: Gpus | None = None  # None = a study's stages see no GPU, and none is priced
    stages_per_gpu: int = 1  # stages of a study that share a GPU (or a group of ranks) at once
    threads_per_rank: int = 1
    checkpoint_every_seconds: float = 60.0
    upkeep: Upkeep = field(default_factory=Upkeep)  # set by `frontload train` from its recipe
    workers: int = 0  # warm worker processes of a study without a GPU; 0 = one a core
    rl: RlPlacement = field(default_factory=RlPlacement)
    slurm: Slurm | None = None  # None = this machine

    @property
    def world_size(self) -> int:
        return self.num_nodes * self.ranks_per_node


@dataclass(frozen=True, kw_only=True)
class Placements:
    """Where each kind of stage of a study runs."""

    default: Placement
    by_kind: Mapping[str, Placement] = field(default_factory=dict)

    def of(self, kind: str) -> Placement:
        """The placement of a kind."""
        return self.by_kind.get(kind, self.default)

    @property
    def all(self) -> tuple[Placement, ...]:
        """The default first."""
        return (self.default, *self.by_kind.values())
