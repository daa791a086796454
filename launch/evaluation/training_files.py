"""The files that a checkpoint of a store was trained on, by the manifests behind it."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from frontload.launch.convert import built_folder, stores_of
from frontload.launch.store import MANIFEST, Store, read_manifest
from frontload.recipes.artifact import (
    curated_sets,
    documents_file,
    prompts_file,
    train_prompts,
)

READERS = ("index", "pack")
"""The kinds of stages that turn documents into what training reads."""


def training_files(store: Store, checkpoint: Path) -> tuple[Path, ...] | None:
    """Every file whose rows a checkpoint and those before it have read.

    None where they cannot be known: a folder without a manifest, or with an input that the store
    does not hold.
    """
    stores = stores_of(checkpoint, store)
    waiting, seen, files = [checkpoint], {checkpoint}, dict[Path, None]()
    while waiting:
        folder = waiting.pop()
        if not (folder / MANIFEST).is_file():
            return None
        manifest = read_manifest(folder)
        inputs = {role: built_folder(stores, key) for role, key in manifest["inputs"].items()}
        kind = manifest["kind"]
        if kind in READERS:
            documents = inputs.get("documents")
            if documents is None:
                return None
            source = manifest["recipe"].get("source", "")
            files |= dict.fromkeys(_document_files(documents, source))
            continue
        files |= dict.fromkeys(_prompt_files(folder))
        for below in inputs.values():
            if below is None:
                return None
            if below not in seen:
                seen.add(below)
                waiting.append(below)
    return tuple(files)


def _document_files(documents: Path, source: str) -> list[Path]:
    """What a stage has read of a folder of documents, curated sets or listed raw files."""
    if not source:
        return [documents_file(documents)]
    listing: Any = importlib.import_module("frontload.data_tools.corpus.listing")
    if curated_sets(documents).is_dir():
        return listing.set_files(documents, source)
    return listing.text_files(documents, source)


def _prompt_files(folder: Path) -> Iterator[Path]:
    """The prompts of reinforcement learning."""
    yield from (one for one in (prompts_file(folder), train_prompts(folder)) if one.is_file())
