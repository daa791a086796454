"""Safetensors shards with their index, written and read one tensor at a time.

The format: eight bytes with the length of a JSON header (little endian), the header with the type,
shape and place of every tensor, then the numbers (Hugging Face safetensors, README, "Format").
"""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from frontload.megatron_ext.checkpoints.files import first_line
from frontload.megatron_ext.hf.names import Slot, our_name
from frontload.recipes.artifact import sync_path
from frontload.recipes.errors import ArtifactError

INDEX = "model.safetensors.index.json"
WHOLE = "model.safetensors"
TYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
_CODES = {dtype: code for code, dtype in TYPES.items()}


@dataclass(frozen=True, kw_only=True)
class SafetensorsShard:
    """One file and what will lie in it, in this order."""

    name: str
    slots: tuple[Slot, ...]


def plan_shards(
    slots: Sequence[Slot], *, dtype: torch.dtype, max_shard_bytes: int
) -> tuple[SafetensorsShard, ...]:
    """Cuts the tensors, in order, into files of at most `max_shard_bytes` of numbers.

    A tensor larger than that has a file of its own.
    """
    runs: list[list[Slot]] = []
    room = 0
    for slot in slots:
        size = slot.count * dtype.itemsize
        if not runs or size > room:
            runs.append([])
            room = max_shard_bytes
        runs[-1].append(slot)
        room -= size
    total = len(runs)
    return tuple(
        SafetensorsShard(name=f"model-{number:05d}-of-{total:05d}.safetensors", slots=tuple(run))
        for number, run in enumerate(runs, 1)
    )


class ShardWriter:
    """Writes tensors in the planned order; the file of a shard is closed when it is full."""

    def __init__(
        self, folder: Path, shards: Sequence[SafetensorsShard], dtype: torch.dtype
    ) -> None:
        self._folder, self._shards, self._dtype = folder, list(shards), dtype
        self._waiting: list[Slot] = []
        self._file: IO[bytes] | None = None

    def write(self, name: str, tensor: Tensor) -> None:
        """Writes the next tensor, rounded to nearest if the shards' type is narrower."""
        if self._file is None:
            self._begin(self._shards.pop(0))
        assert self._file is not None
        slot = self._waiting.pop(0)
        assert (slot.name, slot.shape) == (name, tuple(tensor.shape)), (slot, name)
        write_numbers(self._file, tensor.to(self._dtype))
        if not self._waiting:
            self.close()

    def close(self) -> None:
        """Brings the open file to the disk."""
        if self._file is not None:
            sync(self._file)
            self._file.close()
            self._file = None

    def _begin(self, shard: SafetensorsShard) -> None:
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        end = 0
        for slot in shard.slots:
            start, end = end, end + slot.count * self._dtype.itemsize
            place = {"dtype": _CODES[self._dtype], "shape": list(slot.shape)}
            header[slot.name] = place | {"data_offsets": [start, end]}
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self._file = open(self._folder / shard.name, "wb")  # noqa: SIM115
        self._file.write(len(text).to_bytes(8, "little") + text)
        self._waiting = list(shard.slots)


def shard_index(shards: Sequence[SafetensorsShard], dtype: torch.dtype) -> dict[str, Any]:
    """The content of the index: which file holds which tensor."""
    slots = [slot for shard in shards for slot in shard.slots]
    count = sum(slot.count for slot in slots)
    return {
        "metadata": {"total_parameters": count, "total_size": count * dtype.itemsize},
        "weight_map": {slot.name: shard.name for shard in shards for slot in shard.slots},
    }


@dataclass(frozen=True, kw_only=True)
class _Place:
    file: Path
    code: str
    shape: tuple[int, ...]
    start: int  # from the beginning of the file
    end: int


