"""Toy stage functions for the runner's tests: what they do stands in `recipe.kind`."""

import errno
import hashlib
import json
import os
import signal
import time
from pathlib import Path

from frontload.recipes.artifact import Inputs, Workspace
from frontload.recipes.errors import RecipeError
from frontload.recipes.schema import Tokenizer
from frontload.recipes.stage import Stage

REGISTRY = {
    "tokenizer": "toy_stages:act",
    "sft": "toy_stages:write_ranks",
    "evaluate": "toy_stages:see",
    "index": "toy_stages:see",
}
NUM_STEPS = 12


def toy(label: str, *, does: str = "write", size: int = 1, **inputs: Stage) -> Stage:
    """A stage that does what `does` says."""
    recipe = Tokenizer(kind=does, vocab_size=size)
    return Stage(kind="tokenizer", label=label, recipe=recipe, inputs=inputs)


def diamond(*, does: str = "write") -> list[Stage]:
    """a -> b, c -> d, and e apart; `does` is b's."""
    a = toy("a", size=1)
    b = toy("b", does=does, size=2, a=a)
    c = toy("c", size=3, a=a)
    d = toy("d", size=4, b=b, c=c)
    return [a, b, c, d, toy("e", size=5)]


def act(recipe: Tokenizer, inputs: Inputs, work: Workspace) -> None:
    """The one toy stage function."""
    if recipe.kind == "write":
        write(recipe, inputs, work)
    elif recipe.kind == "raise":
        raise ValueError("a planted error")
    elif recipe.kind == "full":
        (work.path / "half").write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(work.path / "half"))
    elif recipe.kind == "wait":
        time.sleep(60.0)
    elif recipe.kind == "burn":
        end = time.process_time() + 0.5
        while time.process_time() < end:
            pass
    else:
        os.kill(os.getpid(), getattr(signal, recipe.kind))


def write(recipe: Tokenizer, inputs: Inputs, work: Workspace) -> None:
    """Writes a chain of digests step by step, resuming from a checkpoint in the scratch folder."""
    state, step = digest_of(inputs) + str(recipe.vocab_size), 0
    checkpoint = work.scratch / "checkpoint"
    if checkpoint.is_file():
        count, state = checkpoint.read_text().split()
        step = int(count)
        work.rewind(step)
    while step < NUM_STEPS:
        step += 1
        state = hashlib.sha256(f"{state} {step}".encode()).hexdigest()
        work.log(step, train__loss=int(state[:6], 16) / 1e6, system__seconds=time.monotonic())
        work.progress(step, NUM_STEPS)
        time.sleep(0.01)
        if step % 4 == 0:
            aside = work.scratch / "checkpoint.tmp"
            aside.write_text(f"{step} {state}")
            aside.replace(checkpoint)
    (work.path / "deep").mkdir(exist_ok=True)
    for number in range(recipe.vocab_size):
        (work.path / "deep" / f"{number}.bin").write_bytes((state * (number + 1)).encode())


def write_ranks(recipe: Tokenizer, inputs: Inputs, work: Workspace) -> None:
    """Every rank writes one file; rank 1 fails if asked to."""
    rank = int(os.environ.get("RANK", "-1"))
    if recipe.kind == "raise" and rank == 1:
        raise ValueError("a planted error of rank 1")
    if recipe.kind == "refuse":
        raise RecipeError("placement", found=f"rank {rank}", rule="planted", do="write 1")
    (work.path / f"rank{rank}").write_text(os.environ.get("WORLD_SIZE", "1"))
    work.log(1, train__loss=1.0)


def see(recipe: Tokenizer, inputs: Inputs, work: Workspace) -> None:
    """Takes a while and tells when, where and with which devices and threads; or dies once."""
    begin = time.monotonic()
    mark = work.scratch.parent.parent / "died"
    if recipe.kind == "die" and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.25)
    names = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
    told = {name: os.environ.get(name, "") for name in names}
    seen = {"pid": os.getpid(), "begin": begin, "end": time.monotonic(), **told}
    (work.path / "seen.json").write_text(json.dumps(seen))


def digest_of(inputs: Inputs) -> str:
    """One digest of all bytes of all inputs."""
    found = hashlib.sha256()
    for role in sorted(inputs):
        for path in sorted(Path(inputs[role]).rglob("*")):
            if path.is_file():
                found.update(path.read_bytes())
    return found.hexdigest()
