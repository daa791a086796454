"""Which stages a model has read its tokens from, and what its training costs. Pure."""

from dataclasses import dataclass

from frontload.recipes.facts.census import (
    BACKWARD_FACTOR,
    count_masked,
    forward_flops_per_token,
    training_flops_per_token,
)
from frontload.recipes.runs.training import READ
from frontload.recipes.schema import CellReading, Pretrain, Sft
from frontload.recipes.stage import Stage
from frontload.recipes.token_losses import needs_start_model

MULTIPLY_ADD = 2.0  # operations of a weight in a product, a token


@dataclass(frozen=True, kw_only=True)
class ModelReading:
    """The blends of a model's pretraining, oldest first, its pack if any, its operations."""

    blends: tuple[Stage, ...]
    pack: Stage | None
    pretraining_flops: float
    masked_flops: float  # of them, products of weights that stay 0
    sft_flops_per_token: float  # RL is not counted

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What `tabulate` reads for the ledger."""
        return self.blends if self.pack is None else (*self.blends, self.pack)

    def of_cell(self) -> CellReading:
        """The same by the roles of `tabulate`."""
        return CellReading(
            blends=tuple(map(role_of, self.blends)),
            pack="" if self.pack is None else role_of(self.pack),
            pretraining_flops=self.pretraining_flops,
            sft_flops_per_token=self.sft_flops_per_token,
            sparse_flops=self.pretraining_flops - self.masked_flops if self.masked_flops else 0.0,
        )


def trained_tokens(stage: Stage) -> int:
    """What a stage of pretraining or SFT reads, padding left out where its budget counts none."""
    pack = stage.inputs.get("pack")
    if pack is not None and pack.recipe.unit == READ:
        return pack.recipe.tokens
    return stage.recipe.num_samples * stage.recipe.training.sequence_tokens


def flops_per_token(stage: Stage) -> float:
    """Operations of such a stage a token, those of a start model's losses included."""
    recipe, width = stage.recipe, stage.recipe.training.sequence_tokens
    a_token = training_flops_per_token(recipe.model, width)
    if isinstance(recipe, Sft) and needs_start_model(recipe.loss):
        a_token += forward_flops_per_token(recipe.model, width)
    return a_token


def training_flops(stage: Stage) -> float:
    """Operations of such a stage."""
    return trained_tokens(stage) * flops_per_token(stage)


def masked_flops_per_token(recipe: Pretrain) -> float:
    """Operations of weights that stay 0; this engine computes them all the same."""
    masked = count_masked(recipe.model, recipe.sparsity)
    return MULTIPLY_ADD * (1.0 + BACKWARD_FACTOR) * masked


def role_of(stage: Stage) -> str:
    """The role of a blend or a pack among the inputs of `tabulate`."""
    return f"{stage.kind} {stage.label}"


def reading_of(model: Stage) -> ModelReading:
    """What lies below a checkpoint."""
    blends: list[Stage] = []
    pack, flops, masked, sft_flops = None, 0.0, 0.0, 0.0
    stage: Stage | None = model
    while stage is not None:
        if stage.kind == "sft":
            sft_flops = flops_per_token(stage)
        elif stage.kind == "pretrain":
            flops += training_flops(stage)
            masked += trained_tokens(stage) * masked_flops_per_token(stage.recipe)
        pack = stage.inputs.get("pack", pack)
        if "blend" in stage.inputs:
            blends.insert(0, stage.inputs["blend"])
        stage = stage.inputs.get("start")
    return ModelReading(
        blends=tuple(blends),
        pack=pack,
        pretraining_flops=flops,
        masked_flops=masked,
        sft_flops_per_token=sft_flops,
    )
