"""A checkpoint artifact's small files without Megatron: its table, its model recipe."""

import io
import json
import pickle
from dataclasses import asdict
from pathlib import Path
from typing import Any

from frontload.recipes.artifact import write_json
from frontload.recipes.errors import ArtifactError
from frontload.recipes.schema import Model

WEIGHTS = "weights"
METADATA = ".metadata"
CONTENT = "content.json"


def check_whole(folder: Path) -> None:
    """Checks that every file is as long as the checkpoint's own table says.

    Raises: ArtifactError naming the file.
    """
    asked = f"checkpoint {folder}"
    do = "delete the artifact by its key and run the study again"
    need: dict[str, int] = {}
    try:
        table = pickle.loads((folder / METADATA).read_bytes())
        stored = list(table.storage_data.values())
    except Exception as error:  # damaged bytes are a program to pickle: it may end in any of them
        rule = f"a checkpoint has a readable {METADATA}"
        raise ArtifactError(asked, found=first_line(error), rule=rule, do=do) from error
    for item in stored:
        end = item.offset + item.length
        need[item.relative_path] = max(need.get(item.relative_path, 0), end)
    for name, size in sorted(need.items()):
        path = folder / name
        found = path.stat().st_size if path.exists() else 0
        if found < size:
            raise ArtifactError(
                asked, found=f"{name} has {found} bytes", rule=f"its table says {size}", do=do
            )


def read_model(folder: Path) -> Model:
    """Reads the model recipe of a checkpoint artifact.

    Raises: ArtifactError if there is none.
    """
    path = folder / "model.json"
    try:
        return Model(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise ArtifactError(
            f"checkpoint {folder}",
            found=f"no usable model.json ({first_line(error)})",
            rule="a checkpoint holds the recipe of its model",
            do="delete the artifact by its key and run the study again",
        ) from error


def write_model(folder: Path, model: Model) -> None:
    """Writes the model recipe beside the weights."""
    write_json(folder / "model.json", asdict(model))


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


def check_same_model(folder: Path, model: Model) -> None:
    """Checks that a checkpoint is of the recipe's model.

    Raises: ArtifactError naming the first field that differs.
    """
    found, asked = asdict(read_model(folder)), asdict(model)
    for name, value in asked.items():
        if found[name] != value and name != "max_sequence_tokens":
            raise ArtifactError(
                f"checkpoint {folder}",
                found=f"its model.{name} is {found[name]}, the recipe's is {value}",
                rule="training continues with the same model",
                do="use the model of the checkpoint or train another one",
            )


def first_line(error: BaseException) -> str:
    """What an exception says, short enough for a message."""
    lines = str(error).splitlines()
    return lines[0][:200] if lines else type(error).__name__
