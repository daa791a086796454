"""What each command does with its parsed options."""

import argparse
import importlib
import os
from pathlib import Path
from typing import Any

from frontload.launch import cluster_show, reporting, show
from frontload.launch.cli import FIRST_PHASE
from frontload.launch.cluster_plan import ClusterPlan, is_cluster_study, load_cluster_plan
from frontload.launch.crew import Crew, check_crew, find_crew
from frontload.launch.plan import Entry, Plan, plan_study
from frontload.launch.progress import Progress
from frontload.launch.runner import Settings, Summary, run_stages
from frontload.launch.settle import settle
from frontload.launch.store import Store, check_content, read_manifest
from frontload.recipes.errors import RecipeError
from frontload.recipes.load import nearest
from frontload.recipes.study import Study, load_study


def plan(options: argparse.Namespace) -> int:
    """Prints every missing stage with its reason and price."""
    if is_cluster_study(options.study):
        cluster_show.show_plan(_cluster_plan(options))
        return 0
    found, store, _ = _planned(options)
    print("\n".join(show.plan_lines(found, store)))
    return 0


def run(options: argparse.Namespace) -> int:
    """Makes what is missing, then writes and prints the report."""
    _refuse_cluster_study(options)
    found, store, crew = _planned(options)
    study, out = found.study, _out(options)
    if not found.missing:
        print(f"study {study.name}: nothing to do, all {len(found.entries)} stages are built")
        return _report(study, store, out, utilisation=None)
    check_crew(study.placement, crew)
    print(f"study {study.name} in {store.root}: {show.summary_line(found)}")
    print("\n".join([*show.price_table(found.missing), show.total_line(found)]), flush=True)
    watcher = Progress([e.stage for e in found.missing], found.seconds)
    settings = Settings(
        placement=study.placement, workers=crew.workers, gpus=crew.gpus, prices=found.prices
    )
    try:
        summary = run_stages(study.stages, store, settings=settings, watcher=watcher)
    finally:
        watcher.close()
    lines = show.summary_lines(summary)
    code = _exit_code(summary)
    if code == 0:
        _report(study, store, out, utilisation=lines[0])
    print("\n".join(lines))
    return code


def status(options: argparse.Namespace) -> int:
    """Prints the state of every stage; with --verify, reads every byte."""
    if is_cluster_study(options.study):
        print("\n".join(cluster_show.status_lines(_cluster_plan(options))))
        return 0
    found, store, _ = _planned(options)
    print("\n".join(show.status_lines(found, store)))
    if options.verify:
        for entry in found.entries:
            folder = store.find(entry.stage.kind, entry.stage.key)
            if folder is not None:
                check_content(folder)
        print("every file of every built stage has the checksum it was published with")
    return 0


def report(options: argparse.Namespace) -> int:
    """Writes the report of a finished study."""
    _refuse_cluster_study(options)
    found, store, _ = _planned(options)
    return _report(found.study, store, _out(options), utilisation=None, is_forced=True)


def explain(options: argparse.Namespace) -> int:
    """Explains a key or label, or a training sample."""
    store = Store(options.store)
    if options.what[0] == "sample":
        return _explain_sample(options, store)
    what = options.what[0]
    entry = _find_entry(options, store, what)
    if entry is not None:
        folder = store.find(entry.stage.kind, entry.stage.key)
    else:
        folder = _find_folder(store, what)
    if folder is None and entry is None:
        names = [path.parent.name for path in store.root.glob("*/*/manifest.json")]
        raise RecipeError(
            f"explain {what}",
            found=f"no such key or label in {store.root}",
            rule="a key is the end of a folder's name, a label its start",
            do=nearest(what, names) if names else "add --study STUDY for what is not built",
        )
    stage = entry.stage if entry else None
    print("\n".join(show.explain_lines(stage, folder, entry)))
    return 0


def _cluster_plan(options: argparse.Namespace) -> ClusterPlan:
    """A study for a cluster; its seeds are those of its recipes."""
    if options.seeds is not None or getattr(options, "verify", False):
        raise RecipeError(
            f"{options.command} {options.study}",
            found="--seeds or --verify is given",
            rule="a study for a cluster names its training recipes, which state their seed; "
            "`frontload data verify` proves its data",
            do="leave the flag out",
        )
    return load_cluster_plan(options.study, options.overrides)


def _refuse_cluster_study(options: argparse.Namespace) -> None:
    if is_cluster_study(options.study):
        raise RecipeError(
            f"{options.command} {options.study}",
            found="a study for a cluster",
            rule="its runs are jobs; run and report make the stages of a study on this machine",
            do=f"frontload launch {options.study}, and `frontload status {options.study}`",
        )


