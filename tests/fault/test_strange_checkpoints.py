"""No command runs what a stranger's checkpoint says; each refuses it in four parts, with exit 2."""

import contextlib
import json
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import Metadata

from frontload.launch import cli
from frontload.launch.stage.jobs import Job
from frontload.launch.store import Store, Ticket
from frontload.launch.study.workers import run_job
from frontload.megatron_ext.checkpoints.table import check_whole, read_table
from frontload.megatron_ext.hf.convert import export_hf, import_hf
from frontload.recipes.errors import ArtifactError
from frontload.recipes.grammar.load import find_recipe, load_recipe
from frontload.recipes.machines.placement import Placement
from frontload.recipes.runs.training import SftRecipe
from frontload.recipes.schema import Evaluate
from tests.fault import strange_checkpoints as strange
from tests.tiny_run import TinyData, write_tiny_data, write_tiny_pack
from tests.unit.megatron_ext.convert_inputs import write_checkpoint, write_tokenizer_file


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TinyData]:
    """What the commands read besides the checkpoint, and a checkpoint that is none's fault."""
    root = tmp_path_factory.mktemp("home")
    write_tokenizer_file(root / "tokenizer.json")
    write_tiny_pack(root / "pack", 24)
    (root / "prompts.jsonl").touch()
    path = find_recipe("training", "sft_tiny")
    assert path is not None
    (stage,) = load_recipe(path, SftRecipe).value.stages().values()
    (root / "made").mkdir()
    export_hf(write_checkpoint(root / "made", stage.model), root / "hf")
    import_hf(root / "hf", root / "start")
    state = {"samples": 24, "has_optimizer": False}
    (root / "start/training_state.json").write_text(json.dumps(state))
    return root, write_tiny_data(root / "data")


Act = Callable[[Path, Path, TinyData, Path], int]


def to_hf(start: Path, home: Path, data: TinyData, out: Path) -> int:
    tokenizer = str(home / "tokenizer.json")
    return cli.main(["convert", "to-hf", str(start), str(out), "--tokenizer", tokenizer])


def train_from(start: Path, home: Path, data: TinyData, out: Path) -> int:
    words = ["train", "sft_tiny", "--pack", str(home / "pack"), "--start", str(start)]
    return cli.main([*words, "--out", str(out)])


def resume(start: Path, home: Path, data: TinyData, out: Path) -> int:
    shutil.copytree(start / "weights", out / "work/first/scratch/step-00000002")
    return cli.main(["train", "pretrain_tiny", *data.flags(), "--out", str(out)])


def reinforce(start: Path, home: Path, data: TinyData, out: Path) -> int:
    prompts = str(home / "prompts.jsonl")
    words = ["rl", "grpo_tiny", "--model", str(start), "--tokenizer", str(home / "tokenizer.json")]
    return cli.main([*words, "--prompts", prompts, "--validation", prompts, "--out", str(out)])


def evaluate(start: Path, home: Path, data: TinyData, out: Path) -> int:
    """As a worker runs the stage; it says what a command would say."""
    recipe = Evaluate(
        suite="sft",
        num_samples=1,
        num_hard_samples=1,
        temperature=0.0,
        max_new_tokens=4,
        num_shots=0,
        seed=1,
    )
    job = Job(
        ticket=Ticket(kind="evaluate", label="x", key="k", folder="evaluate/x-k", payload={}),
        function="frontload.eval.stages:evaluate",
        recipe=recipe,
        inputs={"checkpoint": published(start)},
        placement=Placement(),
        store=Store(out),
    )
    end = run_job(job, lambda *_: None)
    assert end.error is not None
    print(f"frontload: {end.error}", file=sys.stderr)
    return end.error.exit_code


def published(start: Path) -> Path:
    """The folder with the manifest of a store: its digests are right."""
    from tests.unit.launch.test_convert import publish

    return publish(start, {})


COMMANDS: dict[str, Act] = {
    "convert to-hf": to_hf,
    "train --start": train_from,
    "train, going on": resume,
    "rl --model": reinforce,
    "evaluate": evaluate,
}


