"""What each command does with its parsed options."""

import argparse
from pathlib import Path

from frontload.launch import cluster_show
from frontload.launch.cluster_plan import ClusterPlan, is_cluster_study, load_cluster_plan
from frontload.launch.machine_kind import machine_lines
from frontload.launch.made_by import run_command
from frontload.launch.run.out_folder import check_out
from frontload.launch.store import Store, check_content
from frontload.launch.study import reporting, show
from frontload.launch.study.crew import Crew, check_crew, find_crew
from frontload.launch.study.plan import Plan, plan_study
from frontload.launch.study.progress import Progress
from frontload.launch.study.runner import Settings, Summary, run_stages
from frontload.launch.study.settle import settle
from frontload.recipes.errors import ArtifactError, RecipeError
from frontload.recipes.study.expand import Study, load_study


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
        _say_mixed(study, store)
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
    _say_mixed(study, store)
    print("\n".join(lines))
    return code


def _say_mixed(study: Study, store: Store) -> None:
    """That stages of this study were made on several kinds of machine; nothing of one kind."""
    told = machine_lines(store, study.stages)
    if len(told) > 1:
        print("\n".join(told))


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
    if found.missing:
        command = run_command(
            options.study, store, seeds=options.seeds, overrides=options.overrides
        )
        raise ArtifactError(
            f"report of study {found.study.name}",
            found=f"{len(found.missing)} of {len(found.entries)} stages are not built in "
            f"{store.root}, the first {found.missing[0].stage.folder}",
            rule="a report is written from a finished study",
            do=f"run `{command}` first",
        )
    return _report(found.study, store, _out(options), utilisation=None, is_forced=True)


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
    """Where the report goes."""
    out = options.out or Path("results") / Path(options.study).stem
    return check_out(out, what="the report")


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
