"""What the stages of an allocation are given: the question, its cells, what is read beside them."""

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One way to spend a budget, as the surrogate of an allocation sees it."""

    name: str
    arm: str  # candidates of one arm share their pretraining at each seed
    levels: tuple[float, ...]  # its place on each factor that has an order, 0 to 1
    sets: tuple[str, ...]  # what it reads in pretraining and in SFT: factors without an order
    pretraining_tokens: int  # of reasoning
    sft_tokens: int  # of packed rows
    parts: dict[str, float]  # what is made for it at a seed -> price; candidates share equal names
    # set -> passes over it in pretraining and SFT together, of sets whose sizes the recipe states
    epochs: dict[str, float] = field(default_factory=dict, metadata={"neutral": {}})


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A number that an allocation should make large: a weighted sum of metrics."""

    name: str
    weights: dict[str, float]  # metric of a cell -> weight; below 0 for what should be small
    epsilon: float  # a difference that nobody would act on


@dataclass(frozen=True, kw_only=True)
class Competitor:
    """A candidate that the recommendation is compared with, whatever exploring says."""

    name: str
    candidate: int  # its place among the candidates


@dataclass(frozen=True, kw_only=True)
class AllocationQuestion:
    """An allocation's question, and all that its decisions follow from besides scores."""

    asked: str  # digest of the question without the prices and what was made before
    budget_tokens: int
    budget_unit: str  # read or loss
    budget_fixed: str  # pretraining or compute
    money_unit: str  # of every price: cpu_seconds or gpu_hours
    factors: tuple[str, ...]  # names of the levels of a candidate
    candidates: tuple[Candidate, ...]
    competitors: tuple[Competitor, ...]
    objectives: tuple[Objective, ...]  # the first one decides
    first_arms: int  # of the first block
    first_seeds: int
    explore_price: float  # most that exploring may cost, in the unit of the parts
    validate_price: float
    half_width: float  # of a comparison's interval, aimed at, in the deciding objective's unit
    least_seeds: int  # fresh ones of a comparison
    made: dict[str, tuple[str, ...]]  # seed -> parts that were there before


@dataclass(frozen=True, kw_only=True)
class AskedCell:
    """A candidate at a seed, and the input that holds its scores."""

    candidate: int
    seed: int
    role: str  # says both in words


@dataclass(frozen=True, kw_only=True)
class Decide:
    """Stage `decide`: the cells so far to the next block, or to the end of exploring."""

    question: AllocationQuestion
    round: int  # 0 = the first block, from what was made before
    cells: tuple[AskedCell, ...]


@dataclass(frozen=True, kw_only=True)
class Register:
    """Stage `register`: the recommendation and its comparisons, before any fresh seed is run."""

    question: AllocationQuestion
    cells: tuple[AskedCell, ...]
    stop: str  # why exploring ended


@dataclass(frozen=True, kw_only=True)
class Conclude:
    """Stage `conclude`: the comparisons on fresh seeds, and what they say of the question."""

    question: AllocationQuestion
    cells: tuple[AskedCell, ...]  # that were explored
    fresh_cells: tuple[AskedCell, ...]  # of the seeds that were registered


@dataclass(frozen=True, kw_only=True)
class ExchangeCell:
    """A cell that an exchange rate is read from, and the input that holds its scores."""

    pretraining_tokens: int  # of reasoning
    sft_tokens: int
    seed: int
    role: str


@dataclass(frozen=True, kw_only=True)
class ExchangeCells:
    """What an exchange rate is read from; every cell at every seed."""

    objective: Objective
    sets: tuple[str, ...]  # what is read in pretraining, and in SFT
    cells: tuple[ExchangeCell, ...]


@dataclass(frozen=True, kw_only=True)
class RatedCell:
    """A candidate that was fine-tuned at another learning rate."""

    candidate: int
    seed: int
    sft_rate: float  # in units of the study's
    role: str


@dataclass(frozen=True, kw_only=True)
class Readings:
    """Stage `readings`: what is read beside a verdict, on its seeds. No decision sees it."""

    question: AllocationQuestion
    exchange: ExchangeCells | None
    rated: tuple[RatedCell, ...]
