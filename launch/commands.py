"""What the commands on a study do with their parsed options."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from frontload.launch.cluster import study_jobs
from frontload.launch.origins.machine_kind import machine_lines
from frontload.launch.origins.made_by import run_command
from frontload.launch.run.out_folder import check_out
from frontload.launch.shown import reporting, show
from frontload.launch.shown.plan_json import plan_json, status_json
from frontload.launch.shown.progress import StudyProgress
from frontload.launch.store import Store, check_content
from frontload.launch.study.chosen import choose_stages
from frontload.launch.study.crew import Crew, check_crew, count_workers, find_crew
from frontload.launch.study.plan import Plan, are_jobs, plan_study, store_of
from frontload.launch.study.runner import Settings, Summary, run_stages
from frontload.launch.study.settle import settle
from frontload.recipes.errors import ArtifactError
from frontload.recipes.study.expand import Study, load_study, seeds_override


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A study as a command names it, looked up in its store."""

    plan: Plan
    store: Store
    crew: Crew

    @property
    def study(self) -> Study:
        return self.plan.study


def plan(options: argparse.Namespace) -> int:
    """Prints what a run would make and its price; with -v every stage and why its key is new."""
    asked = _look_up(options)
    if options.json:
        print(json.dumps(plan_json(asked.plan, asked.store), indent=1))
        return 0
    show.print_plan(asked.plan, asked.store, is_verbose=options.verbose)
    return 0


def run(options: argparse.Namespace) -> int:
    """Makes what is missing, here or as jobs; then, of a whole study, writes the report."""
    asked = _look_up(options)
    stages = choose_stages(asked.study, options.only)
    missing = [entry for entry in asked.plan.missing if entry.stage in stages]
    if options.dry_run:
        if asked.plan.are_jobs:
            study_jobs.print_jobs(asked.plan, asked.store, missing, is_whole=not options.only)
        else:
            show.print_plan(asked.plan, asked.store, is_verbose=True)
        return 0
    if asked.plan.are_jobs and missing:
        study_jobs.submit_missing(asked.plan, asked.store, missing)
        print(f"next: frontload status {asked.study.name} shows the jobs; the same `run` goes on")
        return 0
    out = _out(options)
    if not missing:
        show.print_changed(asked.plan)
        print(f"study {asked.study.name}: nothing to do, all {len(stages)} stages are built")
        _say_mixed(asked)
        return 0 if options.only else _report(asked, out, utilisation=None)
    return _run_here(asked, options, out, keys={stage.key for stage in stages})


def _run_here(asked: Asked, options: argparse.Namespace, out: Path, *, keys: set[str]) -> int:
    plan, crew = asked.plan, asked.crew
    check_crew(plan.study.placements.default, crew)
    show.print_summary(plan, asked.store)
    show.print_prices(plan)
    missing = [entry.stage for entry in plan.missing if entry.stage.key in keys]
    watcher = StudyProgress(missing, plan.seconds)
    settings = Settings(
        placements=plan.study.placements,
        workers=crew.workers,
        gpus=crew.gpus,
        prices=plan.prices,
    )
    stages = [stage for stage in plan.study.stages if stage.key in keys]
    try:
        summary = run_stages(stages, asked.store, settings=settings, watcher=watcher)
    finally:
        watcher.close()
    lines = show.summary_lines(summary)
    code = _exit_code(summary)
    if code == 0 and not options.only:
        _report(asked, out, utilisation=lines[0])
    _say_mixed(asked)
    print("\n".join(lines))
    return code


def _say_mixed(asked: Asked) -> None:
    """That stages of this study were made on several kinds of machine; nothing of one kind."""
    lines = machine_lines(asked.store, asked.study.stages)
    if len(lines) > 1:
        print("\n".join(lines))


def status(options: argparse.Namespace) -> int:
    """Prints the state of every stage; with --verify, reads every byte."""
    asked = _look_up(options)
    jobs = study_jobs.read_jobs(asked.plan, asked.store) if asked.plan.are_jobs else {}
    if options.json:
        print(json.dumps(status_json(asked.plan, asked.store, jobs), indent=1))
    else:
        print("\n".join(show.status_lines(asked.plan, asked.store, jobs)))
    if options.verify:
        for folder in asked.store.find_all(asked.study.stages).values():
            check_content(folder)
        if not options.json:
            print("every file of every built stage has the checksum it was published with")
    return 0


def report(options: argparse.Namespace) -> int:
    """Writes the report of a finished study."""
    asked = _look_up(options)
    missing = asked.plan.missing
    if missing:
        command = run_command(
            options.study, asked.store, seeds=options.seeds, overrides=options.overrides
        )
        raise ArtifactError(
            f"report of study {asked.study.name}",
            found=f"{len(missing)} of {len(asked.plan.entries)} stages are not built in "
            f"{asked.store.root}, the first {missing[0].stage.folder}",
            rule="a report is written from a finished study",
            do=f"run `{command}` first",
        )
    return _report(asked, _out(options), utilisation=None, is_forced=True)


def load_named(study: str, *, seeds: str | None, overrides: Sequence[str]) -> Study:
    """A study by name or path, checked as it is placed.

    Raises: RecipeError naming file, line and key of what is wrong.
    """
    words = list(overrides)
    if seeds is not None:
        words.append(seeds_override(seeds))
    return load_study(study, overrides=words, settle=settle)


def _look_up(options: argparse.Namespace) -> Asked:
    study = load_named(options.study, seeds=options.seeds, overrides=options.overrides)
    workers = count_workers(options.workers)
    is_here = not are_jobs(study)
    crew = find_crew(study.placements.default, workers) if is_here else Crew(workers=0)
    store = store_of(study.placements.default, options.store)
    return Asked(plan=plan_study(study, store, crew=crew), store=store, crew=crew)


def _out(options: argparse.Namespace) -> Path:
    """Where the report goes."""
    out = options.out or Path("results") / Path(options.study).stem
    return check_out(out, what="the report")


def _exit_code(summary: Summary) -> int:
    """0, or 2 if every failure is the user's input, else 1."""
    codes = {error.exit_code for error in summary.failed.values()}
    return max(codes) if len(codes) == 1 else min(codes, default=0)


def _report(asked: Asked, out: Path, *, utilisation: str | None, is_forced: bool = False) -> int:
    """Writes the report unless it is there already, and prints tables and verdicts."""
    if is_forced or not reporting.is_current(asked.study, out):
        reporting.write_report(asked.study, asked.store, out, utilisation=utilisation)
        print(reporting.printed(out))
    print(f"report: {out / reporting.PAGE}")
    return 0
