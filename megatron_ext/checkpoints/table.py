"""A distributed checkpoint's table and objects, read so that a stranger's file runs no code.

This is the one place of the project that unpickles files which others may have written. Torch's own
readers do what a pickle says: of the table (filesystem.py:930, `pickle.load`) and of each object
beside the tensors (default_planner.py:390, `weights_only=False`). Tensors they read with
`weights_only=True` (filesystem.py:902).
"""

import io
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PosixPath
from typing import IO, Any, cast

import torch
from torch.distributed.checkpoint import metadata, planner
from torch.distributed.checkpoint.filesystem import FileSystemReader, _StorageInfo
from torch.futures import Future

from frontload.megatron_ext.checkpoints.files import METADATA, first_line
from frontload.recipes.errors import ArtifactError

COMMON = "common.pt"  # where older versions of Megatron kept objects (strategies/common.py:14)
RULE = "a checkpoint holds numbers, names and shapes; reading one runs no code"
DO = "do not use it; ask its author for safetensors, which `frontload convert from-hf` reads"

_KINDS = (
    metadata.Metadata,
    metadata.MetadataIndex,
    metadata.StorageMeta,
    metadata.TensorStorageMetadata,
    metadata.BytesStorageMetadata,
    metadata.ChunkStorageMetadata,
    metadata.TensorProperties,
    metadata._MEM_FORMAT_ENCODING,
    _StorageInfo,
    planner.SavePlan,  # Megatron keeps every rank's (strategies/state_dict_saver.py)
    planner.WriteItem,
    planner.WriteItemType,
    planner.TensorWriteData,
    planner.BytesIOWriteData,
    PosixPath,  # torch names the folder in `storage_meta`
)
_ALLOWED: dict[tuple[str, str], Any] = {
    **{(kind.__module__, kind.__qualname__): kind for kind in _KINDS},
    **{
        ("torch", str(kind)[6:]): kind for kind in vars(torch).values() if type(kind) is torch.dtype
    },
    ("pathlib._local", "PosixPath"): PosixPath,  # its module from Python 3.13 on
    ("torch", "Size"): torch.Size,
    ("torch.serialization", "_get_layout"): {"torch.strided": torch.strided}.__getitem__,
}
"""All that a table is made of, as torch 2.11 and 2.13 and megatron-core 0.19.2 write it."""


class _Forbidden(pickle.UnpicklingError):
    """A pickle asked for something that no table has."""


