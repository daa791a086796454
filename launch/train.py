"""`frontload train`: one run of a training recipe, alone or as a rank that torchrun started.

Of the folder --out:
run.json                   what the run is; another recipe or other data are refused
starts/NNNN.json           of each start: host, versions, environment, layout
work/STAGE/path, scratch   a stage in the making, with its checkpoints
STAGE/                     a finished stage: a checkpoint artifact
logs/rank-NNNNN.jsonl      each rank's own pace; telemetry.jsonl beside them, tensorboard/
logs/hangs.jsonl           ranks that stood still and were ended, with the stacks of the others
finished                   every stage that was asked for is there
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from frontload.launch import listeners
from frontload.launch.beats import FOLDER, Beats, start_beats
from frontload.launch.jobs import die_with_parent, load_function
from frontload.launch.seat import Seat, describe_start, take_seat
from frontload.launch.store import MANIFEST, Store
from frontload.launch.submit import load_placement, load_training, only_stages, split_overrides
from frontload.launch.train_inputs import Given, Inputs, check_inputs, digest_input
from frontload.launch.workspace import FolderWorkspace
from frontload.recipes.artifact import Part, write_json
from frontload.recipes.errors import ArtifactError, FrontloadError, RecipeError, StageError, Stopped
from frontload.recipes.placement import Placement
from frontload.recipes.stage import REVISION, canonical
from frontload.recipes.train_schema import PretrainRecipe, SftRecipe

FUNCTIONS = {
    "pretrain": "frontload.megatron_ext.stages:pretrain",
    "sft": "frontload.megatron_ext.stages:sft",
}
RUN, ERROR, FINISHED = "run.json", "error.json", "finished"
HANGS = "hangs.jsonl"
SEEN_SECONDS = 300.0  # most time for a folder that rank 0 published to appear on other nodes


@dataclass(frozen=True, kw_only=True)
class Run:
    """One start of a run, as one rank sees it."""

    name: str
    kind: str  # pretrain or sft
    out: Path
    recipe: PretrainRecipe | SftRecipe
    placement: Placement
    inputs: Inputs
    seat: Seat
    stop: list[str]  # the signal that asked this process to end, once one did
    beats: Beats | None  # for the agent that started this rank
    say_every_seconds: float


def train(options: argparse.Namespace) -> int:
    """Trains what is missing of the run, and says how it goes."""
    recipe_overrides, placement_overrides = split_overrides(options.overrides)
    loaded = only_stages(load_training(options.recipe, recipe_overrides), options.recipe)
    seat = take_seat(os.environ)
    if seat.world > 1 or "TORCHELASTIC_RUN_ID" in os.environ:
        die_with_parent()
    beats = start_beats(
        os.environ.get(FOLDER, ""),
        seat,
        upkeep=loaded.value.upkeep,
        log=options.out / "logs" / HANGS,
    )
    asked = load_placement(options.placement, placement_overrides).value
    placement = replace(seat.place(asked), upkeep=loaded.value.upkeep)
    given = Given(
        blends=options.blend,
        indexes=options.index,
        pack=options.pack,
        start=options.start,
        until=options.until,
    )
    run = Run(
        name=Path(options.recipe).stem,
        kind="sft" if isinstance(loaded.value, SftRecipe) else "pretrain",
        out=options.out,
        recipe=loaded.value,
        placement=placement,
        inputs=check_inputs(loaded.value, given),
        seat=seat,
        stop=[],
        beats=beats,
        say_every_seconds=options.say_every,
    )
    with _ended(beats), _heard_signals(run.stop), _told_failures(run), _held(run):
        _open(run)
        _make_stages(run)
    return 0


@contextmanager
def _ended(beats: Beats | None) -> Iterator[None]:
    """However it ends, the agent is told that this rank does."""
    try:
        yield
    finally:
        if beats is not None:
            beats.mark(Part.END)


@contextmanager
def _heard_signals(asked: list[str]) -> Iterator[None]:
    """After SIGTERM or SIGUSR1 the list holds its name, and the loop ends with a checkpoint."""
    before = {
        number: signal.signal(number, lambda got, _: asked.append(signal.Signals(got).name))
        for number in (signal.SIGTERM, signal.SIGUSR1)
    }
    try:
        yield
    finally:
        for number, act in before.items():
            signal.signal(number, act)


@contextmanager
def _held(run: Run) -> Iterator[None]:
    """Rank 0 holds the folder, so that no second run writes into it."""
    if not run.seat.is_leader:
        yield
        return
    with Store(run.out).lock("run", wait_seconds=5.0):
        yield


@contextmanager
def _told_failures(run: Run) -> Iterator[None]:
    """A failure that would come again is not tried again when torchrun restarts the ranks."""
    path = run.out / ERROR
    if run.seat.restarts and path.is_file():
        raise StageError(**json.loads(path.read_text(encoding="utf-8")))
    if run.seat.is_leader:
        path.unlink(missing_ok=True)
    try:
        yield
    except Stopped:
        raise
    except FrontloadError as error:
        if _comes_again(error) and run.out.is_dir():
            told = {"asked": error.asked, "found": error.found, "rule": error.rule, "do": error.do}
            write_json(path.with_name(f"{ERROR}.{run.seat.rank}"), told, is_synced=True)
            path.with_name(f"{ERROR}.{run.seat.rank}").replace(path)
        raise


def _comes_again(error: BaseException | None) -> bool:
    """Whether a verdict stands by itself, without a failure of machine or network behind it."""
    while error is not None:
        if not isinstance(error, FrontloadError):
            return False
        error = error.__cause__
    return True


# ---------------------------------------------------------------- the folder


def _open(run: Run) -> None:
    """Writes what the run is, or compares it with what is there; records this start.

    Raises: RecipeError if the folder holds another run.
    """
    if not run.seat.is_leader:
        return
    (run.out / FINISHED).unlink(missing_ok=True)
    path, asked = run.out / RUN, _identity(run)
    found: dict[str, Any] = {}
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        moved = _first_difference(found, asked)
        if moved:
            raise RecipeError(
                f"train --out {run.out}",
                found=f"it holds another run: {moved} differs",
                rule="a run goes on with the recipe and the data that it began with",
                do="name another folder, or undo the change",
            )
    starts = run.out / "starts"
    starts.mkdir(parents=True, exist_ok=True)
    write_json(path, {**found, **asked}, is_synced=True)
    number = len(list(starts.glob("*.json")))
    start = describe_start(run.seat, run.placement)
    write_json(starts / f"{number:04d}.json", start, is_synced=True)


def _identity(run: Run) -> dict[str, Any]:
    """Stage -> its recipe and the digests of its inputs; in JSON's own types."""
    found: dict[str, Any] = {}
    stages = run.recipe.stages()
    for name, inputs in run.inputs.stages.items():
        digests = {role: digest_input(role, folder) for role, folder in inputs.items()}
        if not found and run.inputs.start is not None:
            digests["start"] = digest_input("start", run.inputs.start)
        found[name] = {
            "kind": run.kind,
            "revision": REVISION[run.kind],
            "recipe": canonical(stages[name]),
            "inputs": digests,
        }
    return json.loads(json.dumps(found))


