"""A stage as a JSON file and back: what a job on another node needs to know to make it. Pure."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from frontload.recipes.machines.placement import Placement
from frontload.recipes.stage import RECIPE_TYPES, canonical


@dataclass(frozen=True, kw_only=True)
class StageFile:
    """A stage without the graph below it: its inputs are folders of the store."""

    kind: str
    label: str
    key: str
    payload: Mapping[str, Any]  # what its key is made of
    recipe: Any
    inputs: Mapping[str, str]  # role -> folder below the store's root
    placement: Placement
    work: float  # units that its price is made of, for the provenance

    @property
    def folder(self) -> str:
        """Of the artifact, below the store's root."""
        return f"{self.kind}/{self.label}-{self.key}"


def to_json(stage: StageFile) -> dict[str, Any]:
    """Plain values; the recipe in the form that is hashed."""
    return {
        "kind": stage.kind,
        "label": stage.label,
        "key": stage.key,
        "payload": dict(stage.payload),
        "inputs": dict(stage.inputs),
        "placement": dataclasses.asdict(stage.placement),
        "work": stage.work,
    }


def from_json(value: Mapping[str, Any]) -> StageFile:
    """The stage that `to_json` wrote.

    Raises: ValueError if the recipe that is read is not the one that was written: another version.
    """
    recipe = read_as(RECIPE_TYPES[value["kind"]], value["payload"]["recipe"])
    if canonical(recipe) != value["payload"]["recipe"]:
        raise ValueError("its recipe means something else to this version")
    return StageFile(
        kind=value["kind"],
        label=value["label"],
        key=value["key"],
        payload=value["payload"],
        recipe=recipe,
        inputs=value["inputs"],
        placement=read_as(Placement, value["placement"]),
        work=value["work"],
    )


def read_as(kind: Any, value: Any) -> Any:
    """A JSON value as a declared type: dataclasses, tuples, mappings, optional and plain values."""
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        if value is None:
            return None
        kind = next(arm for arm in typing.get_args(kind) if arm is not type(None))
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return kind(**{name: read_as(hints[name], one) for name, one in value.items()})
    origin, members = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        return tuple(read_as(members[0], one) for one in value)
    if origin is dict:
        return {name: read_as(members[1], one) for name, one in value.items()}
    return float(value) if kind is float else value
