"""`frontload train`: what a run's folder holds, how it goes on, and what is refused."""

import json
import os
import signal
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from frontload.launch import cli
from frontload.launch.ranks.rank_run import comes_again
from frontload.launch.ranks.seat import Seat, take_seat
from frontload.launch.run.folder import FINISHED
from frontload.launch.run.listeners import Teller, wandb_listener
from frontload.megatron_ext.training.datasets import PackSamples
from frontload.recipes.errors import RecipeError, StageError
from frontload.recipes.machines.placement import Placement
from tests.tiny_run import TinyData, artifact_bytes, write_tiny_data, write_tiny_pack
from tests.training_inputs import write_step_pack

TINY = ("train", "pretrain_tiny")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TinyData:
    return write_tiny_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(data: TinyData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of both phases in one start."""
    out = tmp_path_factory.mktemp("whole") / "run"
    words = [*TINY, *data.flags(), "--out", str(out), "--say-every", "0"]
    assert cli.main([*words, "upkeep.tensorboard=true"]) == 0
    return out


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert cli.main(list(words)) == 2
    err = capsys.readouterr().err
    assert err.startswith("frontload: ")
    assert err.count("; ") >= 2, err
    return err


def test_a_run_leaves_a_checkpoint_of_each_phase_and_a_record(whole: Path) -> None:
    names = {path.name for path in whole.iterdir()} - {".locks", "work"}
    files = {"finished", "logs", "provenance", "run.json", "starts", "tensorboard"}
    assert names == {"first", "second"} | files
    for name, samples in (("first", 24), ("second", 40)):
        state = json.loads((whole / name / "training_state.json").read_text())
        assert (state["samples"], state["has_optimizer"]) == (samples, True)
        manifest = json.loads((whole / name / "manifest.json").read_text())
        assert set(manifest["inputs"]) >= {"blend", "base"}
        for file, entry in manifest["files"].items():
            assert (whole / name / file).stat().st_size == entry["size_bytes"]
    (start,) = (whole / "starts").iterdir()
    told = json.loads(start.read_text())
    assert told["versions"]["megatron-core"]
    assert told["ranks"] == 1
    assert told["made_on"]["instructions"], "this process has torch, which chose one"
    pace = (whole / "logs" / "rank-00000.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in pace] == [2, 4, 6, 2, 4]


def test_tensorboard_holds_what_the_log_holds(whole: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for name in ("first", "second"):
        events = EventAccumulator(str(whole / "tensorboard" / name)).Reload()
        lines = (whole / name / "metrics.jsonl").read_text().splitlines()
        logged = {json.loads(line)["step"]: json.loads(line)["train/loss"] for line in lines}
        shown = {one.step: one.value for one in events.Scalars("train/loss")}
        assert shown == pytest.approx(logged, rel=1e-6), "float32 in TensorBoard's files"


def test_a_finished_run_does_nothing(
    whole: Path, data: TinyData, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {name: artifact_bytes(whole / name) for name in ("first", "second")}
    assert cli.main([*TINY, *data.flags(), "--out", str(whole), "upkeep.tensorboard=true"]) == 0
    out = capsys.readouterr().out
    assert "stage first is there" in out
    assert "step 1" not in out
    assert {name: artifact_bytes(whole / name) for name in before} == before


def test_a_branch_goes_on_from_another_runs_first_phase(
    whole: Path, data: TinyData, tmp_path: Path
) -> None:
    """The trunk is trained once; a branch from it ends with the bytes of a run that made both."""
    words = [*TINY, *data.flags("second"), "--start", str(whole / "first")]
    assert cli.main([*words, "--out", str(tmp_path / "branch")]) == 0
    both = [artifact_bytes(root / "second") for root in (tmp_path / "branch", whole)]
    for found in both:
        found.pop("manifest.json")  # one of them names the trunk's digest
        state = json.loads(found.pop("training_state.json"))
        assert state["samples"] == 40
    assert both[0] == both[1]
    assert not (tmp_path / "branch" / "first").exists()


def test_sigterm_ends_it_with_a_checkpoint_and_a_code_to_come_back(
    whole: Path, data: TinyData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / "run"
    speak = Teller.__call__

    def speak_and_be_asked(self: Teller, step: int, metrics: dict[str, float]) -> None:
        speak(self, step, metrics)
        if step == 3 and "train/loss" in metrics:
            os.kill(os.getpid(), signal.SIGUSR1)

    words = [*TINY, *data.flags(), "--out", str(out)]
    with monkeypatch.context() as patch:
        patch.setattr(Teller, "__call__", speak_and_be_asked)
        assert cli.main(words) == 75
    assert "asked to stop at step 4" in capsys.readouterr().err
    assert not (out / FINISHED).exists()
    assert not (out / "error.json").exists()
    assert cli.main(words) == 0
    for name in ("first", "second"):
        assert artifact_bytes(out / name) == artifact_bytes(whole / name)


def test_fine_tuning_starts_from_any_checkpoint(whole: Path, tmp_path: Path) -> None:
    pack = write_tiny_pack(tmp_path / "pack", 24)
    words = ["train", "sft_tiny", "--pack", str(pack), "--start", str(whole / "second")]
    assert cli.main([*words, "--out", str(tmp_path / "run")]) == 0
    state = json.loads((tmp_path / "run" / "sft" / "training_state.json").read_text())
    assert (state["samples"], state["has_optimizer"]) == (24, False)


def test_fine_tuning_spends_a_budget_in_real_tokens(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The steps are in the pack, and the recipe must be of these."""
    pack = write_step_pack(tmp_path / "pack", tokens=180, steps=3)
    words = ["train", "sft_tiny", "--pack", str(pack), "--start", str(whole / "second")]
    words += ["--out", str(tmp_path / "run")]
    assert cli.main(words) == 2
    told = capsys.readouterr().err
    assert "a budget in read: 180 tokens in 3 steps of at most 4 rows" in told
    budget = ["tokens=180", "budget_unit=read"]
    assert cli.main([*words, *budget, "step_tokens=90"]) == 2
    assert "--budget-tokens 180 --step-tokens 90 --batch-sequences 4" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert cli.main([*words, *budget, "step_tokens=60"]) == 0
    folder = tmp_path / "run" / "sft"
    state = json.loads((folder / "training_state.json").read_text())
    assert (state["samples"], state["steps_of_stage"]) == (12, 3)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    samples = PackSamples(pack, 32).read(range(12))
    assert sum(line.get("data/loss_tokens", 0) for line in lines) == samples.loss_mask_BS.sum()


def test_another_recipe_or_other_data_never_go_on_in_this_folder(
    whole: Path, data: TinyData, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*TINY, *data.flags(), "--out", str(whole)]
    told = refused(capsys, *words, "seed=2")
    assert "holds another run: first.recipe.training.seed differs" in told
    assert cli.main([*words, "upkeep.keep_last=5"]) == 0, "upkeep moves no weight"


def test_wrong_inputs_are_refused_and_nothing_is_written(
    whole: Path, data: TinyData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "out")]
    for words, told in (
        ([*TINY, *out], "0 blends for the phases first, second"),
        ([*TINY, *data.flags("first"), *out], "1 blends for the phases first, second"),
        ([*TINY, *data.flags("second", "first"), *out], "the recipe trains on 24 of 32"),
        ([*TINY, *data.flags(), "--until", "third", *out], "phases of this recipe are first, sec"),
        ([*TINY, "--blend", str(data.first), str(data.second), *out], "no index of base"),
        ([*TINY, *data.flags(), "--pack", "p", *out], "pretraining reads blends"),
        ([*TINY, *data.flags(), "--start", str(whole / "second"), *out], "after 40 samples"),
        ([*TINY, "--blend", "none", "none", *out], "no usable plan.json"),
        (["train", "sft_tiny", *out], "--pack: is not given"),
        (["train", "sft_tiny", "--pack", "p", *out], "--start: is not given"),
        (["train", "sft_tiny", *data.flags("first"), *out], "fine-tuning reads one pack"),
        (["train", "grpo_tiny", *out], "reinforcement learning"),
        (["train", "pretrain_tny", *out], "write 'pretrain_tiny'"),
        ([*TINY, *data.flags(), *out, "placement.tensor_parallel=2"], "placement"),
    ):
        assert told in refused(capsys, *words), words
    assert not (tmp_path / "out" / "first").exists()


