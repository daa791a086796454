"""A Megatron distributed checkpoint read and written one tensor at a time, without Megatron.

What Megatron writes is torch's format: records of `torch.save` one after another, and a pickled
table of where each begins. A test holds the bytes of this writer against Megatron's own.
"""

import contextlib
import json
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.state_dict_loader import load

from frontload.megatron_ext.checkpoints.files import CONTENT, METADATA, first_line
from frontload.megatron_ext.checkpoints.table import (
    CheckpointReader,
    check_whole,
    read_table,
    write_table,
)
from frontload.megatron_ext.hf.safetensors import sync
from frontload.recipes.artifact import write_json
from frontload.recipes.errors import ArtifactError

DATA = "__0_0.distcp"  # file 0 of rank 0
WHOLE_OBJECT = "/shard_0_1"  # part 0 of 1 (ShardedObject.unique_key, mapping.py)
TABLE_VERSION = "1.0.0"  # CURRENT_DCP_VERSION, torch/distributed/checkpoint/filesystem.py


class StoredTensors:
    """The model's tensors in a checkpoint, whatever layout wrote it, read by their keys."""

    def __init__(self, folder: Path) -> None:
        """Reads the table.

        Raises: ArtifactError for a torn checkpoint.
        """
        check_whole(folder)
        self._folder = folder
        entries = read_table(folder).state_dict_metadata
        self._entries = {
            name: entry
            for name, entry in entries.items()
            if isinstance(entry, TensorStorageMetadata) and not name.startswith("optimizer")
        }
        self.shapes = {name: tuple(entry.size) for name, entry in self._entries.items()}

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Reads these tensors and no other.

        Raises: ArtifactError if the files do not hold what the table lists.
        """
        state: dict[str, Any] = {}
        for name in names:
            entry = self._entries[name]
            state[name] = torch.empty(entry.size, dtype=entry.properties.dtype)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # "torch.distributed is uninitialized": meant so
                load(state, storage_reader=CheckpointReader(self._folder), no_dist=True)
        except (Exception, CheckpointException) as error:  # torch's is a BaseException
            raise ArtifactError(
                f"checkpoint {self._folder}",
                found=f"it does not load ({type(error).__name__}: {first_line(error)})",
                rule=f"the tensors that {METADATA} lists lie beside it",
                do="delete the artifact by its key and run the study again",
            ) from error
        return state


class CheckpointWriter:
    """Writes a model-only checkpoint: the states of all modules first, then tensor by tensor."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._table: dict[str, Any] = {}
        self._places: dict[MetadataIndex, _StorageInfo] = {}
        self._file: IO[bytes] = open(folder / DATA, "wb")  # noqa: SIM115
        self._closing = contextlib.closing(self._file)

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(self, *error: Any) -> None:
        self._closing.__exit__(*error)

    def declare(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        """Enters a tensor into the table; its order is the table's."""
        whole = ChunkStorageMetadata(offsets=torch.Size([0] * len(shape)), sizes=torch.Size(shape))
        self._table[name] = TensorStorageMetadata(
            properties=TensorProperties(dtype=dtype), size=torch.Size(shape), chunks=[whole]
        )

    def declare_object(self, name: str) -> None:
        """Enters an object into the table."""
        self._table[name + WHOLE_OBJECT] = BytesStorageMetadata()

    def write_object(self, name: str, content: Any) -> None:
        """Writes an object; all of them come before the first tensor."""
        start = self._file.tell()
        torch.save([content], self._file)
        index = MetadataIndex(name + WHOLE_OBJECT)
        self._places[index] = _StorageInfo(DATA, start, self._file.tell() - start)

    def write_tensor(self, name: str, tensor: Tensor) -> None:
        """Writes a declared tensor."""
        entry = self._table[name]
        assert (entry.size, entry.properties.dtype) == (tensor.shape, tensor.dtype), name
        start = self._file.tell()
        torch.save(tensor.clone() if _is_view(tensor) else tensor, self._file)
        index = MetadataIndex(name, torch.Size([0] * tensor.dim()))
        self._places[index] = _StorageInfo(DATA, start, self._file.tell() - start)

    def finish(self) -> None:
        """Writes the table and Megatron's own notes; before this the folder is no checkpoint."""
        sync(self._file)
        table = Metadata(
            state_dict_metadata=self._table, storage_data=self._places, version=TABLE_VERSION
        )
        write_table(self._folder / METADATA, table)
        backend = {"sharded_backend": "torch_dist", "sharded_backend_version": 1}
        (self._folder / "metadata.json").write_text(json.dumps(backend))
        write_json(self._folder / CONTENT, {"optimizer": "none"})


def _is_view(tensor: Tensor) -> bool:
    """torch.save would write the whole storage behind it."""
    return tensor.untyped_storage().nbytes() != tensor.numel() * tensor.itemsize
