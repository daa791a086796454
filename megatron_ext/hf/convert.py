"""Checkpoints of ours to Hugging Face `nemotron_h` and back, one layer in memory at a time."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from frontload.megatron_ext.checkpoints.files import WEIGHTS, read_model, write_model
from frontload.megatron_ext.hf.config import check_arithmetic, read_config, to_config
from frontload.megatron_ext.hf.megatron import CheckpointWriter, StoredTensors
from frontload.megatron_ext.hf.names import Group, Link, Slot, groups, stored_name
from frontload.megatron_ext.hf.safetensors import (
    INDEX,
    ShardReader,
    ShardWriter,
    plan_shards,
    shard_index,
    sync_folder,
)
from frontload.megatron_ext.hf.tokenizer import token_ids, write_tokenizer
from frontload.recipes.artifact import write_json
from frontload.recipes.errors import ArtifactError, RecipeError
from frontload.recipes.schema import Model

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
CONFIG_NAMES = {"fp32": "float32", "bf16": "bfloat16"}
MAX_SHARD_BYTES = 5_000_000_000  # what transformers cut at until version 5


def export_hf(
    checkpoint: Path,
    out: Path,
    *,
    tokenizer: Path | None = None,
    dtype: str = "fp32",
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Writes a checkpoint artifact, whatever layout wrote it, as a new Hugging Face folder.

    `tokenizer` is the tokenizer artifact or its file; without it the folder holds the model only.
    With `bf16` numbers are rounded to nearest, ties to even.

    Raises: RecipeError if `out` exists or an option is not one; ArtifactError for a checkpoint that
        is missing, torn, of another model, or not to be said in this format.
    """
    number = _check_dtype(dtype)
    if max_shard_bytes < 1:
        raise RecipeError(
            "--max-shard-bytes",
            found=f"is {max_shard_bytes}",
            rule="a file holds at least one byte",
            do="write 5000000000 or leave it out",
        )
    _check_new(out)
    _check_is_checkpoint(checkpoint)
    model = read_model(checkpoint)
    config = to_config(model, dtype=CONFIG_NAMES[dtype], token_ids=token_ids())
    stored = StoredTensors(checkpoint / WEIGHTS)
    _check_stored(checkpoint, model, stored.shapes)
    partial = _begin(out)
    slots = [slot for group in groups(model) for link in group.links for slot in link.hf]
    shards = plan_shards(slots, dtype=number, max_shard_bytes=max_shard_bytes)
    writer = ShardWriter(partial, shards, number)
    try:
        if tokenizer is not None:  # first: it is quick to refuse
            limit = model.max_sequence_tokens
            write_tokenizer(tokenizer, partial, max_sequence_tokens=limit)
        for group in groups(model):
            _export_group(model, group, stored, writer)
        write_json(partial / INDEX, shard_index(shards, number))
        write_json(partial / "config.json", config)
        ends = {name: number for name, number in token_ids().items() if number is not None}
        write_json(partial / "generation_config.json", ends)
    except BaseException:
        writer.close()
        shutil.rmtree(partial, ignore_errors=True)
        raise
    _publish(partial, out)


def import_hf(hf: Path, out: Path, *, dtype: str = "fp32", model: Model | None = None) -> None:
    """Writes a Hugging Face folder as a new checkpoint artifact, which training can start from.

    Raises: as `import_into`; RecipeError if `out` exists.
    """
    _check_dtype(dtype)
    _check_new(out)
    model, reader = _open_hf(hf, model)
    partial = _begin(out)
    try:
        _import(model, reader, partial, dtype=dtype)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    _publish(partial, out)


def import_into(hf: Path, folder: Path, *, dtype: str = "fp32", model: Model | None = None) -> None:
    """Writes the checkpoint's files into a folder that is there, such as a stage's workspace.

    Can be called again after a kill: what an earlier call left is replaced. `model` is the recipe
    of the checkpoint that the folder came from, for what a trainer may have overridden in
    config.json without changing the arithmetic (the chunk of the scan, the spread of new weights).

    Raises: ArtifactError for a folder whose config names what this engine does not build, or whose
        tensors are truncated, missing, too many or of another shape.
    """
    _check_dtype(dtype)
    model, reader = _open_hf(hf, model)
    _import(model, reader, folder, dtype=dtype)


def check_hf(hf: Path, model: Model) -> None:
    """Checks that a Hugging Face folder holds this model, whole; reads headers only.

    Raises: ArtifactError as `import_into`.
    """
    _open_hf(hf, model)


def to_hf(link: Link, tensors: tuple[Tensor, ...], model: Model) -> tuple[Tensor, ...]:
    """The Hugging Face tensors of a link, from Megatron's."""
    if not link.is_qkv:
        whole = tensors[0] if len(tensors) == 1 else torch.cat(tensors)
        return (whole,)
    grouped = tensors[0].unflatten(0, (model.num_query_groups, -1, model.kv_channels))
    queries, key, value = grouped[:, :-2], grouped[:, -2], grouped[:, -1]
    return queries.flatten(0, 2), key.flatten(0, 1), value.flatten(0, 1)


def to_megatron(link: Link, tensors: tuple[Tensor, ...], model: Model) -> tuple[Tensor, ...]:
    """Megatron's tensors of a link, from the Hugging Face tensors."""
    if not link.is_qkv:
        return tensors[0].split([slot.shape[0] for slot in link.megatron])
    shape = (model.num_query_groups, -1, model.kv_channels)
    return (torch.cat([tensor.unflatten(0, shape) for tensor in tensors], 1).flatten(0, 2),)


