"""Which stages a model has read its tokens from, and what its training costs. Pure."""

from dataclasses import dataclass

from frontload.recipes.facts.census import training_flops_per_token
from frontload.recipes.schema import CellReading
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
            tokens = stage.recipe.num_samples * stage.recipe.training.sequence_tokens
            width = stage.recipe.training.sequence_tokens
            flops += tokens * training_flops_per_token(stage.recipe.model, width)
        pack = stage.inputs.get("pack", pack)
        if "blend" in stage.inputs:
            blends.insert(0, stage.inputs["blend"])
        stage = stage.inputs.get("start")
    return ModelReading(blends=tuple(blends), pack=pack, training_flops=flops)
