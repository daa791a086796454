"""The artifact of a finished job of GRPO: metrics of all its starts, answers, a Megatron actor.

An FSDP2 actor's weights: tests/distributed/test_rl_actor.py, from veRL's own ranks.
"""

import json
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from verl.utils.checkpoint.megatron_checkpoint_manager import MegatronCheckpointManager

from frontload.launch.stage.workspace import FolderWorkspace
from frontload.megatron_ext.hf.convert import export_hf
from frontload.megatron_ext.hf.safetensors import ShardReader
from frontload.megatron_ext.inference.language_model import LanguageModel, read_weights
from frontload.recipes.errors import ArtifactError, FrontloadError, StageError
from frontload.recipes.runs.grpo import GrpoRecipe
from frontload.rl.cluster.files import RUN, answers_folder, checkpoints_folder, read_steps
from frontload.rl.stages import grpo
from tests.unit.megatron_ext.convert_inputs import write_checkpoint, write_tokenizer_file
from tests.unit.rl.cluster_recipes import placement_of, recipe_of
from tests.unit.rl.job_folder import (
    PROMPTS,
    SAMPLES,
    answer_of,
    finish_step,
    step_data,
    workspace,
    write_answers,
    write_log,
)

STEPS = 3


def recipe() -> GrpoRecipe:
    model = replace(recipe_of("grpo_tiny").model, vocab_size=16)
    return recipe_of(
        "grpo_8b", model=model, actor="megatron", steps=STEPS, batch_prompts=2, mini_batch_prompts=2
    )


class Job:
    """A stage whose job has ended: a Megatron actor, two starts, both validations."""

    def __init__(self, folder: Path) -> None:
        self.work: FolderWorkspace = workspace(folder / "work", placement_of("slurm_megatron"))
        self.run = self.work.scratch / RUN
        self.start = write_checkpoint(_made(folder / "start"), recipe().model, scale=0.1)
        tokenizer = write_tokenizer_file(folder / "tokenizer.json")
        exported = _made(folder / "exported") / "model"
        export_hf(self.start, exported, tokenizer=tokenizer)
        self.inputs = {"start": self.start, "exported": exported.parent}
        self.actor = checkpoints_folder(self.run) / f"global_step_{STEPS}" / "actor"
        trained = write_checkpoint(_made(folder / "trained"), recipe().model, scale=0.3)
        (self.actor / "model").mkdir(parents=True)
        export_hf(trained, self.actor / "model" / "huggingface", dtype="bf16")
        self.list_contents()
        finish_step(checkpoints_folder(self.run), STEPS)
        write_log(
            self.run,
            "metrics-41-0.jsonl",
            {0: {"val-core/own/acc/mean@2": 0.1}, 1: step_data(0.2), 2: step_data(0.9)},
        )
        write_log(
            self.run,
            "metrics-41-1.jsonl",
            {2: step_data(0.3), 3: step_data(0.4, validation=0.5)},
        )
        for step in (0, STEPS):
            write_answers(self.run, step)

    def list_contents(self, *, shards: bool = False) -> None:
        """veRL's own list of what a Megatron actor's checkpoint holds."""
        manager = MegatronCheckpointManager.__new__(MegatronCheckpointManager)
        vars(manager).update(
            rank=0,
            world_size=8,
            role="actor",
            arch="NemotronHForCausalLM",
            bridge=object(),
            peft_cls=None,
            lr_scheduler=None,
            processing_class=None,
            use_dist_checkpointing=shards,
            checkpoint_config=types.SimpleNamespace(save_contents=["model", "optimizer"]),
            checkpoint_save_contents=["model", "optimizer"],
        )
        manager._write_checkpoint_manifest(str(self.actor), STEPS, True)

    def publish(self) -> Path:
        grpo(recipe(), self.inputs, self.work)
        return self.work.path


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_megatron_actors_weights_are_those_of_its_hugging_face_folder(job: Job) -> None:
    made = job.publish()
    LanguageModel.load(made)
    saved = ShardReader(job.actor / "model" / "huggingface")
    again = job.work.scratch / "again"
    export_hf(made, again)
    found = ShardReader(again)
    assert found.shapes == saved.shapes
    for name in saved.shapes:
        assert torch.equal(found.read(name), saved.read(name).float()), name


def test_the_artifact_has_the_files_of_the_local_stages(job: Job) -> None:
    made = job.publish()
    names = sorted(path.name for path in made.iterdir())
    assert names == [
        *("metrics.jsonl", "model.json", "training_state.json", "validation.jsonl", "weights")
    ]
    state = json.loads((made / "training_state.json").read_text())
    group = recipe().grpo.rollouts_per_prompt
    assert (state["steps_of_stage"], state["samples"]) == (STEPS, STEPS * 2 * group)
    assert (state["key"], state["has_optimizer"]) == ("0123", False)


def test_a_step_that_was_made_again_counts_once_and_as_it_was_made_last(job: Job) -> None:
    rows = lines_of(job.publish() / "metrics.jsonl")
    assert rows == [
        {"step": 0, "train/validation_accuracy_family_mean": 0.1},
        {"step": 1, "train/kl": 0.25, "train/reward": 0.2},
        {"step": 2, "train/kl": 0.25, "train/reward": 0.3},
        {
            "step": 3,
            "train/kl": 0.25,
            "train/reward": 0.4,
            "train/validation_accuracy_family_mean": 0.5,
        },
    ]
    clock = lines_of(job.work.scratch.parent / "telemetry.jsonl")
    assert [row["system/step_seconds"] for row in clock] == [3.0, 3.0, 3.0]


