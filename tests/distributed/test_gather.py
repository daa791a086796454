"""An actor gathered from the files of real FSDP2 ranks, against torch's own whole tensors."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from frontload.recipes.errors import ArtifactError
from frontload.rl.trainer.gather import gather_actor
from tests.fault.strange_checkpoints import touch
from tests.ranks import run_on_ranks

RANKS = 4
LAYOUTS = {"fp32": (RANKS,), "bf16": (RANKS,), "replicas": (2, 2), "columns": (RANKS,)}
"""What was saved -> the mesh it was cut on: replicas times parts, or parts alone."""


class Uneven(torch.nn.Module):
    """Rows for 4 ranks: 2, 2, 1, 0 of five; 1, 1, 0, 0 of two; 3 of each rank of twelve."""

    def __init__(self) -> None:
        super().__init__()
        stream = torch.Generator().manual_seed(3)
        for name, shape in {"five": (5, 3), "two": (2, 5), "twelve": (12,)}.items():
            weight = torch.randn(shape, generator=stream)
            self.register_parameter(name, torch.nn.Parameter(weight))
        self.register_buffer("held", torch.randn(3, generator=stream))
        self.register_buffer("number", torch.tensor(0.1))


def save(out: str) -> None:
    """On a rank: what it holds of the module, saved as veRL names and saves it."""
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    for layout, sizes in LAYOUTS.items():
        module = Uneven().to(torch.bfloat16 if layout == "bf16" else torch.float32)
        names = ("replica", "part")[-len(sizes) :]
        mesh = init_device_mesh("cpu", sizes, mesh_dim_names=names)
        if layout == "columns":
            state = {
                "five": distribute_tensor(module.get_parameter("five").detach(), mesh, [Shard(1)])
            }
        else:
            fully_shard(module, mesh=mesh)
            state = module.state_dict()
        folder = Path(out) / layout
        folder.mkdir(exist_ok=True)
        torch.save(state, folder / f"model_world_size_{RANKS}_rank_{rank}.pt")
        whole = {
            name: one.full_tensor() if isinstance(one, DTensor) else one
            for name, one in state.items()
        }
        if rank == 0:
            torch.save(whole, Path(out) / f"{layout}.pt")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    run_on_ranks(__file__, "save", RANKS, arguments={"out": str(folder)})
    return folder


@pytest.fixture
def actor(saved: Path, tmp_path: Path) -> Path:
    """A copy of the ranks' files, to be damaged."""
    return Path(shutil.copytree(saved / "fp32", tmp_path / "actor"))


def rank_file(actor: Path, rank: int, world: int = RANKS) -> Path:
    return actor / f"model_world_size_{world}_rank_{rank}.pt"


@pytest.mark.parametrize("layout", ["fp32", "bf16", "replicas"])
def test_every_tensor_is_torchs_own_whole_one_to_the_bit(saved: Path, layout: str) -> None:
    found = gather_actor(saved / layout)
    wanted = torch.load(saved / f"{layout}.pt", weights_only=True)
    assert {one.dtype for one in wanted.values()} == (
        {torch.bfloat16} if layout == "bf16" else {torch.float32}
    )
    assert found.keys() == wanted.keys() == {"five", "two", "twelve", "held", "number"}
    for name, tensor in found.items():
        assert (type(tensor), tensor.dtype) == (torch.Tensor, torch.float32)
        assert torch.equal(tensor, wanted[name].float()), name


def refused(actor: Path) -> ArtifactError:
    with pytest.raises(ArtifactError) as caught:
        gather_actor(actor)
    assert caught.value.exit_code == 2
    assert str(actor) in caught.value.asked
    return caught.value


def test_a_missing_rank_is_named(actor: Path) -> None:
    rank_file(actor, 2).unlink()
    error = refused(actor)
    assert error.found == "no file of rank 2, 1 of 4 missing"
    assert error.do.startswith("remove this step's folder and run again")


def test_a_folder_without_a_rank_is_no_checkpoint(tmp_path: Path) -> None:
    assert refused(tmp_path).found == "no file of an FSDP2 rank"


def test_ranks_of_two_runs_are_not_mixed(actor: Path) -> None:
    shutil.copy(rank_file(actor, 0), rank_file(actor, 0, world=2))
    error = refused(actor)
    assert error.found == "files of runs on 2 and 4 ranks"
    assert error.do == "remove the files of the other run"


def test_files_that_were_renamed_do_not_pass_for_another_number_of_ranks(actor: Path) -> None:
    for rank in range(RANKS):
        path = rank_file(actor, rank)
        if rank < 2:
            shutil.copy(path, rank_file(actor, rank, world=2))
        path.unlink()
    assert re.fullmatch(r"\d of \d+ rows of \w+", refused(actor).found)


def test_a_tensor_that_one_rank_lacks_is_not_whole(actor: Path) -> None:
    state = torch.load(rank_file(actor, 1), weights_only=True)
    del state["twelve"]
    torch.save(state, rank_file(actor, 1))
    assert refused(actor).found == "9 of 12 rows of twelve"


def test_a_piece_in_the_place_of_another_rank_is_refused(actor: Path) -> None:
    shutil.copy(rank_file(actor, 0), rank_file(actor, 3))
    error = refused(actor)
    assert error.asked == f"{rank_file(actor, 3)}, tensor five"
    assert error.found == "[2, 3] of [5, 3], where it has [0, 3]"


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("held", torch.zeros(3), "another rank saved other numbers in the same place"),
        ("held", torch.zeros(4), "it is a part of [4], before of another"),
        ("held", torch.zeros(3, dtype=torch.int64), "it is torch.int64"),
        ("held", "words", "it is str"),
    ],
)
def test_what_no_rank_of_this_run_saved_is_refused(
    actor: Path, name: str, value: object, found: str
) -> None:
    state = torch.load(rank_file(actor, 1), weights_only=True)
    torch.save({**state, name: value}, rank_file(actor, 1))
    error = refused(actor)
    assert error.asked == f"{rank_file(actor, 1)}, tensor {name}"
    assert error.found == found


def test_a_tensor_that_is_cut_by_columns_is_refused(saved: Path) -> None:
    error = refused(saved / "columns")
    assert error.found == "it is cut as [Shard(dim=1)]"
    assert error.do.endswith("without settings of your own for FSDP under placement.rl.verl")


def test_a_file_that_holds_a_call_runs_nothing(actor: Path, tmp_path: Path) -> None:
    torch.save({"five": touch(tmp_path / "ran")}, rank_file(actor, 0))
    assert refused(actor).found == "it asks for posix.system"
    assert not (tmp_path / "ran").exists()
