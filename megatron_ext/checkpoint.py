"""Checkpoints in Megatron's distributed format: whole, and the same bytes for one state."""

import errno
import json
import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.strategies.torch import TorchDistSaveShardedStrategy
from megatron.core.process_groups_config import ProcessGroupCollection
from torch.distributed.checkpoint.api import CheckpointException

from frontload.megatron_ext.checkpoint_files import (
    CONTENT,
    METADATA,
    check_whole,
    first_line,
    write_table,
)
from frontload.megatron_ext.checkpoint_files import WEIGHTS as WEIGHTS
from frontload.megatron_ext.checkpoint_files import check_same_model as check_same_model
from frontload.megatron_ext.checkpoint_files import write_json as write_json
from frontload.megatron_ext.checkpoint_files import write_model as write_model
from frontload.recipes.errors import ArtifactError, StageError


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a checkpoint holds of this rank: the model, and the optimizer if training goes on."""

    module: Any
    optimizer: Any | None
    groups: ProcessGroupCollection

    def optimizer_kind(self) -> str:
        """Whether the optimizer's state is whole on every replica or cut over them."""
        if self.optimizer is None:
            return "none"
        return "distributed" if self.optimizer.config.use_distributed_optimizer else "replicated"


def save_weights(folder: Path, parts: Parts, *, state: dict[str, Any]) -> None:
    """Writes `folder` whole: under another name first, then by one rename. All ranks call it.

    `state` is small, the same on every rank, and comes back from `load_weights`.

    Raises: StageError when the disk does not take it; what was in `folder` before stays.
    """
    partial = folder.with_name(folder.name + ".partial")
    if dist.get_rank() == 0:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    dist.barrier()
    content = _sharded_state(parts, loading=False)
    content["state"] = state
    try:
        dist_checkpointing.save(content, str(partial), TorchDistSaveShardedStrategy())
    except (Exception, CheckpointException) as error:  # torch's is a BaseException
        raise _save_failure(folder, error) from error
    if dist.get_rank() == 0:
        table = pickle.loads((partial / METADATA).read_bytes())
        write_table(partial / METADATA, table)
        write_json(partial / CONTENT, {"optimizer": parts.optimizer_kind()})
        before = folder.with_name(folder.name + ".before")
        if folder.exists():
            folder.rename(before)
        partial.rename(folder)
        shutil.rmtree(before, ignore_errors=True)
    dist.barrier()


def load_weights(folder: Path, parts: Parts) -> dict[str, Any]:
    """Loads this rank's part, whatever layout wrote it, and returns the state saved beside it.

    Raises: ArtifactError for a torn checkpoint or one of another shape.
    """
    check_whole(folder)
    _check_optimizer(folder, parts)
    content = _sharded_state(parts, loading=True)
    try:
        loaded: Any = dist_checkpointing.load(content, str(folder))
        parts.module.load_state_dict(loaded["model"])
        if parts.optimizer is not None:
            parts.optimizer.load_state_dict(loaded["optimizer"])
    except (Exception, CheckpointException) as error:
        raise ArtifactError(
            f"checkpoint {folder}",
            found=f"it does not load ({type(error).__name__}: {first_line(error)})",
            rule="it must hold every tensor of this model, in its shape",
            do="delete the artifact by its key and run the study again",
        ) from error
    return loaded["state"]


def last_whole(folder: Path) -> Path | None:
    """The checkpoint under this name, or the one before if a kill fell between two renames."""
    before = folder.with_name(folder.name + ".before")
    return folder if folder.exists() else before if before.exists() else None


def _check_optimizer(folder: Path, parts: Parts) -> None:
    found, asked = json.loads((folder / CONTENT).read_text())["optimizer"], parts.optimizer_kind()
    if asked not in ("none", found):
        raise ArtifactError(
            f"checkpoint {folder}",
            found=f"its optimizer state is {found!r}, the placement asks for {asked!r}",
            rule="optimizer state goes on under any TP, PP and DP, but in one kind",
            do="set placement.distributed_optimizer as in the run that wrote it",
        )


def _sharded_state(parts: Parts, *, loading: bool) -> dict[str, Any]:
    metadata = {
        "dp_cp_group": parts.groups.dp_cp,
        "chained_optim_avoid_prefix": True,
        "distrib_optim_sharding_type": "fully_reshardable",
        "distrib_optim_fully_reshardable_mem_efficient": True,
    }
    content: dict[str, Any] = {"model": parts.module.sharded_state_dict(metadata=metadata)}
    if parts.optimizer is not None:
        content["optimizer"] = parts.optimizer.sharded_state_dict(
            content["model"], is_loading=loading, metadata=metadata
        )
    return content


def _save_failure(folder: Path, error: BaseException) -> StageError:
    text = f"{error!r} {getattr(error, 'failures', '')}"
    full = "No space left" in text or f"Errno {errno.ENOSPC}" in text
    return StageError(
        f"checkpoint {folder}",
        found="the disk is full" if full else f"the save failed: {first_line(error)}",
        rule="a checkpoint is written whole or not at all; the one before is kept",
        do="free space and run it again; it goes on from the checkpoint before",
    )
