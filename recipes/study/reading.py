"""Which stages a model has read its tokens from, and what its training costs. Pure."""

from dataclasses import dataclass

from frontload.recipes.facts.census import forward_flops_per_token, training_flops_per_token
from frontload.recipes.facts.token_losses import needs_start_model
from frontload.recipes.schema import CellReading, Sft
from frontload.recipes.stage import Stage


@dataclass(frozen=True, kw_only=True)
class ModelReading:
    """The blends of a model's pretraining, oldest first, its pack if any, its operations."""

    blends: tuple[Stage, ...]
    pack: Stage | None
    training_flops: float  # of pretraining and SFT, padding of rows included; RL is not counted

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What `tabulate` reads for the ledger."""
        return self.blends if self.pack is None else (*self.blends, self.pack)

    def of_cell(self) -> CellReading:
        """The same by the roles of `tabulate`."""
        return CellReading(
            blends=tuple(map(role_of, self.blends)),
            pack="" if self.pack is None else role_of(self.pack),
            training_flops=self.training_flops,
        )


def training_flops(stage: Stage) -> float:
    """Operations of a stage of pretraining or SFT, those of a start model's losses included."""
    recipe, width = stage.recipe, stage.recipe.training.sequence_tokens
    a_token = training_flops_per_token(recipe.model, width)
    if isinstance(recipe, Sft) and needs_start_model(recipe.loss):
        a_token += forward_flops_per_token(recipe.model, width)
    return recipe.num_samples * width * a_token


def role_of(stage: Stage) -> str:
    """The role of a blend or a pack among the inputs of `tabulate`."""
    return f"{stage.kind} {stage.label}"


def reading_of(model: Stage) -> ModelReading:
    """What lies below a checkpoint."""
    blends: list[Stage] = []
    pack, flops = None, 0.0
    stage: Stage | None = model
    while stage is not None:
        if stage.kind in ("pretrain", "sft"):
            flops += training_flops(stage)
        pack = stage.inputs.get("pack", pack)
        if "blend" in stage.inputs:
            blends.insert(0, stage.inputs["blend"])
        stage = stage.inputs.get("start")
    return ModelReading(blends=tuple(blends), pack=pack, training_flops=flops)