@pytest.fixture
def planted(
    home: tuple[Path, TinyData], tmp_path: Path, request: pytest.FixtureRequest
) -> tuple[Path, str]:
    shutil.copytree(home[0] / "start", tmp_path / "start")
    strange.plant(tmp_path / "start/weights", request.param, tmp_path / "ran")
    return tmp_path / "start", request.param


@pytest.mark.parametrize("planted", strange.names(), indirect=True)
def test_the_payloads_run_where_nothing_looks_at_them(
    planted: tuple[Path, str], tmp_path: Path
) -> None:
    with contextlib.suppress(Exception, CheckpointException):
        strange.read_as_torch_does(planted[0] / "weights", planted[1], tmp_path / "ran")
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("planted", strange.names(), indirect=True)
@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_runs_a_checkpoint(
    planted: tuple[Path, str],
    home: tuple[Path, TinyData],
    command: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = COMMANDS[command](planted[0], *home, tmp_path / "out")
    told = capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "ran").exists()
    assert code == 2, told
    assert told.startswith("frontload: checkpoint ")
    assert "reading one runs no code; do not use it" in told


def test_the_checkpoint_without_a_payload_is_read(
    home: tuple[Path, TinyData], tmp_path: Path
) -> None:
    """The refusals above are of the payload: all else in the folder is right."""
    for name in ("convert to-hf", "train --start"):
        assert COMMANDS[name](home[0] / "start", *home, tmp_path / name) == 0


def test_a_table_that_changes_a_class_is_refused_and_undone(
    home: tuple[Path, TinyData], tmp_path: Path
) -> None:
    """`(slots, attributes)` as the state of a class sets them on the class itself."""
    table = home[0] / "start/weights/.metadata"
    kind = b"ctorch.distributed.checkpoint.metadata\nMetadata\n"
    state = b"(N}(S'planted'\nI1\nS'planner_data'\nI2\nutb"
    shutil.copytree(table.parent, tmp_path / "weights")
    (tmp_path / "weights/.metadata").write_bytes(kind + state + b"0" + table.read_bytes())
    before = Metadata.planner_data
    with pytest.raises(ArtifactError, match=r"asks for a change of Metadata\.p"):
        check_whole(tmp_path / "weights")
    assert not hasattr(Metadata, "planted")
    assert Metadata.planner_data is before
    read_table(table.parent)


@pytest.mark.parametrize("name", ["../other", "/etc/hostname", "a/b"])
def test_a_table_that_names_a_file_elsewhere_is_refused(
    home: tuple[Path, TinyData], tmp_path: Path, name: str
) -> None:
    shutil.copytree(home[0] / "start/weights", tmp_path / "weights")
    strange.add_object(tmp_path / "weights", strange.COMMON_STATE, b"x")
    table = read_table(tmp_path / "weights")
    next(iter(table.storage_data.values())).relative_path = name
    (tmp_path / "weights/.metadata").write_bytes(pickle.dumps(table))
    with pytest.raises(ArtifactError, match="which does not lie beside it"):
        check_whole(tmp_path / "weights")


@pytest.mark.parametrize(
    "content",
    [b"", b"\x80\x04N.", b"\x80\x04]\x94.", pickle.dumps(Metadata({}, {}, {1: 2}))],
)
def test_a_table_that_is_none_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".metadata").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"a checkpoint has a readable \.metadata"):
        check_whole(tmp_path)


@pytest.mark.parametrize("command", ["convert to-hf", "train --start", "rl --model"])
def test_digests_come_first_where_there_are_any(
    home: tuple[Path, TinyData],
    command: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A folder as a store publishes it, changed afterwards."""
    shutil.copytree(home[0] / "start", tmp_path / "start")
    published(tmp_path / "start")
    strange.plant(tmp_path / "start/weights", "os.system", tmp_path / "ran")
    assert COMMANDS[command](tmp_path / "start", *home, tmp_path / "out") == 2
    assert "is not the file that its manifest.json states" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()
