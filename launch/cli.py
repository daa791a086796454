"""The command line: a table of commands, and how an error is printed."""

import errno
import io
import json
import shutil
import signal
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn, TextIO

from frontload.recipes.command_line import Command, Parser, family_parser, read_command
from frontload.recipes.errors import FrontloadError, RecipeError, StageError

PROGRAM = "frontload"
INTERRUPTED = 130
DESCRIPTION = "Where should reasoning data go: pretraining, SFT or both? Runs the crossed study."
EPILOG = "Begin with `frontload plan laptop`. Exit codes: 0 done, 1 a stage failed, 2 wrong input."
FULL, REFUSED = (
    (errno.ENOSPC, errno.EDQUOT),
    (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
)
ARGUMENTS = "frontload.launch.arguments"
STUDY_OVERRIDES = "sft.learning_rate=1.0e-5 evaluation.min_effect=2.0 placement.workers=2"
TRAINING_OVERRIDES = "learning_rate=1.0e-4 placement.num_nodes=8"

COMMANDS: Mapping[str, Command] = {
    "list": Command(
        text="studies, recipes, placements, models and suites that ship, one line each",
        adds="frontload.launch.listing:add_arguments",
    ),
    "plan": Command(
        text="what a study would make, why, and at what price",
        adds=f"{ARGUMENTS}:add_plan",
        overrides=STUDY_OVERRIDES,
        names=("studies",),
    ),
    "run": Command(
        text="run or resume a study, then write its report",
        adds=f"{ARGUMENTS}:add_run",
        overrides=STUDY_OVERRIDES,
        names=("studies",),
    ),
    "allocate": Command(
        text="where a budget of reasoning tokens should go, with an interval, or what it costs",
        adds="frontload.launch.allocate.command:add_arguments",
        overrides="money.explore=600 study.sft.learning_rate=5.0e-4",
        names=("allocations",),
    ),
    "status": Command(
        text="what of a study is built, begun or missing",
        adds=f"{ARGUMENTS}:add_status",
        overrides=STUDY_OVERRIDES,
        names=("studies",),
    ),
    "report": Command(
        text="write tables, verdicts and report.html of a finished study",
        adds=f"{ARGUMENTS}:add_report",
        overrides=STUDY_OVERRIDES,
        names=("studies",),
    ),
    "explain": Command(
        text="why a key is what it is; where a training sample came from",
        adds=f"{ARGUMENTS}:add_explain",
        overrides=STUDY_OVERRIDES,
    ),
    "compare": Command(
        text="two studies: the same cells with their difference, verdicts, recipes; a page",
        adds="frontload.launch.shown.compare:add_arguments",
        names=("studies",),
    ),
    "launch": Command(
        text="print or submit one training recipe as a job of a cluster",
        adds=f"{ARGUMENTS}:add_launch",
        overrides=TRAINING_OVERRIDES,
        names=("training",),
    ),
    "stage": Command(
        text="make one stage of a study: what a job of `run` does",
        adds=f"{ARGUMENTS}:add_stage",
    ),
    "train": Command(
        text="run one training recipe: alone, or as a rank that torchrun started",
        adds=f"{ARGUMENTS}:add_train",
        overrides=TRAINING_OVERRIDES,
        names=("training",),
    ),
    "rl": Command(
        text="run one GRPO recipe on this machine's CPU",
        adds=f"{ARGUMENTS}:add_rl",
        overrides="num_prompts=2 placement.threads_per_rank=2",
        names=("training",),
    ),
    "estimate": Command(
        text="parameters, FLOPs, memory, time and price of a recipe, and its legal layouts",
        adds="frontload.launch.estimate.command:add_arguments",
        overrides=TRAINING_OVERRIDES,
        names=("training", "models", "studies"),
    ),
    "precision": Command(
        text="which GEMMs run in FP8, and how far a precision moves a model, emulated here",
        adds="frontload.launch.estimate.precision:add_arguments",
        overrides="hidden_size=2_048",
        names=("models",),
    ),
    "data": Command(
        text="preprocess, curate, verify: data from files to tokens",
        below="frontload.launch.generation.commands:COMMANDS",
    ),
    "convert": Command(
        text="checkpoints to Hugging Face folders and back",
        below="frontload.launch.convert:COMMANDS",
    ),
    "serve": Command(
        text="a checkpoint behind the OpenAI protocol: completions and chats",
        adds="frontload.launch.serve:add_arguments",
    ),
    "eval": Command(
        text="the paper's benchmarks on a checkpoint: suites base, sft and rl",
        adds="frontload.launch.evaluation.command:add_arguments",
        below="frontload.launch.evaluation.command:COMMANDS",
        overrides="benchmarks.gsm8k.num_shots=4",
    ),
    "doctor": Command(
        text="what this machine has and lacks; with --nodes, which nodes of a job are slow",
        adds="frontload.launch.doctor.command:add_arguments",
    ),
    "theory": Command(
        text="a solvable model of pretraining, SFT and outcome rewards: closed forms, curves",
        adds="frontload.launch.theory:add_arguments",
    ),
    "completion": Command(
        text="print a script that completes these commands in bash, zsh or fish",
        adds="frontload.launch.completion:add_arguments",
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Returns the exit code: 0 done, 1 a stage failed, 2 wrong input."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not what a test reads
            stream.reconfigure(errors="backslashreplace")  # a terminal without these letters
    try:
        return _dispatch(words)
    except FrontloadError as error:
        return _fail(error, words)
    except KeyboardInterrupt:
        print("frontload: stopped; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as error:
        explained = _explain(error)
        if explained is None:
            raise
        return _fail(explained, words)


def help_parser() -> Parser:
    """The parser behind `frontload --help`."""
    parser = family_parser(COMMANDS, prog=PROGRAM, description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("--version", action="store_true", help="print versions and commit")
    return parser


def print_error(error: FrontloadError, stream: TextIO, *, as_json: bool) -> None:
    """The four parts of a message: four labelled lines in a terminal, one line in a log.

    Where JSON was asked for, an object with the four parts.
    """
    parts = {"asked": error.asked, "found": error.found, "rule": error.rule, "do": error.do}
    if as_json:
        print(json.dumps({"error": parts}), file=stream)
        return
    if not stream.isatty():
        print(f"{PROGRAM}: {error}", file=stream)
        return
    width = max(40, shutil.get_terminal_size().columns)
    for label, text in parts.items():
        wrapped = textwrap.fill(
            text,
            width=width,
            initial_indent=f"{label + ':':7}",
            subsequent_indent=7 * " ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        print(wrapped, file=stream)


def _dispatch(words: Sequence[str]) -> int:
    if words[:1] == ["--version"]:
        from frontload.launch.origins.version import version_lines

        print("\n".join(version_lines()))
        return 0
    options = read_command(words, COMMANDS, prog=PROGRAM, help_parser=help_parser())
    act: Callable[..., int] = options.run
    return act(options)


def _fail(error: FrontloadError, words: Sequence[str]) -> int:
    print_error(error, sys.stderr, as_json="--json" in words)
    return error.exit_code


def _explain(error: OSError) -> FrontloadError | None:
    """A full disk or a path that may not be written, in four parts; None for anything else."""
    where = str(error.filename or "the disk")
    if error.errno in FULL:
        return StageError(
            where,
            found=f"cannot be written ({error.strerror})",
            rule="what is published is whole, so nothing of it was",
            do="free space and run the same command again",
        )
    if error.errno in REFUSED:
        return RecipeError(
            where,
            found=f"cannot be used ({error.strerror})",
            rule="the files and folders of a command are there to read and write",
            do="name another, or mend its rights",
        )
    return None


def _interrupt(*_: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Slurm and torchrun both send it: once is enough
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