def _planned(options: argparse.Namespace) -> tuple[Plan, Store, Crew]:
    overrides = list(options.overrides)
    if options.seeds is not None:
        overrides.append(f"seeds={options.seeds}")
    study = load_study(options.study, overrides=overrides, settle=settle)
    if options.workers < 0:
        raise RecipeError(
            "--workers",
            found=f"is {options.workers}",
            rule="a run has worker processes",
            do="write 1 or more, or leave it out for one a core",
        )
    crew = find_crew(study.placement, options.workers)
    store = Store(options.store)
    return plan_study(study, store, crew=crew), store, crew


def _out(options: argparse.Namespace) -> Path:
    """Where the report goes.

    Raises: RecipeError when the folder can't be made: said before anything runs.
    """
    out = options.out or Path("results") / Path(options.study).stem
    there = next(one for one in (out, *out.absolute().parents) if one.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise RecipeError(
            f"--out {out}",
            found=f"{there} is {'not writable' if there.is_dir() else 'not a folder'}",
            rule="the report goes into a folder that exists or can be made",
            do="name another folder with --out",
        )
    return out


def _exit_code(summary: Summary) -> int:
    """0, or 2 if every failure is the user's input, else 1."""
    codes = {error.exit_code for error in summary.failed.values()}
    return max(codes) if len(codes) == 1 else min(codes, default=0)


def _report(
    study: Study, store: Store, out: Path, *, utilisation: str | None, is_forced: bool = False
) -> int:
    """Writes the report unless it is there already, and prints tables and verdicts."""
    if is_forced or not reporting.is_current(study, out):
        reporting.write_report(study, store, out, utilisation=utilisation)
        print(reporting.printed(out))
    print(f"report: {out / reporting.PAGE}")
    return 0


def _find_folder(store: Store, what: str) -> Path | None:
    """The built folder whose key, label or name is `what` (optionally `kind/...`)."""
    kind, _, name = what.rpartition("/")
    for manifest in sorted(store.root.glob(f"{kind or '*'}/*/manifest.json")):
        folder = manifest.parent
        label, _, key = folder.name.rpartition("-")
        if name in (folder.name, key, label) or label == f"{name}-seed1":
            return folder
    return None


def _find_entry(options: argparse.Namespace, store: Store, what: str) -> Entry | None:
    if not options.study:
        return None
    study = load_study(options.study, overrides=options.overrides, settle=settle)
    found = plan_study(study, store, crew=Crew(workers=1))
    for entry in found.entries:
        stage = entry.stage
        label = f"{stage.kind}/{stage.label}"
        if what in (stage.key, stage.label, stage.folder, label, label.removesuffix("-seed1")):
            return entry
    return None


def _explain_sample(options: argparse.Namespace, store: Store) -> int:
    if len(options.what) != 2 or not options.what[1].isdigit():
        raise RecipeError(
            "explain sample",
            found=" ".join(options.what),
            rule="a sample is a number within a blend",
            do="write e.g. `frontload explain sample 17 --blend ldq-seed1`",
        )
    asked = options.blend or FIRST_PHASE
    folder = _find_folder(store, f"blend/{asked.removeprefix('blend/')}")
    if folder is None:
        names = [path.name for path in (store.root / "blend").glob("*")]
        raise RecipeError(
            f"explain sample --blend {asked}",
            found=f"no such blend in {store.root}",
            rule="--blend is the key or label of a built blend",
            do=nearest(asked, names)
            if names
            else "give the store of a run with --store, or run the study first",
        )
    origins: Any = importlib.import_module("frontload.data_tools.explain")
    sources = _sources(store, folder)
    folders = origins.sources_in_store(sources["index"], tokenizer=sources["tokenizer"])
    found = origins.explain_sample(folder, folders, number=int(options.what[1]))
    further = "" if options.blend else "; another is read with --blend KEY-OR-LABEL"
    print(f"blend/{folder.name}{further}")
    print(found.to_text())
    return 0


def _sources(store: Store, blend: Path) -> dict[str, Any]:
    """Index of each source of a blend, and the tokenizer, through the manifests."""
    found: dict[str, Any] = {"index": {}, "tokenizer": None}
    for role, key in read_manifest(blend)["inputs"].items():
        index = None if role == "before" else store.find("index", key)
        if index is None:
            continue
        inputs = read_manifest(index)["inputs"]
        found["index"][role] = index
        found["tokenizer"] = store.find("tokenizer", inputs["tokenizer"])
    return found
