"""What a training recipe may say: one run of `frontload train`, and the stages it is made of.

A field that decides a weight reaches the hashed recipes of `schema.py`; `upkeep` does not.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from frontload.recipes.machines.upkeep import Upkeep
from frontload.recipes.schema import Model, Optimizer, Pretrain, Schedule, Sft, Training

SFT_STAGE = "sft"


@dataclass(frozen=True, kw_only=True)
class ScheduleShape:
    """The learning rate over the whole run; its length follows from the budgets."""

    kind: str  # cosine, wsd or constant
    warmup_share: float
    decay_share: float  # wsd only; else 0.0


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A part of pretraining with one mix of sources: one blend, one stage, one checkpoint."""

    name: str
    tokens: int  # whole global batches
    sources: dict[str, float]  # source -> share of the tokens; sums to 1


@dataclass(frozen=True, kw_only=True)
class TrainKnobs(ABC):
    """What pretraining and SFT state alike."""

    model: Model = field(metadata={"folder": "models"})
    sequence_tokens: int
    global_batch_sequences: int
    optimizer: Optimizer
    schedule: ScheduleShape
    precision: str
    reset_at_document_boundaries: bool
    seed: int  # of the initial weights; the order of samples is data
    upkeep: Upkeep = field(default_factory=Upkeep)

    @property
    def batch_tokens(self) -> int:
        """Tokens of one step."""
        return self.sequence_tokens * self.global_batch_sequences

    @property
    @abstractmethod
    def total_tokens(self) -> int:
        """The whole budget of the run."""

    def training(self) -> Training:
        """The part that every stage of the run shares."""
        shape = self.schedule
        return Training(
            sequence_tokens=self.sequence_tokens,
            global_batch_sequences=self.global_batch_sequences,
            optimizer=self.optimizer,
            schedule=Schedule(
                kind=shape.kind,
                warmup_share=shape.warmup_share,
                decay_share=shape.decay_share,
                total_samples=self.total_tokens // self.sequence_tokens,
            ),
            precision=self.precision,
            reset_at_document_boundaries=self.reset_at_document_boundaries,
            seed=self.seed,
        )


@dataclass(frozen=True, kw_only=True)
class PretrainRecipe(TrainKnobs):
    """Pretraining: phases that follow each other under one schedule and one optimizer."""

    phases: tuple[Phase, ...]

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
            )
            start += num_samples
        return found


@dataclass(frozen=True, kw_only=True)
class SftRecipe(TrainKnobs):
    """Fine-tuning of one start model on one pack."""

    tokens: int  # rows x sequence_tokens, padding included; whole global batches

    @property
    def total_tokens(self) -> int:
        """The budget in packed rows."""
        return self.tokens

    def stages(self) -> dict[str, Sft]:
        """The one stage."""
        num_samples = self.tokens // self.sequence_tokens
        stage = Sft(model=self.model, training=self.training(), num_samples=num_samples)
        return {SFT_STAGE: stage}