def test_starts_are_in_the_order_of_jobs_and_starts_and_a_torn_line_is_none(tmp_path: Path) -> None:
    write_log(tmp_path, "metrics-100-0.jsonl", {4: step_data(0.4), 5: step_data(0.5)})
    write_log(tmp_path, "metrics-99-10.jsonl", {3: step_data(0.3), 4: step_data(0.0)})
    write_log(tmp_path, "metrics-99-9.jsonl", {1: step_data(0.1), 3: step_data(0.0)})
    write_log(tmp_path, "metrics-101-0.jsonl", {})
    write_log(tmp_path, "others.jsonl", {9: step_data(0.9)})
    with open(tmp_path / "metrics-100-0.jsonl", "a") as file:
        file.write('{"step": 6, "da')
    found = {step: data["critic/score/mean"] for step, data in read_steps(tmp_path).items()}
    assert found == {1: 0.1, 3: 0.3, 4: 0.4, 5: 0.5}


def test_a_start_that_only_validates_the_last_checkpoint_keeps_its_step(tmp_path: Path) -> None:
    """rl/cluster/run.py starts so where a kill came between the last save and its validation."""
    write_log(tmp_path, "metrics-1-0.jsonl", {3: step_data(0.3)})
    write_log(tmp_path, "metrics-2-0.jsonl", {3: {"val-core/own/acc/mean@2": 0.5}})
    assert read_steps(tmp_path) == {3: step_data(0.3, validation=0.5)}


def test_a_step_without_a_line_is_counted(job: Job, caplog: pytest.LogCaptureFixture) -> None:
    write_log(job.run, "metrics-41-1.jsonl", {3: step_data(0.4)})
    write_log(job.run, "metrics-41-0.jsonl", {0: {}, 1: step_data(0.2)})
    job.publish()
    assert [text for text in caplog.messages if text.startswith("metrics: 1 of 4 steps")]


def test_answers_are_those_of_the_local_stage_in_the_order_of_the_prompts(job: Job) -> None:
    rows = lines_of(job.publish() / "validation.jsonl")
    assert rows == [
        {
            "step": step,
            "prompt": name,
            "family": "own",
            "question": question,
            "gold": gold,
            "sample": sample,
            "answer": answer_of(name),
            "reward": float(sample),
            "accuracy": 1.0,
        }
        for step in (0, STEPS)
        for name, question, gold in PROMPTS
        for sample in range(SAMPLES)
    ]


def test_it_can_be_made_again_after_a_kill(job: Job) -> None:
    job.publish()
    before = {path.name: path.read_bytes() for path in job.work.path.glob("*.json*")}
    weights = read_weights(job.work.path / "weights", torch.device("cpu"))
    (job.work.scratch / "last").mkdir()
    (job.work.path / "weights.partial").mkdir()
    job.publish()
    assert {path.name: path.read_bytes() for path in job.work.path.glob("*.json*")} == before
    again = read_weights(job.work.path / "weights", torch.device("cpu"))
    assert all(torch.equal(again[name], one) for name, one in weights.items())


def _without(pattern: str) -> Callable[[Job], None]:
    def remove(job: Job) -> None:
        for path in job.run.glob(pattern):
            path.unlink()

    return remove


def _tear(job: Job) -> None:
    path = answers_folder(job.run) / f"{STEPS}.jsonl"
    path.write_bytes(path.read_bytes()[:-20])


def _shorten(job: Job) -> None:
    actor, checkpoints = job.actor, checkpoints_folder(job.run)
    actor.parent.rename(checkpoints / "global_step_2")
    finish_step(checkpoints, 2)


@pytest.mark.parametrize(
    ("damage", "kind", "found", "do"),
    [
        (_without("metrics-*"), ArtifactError, "no line of metrics-JOB-START", "a placement with"),
        (_without("validation/0.jsonl"), ArtifactError, "cannot be read", "from its start"),
        (_without("validation/3.jsonl"), ArtifactError, "cannot be read", "run/finished and"),
        (_tear, ArtifactError, "cannot be read", "run/finished and"),
        (_shorten, StageError, "of step 2", "run again"),
        (
            lambda job: job.list_contents(shards=True),
            ArtifactError,
            "its weights are a megatron_dist_checkpoint",
            "without actor_rollout_ref.actor.megatron.use_dist_checkpointing",
        ),
        (
            lambda job: next(job.actor.glob("model/huggingface/*.safetensors")).unlink(),
            ArtifactError,
            "no file model-00001-of-00001.safetensors",
            "again",
        ),
    ],
)
def test_what_a_job_did_not_leave_is_refused_and_nothing_is_made(
    job: Job, damage: Callable[[Job], None], kind: type[FrontloadError], found: str, do: str
) -> None:
    damage(job)
    with pytest.raises(kind) as caught:
        job.publish()
    assert found in caught.value.found
    assert do in caught.value.do
    assert not (job.work.path / "weights").exists()
    assert not (job.work.path / "validation.jsonl").exists()
