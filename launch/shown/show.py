"""Plans, states and keys as text for people."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.table import Table

from frontload.launch.cluster.job_state import JobState
from frontload.launch.origins.machine_kind import MachineKind, machine_lines
from frontload.launch.store import Store, Ticket, read_manifest
from frontload.launch.study.plan import BUILT, FIRST_OF_ITS_KIND, Entry, Plan, most_gpus
from frontload.launch.study.price import ANSWER_SHARE, HOUR_SECONDS, OWN_TOKENS, Price
from frontload.launch.study.runner import Summary
from frontload.launch.text.assumptions import LEFT_OUT, overlap_text, rates_text
from frontload.launch.text.tables import make_table, open_console, print_table
from frontload.launch.text.words import show_count, show_number, show_seconds
from frontload.recipes.errors import DiskFull
from frontload.recipes.runs.suite import num_generations
from frontload.recipes.stage import Stage

SHOWN_FILES = 4
SHOWN_FAILURES = 5  # messages at the end of a run; each was shown when it came


def show_price(price: Price) -> str:
    """Tokens, FLOPs and time of one stage."""
    parts = [f"{show_count(price.tokens)} tokens"] if price.tokens else []
    if price.flops:
        parts.append(f"{price.flops:.2e} FLOPs")
    rate = "" if price.is_measured else " at a default rate"
    unit = "GPU" if price.on_gpu else "CPU"
    return ", ".join([*parts, f"{show_seconds(price.seconds)} {unit}{rate}"])


def print_plan(plan: Plan, store: Store, *, is_verbose: bool) -> None:
    """The price first, then the prices of each kind; `is_verbose`: every missing stage and why."""
    print_summary(plan, store)
    if not plan.missing:
        return
    print_prices(plan)
    if not is_verbose:
        print("the stages, and why each is new: add -v")
        return
    print()
    for entry in plan.missing:
        print(f"  {entry.state:7} {entry.stage.folder}  {show_price(entry.price)}")
        if entry.reason != FIRST_OF_ITS_KIND:
            print(f"          {entry.reason}")


def print_summary(plan: Plan, store: Store) -> None:
    """How much of a study is there, and which files changed since it was made."""
    print(f"study {plan.study.name} in {store.root}: {summary_line(plan)}")
    print_changed(plan)


def print_changed(plan: Plan) -> None:
    """Which of the user's files changed since the study read them, and what that means."""
    changed = plan.changed_files
    if changed:
        more = f" and {len(changed) - SHOWN_FILES} more" if len(changed) > SHOWN_FILES else ""
        section = "own" if plan.study.recipe.own is not None else "raw"
        print(
            f"changed since this study read them: {', '.join(changed[:SHOWN_FILES])}{more}. What "
            f"was made from them stays; another {section}.revision makes it anew"
        )


def print_prices(plan: Plan) -> None:
    """What the missing stages cost together, what that assumes, and the table by kind."""
    print("\n".join(total_lines(plan)), flush=True)
    print_table(open_console(), price_table(plan.missing))


def summary_line(plan: Plan) -> str:
    """How many stages are there and how many are missing."""
    built = len(plan.entries) - len(plan.missing)
    return f"{len(plan.entries)} stages, {built} built, {len(plan.missing)} to make"


def price_table(entries: Sequence[Entry]) -> Table:
    """One line per kind: how many, tokens, FLOPs, GPUs, time on a core or on them."""
    has_gpus = any(entry.price.gpus for entry in entries)
    table = make_table("", "kind", "stages", "tokens", "FLOPs", "CPU time")
    table.columns[0].justify = "left"
    if has_gpus:
        for name in ("GPUs each", "hours each", "GPU-hours", "GiB per GPU"):
            table.add_column(name, justify="right")
    for kind in dict.fromkeys(entry.stage.kind for entry in entries):
        prices = [entry.price for entry in entries if entry.stage.kind == kind]
        flops, gpus = sum(price.flops for price in prices), prices[0].gpus
        row = [kind, str(len(prices)), show_count(sum(price.tokens for price in prices))]
        row += [f"{flops:.2e}" if flops else "-"]
        seconds = sum(price.seconds for price in prices)
        row += ["-" if gpus else show_seconds(seconds)]
        if has_gpus:
            row += _gpu_columns(prices) if gpus else ["-"] * 4
        table.add_row(*row)
    return table


