"""What a study YAML may say. `expand.py` turns it into stages; nothing here is hashed itself."""

from dataclasses import dataclass, field

from frontload.recipes.machines.placement import Placement
from frontload.recipes.runs.curation import Curation
from frontload.recipes.runs.grpo import GrpoKnobs
from frontload.recipes.runs.suite import SuiteRecipe
from frontload.recipes.runs.training import NOT_OF_A_STUDY, SftBudgetKnobs, TrainingKnobs
from frontload.recipes.schema import Model, OwnData, RowWeights, Synthesis, Tokenizer
from frontload.recipes.token_losses import PLAIN_LOSS, TokenLoss

PARENT = {"parents": "training", "stated_elsewhere": NOT_OF_A_STUDY}
"""Of a section that may go on from a recipe of one run, e.g. `sft: {extends: sft_8b, ...}`."""


@dataclass(frozen=True, kw_only=True)
class MixKnobs:
    """One named mix; its name is the key it stands under, its seed the corpus's."""

    members: tuple[str, ...]  # corpus sets whose plain union this is
    min_answer_tokens: int  # keep answers of ldq strictly longer than this; 0 = keep all
    share_of_member: dict[str, float]  # member -> share kept; absent = 1.0
    # member -> [from, to] of its seeded order: [0.0, 0.5] and [0.5, 1.0] share no row
    part_of_member: dict[str, tuple[float, ...]] = field(default_factory=dict)
    row_weights: RowWeights | None = None  # of a mix for SFT alone; absent = each row once


@dataclass(frozen=True, kw_only=True)
class RawKnobs:
    """Raw files of any size, and how they become sets. Paths: seen from the command's folder."""

    revision: str  # of the files, in your words: another one makes everything anew
    seed: int  # of the prompts of reinforcement learning
    tokenizer: str  # a tokenizer.json, or a folder with one
    base_files: tuple[str, ...]  # base text; globs allowed
    base_field: str  # the field that holds it
    curation: Curation = field(metadata={"folder": "curations"})  # makes the sets
    items: str  # JSONL of the questions that score the models
    heldout: str  # JSONL of worked answers for the held-out loss
    over_long: str  # what packs do with conversations longer than a row: drop or split_at_turn
    prompts: tuple[str, ...] = ()  # the two files of Nemotron-CrossThink, general and math
    general_to_math: str = "2:1"
    validation_prompts: int = 0  # of them, kept out of training


@dataclass(frozen=True, kw_only=True)
class PretrainingKnobs(TrainingKnobs):
    """Two phases: pure base (the shared trunk), then base and one reasoning mix (the branch)."""

    tokens: int  # budget of one model
    first_phase_share: float  # share of the budget spent on pure base, to the nearest whole batch
    base_share: float  # share of base in the second phase; 1 - base_share is reasoning
    max_epochs: dict[str, float]  # mix -> most passes over it, all phases together
    # mix -> the sets it is the union of and their sizes in tokens: read side by side in proportion,
    # where the union has no index of its own
    parts: dict[str, dict[str, int]] = field(default_factory=dict)
    sparsity: float = 0.0  # of the grid, and of points that name none


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
class SftKnobs(SftBudgetKnobs):
    """Every arm is tuned on every mix of `mixes`; `cells` lie off that grid."""

    mixes: tuple[str, ...]
    cells: tuple[SftCell, ...]
    max_epochs: dict[str, float] = field(default_factory=dict)  # mix -> most passes; absent = any
    loss: TokenLoss = PLAIN_LOSS  # of the grid, and of points that name none


@dataclass(frozen=True, kw_only=True)
class PointTuning:
    """The fine-tuning of a listed point."""

    mix: str
    tokens: int  # 0 = none: the model as pretraining left it, scored as fine-tuned ones are
    loss: TokenLoss | None = None  # absent = that of `sft`


@dataclass(frozen=True, kw_only=True)
class OwnSampleKnobs:
    """An SFT set of each model's own right answers: rejection sampling."""

    questions_of: str  # a mix
    num_questions: int
    num_samples: int  # answers to each
    most_kept: int  # right answers to a question that are kept
    temperature: float
    max_new_tokens: int
    tuned: PointTuning | None = None  # what answers; absent = the model as pretraining left it


@dataclass(frozen=True, kw_only=True)
class PointKnobs:
    """One model off the grid, asked for by itself."""

    windows: dict[str, int]  # reasoning set -> its tokens in pretraining; {} = base text alone
    onset_tokens: int | None = None  # of base text before them; absent = the first phase
    sft: PointTuning | None = None
    rl: bool = False
    sparsity: float | None = None  # of pretraining; absent = that of `pretraining`
    seeds: tuple[int, ...] = ()  # () = the study's
    suites: tuple[str, ...] = ()  # base, sft or both; () = base before SFT, sft after it


