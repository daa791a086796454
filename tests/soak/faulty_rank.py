"""`frontload train` as a rank that meets a fault at a stated moment of a stated start.

FRONTLOAD_FAULTS is a JSON list: at place N the fault of the agent's N-th start of its ranks, or
null. A fault that strikes is first written to FRONTLOAD_FAULTS_LOG.
"""

import functools
import importlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from frontload.launch import cli
from frontload.megatron_ext import cpu

SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}
SAVE_PLACES = {  # a moment of a save: module, function
    "begin": ("frontload.megatron_ext.checkpoints.save", "_begin_save"),
    "write": ("megatron.core.dist_checkpointing.strategies.filesystem_async", "_write_item"),
    "table": ("frontload.megatron_ext.checkpoints.save", "write_table"),
    "rename": ("frontload.megatron_ext.checkpoints.save", "write_json"),
    "drop": ("frontload.megatron_ext.checkpoints.saver", "_numbered"),
    "publish": ("frontload.launch.stage.as_rank", "publish_stage"),
    "published": ("frontload.launch.store", "Store.forget"),
}
AT_THE_END = ("publish", "published")
RENDEZVOUS_PLACES = {
    "process group": ("torch.distributed", "init_process_group"),
    "model groups": ("megatron.core.parallel_state", "initialize_model_parallel"),
    "census": ("frontload.megatron_ext.ranks.parallelism", "take_census"),
}
SHARES = 1.3  # of a step: a moment may fall into the one after


def owner_of(module: str, name: str) -> tuple[Any, str]:
    """Who has the function, and its own name: a module, or the class of `Class.method`."""
    owner: Any = importlib.import_module(module)
    *classes, last = name.split(".")
    for one in classes:
        owner = getattr(owner, one)
    return owner, last


def wrap(module: str, name: str, around: Callable[..., Any]) -> None:
    """Puts `around(real, *args, **options)` into the place of a function."""
    owner, name = owner_of(module, name)
    real = getattr(owner, name)

    @functools.wraps(real)  # Megatron looks at the signature of one
    def wrapped(*args: Any, **options: Any) -> Any:
        return around(real, *args, **options)

    setattr(owner, name, wrapped)


def write_down(line: dict[str, Any]) -> None:
    """Adds to the log of what happened."""
    with open(os.environ["FRONTLOAD_FAULTS_LOG"], "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def strike(fault: dict[str, Any]) -> None:
    """Says that the fault strikes now, and sends its signal to this process, or to the agent."""
    write_down({**fault, "time": time.time()})
    pid = os.getppid() if fault["kind"] == "world" else os.getpid()
    os.kill(pid, SIGNALS.get(fault["kind"], signal.SIGKILL))
    time.sleep(30.0)  # a stopped process, or one whose agent is gone, does nothing more


def strike_in_step(fault: dict[str, Any], before: Callable[[], None]) -> None:
    """At a share of the time of a step, from a thread: wherever the main thread then is."""
    began = [time.monotonic()]

    def step(real: Callable[..., Any], engine: Any, *args: Any, **options: Any) -> Any:
        number = options["first_sample"] // engine.training.global_batch_sequences + 1
        last, began[0] = time.monotonic() - began[0], time.monotonic()
        if number == fault["step"]:
            delay = last * fault["share"] * SHARES
            threading.Thread(
                target=lambda: (time.sleep(delay), before(), strike(fault)), daemon=True
            ).start()
        return real(engine, *args, **options)

    wrap("frontload.megatron_ext.training.loop", "train_step", step)


def strike_in_save(fault: dict[str, Any]) -> None:
    """At a call of the place's function, in the first save at or after the step."""
    armed = [fault["place"] in AT_THE_END]

    def save(real: Callable[..., Any], saver: Any, step: int, state: Any) -> None:
        armed[0] = armed[0] or step >= fault["step"]
        real(saver, step, state)

    calls = [0]

    def call(real: Callable[..., Any], *args: Any, **options: Any) -> Any:
        calls[0] += armed[0]
        if armed[0] and calls[0] > fault.get("calls", 0):
            strike(fault)
        return real(*args, **options)

    wrap("frontload.megatron_ext.checkpoints.saver", "Saver.save", save)
    module, name = SAVE_PLACES[fault["place"]]
    wrap(module, name, call)


def fill_disk(fault: dict[str, Any]) -> None:
    """What a save writes from the step on lands on /dev/full, where the kernel has no space."""
    step, place = [0], SAVE_PLACES["begin"]

    def begin(real: Callable[..., Any], folder: Path, *args: Any) -> Any:
        partial, content = real(folder, *args)
        if int(folder.name.rpartition("-")[2]) >= fault["step"] and fault["rank"] == rank():
            for name in (f"__{writer}_{file}.distcp" for writer in range(4) for file in range(2)):
                (partial / name).symlink_to("/dev/full")
            if not step[0]:
                write_down({**fault, "time": time.time()})
            step[0] += 1
        importlib.import_module(place[0]).dist.barrier()
        return partial, content

    wrap("frontload.megatron_ext.checkpoints.save", "_begin_save", begin)


def tear_newest(out: Path, name: str) -> None:
    """Cuts the end off a file of the newest checkpoint."""
    newest = max(out.glob("work/first/scratch/step-*[0-9]"))
    path = newest / name
    path.write_bytes(path.read_bytes()[:-64])


def rank() -> int:
    """This process among the ranks."""
    return int(os.environ["RANK"])


def install(fault: dict[str, Any], out: Path) -> None:
    """Puts one fault into this process."""
    where = fault["where"]
    if where == "disk":
        fill_disk(fault)
    elif fault["rank"] != rank():
        return
    elif where == "save":
        strike_in_save(fault)
    elif where == "rendezvous":
        module, name = RENDEZVOUS_PLACES[fault["place"]]
        wrap(
            module,
            name,
            lambda real, *args, **options: (strike(fault), real(*args, **options))[1],
        )
    else:
        tear = functools.partial(tear_newest, out, fault["file"]) if "file" in fault else None
        strike_in_step(fault, tear or (lambda: None))


def main() -> int:
    """Trains with this start's fault, if it has one."""
    faults = json.loads(os.environ["FRONTLOAD_FAULTS"])
    start = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    if rank() == 0:
        write_down({"start": start})
    fault = faults[start] if start < len(faults) else None
    if fault is not None:
        cpu.prepare()
        install(fault, Path(sys.argv[sys.argv.index("--out") + 1]))
    return cli.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
