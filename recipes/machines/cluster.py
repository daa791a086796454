"""The parts of a placement that only a cluster needs: GPUs, RL's rollout machines, and Slurm."""

from dataclasses import dataclass, field

TORCH, MAMBA_SSM, TRANSFORMER_ENGINE = "torch", "mamba_ssm", "transformer_engine"
KERNELS = (TORCH, MAMBA_SSM, TRANSFORMER_ENGINE)
"""Which layers a model is built of: plain torch on any device; on CUDA also torch's linears and
attention around mamba-ssm's mixer, or Transformer Engine's around the same mixer."""


@dataclass(frozen=True, kw_only=True)
class Gpus:
    """What `estimate` and `plan` assume of the GPUs; a run of a study reads that there are some."""

    kind: str  # a name of recipes/machines/gpus.py
    kernel_mfu: float  # share of the bf16 peak that a GPU reaches while it computes; no waiting
    fp8_mfu: float = 0.0  # the same share of the FP8 peak; 0 = kernel_mfu
    memory_share: float = 0.0  # of the memory's rate, reached by Mamba's scan; 0 = in kernel_mfu
    source: str = ""  # of the shares above; "" = a guess, and output says so
    network_gbyte_per_second: float = 50.0  # of one GPU, one way: 400 Gb/s InfiniBand (DGX H100)
    link_share: float = 0.7  # of a link's rate that a collective reaches; ours, not measured
    reserved_gib: float = 4.0  # CUDA context, NCCL buffers, fragments; ours, not measured
    dollars_per_hour: float = 0.0  # of one GPU; 0 = not stated, and no price is shown


@dataclass(frozen=True, kw_only=True)
class RlPlacement:
    """How an RL job uses its machines. Nothing here changes what is optimised."""

    rollout_tensor_parallel: int = 1  # GPUs a vLLM engine
    rollout_memory_share: float = 0.5  # of a GPU's memory that vLLM may take while it generates
    rollout_sequences: int = 256  # most responses in flight in one engine
    rollout_batched_tokens: int = 8_192  # most tokens in one vLLM step
    agent_workers: int = 8  # processes that feed prompts to the engines
    reward_workers: int = 8  # processes that grade responses
    offload: bool = False  # weights and optimizer of the actor go to host memory while it waits
    checkpoints_kept: int = 2  # newest ones; older are deleted, those of earlier starts too
    # A run without a step for so long is ended; 0 = never. Ours: grpo_8b on 32 H100 should take
    # about 5 minutes a step (7 M tokens to generate, 8 M to train on), 10 to start vLLM, 2 to save.
    hang_seconds: float = 3_600.0
    loggers: tuple[str, ...] = ("console", "file")  # veRL's names
    ray_cpus: int = 8  # CPUs that a Ray node offers, on one machine without Slurm
    verl: dict[str, str] = field(default_factory=dict)  # further veRL settings, key to Hydra text


@dataclass(frozen=True, kw_only=True)
class Slurm:
    """What sbatch and srun are told, and how a node finds its software."""

    shared_folder: str  # seen by every node: models, prompts, checkpoints, logs
    partition: str = ""  # "" = the cluster's default
    account: str = ""
    time_limit: str = "04:00:00"  # of one run of the job; a requeued job gets it anew
    cpus_per_node: int = 0  # 0 = all, with --exclusive
    header: tuple[str, ...] = ()  # further lines for sbatch, e.g. "--constraint=h100"
    activate: str = ""  # shell line that makes `python` and `ray` the right ones on a node
    container_image: str = ""  # for srun --container-image (pyxis); "" = none
    container_mounts: str = ""  # for srun --container-mounts
    environment: dict[str, str] = field(default_factory=dict)  # exported on every node
    first_port: int = 20_000  # Ray's head listens on first_port + job id modulo num_ports
    num_ports: int = 10_000
    start_seconds: int = 600  # most time for all nodes to join
    stop_seconds: int = 60  # grace between asking processes to stop and killing them
    requeue_seconds: int = 600  # the job is warned this long before its limit, and requeued
    max_requeues: int = (
        20  # starts of a job without a new checkpoint between them, after which it ends
    )
    max_failures: int = 3  # failed ends without a new checkpoint between them, after which it stays
