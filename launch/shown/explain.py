"""The command `explain`: why a key is what it is, and where a training sample came from."""

import argparse
import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from frontload.launch.origins.machine_kind import UNKNOWN, read_machine
from frontload.launch.origins.made_by import find_maker, run_command, stage_names
from frontload.launch.origins.named import (
    FIRST_PHASE,
    ambiguous,
    built_names,
    find_named,
    name_parts,
    suggest,
)
from frontload.launch.shown import show
from frontload.launch.shown.explain_answer import sample_json, stage_json
from frontload.launch.shown.why import why_lines
from frontload.launch.store import Store, read_manifest
from frontload.launch.study.crew import Crew
from frontload.launch.study.plan import Entry, plan_study
from frontload.launch.study.settle import settle
from frontload.recipes.errors import RecipeError
from frontload.recipes.grammar.load import nearest
from frontload.recipes.study.expand import load_study, seeds_override

TOKENIZER_KINDS = ("tokenizer", "import_tokenizer")
"""Stages whose artifact is a tokenizer: trained, or given."""


def explain(options: argparse.Namespace) -> int:
    """Explains a key or label, or a training sample."""
    store = Store(options.store)
    if options.what[0] == "sample":
        return _explain_sample(options, store)
    what = options.what[0]
    _refuse_unread(options)
    planned = _planned(options, store)
    entry = _find_entry(planned, what)
    if entry is not None:
        folder = store.find(entry.stage.kind, entry.stage.key)
    else:
        folder = find_named(store, what)
    if folder is None and entry is None:
        names = sorted({*built_names(store), *(one.stage.folder for one in planned)})
        maker = None if options.study else find_maker(what, store)
        raise RecipeError(
            f"explain {what}",
            found=f"no such key or label in {store.root}"
            + (f", and none in study {options.study}" if options.study else ""),
            rule="a key is the end of a folder's name, a label its start",
            do=f"add --study {maker.study}"
            + (f" {seeds_override(maker.seeds)}" if maker.seeds else "")
            + f" to ask before it is built; `{maker.command(store)}` makes it"
            if maker
            else suggest(what, names) or "add --study STUDY for what is not built",
        )
    stage = entry.stage if entry else None
    made_on = read_machine(store, f"{folder.parent.name}/{folder.name}") if folder else UNKNOWN
    if options.json:
        print(json.dumps(stage_json(stage, folder, entry=entry, made_on=made_on), indent=1))
        return 0
    lines = show.explain_lines(stage, folder, entry=entry, made_on=made_on)
    if folder is not None:
        lines[1:1] = why_lines(store, name_parts(folder)[2])
    print("\n".join(lines))
    return 0


def _refuse_unread(options: argparse.Namespace) -> None:
    """Words that would change nothing are a misunderstanding."""
    if len(options.what) > 1:
        raise RecipeError(
            "explain " + " ".join(options.what),
            found=f"{len(options.what)} names",
            rule="one key or label is explained at a time, or `sample N`",
            do=f"frontload explain {options.what[0]}",
        )
    if options.overrides and not options.study:
        raise RecipeError(
            f"explain {options.what[0]} {options.overrides[0]}",
            found="an override without a study",
            rule="an override changes a study, and what is built is not changed",
            do="add --study STUDY, or leave the override out",
        )


def _planned(options: argparse.Namespace, store: Store) -> Sequence[Entry]:
    """The stages of --study, built or not; none without it."""
    if not options.study:
        return ()
    study = load_study(options.study, overrides=options.overrides, settle=settle)
    return plan_study(study, store, crew=Crew(workers=1)).entries


def _find_entry(planned: Sequence[Entry], what: str) -> Entry | None:
    exact = [entry for entry in planned if what in stage_names(entry.stage)]
    found = exact or [entry for entry in planned if f"{what}-seed1" in stage_names(entry.stage)]
    if len(found) > 1:
        raise ambiguous(what, [entry.stage.folder for entry in found])
    return found[0] if found else None


def _explain_sample(options: argparse.Namespace, store: Store) -> int:
    if len(options.what) != 2 or not options.what[1].isdigit():
        raise RecipeError(
            "explain sample",
            found=" ".join(options.what),
            rule="a sample is a number within a blend",
            do="write e.g. `frontload explain sample 17 --blend ldq-seed1`",
        )
    asked = options.blend or FIRST_PHASE
    folder = _find_blend(options, store, asked=f"blend/{asked.removeprefix('blend/')}")
    origins: Any = importlib.import_module("frontload.data_tools.shown.explain")
    sources = _sources(store, folder)
    folders = origins.sources_in_store(sources["index"], tokenizer=sources["tokenizer"])
    found = origins.explain_sample(folder, folders, number=int(options.what[1]))
    if options.json:
        print(json.dumps(sample_json(folder, found), indent=1, default=str))
        return 0
    further = "" if options.blend else "; another is read with --blend KEY-OR-LABEL"
    print(f"blend/{folder.name}{further}")
    print(found.to_text())
    return 0


def _find_blend(options: argparse.Namespace, store: Store, *, asked: str) -> Path:
    """The built blend of this name: that of --study, or the only one in the store."""
    entry = _find_entry(_planned(options, store), asked)
    if entry is not None:
        folder = store.find(entry.stage.kind, entry.stage.key)
        makes = run_command(options.study, store, overrides=options.overrides)
    else:
        folder = None if options.study else find_named(store, asked)
        maker = None if options.study or folder else find_maker(asked, store)
        makes = maker.command(store) if maker else ""
    if folder is not None:
        return folder
    names = [path.name for path in (store.root / "blend").glob("*")]
    raise RecipeError(
        f"explain sample --blend {asked.removeprefix('blend/')}",
        found=f"no such blend in {store.root}"
        + (f" of study {options.study}" if options.study else ""),
        rule="--blend is the key or label of a built blend",
        do=f"give the store of a run with --store, or run `{makes}` first"
        if makes
        else nearest(asked.removeprefix("blend/"), names)
        if names
        else "give the store of a run with --store",
    )


def _sources(store: Store, blend: Path) -> dict[str, Any]:
    """Index of each source of a blend, and the tokenizer, through the manifests."""
    found: dict[str, Any] = {"index": {}, "tokenizer": None}
    for role, key in read_manifest(blend)["inputs"].items():
        index = None if role == "before" else store.find("index", key)
        if index is None:
            continue
        inputs = read_manifest(index)["inputs"]
        found["index"][role] = index
        made = (store.find(kind, inputs["tokenizer"]) for kind in TOKENIZER_KINDS)
        found["tokenizer"] = next((folder for folder in made if folder is not None), None)
    return found