def test_a_failure_that_would_come_again_is_not_tried_again(
    data: TinyData, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    words = [*TINY, *data.flags(), "--out", str(tmp_path), "learning_rate=1.0e+30"]
    words += ["clip_grad=0.0"]
    assert cli.main(words) == 1
    first = capsys.readouterr().err
    assert "loss and gradient are finite numbers" in first
    for name, text in (
        ("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_WORLD_SIZE", "1"),
        ("TORCHELASTIC_RESTART_COUNT", "1"),
    ):  # fmt: skip
        monkeypatch.setenv(name, text)
    assert cli.main(words) == 1
    told = capsys.readouterr()
    assert told.err.splitlines()[-1] == first.splitlines()[-1]
    assert "step 1 " not in told.out, "the restarted ranks end at once"


def test_a_lost_peer_is_tried_again_a_verdict_is_not() -> None:
    verdict = StageError("a", found="b", rule="c", do="d")
    assert comes_again(verdict)
    verdict.__cause__ = StageError("a", found="b", rule="c", do="d")
    assert comes_again(verdict)
    verdict.__cause__ = RuntimeError("Connection reset by peer")
    assert not comes_again(verdict)


def test_a_seat_is_taken_from_torchruns_variables() -> None:
    assert take_seat({}) == Seat()
    found = take_seat({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"})
    assert (found.rank, found.world, found.is_leader) == (5, 8, False)
    placed = found.place(Placement(num_nodes=16, ranks_per_node=8, tensor_parallel=2))
    assert (placed.num_nodes, placed.ranks_per_node, placed.tensor_parallel) == (2, 4, 2)
    with pytest.raises(RecipeError, match="started by torchrun"):
        take_seat({"RANK": "0"})


def test_the_line_names_pace_utilisation_and_the_slowest_rank(
    capsys: pytest.CaptureFixture[str],
) -> None:
    teller = Teller("mine", num_steps=9, every_seconds=1e9)
    losses = {"train/loss": 2.5, "train/grad_norm": 1.0, "train/learning_rate": 3e-4}
    system = {
        "system/tokens_per_second": 12_345.6,
        "system/model_flops_utilisation": 0.4321,
        "system/slowest_rank": 17.0,
        "system/slowest_rank_seconds": 3.0,
        "system/median_rank_seconds": 2.0,
    }
    teller(1, system)
    for step in range(1, 10):
        teller(step, losses)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in lines] == ["1", "9"], "now and then, and the last"
    assert lines[0].endswith("12,346 tokens/s, MFU 43.2%, slowest rank 17 (1.50x median)")


def test_weights_and_biases_hears_every_step_as_one_run_over_all_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[dict[str, Any]] = []
    heard: list[dict[str, float]] = []
    module = ModuleType("wandb")
    module.__dict__["init"] = lambda **words: (
        begun.append(words) or SimpleNamespace(log=heard.append)
    )
    monkeypatch.setitem(sys.modules, "wandb", module)
    for folder in ("one", "one", "two"):
        listen = wandb_listener("mine", run="ldq-first", folder=tmp_path / folder, config={"a": 1})
        listen(3, {"train/loss": 2.5})
    assert heard == 3 * [{"train/loss": 2.5, "step": 3}]
    ids = [words["id"] for words in begun]
    assert ids[0] == ids[1] != ids[2]
    assert {words["resume"] for words in begun} == {"allow"}
    assert {words["name"] for words in begun} == {"ldq-first"}
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(RecipeError, match="pip install wandb"):
        wandb_listener("mine", run="x", folder=tmp_path, config={})