def _export_group(model: Model, group: Group, stored: StoredTensors, writer: ShardWriter) -> None:
    names = {
        slot.name: stored_name(slot.name, stored.shapes)
        for link in group.links
        for slot in link.megatron
    }
    tensors = stored.read(names.values())
    for link in group.links:
        sources = tuple(tensors.pop(names[slot.name]) for slot in link.megatron)
        for slot, tensor in zip(link.hf, to_hf(link, sources, model), strict=True):
            writer.write(slot.name, tensor)


def _open_hf(hf: Path, known: Model | None) -> tuple[Model, ShardReader]:
    if not hf.is_dir():
        raise ArtifactError(
            f"convert from-hf {hf}",
            found="there is no such folder",
            rule="a Hugging Face folder holds config.json and safetensors",
            do="correct the path",
        )
    model = read_config(hf)
    if known is not None:
        check_arithmetic(hf, model, known)
        model = known
    reader = ShardReader(hf)
    wanted = {slot.name: slot.shape for group in groups(model) for slot in _hf_slots(group)}
    found = reader.shapes
    if model.tie_embeddings and "lm_head.weight" not in found:
        wanted.pop("lm_head.weight")
    _check_shapes(f"Hugging Face folder {hf}", wanted, found)
    if model.tie_embeddings:
        _check_tied(hf, reader)
    return model, reader


def _import(model: Model, reader: ShardReader, folder: Path, *, dtype: str) -> None:
    number = DTYPES[dtype]
    partial = folder / f"{WEIGHTS}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    links = [link for group in groups(model) for link in group.links]
    with CheckpointWriter(partial) as writer:
        for link in links:
            for slot in () if link.is_copy else link.megatron:
                writer.declare(slot.name, slot.shape, number)
            if link.state:
                writer.declare_object(f"{link.state}._extra_state")
        writer.declare_object("common_state")
        for link in links:
            if link.state:
                writer.write_object(f"{link.state}._extra_state", None)
        writer.write_object("common_state", {"state": {"samples": 0}})
        for link in (link for link in links if not link.is_copy):
            sources = tuple(reader.read(slot.name) for slot in link.hf)
            made = to_megatron(link, sources, model)
            for slot, tensor in zip(link.megatron, made, strict=True):
                writer.write_tensor(slot.name, tensor.to(number))
        writer.finish()
    shutil.rmtree(folder / WEIGHTS, ignore_errors=True)
    partial.rename(folder / WEIGHTS)
    write_model(folder, model)


def _hf_slots(group: Group) -> Iterable[Slot]:
    return (slot for link in group.links for slot in link.hf)


def _check_tied(hf: Path, reader: ShardReader) -> None:
    if "lm_head.weight" not in reader.shapes:
        return
    if not torch.equal(reader.read("lm_head.weight"), reader.read("backbone.embeddings.weight")):
        raise ArtifactError(
            f"Hugging Face folder {hf}",
            found="lm_head.weight is not backbone.embeddings.weight",
            rule="config.json says that they are one (tie_word_embeddings)",
            do="set tie_word_embeddings to false: whoever trained it kept two tables",
        )


def _check_stored(checkpoint: Path, model: Model, found: dict[str, tuple[int, ...]]) -> None:
    wanted = {
        stored_name(slot.name, found): slot.shape
        for group in groups(model)
        for link in group.links
        for slot in link.megatron
    }
    _check_shapes(f"checkpoint {checkpoint}", wanted, found)


def _check_shapes(
    asked: str, wanted: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]]
) -> None:
    """Every tensor of the model is there in its shape, and no other."""
    lost = [name for name in wanted if name not in found]
    strange = [name for name in found if name not in wanted]
    other = [name for name in wanted if found.get(name, wanted[name]) != wanted[name]]
    for names, what in ((lost, "has no"), (strange, "also has"), (other, "has another shape of")):
        if not names:
            continue
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        shape = f" {list(found[names[0]])}" if names is other else ""
        rule = "it holds the tensors of its model, in their shapes, and no other"
        if names is other:
            rule = f"its model's is {list(wanted[names[0]])}"
        raise ArtifactError(
            asked,
            found=f"it {what} {names[0]}{shape}{more}",
            rule=rule,
            do="check that the weights and the description of the model belong together",
        )


def _check_is_checkpoint(checkpoint: Path) -> None:
    if not (checkpoint / WEIGHTS).is_dir():
        raise ArtifactError(
            f"convert to-hf {checkpoint}",
            found=f"no {WEIGHTS} folder there"
            if checkpoint.exists()
            else "there is no such folder",
            rule="a checkpoint is the artifact of a stage pretrain or sft",
            do="name its folder in the store, its key or its label",
        )


def _check_dtype(dtype: str) -> torch.dtype:
    if dtype not in DTYPES:
        raise RecipeError(
            "--dtype", found=f"is {dtype!r}", rule=f"one of {', '.join(DTYPES)}", do="write fp32"
        )
    return DTYPES[dtype]


def _check_new(out: Path) -> None:
    if out.exists():
        raise RecipeError(
            f"convert to {out}",
            found="it exists",
            rule="a conversion writes a new folder and never into one",
            do="name another or remove it",
        )


def _begin(out: Path) -> Path:
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def _publish(partial: Path, out: Path) -> None:
    sync_folder(partial)
    partial.rename(out)
