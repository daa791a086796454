"""An estimate as tables for people."""

from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from frontload.launch.estimate.answer import Answer
from frontload.launch.text.assumptions import price_text, time_assumptions
from frontload.launch.text.tables import make_table, open_console, print_table
from frontload.launch.text.words import show_number
from frontload.megatron_ext.sizing.memory import GIB, StageMemory
from frontload.megatron_ext.sizing.search import LayoutEstimate, Refused
from frontload.megatron_ext.sizing.timing import StepTime
from frontload.recipes.facts.census import count_parameters
from frontload.recipes.facts.gemms import Gemm, list_gemms
from frontload.recipes.machines.gpus import find_gpu

GIGA, MEGA = 1e9, 1e6


def show(answer: Answer, *, num_layouts: int, gemms: bool) -> None:
    """Prints the answer to the terminal."""
    console = open_console()
    workload, placement = answer.workload, answer.placement
    tokens = workload.sequence_tokens * workload.global_batch_sequences
    console.print(
        f"[bold]{workload.name}[/bold] on {placement.name}: "
        f"{show_number(placement.world_size, 'rank')}, batch "
        f"{workload.global_batch_sequences} x {workload.sequence_tokens} = {tokens:,} tokens, "
        f"{answer.precision.name}"
    )
    print_table(console, _costs(answer))
    if answer.asked is None:
        console.print("[bold]the placement's own layout is not legal, see the error below[/bold]\n")
    else:
        _show_asked(console, answer, answer.asked)
    if answer.layouts or answer.refused:
        print_table(console, _layouts(answer.layouts, max(0, num_layouts)))
        _show_refused(console, answer.refused)
    if gemms:
        tensor = placement.tensor_parallel
        show_gemms(console, list_gemms(workload.model, answer.precision, tensor_parallel=tensor))


def show_gemms(console: Console, gemms: Sequence[Gemm]) -> None:
    """One line a layer: its products, their sizes on a rank, and their formats."""
    table = make_table("GEMMs of a rank (format of forward/gradient)", "layer", "kind")
    table.add_column("products: inputs x outputs")
    table.add_column("format")
    for layer in dict.fromkeys(gemm.layer for gemm in gemms):
        of_layer = [gemm for gemm in gemms if gemm.layer == layer]
        products = ", ".join(f"{one.name} {one.inputs} x {one.outputs}" for one in of_layer)
        number = "-" if layer < 0 else str(layer)
        table.add_row(number, of_layer[0].kind, products, of_layer[0].formats)
    print_table(console, table)
    fp8 = [gemm for gemm in gemms if gemm.is_fp8]
    work = sum(one.inputs * one.outputs for one in fp8)
    whole = sum(one.inputs * one.outputs for one in gemms)
    console.print(
        f"{len(fp8)} of {len(gemms)} GEMMs are FP8, {work / whole:.0%} of their operations; "
        "embedding, convolution, scan, attention scores and norms never are\n"
    )


def _costs(answer: Answer) -> Table:
    table = make_table("parameters and FLOPs a token", "where", "layers", "a layer", "parameters")
    whole = sum(cost.training_flops for cost in answer.costs)
    unit, size = ("GFLOP", GIGA) if whole >= GIGA else ("MFLOP", MEGA)
    for name in (f"{unit} forward", f"{unit} training", "share"):
        table.add_column(name, justify="right")
    for cost in answer.costs:
        if not cost.layers:
            continue
        table.add_row(
            cost.kind,
            str(cost.layers),
            f"{cost.parameters_a_layer:,}",
            f"{cost.parameters:,}",
            f"{cost.forward_flops / size:.4g}",
            f"{cost.training_flops / size:.4g}",
            f"{cost.training_flops / whole:.1%}",
        )
    total = count_parameters(answer.workload.model).total
    table.add_section()
    table.add_row(
        "total", "", "", f"{total:,}", f"{whole / 3 / size:.4g}", f"{whole / size:.4g}", ""
    )
    return table


def _show_asked(console: Console, answer: Answer, asked: LayoutEstimate) -> None:
    placement, batching = asked.placement, asked.batching
    micro = batching.num_micro_batches
    kept = f"{placement.kernels} layers" + (", recomputed" if placement.recompute else "")
    console.print(
        f"tensor {placement.tensor_parallel} x pipeline {placement.pipeline_parallel} x data "
        f"{batching.data_parallel}: {micro} micro-batch{'' if micro == 1 else 'es'} of "
        f"{batching.micro_sequences}; {kept}"
    )
    print_table(console, _memory(asked))
    console.print(_other_memory(asked))
    if answer.switched is not None:
        console.print(_recomputation(asked, answer.switched))
    gpus = placement.gpus
    if gpus is None or asked.time is None:
        console.print("no time, price or layouts: the placement names no GPU (placement.gpus)\n")
        return
    kind = find_gpu(gpus.kind)
    verdict = "fits" if asked.fits else "[bold]does not fit[/bold]"
    console.print(
        f"the fullest GPU needs {asked.fullest.total / GIB:.1f} of {kind.memory_gib:g} GiB "
        f"({kind.name}): {verdict}"
    )
    print_table(console, _time(asked.time))
    hours = asked.time.gpu_hours(answer.workload.tokens)
    rate = asked.time.tokens_per_second
    lines = [
        f"{rate:,.0f} tokens/s, {rate / placement.world_size:,.0f} per GPU; MFU of the step "
        f"{asked.time.mfu:.1%}"
    ]
    if answer.workload.tokens:
        days = hours / placement.world_size / 24
        spent = [f"{hours:,.0f} GPU-hours", f"{days:.1f} days", price_text(hours, gpus)]
        lines.append(f"{answer.workload.tokens:,} tokens: " + ", ".join(filter(None, spent)))
    lines += ["assumed:", *(f"- {line}" for line in time_assumptions(placement))]
    console.print("\n".join(lines) + "\n")