def _gpu_columns(prices: Sequence[Price]) -> list[str]:
    hours = sorted(price.seconds / HOUR_SECONDS for price in prices)
    span = f"{hours[0]:.2g}" if hours[0] == hours[-1] else f"{hours[0]:.2g} to {hours[-1]:.2g}"
    memory = max(price.memory_gib for price in prices)
    fits = "" if all(price.fits for price in prices) else ", does not fit"
    return [
        str(prices[0].gpus),
        span,
        f"{sum(price.gpu_hours for price in prices):,.2f}".removesuffix(".00"),
        f"{memory:.1f}{fits}" if memory else "-",
    ]


def total_lines(plan: Plan) -> list[str]:
    """The price of the whole run, and what it assumes."""
    prices = [entry.price for entry in plan.missing]
    on_gpu = [price for price in prices if price.on_gpu]
    on_cpu = [price for price in prices if not price.on_gpu]
    flops = show_count(sum(price.flops for price in prices))
    flops += "FLOPs" if flops[-1].isalpha() else " FLOPs"
    parts = [flops]
    if on_gpu:
        gpu_hours = sum(price.gpu_hours for price in on_gpu)
        dollars = sum(price.dollars for price in on_gpu)
        parts.append(
            f"{gpu_hours:,.3g} GPU-hours" if gpu_hours < 1000 else f"{gpu_hours:,.0f} GPU-hours"
        )
        parts += (
            [f"{dollars:,.2f} dollars" if dollars < 1000 else f"{dollars:,.0f} dollars"]
            if dollars
            else []
        )
    if on_cpu:
        parts.append(f"{show_seconds(sum(price.seconds for price in on_cpu))} of CPU time")
    lines = [f"price: {', '.join(parts)}", f"time:  {_time_text(plan)}"]
    return lines + [f"       {text}" for text in _assumptions(plan)]


def _time_text(plan: Plan) -> str:
    took = show_seconds(plan.wall_seconds)
    if plan.are_jobs:
        most = most_gpus(plan.missing)
        at_once = f"; that takes {most:,} GPUs at once" if most else ""
        return f"about {took} if every job starts as soon as it can{at_once}"
    where = show_number(plan.workers, "worker")
    if plan.gpus:
        where = f"{show_number(plan.gpus, 'GPU worker')} and {where}"
    return f"about {took} on {where}"


def _assumptions(plan: Plan) -> list[str]:
    """What the numbers above rest on."""
    prices = [entry.price for entry in plan.missing]
    total = sum(price.seconds for price in prices)
    measured = sum(price.seconds for price in prices if price.is_measured)
    share = measured / total if total else 0.0
    lines = [f"{100 * share:.0f}% of it at rates measured in this store, the rest at stated rates"]
    placements = {p.name: p for p in plan.study.placements.all if p.gpus is not None}
    for name, placement in placements.items():
        assert placement.gpus is not None
        rent = placement.gpus.dollars_per_hour
        lines.append(
            f"placement {name}: {rates_text(placement.gpus)}"
            + (f"; {rent:g} dollars per GPU-hour" if rent else "; no price per GPU-hour is stated")
        )
    lines += dict.fromkeys(overlap_text(placement) for placement in placements.values())
    lines += [LEFT_OUT] if placements else []
    kinds = {entry.stage.kind for entry in plan.missing}
    if "grpo" in kinds and any(entry.price.on_gpu for entry in plan.missing):
        lines.append("grpo on GPUs is a guess: every response at full length, no wait for memory")
    runs = [entry.stage.recipe for entry in plan.missing if entry.stage.kind == "benchmarks"]
    if runs:
        counts = [sum(num_generations(run.suite, size=run.size).values()) for run in runs]
        lines.append(
            f"benchmarks: {sum(counts):,} answers to generate, {min(counts):,} to {max(counts):,} "
            f"a model, each taken for {100 * ANSWER_SHARE:.0f}% of the longest that its suite "
            "allows; that a GPU decodes at the rate at which it computes is a guess"
        )
    if kinds & {"import_own", "import_raw"}:
        lines.append(
            f"your files are taken for {show_count(OWN_TOKENS)} tokens, whatever they hold"
        )
    return lines