class _TableReader(pickle.Unpickler):
    """Finds nothing by name but what a table is made of; dotted names are none of these."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise _Forbidden(f"{module}.{name}")
        return _ALLOWED[module, name]


def read_table(folder: Path) -> metadata.Metadata:
    """The table of a checkpoint folder. No name in it but those of a table is looked up.

    Raises: ArtifactError for one that cannot be read, or that asks for anything else.
    """
    try:
        with _unchanged_kinds():
            table = _TableReader(io.BytesIO((folder / METADATA).read_bytes())).load()
        _check_form(table)
    except _Forbidden as error:
        found = f"its {METADATA} asks for {error}"
        raise ArtifactError(f"checkpoint {folder}", found=found, rule=RULE, do=DO) from error
    except Exception as error:  # damaged bytes are a program to pickle: it may end in any of them
        raise ArtifactError(
            f"checkpoint {folder}",
            found=first_line(error),
            rule=f"a checkpoint has a readable {METADATA}",
            do="delete the artifact by its key and run the study again",
        ) from error
    return table


def _check_form(table: Any) -> None:
    """What is read from a table later has the types that it has in a table."""
    is_table = isinstance(table, metadata.Metadata) and isinstance(table.state_dict_metadata, dict)
    if not is_table or not isinstance(table.storage_data, dict):
        raise pickle.UnpicklingError("it is no table of names and places")
    for index, place in table.storage_data.items():
        numbers = (getattr(place, "offset", None), getattr(place, "length", None))
        if not isinstance(index, metadata.MetadataIndex) or {type(one) for one in numbers} != {int}:
            raise pickle.UnpicklingError(f"it has no place for {index!s:.100}")
        if not isinstance(place.relative_path, str) or Path(place.relative_path).name != (
            place.relative_path
        ):
            raise _Forbidden(f"the file {place.relative_path!r}, which does not lie beside it")


@contextmanager
def _unchanged_kinds() -> Iterator[None]:
    """A pickle may set an attribute of a class that it may name: undone and refused."""
    before = {kind: dict(vars(kind)) for kind in _KINDS}
    try:
        yield
    finally:
        changed = ""
        for kind, attributes in before.items():
            now = dict(vars(kind))
            for name in now.keys() - attributes.keys():
                type.__delattr__(kind, name)
                changed = f"a change of {kind.__name__}.{name}"
            for name, value in attributes.items():
                if now.get(name, attributes) is not value:
                    type.__setattr__(kind, name, value)
                    changed = f"a change of {kind.__name__}.{name}"
        if changed:
            raise _Forbidden(changed)


def write_table(path: Path, table: Any) -> None:
    """Writes a checkpoint's table without what names one save of it.

    Torch stores the path and a random id of the save in it; nothing reads them back. Pickled
    without memory of which equal objects are one, so that equal tables give equal bytes.
    """
    table.storage_meta = None
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, protocol=4)
    pickler.fast = True
    pickler.dump(table)
    path.write_bytes(buffer.getvalue())


def read_object(stream: IO[bytes] | Path, *, asked: str) -> Any:
    """What `torch.save` wrote, if it is made of tensors, numbers, words and plain containers.

    Raises: ArtifactError for anything else, or for what is no such file.
    """
    try:
        return torch.load(stream, map_location="cpu", weights_only=True)
    except Exception as error:
        named = re.search(r"(?:GLOBAL|Unsupported class) ([\w.]+)", str(error))
        what = f"asks for {named[1]}" if named else f"cannot be read ({first_line(error)})"
        raise ArtifactError(asked, found=f"it {what}", rule=RULE, do=DO) from error


def check_whole(folder: Path) -> None:
    """Checks, before anyone else reads it, that a checkpoint is whole and runs no code.

    Every file is as long as the table says, every object is plain.

    Raises: ArtifactError naming the file.
    """
    table = read_table(folder)
    need: dict[str, int] = {}
    for place in table.storage_data.values():
        end = place.offset + place.length
        need[place.relative_path] = max(need.get(place.relative_path, 0), end)
    for name, size in sorted(need.items()):
        path = folder / name
        found = path.stat().st_size if path.exists() else 0
        if found < size:
            raise ArtifactError(
                f"checkpoint {folder}",
                found=f"{name} has {found} bytes",
                rule=f"its table says {size}",
                do="delete the artifact by its key and run the study again",
            )
    for index, place in table.storage_data.items():
        kind = table.state_dict_metadata.get(index.fqn)
        if not isinstance(kind, metadata.TensorStorageMetadata):
            with open(folder / place.relative_path, "rb") as file:
                file.seek(place.offset)
                stored = io.BytesIO(file.read(place.length))
            read_object(stored, asked=f"checkpoint {folder}, object {index.fqn}")
    if (folder / COMMON).exists():
        read_object(folder / COMMON, asked=f"checkpoint {folder}, {COMMON}")


class CheckpointReader(FileSystemReader):
    """Torch's reader of a checkpoint's files, with the table and the objects read as here.

    An object reaches torch's planner as bytes that were written here, from what was read.
    """

    def read_metadata(self, *args: Any, **kwargs: Any) -> metadata.Metadata:
        """The table."""
        del args, kwargs  # a name for each rank's own table, which nobody writes
        table = read_table(Path(self.path))
        table.storage_meta = metadata.StorageMeta(load_id=self.load_id)
        return table

    def read_data(self, plan: planner.LoadPlan, planner: planner.LoadPlanner) -> Future[None]:
        """Reads what a plan asks for."""
        return super().read_data(plan, cast(Any, _PlainObjects(planner)))


class _PlainObjects:
    """A planner that gets plain objects only; in all else it is the one that it stands for."""

    def __init__(self, target: planner.LoadPlanner) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)

    def load_bytes(self, read_item: planner.ReadItem, value: io.BytesIO) -> None:
        """Hands on an object."""
        found = read_object(value, asked=f"checkpoint object {read_item.storage_index.fqn}")
        written = io.BytesIO()
        torch.save(found, written)
        written.seek(0)
        self._target.load_bytes(read_item, written)


def without_pickled_state(state: dict[str, Any]) -> dict[str, Any]:
    """A model's loaded state without the pickles that Transformer Engine hides in byte tensors.

    Differs: its `set_extra_state` unpickles these bytes whole (Megatron checks them for grouped
    layers only, extensions/transformer_engine.py:2450). They hold the scales of delayed scaling,
    which no precision of ours has; an empty tensor says that there are none.
    """
    return {
        name: torch.empty(0, dtype=torch.uint8)
        if "_extra_state" in name and value is not None
        else value
        for name, value in state.items()
    }
