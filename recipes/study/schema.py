"""What a study YAML may say. `expand.py` turns it into stages; nothing here is hashed itself."""

from dataclasses import dataclass, field

from frontload.recipes.machines.placement import Placement
from frontload.recipes.runs.grpo import Grpo, RlOptimizer, Sampling
from frontload.recipes.schema import Model, OwnData, Synthesis, Tokenizer


@dataclass(frozen=True, kw_only=True)
class MixKnobs:
    """One named mix; its name is the key it stands under, its seed the corpus's."""

    members: tuple[str, ...]  # corpus sets whose plain union this is
    min_answer_tokens: int  # keep answers of ldq strictly longer than this; 0 = keep all
    share_of_member: dict[str, float]  # member -> share kept; absent = 1.0


@dataclass(frozen=True, kw_only=True)
class TrainingKnobs:
    """What pretraining and SFT state alike. Batches in sequences, budgets in tokens."""

    tokens: int  # budget of one model, or of one SFT cell at multiplier 1
    sequence_tokens: int
    global_batch_sequences: int
    learning_rate: float  # peak
    final_learning_rate_share: float  # the schedule ends at this share of the peak
    schedule: str  # cosine, wsd or constant
    warmup_share: float
    decay_share: float  # wsd only; else 0.0
    adam_beta1: float
    adam_beta2: float
    adam_epsilon: float
    weight_decay: float
    clip_grad: float
    precision: str  # fp32 or bf16
    reset_at_document_boundaries: bool


@dataclass(frozen=True, kw_only=True)
class PretrainingKnobs(TrainingKnobs):
    """Two phases: pure base (the shared trunk), then base and one reasoning mix (the branch)."""

    first_phase_share: float  # share of the budget spent on pure base
    base_share: float  # share of base in the second phase; 1 - base_share is reasoning
    max_epochs: dict[str, float]  # mix -> most passes over it, both phases together


@dataclass(frozen=True, kw_only=True)
class RatioArm:
    """An arm off the grid: one mix at another share of base in the second phase."""

    mix: str
    base_share: float


@dataclass(frozen=True, kw_only=True)
class SftCell:
    """An SFT cell off the grid."""

    arm: str  # an entry of `arms`, or of ratio_arms as `lmq@60-40`
    mix: str
    multiplier: int  # budget in units of sft.tokens


@dataclass(frozen=True, kw_only=True)
class SftKnobs(TrainingKnobs):
    """Every arm is tuned on every mix of `mixes`; `cells` lie off that grid."""

    mixes: tuple[str, ...]
    cells: tuple[SftCell, ...]


@dataclass(frozen=True, kw_only=True)
class SuiteKnobs:
    """How one evaluation suite samples."""

    num_samples: int  # generations an item; pass@1 is their mean
    num_hard_samples: int
    temperature: float  # 0.0 = greedy
    max_new_tokens: int
    num_shots: int


@dataclass(frozen=True, kw_only=True)
class EvaluationKnobs:
    """The base suite scores pretrained models, the sft suite fine-tuned ones."""

    base: SuiteKnobs
    sft: SuiteKnobs
    min_effect: float  # smallest difference called an effect, percentage points
    seed_spreads: dict[str, float] = field(default_factory=dict)
    """`stage/metric` -> standard deviation of one cell over seeds, points: what a study of several
    seeds found (seed_spreads of its cells.json), from which one of one seed says how many it needs.
    """


@dataclass(frozen=True, kw_only=True)
class RlPromptKnobs:
    """Questions of the training side that reinforcement learning asks, each once."""

    families: dict[str, float]  # share of prompts
    level_low: float
    level_high: float
    num_prompts: int


@dataclass(frozen=True, kw_only=True)
class RlCell:
    """A fine-tuned model of the SFT grid that reinforcement learning goes on with."""

    arm: str
    mix: str


@dataclass(frozen=True, kw_only=True)
class RlKnobs:
    """Stage 3: GRPO on top of some SFT cells, as `GrpoRecipe` states it."""

    prompts: RlPromptKnobs
    cells: tuple[RlCell, ...]
    batch_prompts: int
    mini_batch_prompts: int
    steps: int
    prompt_tokens: int
    response_tokens: int
    grpo: Grpo
    optimizer: RlOptimizer
    sampling: Sampling
    precision: str
    actor: str
    rollout: str
    validate_every_steps: int
    checkpoint_every_steps: int


@dataclass(frozen=True, kw_only=True)
class StudyRecipe:
    """A crossed study: pretraining arms x SFT mixes x seeds, with its evaluation."""

    seeds: int  # number of seeds, 1 .. seeds: of the weights, the data order and the sampling
    synthesis: Synthesis | None = None  # exactly one of synthesis and own
    own: OwnData | None = None
    tokenizer: Tokenizer
    mixes: dict[str, MixKnobs]
    model: Model = field(metadata={"folder": "models"})
    pretraining: PretrainingKnobs
    arms: tuple[str, ...]  # mix of the second phase; `base` is the control
    ratio_arms: tuple[RatioArm, ...]
    sft: SftKnobs
    rl: RlKnobs | None = None  # absent: Table 3 and the hypotheses about RL stay open
    evaluation: EvaluationKnobs
    placement: Placement = field(metadata={"folder": "placements"})
    expect: dict[str, str] = field(default_factory=dict)  # label -> key that must come out
