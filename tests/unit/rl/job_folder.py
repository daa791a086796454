"""What a job of GRPO on a cluster leaves in its folder, written by veRL's own functions."""

import os
from pathlib import Path
from unittest import mock

from frontload.launch.stage.workspace import FolderWorkspace
from frontload.recipes.machines.placement import Placement
from frontload.rl.cluster.files import answers_folder
from frontload.rl.plugins.validation import described
from frontload.rl.watch.checkpoints import TRACKER

PROMPTS = (("p-0", "what is 3 + 4", "7"), ("p-1", "what is 4 + 4", "8"))
"""Name, question and gold answer, in the order of the validation file."""

SAMPLES = 2


def write_log(run: Path, name: str, steps: dict[int, dict[str, float]]) -> None:
    """One start's log; a step that validates has its validation's metrics beside the others."""
    from verl.utils.tracking import FileLogger  # whoever imports veRL has chosen its platform

    run.mkdir(parents=True, exist_ok=True)
    with mock.patch.dict(os.environ, {"VERL_FILE_LOGGER_PATH": str(run / name)}):
        log = FileLogger("frontload", "grpo")
    for step, data in steps.items():
        log.log(data, step)
    log.finish()


def step_data(reward: float, *, validation: float | None = None) -> dict[str, float]:
    found = {"critic/score/mean": reward, "actor/kl_loss": 0.25, "timing_s/step": 3.0}
    if validation is not None:
        found["val-core/own/acc/mean@2"] = validation
    return found


def write_answers(run: Path, step: int) -> None:
    """The file of a validation, by veRL's writer, in its order: not that of the prompts."""
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer

    rows = [
        (f"{uid}_{sample}_0", *PROMPTS[place], place, sample)
        for uid, place in (("aa", 1), ("bb", 0))
        for sample in range(SAMPLES)
    ]
    grades = {
        "reward": [float(sample) for *_, sample in rows],
        "score": [float(sample) for *_, sample in rows],
        "acc": [1.0 for _ in rows],
        "uid": [row[0] for row in rows],
    }
    known = [
        described("own", {"index": place, "source_index": name, "question": asked}, answer_of(name))
        for _, name, asked, _, place, _ in rows
    ]
    noted = {name: [one[name] for one in known] for name in known[0]}
    PPOTrainer._write_generations(
        [row[2] for row in rows],
        ["without its marks" for _ in rows],
        [row[3] for row in rows],
        grades["score"],
        {**grades, **noted},
        str(answers_folder(run)),
        step,
    )


def answer_of(name: str) -> str:
    return f"{name}: 7 <|end|>"


def finish_step(checkpoints: Path, step: int) -> None:
    """What the trainer writes when every rank has saved a step."""
    (checkpoints / f"global_step_{step}" / "data.pt").touch()
    (checkpoints / TRACKER).write_text(str(step))


def workspace(folder: Path, placement: Placement) -> FolderWorkspace:
    return FolderWorkspace(
        folder,
        telemetry=folder / "telemetry.jsonl",
        placement=placement,
        key="0123",
        report=lambda *_: None,
    )