def status_lines(plan: Plan, store: Store, jobs: Mapping[str, JobState]) -> list[str]:
    """What is built, running, queued, failed, begun, or not yet there, one line a stage."""
    lines = [f"study {plan.study.name} in {store.root}: {summary_line(plan)}"]
    for entry in plan.entries:
        state, note = stage_state(entry, store, jobs.get(entry.stage.key))
        lines.append(f"  {state:8}{entry.stage.folder}{note}")
    return lines + machine_lines(store, [entry.stage for entry in plan.entries])


def stage_state(entry: Entry, store: Store, job: JobState | None) -> tuple[str, str]:
    """The state of a stage in one word, and a note about it."""
    ticket = Ticket.of(entry.stage)
    if entry.state == BUILT:
        return BUILT, ""
    if job is not None and job.is_alive:
        return job.state.lower(), f"  job {job.number}{_pace(job)}"
    if store.is_locked(ticket.key):
        return "running", ""
    error = store.error_file(ticket)
    if error.is_file():
        return "failed", f"  {error.read_text(encoding='utf-8').strip()}"
    ended = f"  job {job.number} ended ({job.state or 'forgotten by Slurm'})" if job else ""
    if (store.workspace(ticket) / "path").is_dir():
        return "begun", f"{ended}  goes on from where it stopped"
    return entry.state, ended


def _pace(job: JobState) -> str:
    """How far a training job is, and how fast."""
    step = f", step {job.step:,} of {job.steps:,}" if job.step else ""
    rate = f", {show_count(job.tokens_per_second)} tokens/s" if job.tokens_per_second else ""
    return step + rate


def summary_lines(summary: Summary) -> list[str]:
    """What a run did, and how busy the cores were."""
    took = show_seconds(summary.wall_seconds)
    lines = [
        f"made {show_number(len(summary.made), 'stage')} in {took}; stages used "
        f"{summary.cpu_seconds:.1f} CPU s, {100 * summary.utilisation:.0f}% of "
        f"{show_number(summary.cores, 'core')} x wall time"
    ]
    if summary.gpus:
        workers = show_number(summary.gpus, "GPU worker")
        lines[0] += f"; {workers} held a stage for {100 * summary.gpu_share:.0f}% of it"
    if summary.failed:
        lines.append(f"{len(summary.failed)} failed:")
        lines += _failure_lines([str(error) for error in summary.failed.values()])
    if summary.blocked:
        kinds = Counter(stage.kind for stage in summary.blocked)
        counts = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        is_full = any(isinstance(error, DiskFull) for error in summary.failed.values())
        why = "the disk is full" if is_full else "an input failed"
        lines.append(f"not run, since {why}: {counts}; the others are finished")
    return lines


def _failure_lines(messages: Sequence[str]) -> list[str]:
    """Each message once, with how often it came; after the first few, how many more."""
    counts = Counter(messages)
    lines = [
        f"  {message}" + (f" ({count} stages)" if count > 1 else "")
        for message, count in list(counts.items())[:SHOWN_FAILURES]
    ]
    if len(counts) > SHOWN_FAILURES:
        lines.append(f"  and {len(counts) - SHOWN_FAILURES} more; `frontload status` lists them")
    return lines


def explain_lines(
    stage: Stage | None, folder: Path | None, *, entry: Entry | None, made_on: MachineKind
) -> list[str]:
    """The payload behind a key, its inputs, why it is what it is, and where and on what it lies."""
    payload = stage.payload() if stage is not None else {}
    if stage is None and folder is not None:
        manifest = read_manifest(folder)
        payload = {name: manifest[name] for name in ("kind", "revision", "recipe", "inputs")}
    lines = [f"folder: {folder}", f"made on {made_on}"] if folder else ["folder: not built"]
    if entry is not None and entry.reason:
        lines.append(f"why:    {entry.reason}")
    if entry is not None:
        lines.append(f"price:  {show_price(entry.price)}")
    if stage is not None:
        lines += [f"input:  {role} = {below.folder}" for role, below in stage.inputs.items()]
    lines.append("the key is the sha256 of:")
    return [*lines, json.dumps(payload, sort_keys=True, indent=1)]
