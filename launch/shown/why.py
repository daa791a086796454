"""Why a cell of an allocation was run: the decision, registration or reading that asked for it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from frontload.launch.store import Store

READERS = {"decide": "decision.json", "register": "registration.json"}
"""Kinds that ask for cells, and the file that says which."""


def why_lines(store: Store, key: str) -> list[str]:
    """One line for each decision that asked for the evaluation of this key; none for others."""
    roles = {
        role
        for kind in ("decide", "register", "conclude")
        for _, manifest in store.manifests(kind)
        for role, below in manifest["inputs"].items()
        if below == key
    }
    beside = [
        f"why:    readings/{folder.name} reads it beside a verdict: {role}"
        for folder, manifest in store.manifests("readings")
        for role, below in manifest["inputs"].items()
        if below == key
    ]
    if not roles:
        return beside
    return [
        line for folder, manifest in _askers(store) for line in _why(folder, manifest, roles=roles)
    ] + beside


def _askers(store: Store) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    for kind in READERS:
        yield from store.manifests(kind)


def _why(folder: Path, manifest: Mapping[str, Any], *, roles: set[str]) -> list[str]:
    kind = folder.parent.name
    found = json.loads((folder / READERS[kind]).read_text(encoding="utf-8"))
    asked = found["cells"] if kind == "register" else (found["next"] or {"cells": []})["cells"]
    candidates = manifest["recipe"]["question"]["candidates"]
    mine = [f"{candidates[place]['name']}, seed {seed}" for place, seed in asked]
    if not roles & set(mine):
        return []
    if kind == "register":
        return [f"why:    {kind}/{folder.name} compares it on a fresh seed: {found['name']}"]
    gain = found["blocks"][0]["gain"] if found["blocks"] else None
    block = f"{found['next']['name']}, price {found['next']['price']:.1f}"
    taught = f", expected gain {gain:.3g}" if gain is not None else ""
    return [f"why:    {kind}/{folder.name} asked for it: {block}{taught}"]
