"""Copies of rows and partitions of lengths are what TransferQueue's and veRL's own ways give."""

import copy
import random
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transfer_queue import KVBatchMeta, metadata
from verl.utils import seqlen_balancing

from frontload.rl.plugins.lean_queue import copy_rows, use_lean_rows

ROWS = [
    {"place": 3, "score": 0.5, "status": "success", "seconds": {"reward": 0.1}, "none": None},
    {"shape": torch.Size([4, 5]), "dtype": torch.float32, "shapes": [torch.Size([7]), (1, [2])]},
    {},
]


@pytest.fixture
def lean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours before theirs, until the test ends."""
    assert metadata.copy is copy
    monkeypatch.setattr(metadata, "copy", copy)
    monkeypatch.setattr(seqlen_balancing, "karmarkar_karp", seqlen_balancing.karmarkar_karp)
    use_lean_rows()


def test_a_copy_is_equal_and_shares_nothing_that_can_change() -> None:
    copied = copy_rows(ROWS)
    assert copied == ROWS == copy.deepcopy(ROWS)
    assert not shared(copied, ROWS)
    assert shared([ROWS[0]], ROWS)  # and the test would see it


def shared(left: Any, right: Any) -> bool:
    """Whether one dict or list is found in both."""
    return bool(mutables(left) & mutables(right))


def mutables(value: Any) -> set[int]:
    inner = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(inner, (list, tuple)):
        return set()
    own = {id(value)} if isinstance(value, (dict, list)) else set()
    return own.union(*(mutables(item) for item in inner))


@pytest.mark.usefixtures("lean")
def test_the_queue_copies_through_ours() -> None:
    tags = [dict(ROWS[0]) for _ in range(2)]
    batch = KVBatchMeta(keys=["a", "b"], tags=tags, partition_id="train")
    tags[0]["score"] = 7.0
    assert batch.tags[0]["score"] == 0.5
    assert isinstance(metadata.copy, SimpleNamespace)


@pytest.mark.usefixtures("lean")
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_lengths_are_parted_as_veRL_parts_them(ranks: int) -> None:
    lengths = torch.tensor([random.Random(ranks + n).randrange(5, 128) for n in range(32)])
    found = seqlen_balancing.get_seqlen_balanced_partitions(lengths, ranks, equal_size=True)
    assert sorted(sum(found, [])) == list(range(32))
    assert found == theirs(lengths, ranks)


def theirs(lengths: torch.Tensor, ranks: int) -> list[list[int]]:
    """veRL's own, whose names stand in the closure of ours."""
    ours = seqlen_balancing.karmarkar_karp
    own = dict(zip(ours.__code__.co_freevars, ours.__closure__ or (), strict=True))["partition"]
    parts = own.cell_contents(lengths, ranks, equal_size=True)
    return [sorted(part) for part in parts]
