"""The actor's weights as whole tensors, from the files that the FSDP2 ranks of veRL saved.

Each rank saves what it holds of every tensor (fsdp_checkpoint_manager.py:347 of verl 0.9.1): a
DTensor that is cut along dimension 0, or a whole tensor where every rank has the same.
"""

import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from frontload.megatron_ext.checkpoints.table import read_object
from frontload.megatron_ext.hf.names import our_name
from frontload.recipes.errors import ArtifactError

RANK_FILE = re.compile(r"model_world_size_(?P<world>\d+)_rank_(?P<rank>\d+)\.pt")
AGAIN = "remove this step's folder and run again: the run goes on from the checkpoint before it"
FLOATS = (torch.float32, torch.bfloat16, torch.float16)


def gather_actor(folder: Path) -> dict[str, Tensor]:
    """The whole float32 tensors of an actor, by our names. One rank's file is in memory at a time.

    Raises: ArtifactError for a missing rank, for ranks of several runs, or for a tensor that its
        pieces do not make whole.
    """
    importlib.import_module("torch.distributed.tensor")  # lets the reader know DTensor
    whole: dict[str, _Whole] = {}
    for rank, file in enumerate(rank_files(folder)):
        state = read_object(file, asked=f"veRL's checkpoint {file}")
        for name in list(state):
            piece = _piece(state.pop(name), rank, asked=f"{file}, tensor {name}")
            if our_name(name) not in whole:
                whole[our_name(name)] = _Whole.of(piece.shape)
            whole[our_name(name)].add(piece)
    for name, tensor in whole.items():
        if not tensor.covered.all():
            raise ArtifactError(
                f"veRL's checkpoint {folder}",
                found=f"{int(tensor.covered.sum())} of {len(tensor.covered)} rows of {name}",
                rule="the ranks' pieces of a tensor make it whole",
                do=AGAIN,
            )
    return {name: tensor.numbers for name, tensor in whole.items()}


def rank_files(folder: Path) -> list[Path]:
    """The file of each rank, in the order of the ranks.

    Raises: ArtifactError if one is missing, or if runs of several sizes wrote into the folder.
    """
    found: dict[int, dict[int, Path]] = {}
    for path in folder.glob("*.pt"):
        if match := RANK_FILE.fullmatch(path.name):
            found.setdefault(int(match["world"]), {})[int(match["rank"])] = path
    if len(found) != 1:
        sizes = " and ".join(str(world) for world in sorted(found))
        raise ArtifactError(
            f"veRL's checkpoint {folder}",
            found=f"files of runs on {sizes} ranks" if found else "no file of an FSDP2 rank",
            rule="the ranks of one run wrote model_world_size_W_rank_R.pt, for each R below W",
            do="remove the files of the other run" if found else AGAIN,
        )
    (world, files), *_ = found.items()
    missing = [rank for rank in range(world) if rank not in files]
    if missing:
        raise ArtifactError(
            f"veRL's checkpoint {folder}",
            found=f"no file of rank {missing[0]}, {len(missing)} of {world} missing",
            rule="every rank's file holds a part of the weights",
            do=AGAIN,
        )
    return [files[rank] for rank in range(world)]


@dataclass(frozen=True, kw_only=True)
class _Piece:
    """What one rank holds of a tensor: rows from `start` on."""

    asked: str
    shape: tuple[int, ...]  # of the whole
    start: int
    numbers: Tensor


@dataclass(frozen=True, kw_only=True)
class _Whole:
    """A tensor in the making; a number alone is a row of one."""

    numbers: Tensor
    covered: Tensor  # one truth value per row

    @staticmethod
    def of(shape: tuple[int, ...]) -> "_Whole":
        rows = shape[0] if shape else 1
        return _Whole(numbers=torch.zeros(shape), covered=torch.zeros(rows, dtype=torch.bool))

    def add(self, piece: _Piece) -> None:
        """Puts a piece in its place; what several ranks hold must be the same."""
        if piece.shape != tuple(self.numbers.shape):
            raise _wrong(piece.asked, f"it is a part of {list(piece.shape)}, before of another")
        rows = len(piece.numbers) if piece.shape else 1
        place = slice(piece.start, piece.start + rows)
        target = self.numbers[place] if piece.shape else self.numbers
        is_there = self.covered[place]
        if rows and is_there.all() and not torch.equal(target, piece.numbers.float()):
            raise _wrong(piece.asked, "another rank saved other numbers in the same place")
        target.copy_(piece.numbers)
        is_there.fill_(True)


def _piece(saved: Any, rank: int, *, asked: str) -> _Piece:
    from torch.distributed.tensor import DTensor

    if not isinstance(saved, Tensor) or saved.dtype not in FLOATS:
        what = saved.dtype if isinstance(saved, Tensor) else type(saved).__name__
        raise _wrong(asked, f"it is {what}")
    shape = tuple(saved.shape)
    if not isinstance(saved, DTensor):
        return _Piece(asked=asked, shape=shape, start=0, numbers=saved.detach())
    with torch.no_grad():
        local = saved.to_local()
    parts, part = _cut(saved, rank, asked=asked)
    size = shape[0] if shape else 1
    rows = -(-size // parts)  # as torch.chunk cuts: the last parts are shorter, or empty
    start, stop = min(size, part * rows), min(size, (part + 1) * rows)
    wanted = (stop - start, *shape[1:]) if shape else ()
    if tuple(local.shape) != wanted:
        raise _wrong(asked, f"{list(local.shape)} of {list(shape)}, where it has {list(wanted)}")
    return _Piece(asked=asked, shape=shape, start=start, numbers=local)


def _cut(saved: Any, rank: int, *, asked: str) -> tuple[int, int]:
    """Into how many parts the tensor is cut, and which of them the rank holds."""
    from torch.distributed.tensor import Replicate, Shard

    mesh = saved.device_mesh.mesh
    places = (mesh == rank).nonzero()
    if len(places) != 1:
        raise _wrong(asked, f"its mesh {mesh.tolist()} has no rank {rank}")
    cuts = [axis for axis, one in enumerate(saved.placements) if type(one) is not Replicate]
    if any(saved.placements[axis] != Shard(0) for axis in cuts) or len(cuts) > 1:
        raise _wrong(asked, f"it is cut as {list(saved.placements)}")
    return (mesh.shape[cuts[0]], int(places[0, cuts[0]])) if cuts else (1, 0)


def _wrong(asked: str, found: str) -> ArtifactError:
    return ArtifactError(
        asked,
        found=found,
        rule="FSDP2 saves floats, cut over the ranks along dimension 0 alone or the same on all",
        do=f"{AGAIN}, without settings of your own for FSDP under placement.rl.verl",
    )