def _memory(asked: LayoutEstimate) -> Table:
    unit, size = _unit(asked)
    table = make_table(f"memory of a rank by pipeline stage, {unit}", "stage", "layers")
    parts = (
        "weights", "gradients", "optimizer", "activations", "states", "logits", "backward",
        "reserved", "total",
    )  # fmt: skip
    for name in parts:
        table.add_column(name, justify="right")
    for stage in asked.memory:
        values = [f"{getattr(stage, name) / size:.2f}" for name in parts]
        shown = stage.layers if len(stage.layers) <= 12 else f"{len(stage.layers)} layers"
        table.add_row(str(stage.stage), shown, *values)
    return table


def _other_memory(asked: LayoutEstimate) -> str:
    """The parts that a switch of the placement changes."""
    replicas = asked.batching.data_parallel
    stage: StageMemory = asked.fullest
    cut = asked.placement.distributed_optimizer
    whole = stage.optimizer * (replicas if cut else 1)
    unit, size = _unit(asked)
    return (
        "total is what stays, plus the larger of logits and backward; states are the scan's, which "
        "kernels make again in the backward pass; optimizer of the fullest "
        f"stage {whole / replicas / size:.2f} {unit} with and {whole / size:.2f} without the "
        "distributed one"
    )


def _recomputation(asked: LayoutEstimate, switched: LayoutEstimate) -> str:
    """What recomputation gives and takes under this layout."""
    with_it, without = (asked, switched) if asked.placement.recompute else (switched, asked)
    name, size = _unit(asked)
    kept = [max(s.activations + s.states for s in one.memory) / size for one in (with_it, without)]
    line = f"activations and states: {kept[0]:.2f} {name} with recomputation, {kept[1]:.2f} without"
    if with_it.time is not None and without.time is not None:
        line += f"; a step {with_it.time.total:.3f} and {without.time.total:.3f} seconds"
    return line


def _unit(asked: LayoutEstimate) -> tuple[str, float]:
    """Megabytes for what a laptop trains, else gigabytes."""
    return ("GiB", GIB) if asked.fullest.total >= GIB else ("MiB", GIB / 1024)


def _time(time: StepTime) -> Table:
    parts = ("compute", "recompute", "bubble", "tensor", "pipeline", "data", "total")
    table = make_table(
        "a step's time; communication that computation hides is left out", "in", *parts
    )
    table.add_row("seconds", *(f"{getattr(time, name):.3f}" for name in parts))
    table.add_row("share", *(f"{getattr(time, name) / time.total:.0%}" for name in parts))
    return table


def _layouts(layouts: Sequence[LayoutEstimate], num_layouts: int) -> Table:
    table = make_table(
        f"legal layouts, best first ({min(num_layouts, len(layouts))} of {len(layouts)})",
        *("TP x PP x DP", "micro", "recompute", "GiB", "fits", "s/step", "bubble", "MFU"),
    )
    table.add_column("layers a stage")
    for one in layouts[:num_layouts]:
        placement, time = one.placement, one.time
        layers = placement.pipeline_layers or (len(one.memory[0].layers),) * len(one.memory)
        table.add_row(
            f"{placement.tensor_parallel} x {placement.pipeline_parallel} x "
            f"{one.batching.data_parallel}",
            f"{one.batching.num_micro_batches} x {one.batching.micro_sequences}",
            "yes" if placement.recompute else "no",
            f"{one.fullest.total / GIB:.1f}",
            "yes" if one.fits else "no",
            f"{time.total:.3f}" if time else "",
            f"{time.bubble_share:.0%}" if time else "",
            f"{time.mfu:.1%}" if time else "",
            ", ".join(map(str, layers)),
        )
    return table


def _show_refused(console: Console, refused: Sequence[Refused]) -> None:
    if refused:
        console.print("not legal (TP x PP x CP):")
    for one in refused:
        shapes = ", ".join(" x ".join(map(str, layout)) for layout in one.layouts)
        console.print(Padding(f"{shapes}: {one.reason}", (0, 0, 0, 2)))
    if refused:
        console.print()
