"""A checkpoint artifact's small files without Megatron or torch: their names, the model recipe."""

import json
from dataclasses import asdict
from pathlib import Path

from frontload.recipes.artifact import write_json
from frontload.recipes.errors import ArtifactError
from frontload.recipes.schema import Model

WEIGHTS = "weights"
METADATA = ".metadata"
CONTENT = "content.json"


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