@dataclass(frozen=True, kw_only=True)
class SuiteKnobs:
    """How one evaluation suite samples."""

    num_samples: int  # generations an item; pass@1 is their mean
    num_hard_samples: int
    temperature: float  # 0.0 = greedy
    max_new_tokens: int
    num_shots: int


@dataclass(frozen=True, kw_only=True)
class ProxyKnobs:
    """Many answers of every fine-tuned model to few questions: which cells deserve RL."""

    num_samples: int  # answers to a question: pass@k is estimated for k up to it
    items_per_benchmark: int  # its first questions


@dataclass(frozen=True, kw_only=True)
class BenchmarkKnobs:
    """The paper's benchmarks, asked in place of the corpus's own questions."""

    root: str  # folder of rows that `frontload eval data` made, seen from the command's folder
    revision: str  # of the rows, in your words: another one makes the scores anew
    size: str  # full, or tiny: a few fixed rows
    answerer: str  # frontload: in the stage's process; vllm: from an exported copy
    base: SuiteRecipe = field(metadata={"folder": "suites"})  # of pretrained models
    sft: SuiteRecipe = field(metadata={"folder": "suites"})  # of fine-tuned models
    rl: SuiteRecipe = field(metadata={"folder": "suites"})  # of reinforced models


@dataclass(frozen=True, kw_only=True)
class EvaluationKnobs:
    """The base suite scores pretrained models, the sft suite fine-tuned ones."""

    base: SuiteKnobs
    sft: SuiteKnobs
    min_effect: float  # smallest difference called an effect, percentage points
    suites_of_pretrained: tuple[str, ...] = ("base",)  # "sft" too: before and after SFT compare
    suites_of_tuned: tuple[str, ...] = ("sft",)  # of SFT and RL; "base" too: what they forget
    proxies: ProxyKnobs | None = None  # absent: no proxy of RL is measured
    # of each SFT set, scored under each pretrained model; 0 = none
    set_loss_conversations: int = 0
    seed_spreads: dict[str, float] = field(default_factory=dict)
    """`stage/metric` -> standard deviation of one cell over seeds, points: what a study of several
    seeds found (seed_spreads of its cells.json), from which one of one seed says how many it needs.
    """
    benchmarks: BenchmarkKnobs | None = None  # absent: the corpus's questions, by base and sft


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
class RlKnobs(GrpoKnobs):
    """Stage 3: GRPO on top of some SFT cells."""

    prompts: RlPromptKnobs | None = None  # absent with `raw`, which names files
    cells: tuple[RlCell, ...]


@dataclass(frozen=True, kw_only=True)
class StudyRecipe:
    """A study: the paper's grid of arms x SFT mixes x seeds, further points, their evaluation."""

    seeds: tuple[int, ...]  # of the weights, the data order and the sampling
    synthesis: Synthesis | None = None  # exactly one of synthesis, own and raw
    own: OwnData | None = None
    raw: RawKnobs | None = None
    draws_data_per_seed: bool = False  # of `synthesis`: then errors hold the spread over draws
    tokenizer: Tokenizer | None = None  # absent with `raw`, which names one
    mixes: dict[str, MixKnobs] = field(default_factory=dict)  # those of `raw` are its sets
    model: Model = field(metadata={"folder": "models"})
    pretraining: PretrainingKnobs = field(metadata=PARENT)
    arms: tuple[str, ...]  # mix of the second phase; `base` is the control
    ratio_arms: tuple[RatioArm, ...]
    sft: SftKnobs = field(metadata=PARENT)
    # SFT sets by name, beside the mixes: each model's fine-tuning reads answers of its own
    own_samples: dict[str, OwnSampleKnobs] = field(default_factory=dict)
    points: tuple[PointKnobs, ...] = ()  # further models, one by one
    # absent: Table 3 and the hypotheses about RL stay open
    rl: RlKnobs | None = field(default=None, metadata=PARENT)
    evaluation: EvaluationKnobs
    placement: Placement = field(metadata={"folder": "placements"})  # of all kinds of stage ...
    # ... but these: kind -> where its stages run
    placements: dict[str, Placement] = field(
        default_factory=dict, metadata={"folder": "placements"}
    )
    expect: dict[str, str] = field(default_factory=dict)  # label -> key that must come out
