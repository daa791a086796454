"""veRL's trainer as the head of a job starts it: from the newest whole checkpoint, and watched.

python -m frontload.rl.cluster.run --checkpoints DIR --kept 2 --ranks 32 --hang-seconds 3600
    --answers DIR --log FILE -- python -m verl.trainer.main_ppo ...

It ends with the trainer's status; with 75 when no step ended for too long, with 1 when the first
steps of the run had nothing to learn from.
"""

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from frontload.recipes.errors import FrontloadError
from frontload.rl.trainer.settings import without_first_validation
from frontload.rl.watch.checkpoints import find_start, keep_newest, named_step
from frontload.rl.watch.first_steps import FirstSteps
from frontload.rl.watch.log_reader import LogReader
from frontload.rl.watch.step_watch import Hung, StepWatch

LAST_STEP = "trainer.total_training_steps="
POLL_SECONDS = 1.0
END_SECONDS = 20.0  # for the trainer to end when it is asked to, before it is made to
HUNG = 75  # EX_TEMPFAIL, sysexits.h: started again, the run may well go on
TERMINATED = 143  # 128 + SIGTERM, as a shell says it


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the trainer to its end, or ends it. Says what is wrong in four parts."""
    parser = argparse.ArgumentParser(prog="cluster_run", allow_abbrev=False)
    parser.add_argument("--checkpoints", type=Path, required=True)
    parser.add_argument("--kept", type=int, required=True, help="checkpoints that stay")
    parser.add_argument("--ranks", type=int, required=True, help="of the actor")
    parser.add_argument("--hang-seconds", type=float, required=True, help="0 = no limit")
    parser.add_argument("--answers", type=Path, required=True, help="of validations")
    parser.add_argument("--log", type=Path, required=True, help="where veRL writes its steps")
    parser.add_argument("trainer", nargs="+", help="after --: the command")
    options = parser.parse_args(arguments)
    try:
        step = find_start(options.checkpoints, kept=options.kept, ranks=options.ranks)
        words = tuple(options.trainer)
        if step:
            print(f"frontload: goes on from the checkpoint of step {step}", file=sys.stderr)
            if f"{LAST_STEP}{step}" not in words:  # else its validation may be all that is missing
                words = without_first_validation(words)
        return run(words, options, step=step)
    except FrontloadError as error:
        print(f"frontload: {error}", file=sys.stderr, flush=True)
        return HUNG if isinstance(error, Hung) else error.exit_code


def run(words: Sequence[str], options: argparse.Namespace, *, step: int) -> int:
    """The trainer's status. While it runs, old checkpoints go as new ones are named.

    Raises: Hung when no step ended for too long, StageError when the first ones taught nothing;
    the trainer has ended then.
    """
    signal.signal(signal.SIGTERM, _end)
    lines, watch = LogReader(options.log), StepWatch(options.hang_seconds, str(options.log))
    first = FirstSteps(done=step, answers=options.answers)
    named = named_step(options.checkpoints)
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            time.sleep(POLL_SECONDS)
            new = list(lines.read())
            for line in new:
                step = line["step"]
                first.look(step, line["data"])
            watch.look(has_moved=bool(new), step=step)
            if named != (named := named_step(options.checkpoints)):
                keep_newest(options.checkpoints, options.kept, and_later=False)
    finally:
        _stop(process)
    return process.returncode


def _end(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise SystemExit(TERMINATED)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()  # nothing, when it has ended
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
