"""What an allocation YAML may say. `lattice.py` turns it into points of its study."""

from dataclasses import dataclass, field

from frontload.recipes.runs.training import LOSS, READ
from frontload.recipes.study.schema import PointKnobs, StudyRecipe

UNITS = (READ, LOSS)
PRETRAINING, COMPUTE = "pretraining", "compute"
FIXED = (PRETRAINING, COMPUTE)
CPU_SECONDS, GPU_HOURS = "cpu_seconds", "gpu_hours"
MONEY_UNITS = (CPU_SECONDS, GPU_HOURS)


@dataclass(frozen=True, kw_only=True)
class Levels:
    """The levels of a factor, evenly spaced, both ends included."""

    least: float
    most: float
    steps: int


@dataclass(frozen=True, kw_only=True)
class BudgetKnobs:
    """What is to be spent, on reasoning data alone."""

    tokens: int
    unit: str  # read: what training reads, padding included; loss: tokens with a loss
    fixed: str  # pretraining: its tokens; compute: tokens of pretraining and SFT together
    # loss only: SFT mix -> tokens with a loss over tokens of packed rows, as pack.json says
    loss_share: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ObjectiveKnobs:
    """One way to say that a model is better."""

    weights: dict[str, float]  # metric of cells.json -> weight; below 0 for a loss
    epsilon: float  # a difference that nobody would act on, in the objective's unit


@dataclass(frozen=True, kw_only=True)
class FactorKnobs:
    """What may be chosen. Every combination that fits is a candidate."""

    pretraining_share: Levels  # of the budget, the rest goes into SFT
    pretraining_sets: dict[str, dict[str, float]]  # name -> set -> share of what pretraining reads
    sft_mixes: tuple[str, ...]
    onset: Levels | None = None  # share of pretraining before its first token of reasoning ...
    base_share: Levels | None = None  # ... or of base text after it; absent: the study's onset


@dataclass(frozen=True, kw_only=True)
class MoneyKnobs:
    """What may be spent on finding out."""

    explore: float
    validate: float
    unit: str  # cpu_seconds or gpu_hours


@dataclass(frozen=True, kw_only=True)
class DesignKnobs:
    """How exploring begins, and what the comparison aims at."""

    first_arms: int
    first_seeds: int
    half_width: float  # of a comparison's interval, in the deciding objective's unit
    least_seeds: int  # fresh ones of a comparison


@dataclass(frozen=True, kw_only=True)
class ExchangeKnobs:
    """Cells that say what a token of pretraining is worth in tokens of SFT."""

    objective: str
    cells: dict[str, PointKnobs]  # of one set in pretraining and one in SFT; not all of one budget


@dataclass(frozen=True, kw_only=True)
class ReadingKnobs:
    """What is read beside the verdict, on its fresh seeds. No decision sees it."""

    seeds: int  # at most: the comparison's own may be fewer
    exchange: ExchangeKnobs | None = None
    # SFT learning rates in units of the study's: the recommendation and its closest rival again
    sft_rates: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class AllocationRecipe:
    """Where should a budget of reasoning tokens go? Every part is stated, none has a default."""

    # model, data, training, suites: a study's name, or `{extends: NAME, ...}` with what differs
    study: StudyRecipe = field(
        metadata={"folder": "studies", "parents": "studies", "stated_elsewhere": ()}
    )
    budget: BudgetKnobs
    objectives: dict[str, ObjectiveKnobs]
    decides: str  # the objective that the recommendation is for; the others are reported beside it
    factors: FactorKnobs
    # SFT mix -> most passes over it, where the recipe states its size; in no key, other than the
    # study's own sft.max_epochs
    sft_max_epochs: dict[str, float]
    competitors: dict[str, PointKnobs]
    money: MoneyKnobs
    design: DesignKnobs
    # absent: nothing is read beside the verdict
    readings: ReadingKnobs | None = field(default=None, metadata={"neutral": None})
