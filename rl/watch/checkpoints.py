"""veRL's checkpoints on disk: which are whole, which one a run goes on from, how many are kept.

veRL forgets what it saved before a restart (checkpoint_manager.py:59), so what it keeps of each
start would add up. Lines are of verl 0.9.1.
"""

import json
import shutil
import sys
from pathlib import Path

from frontload.recipes.errors import ArtifactError

TRACKER = "latest_checkpointed_iteration.txt"  # trainer_base.py:1022: written last, of a whole one
STEP = "global_step_"
PARTS = ("model", "optim", "extra_state")  # of a rank, fsdp_checkpoint_manager.py
FSDP, MEGATRON = "fsdp_config.json", "ckpt_contents.json"  # the latter is written last


def step_folders(checkpoints: Path) -> dict[int, Path]:
    """Step -> folder, in the order of the steps; whole ones and others."""
    found = {path.name.removeprefix(STEP): path for path in checkpoints.glob(f"{STEP}*")}
    return {int(text): found[text] for text in sorted(found, key=_number) if text.isdigit()}


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0


def is_whole(folder: Path) -> bool:
    """Whether every file of a step is there: the data's place and each rank's part of the actor.

    veRL leaves `data.pt` behind when it removes the actor of an old step.
    """
    actor = folder / "actor"
    if not (folder / "data.pt").is_file():
        return False
    if (actor / MEGATRON).is_file():
        return True
    ranks = num_ranks(folder)
    names = [f"{part}_world_size_{ranks}_rank_{rank}.pt" for part in PARTS for rank in range(ranks)]
    return ranks > 0 and all((actor / name).is_file() for name in names)


def num_ranks(folder: Path) -> int:
    """Ranks that an FSDP actor was saved by, and is read by; 0 = not known."""
    try:
        return int(json.loads((folder / "actor" / FSDP).read_text())["world_size"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def named_step(checkpoints: Path) -> int:
    """The step that veRL's tracker names; 0 without a tracker.

    It is written last: if a kill tore it, what it was about to name is whole.
    """
    tracker = checkpoints / TRACKER
    text = tracker.read_text() if tracker.is_file() else "0"
    return int(text) if text.isdigit() else sys.maxsize


def last_step(checkpoints: Path, *, logged: int = sys.maxsize) -> int:
    """The step to go on from; 0 = from the beginning. veRL's tracker is made to say the same.

    It is the last whole checkpoint that the tracker has passed and whose step is in our log: veRL
    saves a step before it logs it, and a kill between the two would leave a gap.
    """
    newest = min(named_step(checkpoints), logged)
    whole = [step for step, path in step_folders(checkpoints).items() if is_whole(path)]
    found = max((step for step in whole if step <= newest), default=0)
    tracker = checkpoints / TRACKER
    if found:
        tracker.write_text(str(found))
    else:
        tracker.unlink(missing_ok=True)
    return found


def keep_newest(checkpoints: Path, kept: int, *, and_later: bool) -> None:
    """Removes all steps up to the named one but the newest `kept` whole ones.

    `and_later` also removes steps after it, which a kill left and veRL writes anew; not while veRL
    runs, which may be writing one.
    """
    named = named_step(checkpoints)
    folders = step_folders(checkpoints)
    passed = [step for step in folders if step <= named]
    whole = [step for step in passed if is_whole(folders[step])]
    for step, folder in folders.items():
        if step not in whole[-kept:] and (and_later or step <= named):
            shutil.rmtree(folder, ignore_errors=True)


def find_start(checkpoints: Path, *, kept: int, ranks: int) -> int:
    """The step that a job goes on from, with what is not kept removed.

    Raises: ArtifactError, with nothing removed, when veRL names a checkpoint and none is whole, or
    other ranks wrote it.
    """
    named, folders = named_step(checkpoints), step_folders(checkpoints)
    if named and folders and not any(map(is_whole, folders.values())):
        raise ArtifactError(
            f"checkpoints {checkpoints}",
            found=f"{TRACKER} names step {named}, and no {STEP} folder there is whole",
            rule="a run goes on from a folder with data.pt and every rank's files in actor",
            do="put the missing files back, or move the folder away to begin anew",
        )
    step = last_step(checkpoints)
    wrote = num_ranks(folders[step]) if step else 0
    if wrote not in (0, ranks):
        raise ArtifactError(
            f"checkpoint {folders[step]}",
            found=f"{wrote} ranks wrote it, and this job has {ranks}",
            rule="veRL's FSDP actor is read by as many ranks as wrote it",
            do="start the job on as many ranks, or with another --out to begin anew",
        )
    keep_newest(checkpoints, kept, and_later=True)
    return step
