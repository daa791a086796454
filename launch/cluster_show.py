"""Plans and states of a study for a cluster as text for people."""

import shlex
from collections.abc import Mapping, Sequence

from rich.table import Table

from frontload.launch.cluster_plan import (
    BUILT,
    ClusterPlan,
    RunPrice,
    critical_hours,
    missing_products,
    price_run,
    state_of,
)
from frontload.launch.estimate.show import make_table, open_console
from frontload.launch.study.show import show_count
from frontload.recipes.cluster_runs import Run
from frontload.recipes.cluster_study import CONVERT, GRPO

HOURS_A_DAY = 24.0


def show_plan(plan: ClusterPlan) -> None:
    """Prints missing data with the commands that make it, every run with its price, and sums."""
    prices = {run.label: price_run(plan, run) for run in plan.runs}
    left = [run for run in plan.runs if state_of(plan, run)[0] != BUILT]
    done = len(plan.runs) - len(left)
    print(f"study {plan.name} in {plan.root}: {len(plan.runs)} runs, {done} finished")
    print("\n".join(_data_lines(plan)))
    open_console().print(run_table(plan, prices))
    print("\n".join(_total_lines(left, prices)))
    if any(run.kind == GRPO for run in left):
        print(
            "FLOPs of grpo are the most they can be (every response at full length); its hours are "
            "not estimated: generation waits for memory, and that is not modelled"
        )
    print(f"next: frontload launch {plan.name} --dry-run   (one run: --only {plan.runs[0].label})")


def _data_lines(plan: ClusterPlan) -> list[str]:
    missing = missing_products(plan)
    if not missing:
        return [f"data: all {len(plan.products)} parts are in {plan.data}", ""]
    lines = [
        f"data: {len(missing)} of {len(plan.products)} parts are missing; they are made in this "
        "order, each after those above it:",
        f"  cd {plan.data}",
        f"  mkdir -p {shlex.join(dict.fromkeys(one.parent_folder for one in missing))}",
    ]
    lines += [f"  frontload data {shlex.join(one.command)}" for one in missing]
    return [*lines, ""]


def run_table(plan: ClusterPlan, prices: Mapping[str, RunPrice]) -> Table:
    """One line a run: size, price, state."""
    names = ("tokens", "FLOPs", "GPUs", "GiB a GPU", "hours", "GPU-hours", "dollars")
    table = make_table("", "run", *names)
    table.columns[0].justify = "left"
    table.add_column("state", overflow="fold")
    for run in plan.runs:
        price, state = prices[run.label], " ".join(state_of(plan, run)).strip()
        gpus = plan.placements[run.placement].world_size if run.kind != CONVERT else 0
        table.add_row(
            run.label,
            show_count(run.tokens) if run.tokens else "-",
            f"{price.flops:.2e}" if price.flops else "-",
            str(gpus or "-"),
            _number(price.memory_gib, ".1f"),
            _number(price.hours, ".1f"),
            _number(price.gpu_hours, ",.0f"),
            _number(price.dollars, ",.0f"),
            state if price.fits else f"{state}; does not fit its GPU",
        )
    return table


def _total_lines(left: Sequence[Run], prices: Mapping[str, RunPrice]) -> list[str]:
    """What is left to run, in sums."""
    mine = [prices[run.label] for run in left]
    gpu_hours = sum(one.gpu_hours or 0.0 for one in mine)
    dollars = sum(one.dollars or 0.0 for one in mine)
    lines = [f"price of what is left: {sum(one.flops for one in mine):.2e} FLOPs"]
    if gpu_hours:
        lines[0] += f"; without grpo {gpu_hours:,.0f} GPU-hours"
        lines[0] += f", {dollars:,.0f} dollars" if dollars else ""
        days = critical_hours(left, prices) / HOURS_A_DAY
        serial = sum(one.hours or 0.0 for one in mine) / HOURS_A_DAY
        lines.append(
            f"time: {days:.1f} days if every run starts as soon as it can, {serial:.1f} days one "
            "after the other"
        )
    return lines


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"


def status_lines(plan: ClusterPlan) -> list[str]:
    """The state of every run, and which data is missing."""
    states = {run.label: state_of(plan, run) for run in plan.runs}
    done = sum(state == BUILT for state, _ in states.values())
    lines = [f"study {plan.name} in {plan.root}: {len(plan.runs)} runs, {done} finished"]
    lines += [f"  {state:9}{label}  {note}".rstrip() for label, (state, note) in states.items()]
    missing = missing_products(plan)
    if missing:
        lines.append(f"data not there: {', '.join(one.label for one in missing)}")
    return lines


def job_lines(plan: ClusterPlan, runs: Sequence[Run]) -> list[str]:
    """What launch would submit: one line a job."""
    lines = []
    for run in runs:
        state, note = state_of(plan, run)
        if state == BUILT:
            lines.append(f"{run.label}: finished, nothing to submit")
            continue
        placement = plan.placements[run.placement]
        nodes = 1 if run.kind == CONVERT else placement.num_nodes
        after = f" after {run.start}" if run.start else ""
        where = f"{nodes} x {placement.ranks_per_node} ranks of {placement.name}"
        lines.append(f"{run.label}: {run.recipe or run.kind} on {where}{after}")
        lines.append(f"    {plan.folder(run.label)}" + (f"; {state} {note}" if note else ""))
    return [*lines, "nothing was started; a whole job: --dry-run --only LABEL"]
