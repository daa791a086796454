"""The stages `pretrain` and `sft`: wiring between artifacts and the training loop."""

import shutil

from frontload.recipes.artifact import Inputs, Workspace, exported_model
from frontload.recipes.errors import ArtifactError
from frontload.recipes.schema import Export, Pretrain, Sft


def pretrain(recipe: Pretrain, inputs: Inputs, work: Workspace) -> None:
    """Trains one phase on a blend, from drawn weights or onward from the checkpoint `start`."""
    from frontload.megatron_ext import cpu  # torch and Megatron load when a stage runs, not before

    cpu.prepare()
    from frontload.megatron_ext.training.datasets import BlendSamples
    from frontload.megatron_ext.training.loop import TrainingJob, train

    samples = BlendSamples(inputs["blend"], inputs)
    _check_sequence(samples.sequence_tokens, recipe.training.sequence_tokens)
    job = TrainingJob(
        model=recipe.model,
        training=recipe.training,
        samples=samples,
        num_samples=recipe.num_samples,
        start_sample=recipe.start_sample,
        start=inputs.get("start"),
        optimizer_continues=True,
        sparsity=recipe.sparsity,
    )
    train(job, work)


def sft(recipe: Sft, inputs: Inputs, work: Workspace) -> None:
    """Fine-tunes the checkpoint `start` on packed conversations; its optimizer is left behind."""
    from frontload.megatron_ext import cpu

    cpu.prepare()
    from frontload.megatron_ext.training.datasets import PackSamples
    from frontload.megatron_ext.training.loop import TrainingJob, train

    samples = PackSamples(inputs["pack"], recipe.training.sequence_tokens)
    _check_batch(samples.batch_rows, recipe.training.global_batch_sequences)
    job = TrainingJob(
        model=recipe.model,
        training=recipe.training,
        samples=samples,
        num_samples=recipe.num_samples,
        start_sample=0,
        start=inputs["start"],
        optimizer_continues=False,
        loss=recipe.loss,
    )
    train(job, work)


def export(recipe: Export, inputs: Inputs, work: Workspace) -> None:
    """Writes a checkpoint as a Hugging Face folder with its tokenizer."""
    from frontload.megatron_ext.hf import convert

    out = exported_model(work.path)
    shutil.rmtree(out, ignore_errors=True)  # what a kill left
    convert.export_hf(inputs["checkpoint"], out, tokenizer=inputs["tokenizer"])


def _check_batch(found: int, asked: int) -> None:
    if found and found != asked:
        raise ArtifactError(
            "pack",
            found=f"steps of {found} rows",
            rule=f"training.global_batch_sequences is {asked}",
            do="make the pack for batches of so many rows",
        )


def _check_sequence(found: int, asked: int) -> None:
    if found != asked:
        raise ArtifactError(
            "blend",
            found=f"samples of {found} tokens",
            rule=f"training.sequence_tokens is {asked}",
            do="make the blend with the same sequence_tokens",
        )
