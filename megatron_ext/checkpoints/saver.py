"""When an unfinished stage saves itself, under which names, and which checkpoints it keeps."""

import logging
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed as dist

from frontload.megatron_ext.checkpoints.save import BackgroundSave, Parts, save_weights
from frontload.megatron_ext.checkpoints.table import check_whole
from frontload.recipes.artifact import Part, Workspace
from frontload.recipes.errors import ArtifactError

log = logging.getLogger(__name__)

STEP_FOLDER = "step-{step:08d}"
STEP_NAME = re.compile(r"step-(\d{8,})")


class Saver:
    """The checkpoints of an unfinished stage: `step-N` folders, each published by one rename."""

    def __init__(self, work: Workspace, parts: Callable[[], Parts]) -> None:
        self._folder, self._parts, self._mark = work.scratch, parts, work.mark
        placement = work.placement
        self._seconds, self._upkeep = placement.checkpoint_every_seconds, placement.upkeep
        self._saved_at = time.monotonic()
        self._pending: BackgroundSave | None = None

    def is_due(self, step: int) -> bool:
        """Whether the state after `step` is to be saved, by this rank's clock or by the count."""
        every = self._upkeep.checkpoint_every_steps
        by_count = every > 0 and step % every == 0
        return by_count or time.monotonic() - self._saved_at >= self._seconds

    def is_writing(self) -> bool:
        """Whether this rank still writes in the background."""
        return self._pending is not None and self._pending.is_writing()

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Saves the state after `step`, or begins to. All ranks call it at the same step."""
        self.finish()
        self._mark(Part.SAVE)
        folder = self._folder / STEP_FOLDER.format(step=step)
        if self._upkeep.asynchronous:
            self._pending = BackgroundSave(folder, self._parts(), state=state)
        else:
            save_weights(folder, self._parts(), state=state)
            self._drop_old()
        self._saved_at = time.monotonic()

    def finish(self) -> None:
        """Ends a save that was begun. All ranks call it at the same step."""
        if self._pending is not None:
            self._mark(Part.SAVE)
            pending, self._pending = self._pending, None
            pending.finish()
            self._drop_old()

    def _drop_old(self) -> None:
        """Keeps the newest `keep_last` and the multiples of `keep_every_steps`, nothing torn."""
        if dist.get_rank() == 0:
            for path in self._folder.glob("step-*.partial"):
                shutil.rmtree(path, ignore_errors=True)
            found = _numbered(self._folder)
            every = self._upkeep.keep_every_steps
            for step in sorted(found)[: -self._upkeep.keep_last]:
                if not every or step % every:
                    shutil.rmtree(found[step], ignore_errors=True)


def newest_whole(folder: Path) -> Path | None:
    """The newest checkpoint that is whole; rank 0 looks, and every rank gets its answer.

    A torn one is passed over, and said, if an older one is whole.

    Raises: ArtifactError if there are checkpoints and none is whole.
    """
    answer: list[Any] = [_look(folder) if dist.get_rank() == 0 else None]
    if dist.get_world_size() > 1:
        dist.broadcast_object_list(answer)
    if isinstance(answer[0], ArtifactError):
        raise answer[0]
    return answer[0]


def _look(folder: Path) -> Path | ArtifactError | None:
    torn: ArtifactError | None = None
    for _, path in sorted(_numbered(folder).items(), reverse=True):
        try:
            check_whole(path)
        except ArtifactError as error:
            log.warning("%s; an older checkpoint is looked for", error)
            torn = torn or error
        else:
            return path
    return torn


def _numbered(folder: Path) -> dict[int, Path]:
    """Step -> its folder; a name under which a save was broken off is not among them."""
    found: dict[int, Path] = {}
    for path in folder.glob("step-*"):
        match = STEP_NAME.fullmatch(path.name)
        if match:
            found[int(match[1])] = path
    return found
