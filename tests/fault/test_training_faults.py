"""Training that is killed, or finds damaged input, ends in the same bytes or in a message."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from frontload.megatron_ext.checkpoints import save
from frontload.megatron_ext.stages import pretrain, sft
from frontload.recipes.errors import ArtifactError, RecipeError, StageError
from frontload.recipes.machines.placement import Placement
from tests.training_inputs import (
    BATCH,
    PlainWorkspace,
    tiny_model,
    tiny_pretrain,
    tiny_sft,
    workspace,
    write_blend,
    write_pack,
)

STEPS = 5
ROOT = Path(__file__).resolve().parents[2]
SAVE_ALWAYS = Placement(checkpoint_every_seconds=0.0)


def published(work: PlainWorkspace) -> dict[str, bytes]:
    return {
        str(path.relative_to(work.path)): path.read_bytes()
        for path in sorted(work.path.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Inputs and one uninterrupted run, which does not save on the way."""
    root = tmp_path_factory.mktemp("whole")
    inputs = write_blend(root / "inputs", STEPS * BATCH)
    work = workspace(root / "run")
    pretrain(tiny_pretrain(STEPS * BATCH), inputs, work)
    return {"inputs": inputs, "work": work, "root": root}


def test_a_second_run_gives_the_same_bytes(whole: dict[str, Any], tmp_path: Path) -> None:
    again = workspace(tmp_path)
    pretrain(tiny_pretrain(STEPS * BATCH), whole["inputs"], again)
    assert published(again) == published(whole["work"])
    names = {Path(name).parts[0] for name in published(again)}
    assert names == {"weights", "model.json", "training_state.json"}
    text = b"".join(published(again).values())
    assert str(tmp_path).encode() not in text


@pytest.mark.parametrize("stop", [1, 3])
def test_resume_is_exact(whole: dict[str, Any], tmp_path: Path, stop: int) -> None:
    """Stopped after a step, gone on from the checkpoint of the step before: not one bit differs."""
    work = workspace(tmp_path, placement=SAVE_ALWAYS, stop_after=stop)
    with pytest.raises(KeyboardInterrupt):
        pretrain(tiny_pretrain(STEPS * BATCH), whole["inputs"], work)
    work.stop_after = 10**9
    pretrain(tiny_pretrain(STEPS * BATCH), whole["inputs"], work)
    assert work.lines == whole["work"].lines
    assert published(work) == published(whole["work"])


def test_sigkill_at_any_moment_ends_in_the_same_bytes(
    whole: dict[str, Any], tmp_path: Path
) -> None:
    work = workspace(tmp_path)
    script = (
        "import sys; from pathlib import Path\n"
        "from tests.training_inputs import *\n"
        "from frontload.megatron_ext.stages import pretrain\n"
        "inputs = {p.name: p for p in Path(sys.argv[1]).iterdir()}\n"
        "work = workspace(Path(sys.argv[2]), placement=Placement(checkpoint_every_seconds=0.0))\n"
        f"pretrain(tiny_pretrain({STEPS * BATCH}), inputs, work)\n"
    )
    environment = os.environ | {"PYTHONPATH": f"{ROOT / '.imports'}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-c", script, str(whole["root"] / "inputs"), str(tmp_path)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if list(work.scratch.glob("step-*[0-9]")):
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.005)
    assert process.wait() == -signal.SIGKILL
    pretrain(tiny_pretrain(STEPS * BATCH), whole["inputs"], work)
    assert published(work) == published(whole["work"])


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598"),
    ],
    ids=["python", "torch"],
)
def test_full_disk_keeps_the_checkpoint_before(
    whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The second is how torch's writer of archives says it."""
    from torch.distributed.checkpoint import filesystem

    work = workspace(tmp_path, placement=SAVE_ALWAYS, stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        pretrain(tiny_pretrain(STEPS * BATCH), whole["inputs"], work)
    kept = {path: path.read_bytes() for path in (work.scratch / "step-00000001").iterdir()}
    work.stop_after = 10**9

    def full(*_: Any, **__: Any) -> None:
        (work.scratch / save.ROOM).symlink_to("/dev/full")
        raise error

    import megatron.core.dist_checkpointing.strategies.filesystem_async as writer

    with monkeypatch.context() as patch:
        patch.setattr(writer, "_write_item", full)
        patch.setattr(filesystem, "_write_item", full)
        with pytest.raises(StageError, match="the disk is full"):
            pretrain(tiny_pretrain(STEPS * BATCH), whole["inputs"], work)
    assert {path: path.read_bytes() for path in (work.scratch / "step-00000001").iterdir()} == kept
    pretrain(tiny_pretrain(STEPS * BATCH), whole["inputs"], work)
    assert published(work) == published(whole["work"])


def tear(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def test_damaged_or_foreign_checkpoints_are_refused(whole: dict[str, Any], tmp_path: Path) -> None:
    inputs = {"pack": write_pack(tmp_path / "pack", 2 * BATCH)}
    source = whole["work"].path
    weights = source / "weights"
    kept = {path: path.read_bytes() for path in weights.iterdir()}
    for name in (".metadata", "__0_0.distcp"):
        tear(weights / name)
        with pytest.raises(ArtifactError, match="delete the artifact"):
            sft(tiny_sft(2 * BATCH), inputs | {"start": source}, workspace(tmp_path / "torn"))
        (weights / name).write_bytes(kept[weights / name])
    recipe = tiny_sft(2 * BATCH)
    other = type(recipe)(
        model=tiny_model(hidden_size=48), training=recipe.training, num_samples=recipe.num_samples
    )
    with pytest.raises(ArtifactError, match=r"its model\.hidden_size is 32, the recipe's is 48"):
        sft(other, inputs | {"start": source}, workspace(tmp_path / "other"))


def test_fine_tuning_starts_from_the_weights_alone(whole: dict[str, Any], tmp_path: Path) -> None:
    pack = write_pack(tmp_path / "pack", 2 * BATCH)
    work = workspace(tmp_path / "sft")
    inputs = {"pack": pack, "start": whole["work"].path}
    sft(tiny_sft(2 * BATCH), inputs, work)
    size = (work.path / "weights" / "__0_0.distcp").stat().st_size
    assert size < (inputs["start"] / "weights" / "__0_0.distcp").stat().st_size / 2
    next_phase = {**whole["inputs"], "start": work.path}
    with pytest.raises(ArtifactError, match="optimizer state is 'none'"):
        pretrain(tiny_pretrain(BATCH), next_phase, workspace(tmp_path / "next"))


def test_budgets_that_do_not_fit_are_refused(whole: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="multiple of 4"):
        pretrain(tiny_pretrain(6), whole["inputs"], workspace(tmp_path / "a"))
    with pytest.raises(ArtifactError, match="20 samples"):
        pretrain(tiny_pretrain(40), whole["inputs"], workspace(tmp_path / "b"))


def test_rerun_over_a_half_filled_workspace(whole: dict[str, Any], tmp_path: Path) -> None:
    work = workspace(tmp_path)
    (work.path / "weights.partial").mkdir()
    (work.path / "weights.partial" / "__0_0.distcp").write_bytes(b"half")
    (work.path / "weights").mkdir()
    pretrain(tiny_pretrain(STEPS * BATCH), whole["inputs"], work)
    assert published(work) == published(whole["work"])
