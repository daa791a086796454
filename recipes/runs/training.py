"""What a training recipe may say: one run of `frontload train`, and the stages it is made of.

A field that decides a weight reaches the hashed recipes of `schema.py`; `upkeep` does not.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from frontload.recipes.machines.upkeep import Upkeep
from frontload.recipes.schema import Model, Optimizer, Pretrain, Schedule, Sft, Training
from frontload.recipes.token_losses import PLAIN_LOSS, TokenLoss

SFT_STAGE = "sft"
ROWS, READ, LOSS = "rows", "read", "loss"
BUDGET_UNITS = (ROWS, READ, LOSS)
"""What an SFT budget counts: packed rows with their padding, tokens read, tokens with loss."""


@dataclass(frozen=True, kw_only=True)
class TrainingKnobs:
    """How a model is trained, as a recipe of one run and the sections of a study state it alike."""

    sequence_tokens: int
    global_batch_sequences: int
    learning_rate: float  # peak
    final_learning_rate_share: float  # the schedule ends at this share of the peak
    schedule: str  # cosine, wsd or constant; its length follows from the budgets
    warmup_share: float
    decay_share: float  # wsd only; else 0.0
    adam_beta1: float
    adam_beta2: float
    adam_epsilon: float
    weight_decay: float
    clip_grad: float
    precision: str
    reset_at_document_boundaries: bool

    @property
    def batch_tokens(self) -> int:
        """Tokens of one step."""
        return self.sequence_tokens * self.global_batch_sequences

    def training_of(self, *, total_samples: int, seed: int) -> Training:
        """What the stages of a run hash, for a run of `total_samples` under one schedule."""
        return Training(
            sequence_tokens=self.sequence_tokens,
            global_batch_sequences=self.global_batch_sequences,
            optimizer=Optimizer(
                learning_rate=self.learning_rate,
                min_learning_rate=_product(self.learning_rate, self.final_learning_rate_share),
                adam_beta1=self.adam_beta1,
                adam_beta2=self.adam_beta2,
                adam_epsilon=self.adam_epsilon,
                weight_decay=self.weight_decay,
                clip_grad=self.clip_grad,
            ),
            schedule=Schedule(
                kind=self.schedule,
                warmup_share=self.warmup_share,
                decay_share=self.decay_share,
                total_samples=total_samples,
            ),
            precision=self.precision,
            reset_at_document_boundaries=self.reset_at_document_boundaries,
            seed=seed,
        )


def _product(rate: float, share: float) -> float:
    """Rounded to 12 digits, so that 1.0e-5 x 0.1 is 1e-06 in keys and messages."""
    return float(f"{rate * share:.12g}")


@dataclass(frozen=True, kw_only=True)
class SftBudgetKnobs(TrainingKnobs):
    """What fine-tuning spends, as a recipe of one run and a study state it alike.

    Of `rows` a step is a whole batch. Of `read` and `loss` every step takes the next rows up to its
    share of the budget, at most a batch of them, and the last row is cut at the budget's end.
    """

    tokens: int  # budget; of a study, of one cell at multiplier 1
    budget_unit: str = ROWS  # rows, read or loss
    step_tokens: int = 0  # of a step, in read or loss; below a batch's, by the padding of its rows

    def num_steps(self, tokens: int) -> int:
        """Steps over which a budget is spread."""
        return -(-tokens // (self.batch_tokens if self.budget_unit == ROWS else self.step_tokens))

    def num_samples(self, tokens: int) -> int:
        """Rows of those steps, the empty ones included."""
        return self.num_steps(tokens) * self.global_batch_sequences


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A part of pretraining with one mix of sources: one blend, one stage, one checkpoint."""

    name: str
    tokens: int  # whole global batches
    sources: dict[str, float]  # source -> share of the tokens; sums to 1


@dataclass(frozen=True, kw_only=True)
class RunRecipe(TrainingKnobs, ABC):
    """What a recipe of one run states beside it; a study states these once for all of its runs."""

    model: Model = field(metadata={"folder": "models"})
    seed: int  # of the initial weights; the order of samples is data
    upkeep: Upkeep = field(default_factory=Upkeep)

    @property
    @abstractmethod
    def total_tokens(self) -> int:
        """The whole budget of the run."""

    @property
    def total_samples(self) -> int:
        """Its sequences."""
        return self.total_tokens // self.sequence_tokens

    def training(self) -> Training:
        """The part that every stage of the run shares."""
        return self.training_of(total_samples=self.total_samples, seed=self.seed)


@dataclass(frozen=True, kw_only=True)
class PretrainRecipe(RunRecipe):
    """Pretraining: phases that follow each other under one schedule and one optimizer."""

    phases: tuple[Phase, ...]
    sparsity: float = 0.0  # share of the weights of each matrix of each layer that stay 0

    @property
    def total_tokens(self) -> int:
        """Of all phases."""
        return sum(phase.tokens for phase in self.phases)

    def stages(self) -> dict[str, Pretrain]:
        """Phase name -> its stage, in order."""
        found: dict[str, Pretrain] = {}
        start = 0
        for phase in self.phases:
            num_samples = phase.tokens // self.sequence_tokens
            found[phase.name] = Pretrain(
                model=self.model,
                training=self.training(),
                start_sample=start,
                num_samples=num_samples,
                sparsity=self.sparsity,
            )
            start += num_samples
        return found


@dataclass(frozen=True, kw_only=True)
class SftRecipe(SftBudgetKnobs, RunRecipe):
    """Fine-tuning of one start model on one pack."""

    loss: TokenLoss = PLAIN_LOSS

    @property
    def total_tokens(self) -> int:
        """In the budget's unit."""
        return self.tokens

    @property
    def total_samples(self) -> int:
        """Rows of the whole budget."""
        return self.num_samples(self.tokens)

    def stages(self) -> dict[str, Sft]:
        """The one stage."""
        stage = Sft(
            model=self.model,
            training=self.training(),
            num_samples=self.total_samples,
            loss=self.loss,
        )
        return {SFT_STAGE: stage}


NOT_OF_A_STUDY = ("model", "seed", "upkeep", "phases")
"""Fields of a training recipe that a study which goes on from it states elsewhere."""