def _first_difference(found: Any, asked: Any, path: str = "") -> str:
    """The dotted name of the first value that both have and that is not the same; "" if none."""
    if not (isinstance(found, dict) and isinstance(asked, dict)):
        return "" if found == asked else path
    for name in sorted(found.keys() & asked.keys()):
        below = _first_difference(found[name], asked[name], f"{path}.{name}".strip("."))
        if below:
            return below
    if path and found.keys() != asked.keys():
        return f"{path}.{min(found.keys() ^ asked.keys())}"
    return ""


# ---------------------------------------------------------------- the stages


def _make_stages(run: Run) -> None:
    """Makes the stages one after the other; each goes on from the one before."""
    stages, start = run.recipe.stages(), run.inputs.start
    published = {name for name in run.inputs.stages if (run.out / name / MANIFEST).is_file()}
    for name, inputs in run.inputs.stages.items():
        folder = run.out / name
        if name in published:
            _say(run, f"stage {name} is there")
            if run.seat.is_leader:
                shutil.rmtree(run.out / "work" / name, ignore_errors=True)
        else:
            roles = dict(inputs) if start is None else {**inputs, "start": start}
            _make(run, name, stages[name], roles)
            _publish(run, name)
        start = folder
    if run.seat.is_leader:
        (run.out / FINISHED).touch()
    _say(run, f"finished: {run.out}")


