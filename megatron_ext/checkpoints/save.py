"""Checkpoints in Megatron's distributed format: whole, and the same bytes for one state."""

import errno
import json
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.strategies.torch import TorchDistSaveShardedStrategy
from megatron.core.process_groups_config import ProcessGroupCollection
from torch.distributed.checkpoint.api import CheckpointException

from frontload.megatron_ext.checkpoints.files import CONTENT, METADATA, first_line
from frontload.megatron_ext.checkpoints.files import WEIGHTS as WEIGHTS
from frontload.megatron_ext.checkpoints.files import check_same_model as check_same_model
from frontload.megatron_ext.checkpoints.files import write_model as write_model
from frontload.megatron_ext.checkpoints.table import (
    check_whole,
    read_table,
    without_pickled_state,
    write_table,
)
from frontload.recipes.artifact import write_json
from frontload.recipes.errors import ArtifactError, DiskFull, StageError

ROOM = "room.probe"  # a file written to learn whether a disk is full
ROOM_BYTES = 1 << 20


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
    partial, content = _begin_save(folder, parts, state)
    try:
        dist_checkpointing.save(content, str(partial), TorchDistSaveShardedStrategy())
    except (Exception, CheckpointException) as error:  # torch's is a BaseException
        raise _save_failure(folder, error) from error
    _end_save(folder, partial, parts)


class BackgroundSave:
    """A save that a thread of each rank writes while training goes on, from a copy of the state.

    Differs: Megatron forks a process for it (async_utils.py:238), which would copy a GPU's context.
    On a CPU its staged tensors are the live weights (filesystem_async.py:231), so they are copied.
    """

    def __init__(self, folder: Path, parts: Parts, *, state: dict[str, Any]) -> None:
        self.folder, self._parts = folder, parts
        self._partial, content = _begin_save(folder, parts, state)
        strategy = TorchDistSaveShardedStrategy()
        try:
            request: Any = dist_checkpointing.save(
                content,
                str(self._partial),
                strategy,
                async_sharded_save=True,
                async_strategy="mcore",
            )
        except (Exception, CheckpointException) as error:
            raise _save_failure(folder, error) from error
        self._finalize = request.finalize_fns
        arguments = list(request.async_fn_args)
        if request.preload_fn is not None:
            arguments[1] = _own_copies(request.preload_fn())
        self._thread = threading.Thread(target=request.async_fn, args=arguments)
        if request.async_fn is not None:  # a rank may have nothing to write
            self._thread.start()

    def is_writing(self) -> bool:
        """Whether this rank's thread still writes."""
        return self._thread.is_alive()

    def finish(self) -> None:
        """Waits for the thread and publishes the folder. All ranks call it, at the same step.

        Raises: StageError when the disk did not take it; the checkpoint before stays.
        """
        if self._thread.ident is not None:
            self._thread.join()
        try:
            for finalize in self._finalize:
                finalize()
        except (Exception, CheckpointException) as error:
            raise _save_failure(self.folder, error) from error
        _end_save(self.folder, self._partial, self._parts)


def _own_copies(buckets: list[Any]) -> list[Any]:
    """Buckets of (file, key, (objects, [(item, tensor)])) whose tensors nobody else writes to."""
    if torch.cuda.is_available():
        return buckets  # staging has copied them to the host
    return [
        (file, key, (objects, [(item, tensor.clone()) for item, tensor in tensors]))
        for file, key, (objects, tensors) in buckets
    ]


def _begin_save(folder: Path, parts: Parts, state: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    """An empty folder beside the one to write, and what goes into it."""
    partial = folder.with_name(folder.name + ".partial")
    if dist.get_rank() == 0:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    dist.barrier()
    content = _sharded_state(parts, loading=False)
    content["state"] = state
    return partial, content


def _end_save(folder: Path, partial: Path, parts: Parts) -> None:
    if dist.get_rank() == 0:
        write_table(partial / METADATA, read_table(partial))
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
        parts.module.load_state_dict(without_pickled_state(loaded["model"]))
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


def _has_room(folder: Path) -> bool:
    """Whether a little more can be written beside a checkpoint whose save failed.

    torch's own writer of archives says "unexpected pos 704 vs 598" of a disk that is full.
    """
    probe = folder.with_name(ROOM)
    try:
        with open(probe, "wb") as file:
            file.write(bytes(ROOM_BYTES))
    except OSError as error:
        return error.errno not in (errno.ENOSPC, errno.EDQUOT)
    finally:
        probe.unlink(missing_ok=True)
    return True


def _save_failure(folder: Path, error: BaseException) -> StageError:
    text = f"{error!r} {getattr(error, 'failures', '')}"
    full = "No space left" in text or f"Errno {errno.ENOSPC}" in text or not _has_room(folder)
    kind = DiskFull if full else StageError
    return kind(
        f"checkpoint {folder}",
        found="the disk is full" if full else f"the save failed: {first_line(error)}",
        rule="a checkpoint is written whole or not at all; the one before is kept",
        do="free space and run it again; it goes on from the checkpoint before",
    )
