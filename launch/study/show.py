"""Plans, states and keys as text for people."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from frontload.launch.machine_kind import MachineKind, machine_lines
from frontload.launch.store import Store, Ticket, read_manifest
from frontload.launch.study.plan import BUILT, Entry, Plan
from frontload.launch.study.price import OWN_TOKENS, Price
from frontload.launch.study.progress import show_seconds
from frontload.launch.study.runner import Summary
from frontload.recipes.stage import Stage

UNITS = (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3))
SHOWN_FAILURES = 5  # messages at the end of a run; each was shown when it came


def show_count(number: float) -> str:
    """A count in short form: 4.10 M, 327 k, 12."""
    for unit, size in UNITS:
        if number >= 0.9995 * size:  # three digits: 999_600 is 1 M, not 1e+03 k
            return f"{number / size:.3g} {unit}"
    return f"{number:.3g}"


def show_price(price: Price) -> str:
    """Tokens, FLOPs and time of one stage."""
    parts = [f"{show_count(price.tokens)} tokens"] if price.tokens else []
    if price.flops:
        parts.append(f"{price.flops:.2e} FLOPs")
    rate = "" if price.is_measured else " at a default rate"
    unit = "GPU" if price.on_gpu else "CPU"
    return ", ".join([*parts, f"{show_seconds(price.seconds)} {unit}{rate}"])


def plan_lines(plan: Plan, store: Store) -> list[str]:
    """The whole plan: one line a missing stage with its reason, then the table of prices."""
    lines = [f"study {plan.study.name} in {store.root}: {summary_line(plan)}"]
    if not plan.missing:
        return lines
    for entry in plan.missing:
        lines.append(f"  {entry.state:7} {entry.stage.folder}  {show_price(entry.price)}")
        if entry.reason != "first of its kind":
            lines.append(f"          {entry.reason}")
    return lines + ["", *price_table(plan.missing), "", total_line(plan)]


def summary_line(plan: Plan) -> str:
    """How many stages are there and how many are missing."""
    built = len(plan.entries) - len(plan.missing)
    return f"{len(plan.entries)} stages, {built} built, {len(plan.missing)} to make"


def price_table(entries: Sequence[Entry]) -> list[str]:
    """One line a kind: how many, tokens, FLOPs, time on a core or a GPU."""
    lines = [f"  {'kind':11}{'stages':>7}{'tokens':>10}{'FLOPs':>11}{'time':>19}"]
    kinds = dict.fromkeys(entry.stage.kind for entry in entries)
    for kind in kinds:
        prices = [entry.price for entry in entries if entry.stage.kind == kind]
        flops = sum(price.flops for price in prices)
        unit = "GPU" if prices[0].on_gpu else "CPU"
        lines.append(
            f"  {kind:11}{len(prices):>7}{show_count(sum(price.tokens for price in prices)):>10}"
            f"{f'{flops:.2e}' if flops else '-':>11}"
            f"{show_seconds(sum(price.seconds for price in prices)):>15} {unit}"
        )
    return lines


def total_line(plan: Plan) -> str:
    """The price of the whole run."""
    prices = [entry.price for entry in plan.missing]
    total = sum(price.seconds for price in prices)
    measured = sum(price.seconds for price in prices if price.is_measured)
    share = measured / total if total else 0.0
    flops = show_count(sum(price.flops for price in prices))
    flops += "FLOPs" if flops[-1].isalpha() else " FLOPs"
    cpu = sum(price.seconds for price in prices if not price.on_gpu)
    time = f"{show_seconds(cpu)} of CPU time"
    where = show_number(plan.workers, "worker")
    if plan.gpus:
        time = f"{show_seconds(total - cpu)} of GPU time, {time}"
        where = f"{show_number(plan.gpus, 'GPU worker')} and {where}"
    return (
        f"price: {flops}, {time} ({100 * share:.0f}% of it at rates measured in this store); "
        f"about {show_seconds(plan.wall_seconds)} on {where}{_gpu_terms(plan)}{_own_terms(plan)}"
    )


def show_number(number: int, what: str) -> str:
    """A number of things: 1 worker, 2 workers."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def _own_terms(plan: Plan) -> str:
    """That the size of a user's own files is a guess."""
    if not any(entry.stage.kind == "import_own" for entry in plan.entries):
        return ""
    return f"; your own files are taken for {show_count(OWN_TOKENS)} tokens, whatever they hold"


def _gpu_terms(plan: Plan) -> str:
    """What the GPU's part of a price rests on, and what it costs to hold the GPUs so long."""
    gpus = plan.study.placement.gpus
    if gpus is None or not plan.missing:
        return ""
    terms = f"; {gpus.kind} at {gpus.kernel_mfu:.0%} of its bf16 rate where nothing was measured"
    if gpus.dollars_per_hour:
        count = -(-plan.gpus // plan.study.placement.stages_per_gpu)
        held = count * plan.study.placement.ranks_per_node * plan.wall_seconds / 3600.0
        terms += f"; {held * gpus.dollars_per_hour:.2f} dollars"
    return terms


def status_lines(plan: Plan, store: Store) -> list[str]:
    """What is built, running, failed, begun, or not yet there, one line a stage."""
    lines = [f"study {plan.study.name} in {store.root}: {summary_line(plan)}"]
    for entry in plan.entries:
        state, note = _state(entry, store)
        lines.append(f"  {state:8}{entry.stage.folder}{note}")
    return lines + machine_lines(store, [entry.stage for entry in plan.entries])


def _state(entry: Entry, store: Store) -> tuple[str, str]:
    ticket = Ticket.of(entry.stage)
    error = store.error_file(ticket)
    if entry.state == BUILT:
        return BUILT, ""
    if store.is_locked(ticket.key):
        return "running", ""
    if error.is_file():
        return "failed", f"  {error.read_text(encoding='utf-8').strip()}"
    if (store.workspace(ticket) / "path").is_dir():
        return "begun", "  goes on from where it stopped"
    return entry.state, ""


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
        lines.append(f"not run, since an input failed: {counts}; the others are finished")
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