def _make(run: Run, name: str, stage: Any, inputs: Mapping[str, Path]) -> None:
    num_steps = stage.num_samples // stage.training.global_batch_sequences
    work = FolderWorkspace(
        run.out / "work" / name,
        telemetry=run.out / "logs" / "telemetry.jsonl",
        placement=run.placement,
        key=f"{run.name}/{name}",
        report=lambda *_: None,
        rank=run.seat.rank,
    )
    work.stop = lambda: bool(run.stop)
    work.beats = run.beats
    work.rank_log = run.out / "logs" / f"rank-{run.seat.rank:05d}.jsonl"
    if run.seat.is_leader:
        work.listeners.extend(_listeners(run, name, num_steps))
        tokens = stage.num_samples * stage.training.sequence_tokens
        _say(run, f"stage {name}: {num_steps} steps, {tokens:,} tokens, {run.seat.world} ranks")
    try:
        load_function(FUNCTIONS[run.kind])(stage, inputs, work)
    finally:
        work.close()


def _listeners(run: Run, name: str, num_steps: int) -> list[listeners.Listener]:
    every, upkeep = run.say_every_seconds, run.recipe.upkeep
    label = f"{run.name}/{name}"
    found: list[listeners.Listener] = [
        listeners.Teller(label, num_steps=num_steps, every_seconds=every)
    ]
    if upkeep.tensorboard:
        scratch = run.out / "work" / name / "scratch"
        last = max((int(path.name[5:]) for path in scratch.glob("step-*[0-9]")), default=0)
        folder = run.out / "tensorboard" / name
        found.append(listeners.tensorboard_listener(folder, first_step=last + 1))
    if upkeep.wandb_project:
        config = {"recipe": canonical(run.recipe.stages()[name]), "layout": asdict(run.placement)}
        found.append(
            listeners.wandb_listener(
                upkeep.wandb_project,
                run=f"{run.out.name}-{name}",
                folder=run.out / "wandb",
                config=config,
            )
        )
    return found


def _publish(run: Run, name: str) -> None:
    """Rank 0 turns the work into the artifact by one rename; the others wait until they see it.

    Raises: ArtifactError when the folder does not appear on a node in time.
    """
    work, folder = run.out / "work" / name, run.out / name
    if run.seat.is_leader:
        path = work / "path"
        sizes = {
            file.relative_to(path).as_posix(): {"size_bytes": file.stat().st_size}
            for file in sorted(path.rglob("*"))
            if file.is_file() and file.name != MANIFEST
        }
        identity = json.loads((run.out / RUN).read_text(encoding="utf-8"))[name]
        write_json(path / MANIFEST, {"files": sizes, **identity}, is_synced=True)
        path.rename(folder)
        shutil.rmtree(work, ignore_errors=True)
        return
    end = time.monotonic() + SEEN_SECONDS
    while not (folder / MANIFEST).is_file():
        if time.monotonic() > end:
            raise ArtifactError(
                f"rank {run.seat.rank}: {folder}",
                found=f"not seen after {SEEN_SECONDS:.0f} seconds",
                rule="every node sees the folder of the run",
                do="put --out on a file system that all nodes share",
            )
        time.sleep(0.02)
        with contextlib.suppress(OSError):
            os.listdir(run.out)  # a network file system looks again


def _say(run: Run, text: str) -> None:
    if run.seat.is_leader:
        print(f"{run.name}: {text}", flush=True)