class ShardReader:
    """The tensors of a Hugging Face folder by our names; numbers are read when asked for."""

    def __init__(self, folder: Path) -> None:
        """Reads every header.

        Raises: ArtifactError for a folder without weights, a file that is missing or truncated, a
            type that is not a float, or two tensors that mean the same one.
        """
        self._folder = folder
        self._places: dict[str, _Place] = {}
        for file in _shard_files(folder):
            for name, place in _read_header(folder, file).items():
                if our_name(name) in self._places:
                    raise _broken(
                        folder,
                        found=f"{file.name} has {name}, which another tensor is too",
                        rule=f"one tensor is {our_name(name)}",
                    )
                self._places[our_name(name)] = place

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: place.shape for name, place in self._places.items()}

    def read(self, name: str) -> Tensor:
        place = self._places[name]
        numbers = bytearray(place.end - place.start)
        with open(place.file, "rb") as file:
            file.seek(place.start)
            count = file.readinto(numbers)
        if count != len(numbers):
            raise _broken(
                self._folder,
                found=f"{place.file.name} ends inside {name}",
                rule=f"its header says {len(numbers)} bytes, {count} are there",
            )
        if not numbers:
            return torch.empty(place.shape, dtype=TYPES[place.code])
        return torch.frombuffer(numbers, dtype=TYPES[place.code]).view(place.shape)


def write_numbers(file: IO[bytes], tensor: Tensor) -> None:
    """Writes the bytes of a tensor without a second copy of it."""
    flat = tensor.detach().contiguous().reshape(-1)
    if flat.numel():
        file.write(memoryview(flat.view(torch.uint8).numpy()))


def sync(file: IO[bytes]) -> None:
    """Brings a file's bytes to the disk, so that a rename never publishes an empty file."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Brings every file below a folder, and the folders' own entries, to the disk."""
    for path in [*folder.rglob("*"), folder]:
        sync_path(path)


def _shard_files(folder: Path) -> list[Path]:
    if not (folder / INDEX).is_file():
        if (folder / WHOLE).is_file():
            return [folder / WHOLE]
        raise _broken(folder, found="no weights", rule=f"it holds {INDEX} or {WHOLE}")
    try:
        names = set(json.loads((folder / INDEX).read_text())["weight_map"].values())
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise _broken(
            folder,
            found=f"{INDEX} does not read ({first_line(error)})",
            rule="it maps every tensor to its file",
        ) from error
    for name in sorted(names):
        if not isinstance(name, str) or Path(name).name != name or not (folder / name).is_file():
            raise _broken(folder, found=f"no file {name}", rule=f"{INDEX} names it")
    return [folder / name for name in sorted(names)]


def _read_header(folder: Path, file: Path) -> dict[str, _Place]:
    size = file.stat().st_size
    with open(file, "rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        text = opened.read(length) if 0 < length <= size - 8 else b""
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        places = {name: _place(file, entry, 8 + length) for name, entry in header.items()}
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise _broken(
            folder,
            found=f"{file.name} ({size} bytes) has no readable header",
            rule="a safetensors file begins with the length and the text of its header",
        ) from error
    for name, place in places.items():
        if place.code not in TYPES:
            raise _broken(
                folder, found=f"{name} is {place.code}", rule=f"weights are {', '.join(TYPES)}"
            )
        need = math.prod(place.shape) * TYPES[place.code].itemsize
        if place.end - place.start != need:
            raise _broken(
                folder,
                found=f"{name} of {file.name} has {place.end - place.start} bytes",
                rule=f"its shape {list(place.shape)} needs {need}",
            )
    end = max((place.end for place in places.values()), default=8 + length)
    if size != end:
        raise _broken(
            folder,
            found=f"{file.name} has {size} bytes",
            rule=f"its header says {end}",
        )
    return places


def _place(file: Path, entry: dict[str, Any], base: int) -> _Place:
    start, end = entry["data_offsets"]
    shape = tuple(int(size) for size in entry["shape"])
    return _Place(
        file=file, code=entry["dtype"], shape=shape, start=base + int(start), end=base + int(end)
    )


def _broken(folder: Path, *, found: str, rule: str) -> ArtifactError:
    return ArtifactError(
        f"Hugging Face folder {folder}",
        found=found,
        rule=rule,
        do="copy or export the folder again",
    )
