"""What veRL reads: a Hugging Face folder and two parquet files, from what a run is given."""

import logging
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from frontload.data_tools.prompts import rl_parquet
from frontload.data_tools.prompts.length import PromptLimit, load_limit
from frontload.data_tools.text.document import Conversation, read_documents
from frontload.eval.grading.grade import Kind
from frontload.megatron_ext.checkpoints.files import check_same_model, write_model
from frontload.megatron_ext.hf import convert
from frontload.recipes.artifact import Inputs, prompts_file, train_prompts, validation_prompts
from frontload.recipes.errors import ArtifactError, RecipeError
from frontload.recipes.runs.grpo import GrpoRecipe
from frontload.recipes.runs.grpo_checks import num_validation_prompts
from frontload.rl.plugins.router import ROUTER_SETTINGS
from frontload.rl.trainer.local_run import router_file
from frontload.rl.trainer.settings import RunFiles

CONFIG = "config.json"  # of a Hugging Face folder; a checkpoint has none
LOG = logging.getLogger(__name__)
TOKENIZER_FILES = ("tokenizer.json", "chat_template.jinja")


def prepare(recipe: GrpoRecipe, inputs: Inputs, scratch: Path) -> RunFiles:
    """Writes what veRL reads, once; kept over a kill.

    Roles: `start`, a checkpoint with its `tokenizer`, or a Hugging Face folder that holds one;
    `prompts`, a prompts artifact, whose last rows are the validation set, or a file of them; then
    `validation` is the other file. A file is parquet as veRL reads it, or rows as in the artifact.

    Rows are measured here, where they become prompts: too long ones are left out and counted. A
    parquet file was measured where it was made; it is refused if one of its prompts is too long.

    Raises: ArtifactError for another model than the recipe's, or fewer prompts than a batch;
            RecipeError for a parquet file with prompts that are too long.
    """
    files = RunFiles(
        model=scratch / "model",
        train_prompts=scratch / "train.parquet",
        validation_prompts=scratch / "validation.parquet",
        checkpoints=scratch / "checkpoints",
        work=scratch / "verl",
    )
    if not files.model.exists():
        made = scratch / "model.new"
        shutil.rmtree(made, ignore_errors=True)
        if is_hf_folder(inputs["start"]):
            check_hf_folder(inputs["start"], recipe)
            shutil.copytree(inputs["start"], made)
        else:
            check_same_model(inputs["start"], recipe.model)
            convert.export_hf(inputs["start"], made, tokenizer=inputs["tokenizer"])
        write_model(made, recipe.model)
        made.rename(files.model)
    limit = load_limit(files.model, recipe.prompt_tokens)
    if "validation" in inputs:
        named = (("train", inputs["prompts"], files.train_prompts),)
        named += (("validation", inputs["validation"], files.validation_prompts),)
        for split, source, target in named:
            write_file(recipe, source, target, split=split, limit=limit)
    elif train_prompts(inputs["prompts"]).is_file():
        folder = inputs["prompts"]
        pairs = ((train_prompts(folder), files.train_prompts, "train"),)
        pairs += ((validation_prompts(folder), files.validation_prompts, "validation"),)
        for source, target, split in pairs:
            write_file(recipe, source, target, split=split, limit=limit)
    else:
        write_prompts(recipe, prompts_file(inputs["prompts"]), files, limit=limit)
    files.work.mkdir(exist_ok=True)
    router_file(files).write_text(ROUTER_SETTINGS)
    return files


def is_hf_folder(start: Path) -> bool:
    """Whether a model folder is Hugging Face's; a checkpoint has a model.json in its place."""
    return (start / CONFIG).is_file()


def check_hf_folder(folder: Path, recipe: GrpoRecipe) -> None:
    """Refuses a Hugging Face folder that is not the recipe's model, or has no tokenizer of ours.

    Raises: ArtifactError saying which file or tensor is wrong.
    """
    convert.check_hf(folder, recipe.model)
    for name in TOKENIZER_FILES:
        if not (folder / name).is_file():
            raise ArtifactError(
                f"Hugging Face folder {folder}",
                found=f"it has no {name}",
                rule="prompts are written with the model's own tokenizer and template",
                do="make it with `frontload convert to-hf`",
            )


def write_prompts(recipe: GrpoRecipe, source: Path, files: RunFiles, *, limit: PromptLimit) -> None:
    """Writes the prompts as veRL reads them, the last ones as its validation set.

    Raises: ArtifactError for fewer prompts than one batch needs.
    """
    prompts = read_prompts(source, limit)
    held = num_validation_prompts(len(prompts))
    if len(prompts) - held < recipe.batch_prompts:
        raise _too_few(recipe, source, f"{len(prompts)}, of which {held} are kept for validation")
    rl_parquet.write_prompts(files.train_prompts, prompts[:-held], split="train")
    rl_parquet.write_prompts(files.validation_prompts, prompts[-held:], split="validation")


def write_file(
    recipe: GrpoRecipe, source: Path, target: Path, *, split: str, limit: PromptLimit
) -> None:
    """A parquet file of prompts as it is, or one made of a prompts artifact's rows.

    Raises: ArtifactError for fewer training prompts than one batch needs, or for none; RecipeError
            for a parquet file with prompts that are too long.
    """
    if source.suffix == ".parquet":
        import pyarrow.parquet as pq

        rl_parquet.check_prompts(source, limit)
        shutil.copyfile(source, target)
        found = pq.read_metadata(target).num_rows
    else:
        prompts = read_prompts(source, limit)
        rl_parquet.write_prompts(target, prompts, split=split)
        found = len(prompts)
    if found < (recipe.batch_prompts if split == "train" else 1):
        raise _too_few(recipe, source, f"{found}")


def read_prompts(source: Path, limit: PromptLimit) -> Sequence[rl_parquet.Prompt]:
    """The questions of rows as in the corpus, graded by their family; without those too long.

    Raises: RecipeError if none is short enough.
    """
    rows = [row for row in read_documents(source) if isinstance(row, Conversation)]
    prompts = [_verl_prompt(row) for row in rows]
    misfits = list(limit.misfits(prompt.messages for prompt in prompts))
    kept = [prompt for prompt, why in zip(prompts, misfits, strict=True) if not why]
    if len(kept) < len(prompts):
        reasons = Counter(filter(None, misfits))
        found = " and ".join(f"{count} {why}" for why, count in reasons.items())
        if not kept:
            raise RecipeError(
                f"prompts {source}",
                found=f"all are left out: {found}",
                rule="a prompt, with the chat template around it, has at most prompt_tokens tokens",
                do="raise prompt_tokens of the recipe, or give shorter prompts",
            )
        LOG.warning("prompts %s: %s are left out, %d stay", source, found, len(kept))
    return kept


def _verl_prompt(row: Conversation) -> rl_parquet.Prompt:
    return rl_parquet.Prompt(
        data_source=row.family,
        messages=(("user", row.question),),
        ability=row.domain,
        ground_truth=row.answer,
        kind=Kind.FAMILY,
        question=row.question,
        options=(),
        source_index=row.id,
    )


def _too_few(recipe: GrpoRecipe, source: Path, found: str) -> ArtifactError:
    return ArtifactError(
        f"prompts {source}",
        found=found,
        rule=f"a step takes {recipe.batch_prompts}, and a validation one",
        do="give more prompts or lower batch_prompts",
    )
