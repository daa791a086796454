"""Which of veRL's checkpoints are whole, found and kept, over kills and restarts.

What is removed while a run goes on is removed by veRL's own manager, as its actor does it.
"""

import json
import shutil
from pathlib import Path

import pytest
from verl.utils.checkpoint.checkpoint_manager import BaseCheckpointManager, find_latest_ckpt_path

from frontload.recipes.errors import ArtifactError, RecipeError
from frontload.recipes.runs.load import load_placement
from frontload.rl.watch.checkpoints import (
    MEGATRON,
    PARTS,
    TRACKER,
    find_start,
    is_whole,
    keep_newest,
    last_step,
    step_folders,
)

RANKS = 2


def write_actor(folder: Path, ranks: int = RANKS) -> None:
    """As FSDPCheckpointManager does: each rank's parts, then what rank 0 says of them."""
    actor = folder / "actor"
    (actor / "huggingface").mkdir(parents=True, exist_ok=True)
    for rank in range(ranks):
        for part in PARTS:
            (actor / f"{part}_world_size_{ranks}_rank_{rank}.pt").touch()
    (actor / "fsdp_config.json").write_text(json.dumps({"FSDP_version": 2, "world_size": ranks}))


def write_step(checkpoints: Path, step: int, *, ranks: int = RANKS) -> Path:
    folder = checkpoints / f"global_step_{step}"
    write_actor(folder, ranks)
    (folder / "data.pt").touch()
    return folder


def whole(checkpoints: Path) -> list[int]:
    return [step for step, folder in step_folders(checkpoints).items() if is_whole(folder)]


class Trainer:
    """Saves as veRL's trainer_base.py:948 does; a fresh one knows of no earlier checkpoint."""

    def __init__(self, checkpoints: Path, kept: int) -> None:
        self.checkpoints, self.kept = checkpoints, kept
        self.manager = BaseCheckpointManager.__new__(BaseCheckpointManager)
        self.manager.previous_saved_paths = []

    def save(self, step: int, *, killed_after: str = "") -> None:
        folder = self.checkpoints / f"global_step_{step}"
        self.manager.ensure_checkpoint_capacity(self.kept)
        if killed_after == "room":
            (folder / "actor").mkdir(parents=True)
            return
        write_actor(folder)
        self.manager.register_checkpoint(str(folder / "actor"), self.kept)
        if killed_after == "actor":
            return
        (folder / "data.pt").touch()
        if killed_after == "data":
            return
        (self.checkpoints / TRACKER).write_text(str(step))


@pytest.mark.parametrize("killed_after", ["room", "actor", "data", "tracker"])
@pytest.mark.parametrize("kept", [2, 3])
def test_restarts_add_up_to_no_more_checkpoints_than_asked(
    tmp_path: Path, kept: int, killed_after: str
) -> None:
    """Six starts of four saves each, killed in the last one; without `find_start` 2 a start stay.

    Beside a run its keeper removes what veRL has forgotten.
    """
    next_step, most = 1, 0
    for _ in range(6):
        start = find_start(tmp_path, kept=kept, ranks=RANKS)
        assert start == next_step - 1
        assert len(step_folders(tmp_path)) <= kept
        if start:
            assert find_latest_ckpt_path(str(tmp_path)) == str(tmp_path / f"global_step_{start}")
            assert start in whole(tmp_path)
        trainer = Trainer(tmp_path, kept)
        for step in range(next_step, next_step + 4):
            is_last = step == next_step + 3
            trainer.save(step, killed_after=killed_after if is_last else "")
            most = max(most, sum(path.is_dir() for path in tmp_path.glob("*/actor")))
            if not is_last:
                keep_newest(tmp_path, kept, and_later=False)
        next_step += 4 if killed_after == "tracker" else 3
    assert most <= kept + 1, "the one that is being written"


def test_an_actor_that_verl_removed_is_not_gone_on_from(tmp_path: Path) -> None:
    """veRL leaves data.pt of step 1 behind; our log may hold no later step."""
    write_step(tmp_path, 1)
    write_step(tmp_path, 2)
    shutil.rmtree(tmp_path / "global_step_1" / "actor")
    (tmp_path / TRACKER).write_text("2")
    assert last_step(tmp_path, logged=1) == 0
    assert not (tmp_path / TRACKER).exists()


@pytest.mark.parametrize("lost", ["model", "optim", "extra_state", "fsdp_config.json", "data.pt"])
def test_a_step_that_lacks_a_file_is_passed_over(tmp_path: Path, lost: str) -> None:
    write_step(tmp_path, 8)
    folder = write_step(tmp_path, 10)
    name = f"{lost}_world_size_2_rank_1.pt" if lost in PARTS else lost
    (folder / name if lost == "data.pt" else folder / "actor" / name).unlink()
    (tmp_path / TRACKER).write_text("10")
    assert find_start(tmp_path, kept=2, ranks=RANKS) == 8
    assert (tmp_path / TRACKER).read_text() == "8"
    assert list(step_folders(tmp_path)) == [8]


def test_one_kept_checkpoint_would_be_none_after_a_kill(tmp_path: Path) -> None:
    """Why a placement may not ask for one: veRL's own order of removing and naming."""
    trainer = Trainer(tmp_path, kept=1)
    trainer.save(1)
    trainer.save(2, killed_after="actor")
    assert whole(tmp_path) == []
    with pytest.raises(RecipeError, match="checkpoints_kept: is 1; veRL removes the older"):
        load_placement("slurm", ["rl.checkpoints_kept=1"])


def test_nothing_is_removed_where_nothing_is_whole(tmp_path: Path) -> None:
    shutil.rmtree(write_step(tmp_path, 3) / "actor")
    (tmp_path / TRACKER).write_text("3")
    with pytest.raises(ArtifactError, match="names step 3, and no global_step_ folder") as caught:
        find_start(tmp_path, kept=2, ranks=RANKS)
    assert caught.value.exit_code == 2
    assert (tmp_path / "global_step_3" / "data.pt").exists()


def test_a_checkpoint_of_other_ranks_is_refused(tmp_path: Path) -> None:
    write_step(tmp_path, 3, ranks=4)
    (tmp_path / TRACKER).write_text("3")
    with pytest.raises(ArtifactError, match="4 ranks wrote it, and this job has 2"):
        find_start(tmp_path, kept=2, ranks=2)


def test_a_megatron_actor_is_whole_when_its_list_is_there(tmp_path: Path) -> None:
    from verl.utils.megatron_utils import get_checkpoint_contents_manifest_path

    folder = tmp_path / "global_step_1"
    assert Path(get_checkpoint_contents_manifest_path(str(folder / "actor"))).name == MEGATRON
    (folder / "actor").mkdir(parents=True, exist_ok=True)
    (folder / "data.pt").touch()
    assert not is_whole(folder)
    (folder / "actor" / MEGATRON).write_text("{}")
    assert is_whole(folder)
