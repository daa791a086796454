"""The command line: parses, calls, prints. Every error of a user is one message in four parts."""

import argparse
import errno
import importlib
import io
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from frontload.recipes.errors import FrontloadError, RecipeError, StageError
from frontload.recipes.load import nearest

INTERRUPTED = 130
DESCRIPTION = "Where should reasoning data go: pretraining, SFT or both? Runs the crossed study."
EPILOG = "Begin with `frontload plan laptop`. Exit codes: 0 done, 1 a stage failed, 2 wrong input."
FULL, REFUSED = (
    (errno.ENOSPC, errno.EDQUOT),
    (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
)
FIRST_PHASE = "trunk-seed1"  # the blend that all arms of a study share
STUDY_COMMANDS = (
    "plan",
    "run",
    "status",
    "report",
    "explain",
    "launch",
    "train",
    "rl",
    "estimate",
    "precision",
)


class _Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are four-part messages; no flag is abbreviated."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, allow_abbrev=False)
        self._typed: Sequence[str] = ()

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, args: Any = None, namespace: Any = None
    ) -> Any:
        """As argparse has it, with the words kept for a message about them."""
        self._typed = () if args is None else args
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        choice = re.search(
            r"argument (\S+): invalid choice: '([^']*)' \(choose from (.*)\)", message
        )
        names = [name.strip(" '") for name in choice[3].split(",")] if choice else []
        if choice and choice[1].startswith("-"):
            raise RecipeError(
                f"{self._place()} {choice[1].split('/')[-1]}",
                found=f"'{choice[2]}'",
                rule="it is one of " + ", ".join(names),
                do=nearest(choice[2], names),
            )
        if choice:
            raise RecipeError(
                f"{self._place()} {choice[2]}".strip(),
                found=f"'{choice[2]}' is not a command",
                rule="commands are " + ", ".join(names),
                do=nearest(choice[2], names),
            )
        flags = [flag for action in self._actions for flag in action.option_strings]
        if message.startswith("unrecognized arguments: "):
            raise self._unknown(message.split()[2], flags)
        if message.startswith("the following arguments are required"):
            typed = [word.partition("=")[0] for word in self._typed if word.startswith("--")]
            unknown = next((word for word in typed if word not in (*flags, "--")), None)
            if unknown:  # most likely one that is required, misspelt
                raise self._unknown(unknown, flags)
        raise RecipeError(
            self._place() or "command line",
            found=message,
            rule="arguments are those of `" + self.prog + " --help`",
            do="change the command",
        )

    def _unknown(self, word: str, flags: Sequence[str]) -> RecipeError:
        asked = word.partition("=")[0]
        begun = [flag for flag in flags if flag.startswith(asked)] if asked.startswith("--") else []
        return RecipeError(
            f"{self._place()} {word}".strip(),
            found=f"'{word}' is not understood",
            rule="arguments are those of `" + self.prog + " --help`, each written out",
            do="write " + " or ".join(f"'{flag}'" for flag in begun)
            if begun
            else nearest(asked, flags),
        )

    def _place(self) -> str:
        """The command without the program's name, which every message begins with."""
        return self.prog.partition(" ")[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Returns the exit code: 0 done, 1 a stage failed, 2 wrong input."""
    asked = list(sys.argv[1:] if arguments is None else arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not what a test reads
            stream.reconfigure(errors="backslashreplace")  # a terminal without these letters
    try:
        return _dispatch(asked)
    except FrontloadError as error:
        print(f"frontload: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("frontload: stopped; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as error:
        told = _explain(error)
        if told is None:
            raise
        print(f"frontload: {told}", file=sys.stderr)
        return told.exit_code


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
    raise KeyboardInterrupt


def _dispatch(asked: Sequence[str]) -> int:
    overrides: list[str] = []
    if asked and asked[0] in STUDY_COMMANDS:
        overrides = [part for part in asked if _is_override(part)]
        asked = [part for part in asked if part not in overrides]
    parser = _parser(asked)
    options, rest = parser.parse_known_args(asked)
    if "overrides" in options:  # positional in its own parser, which misses those behind a flag
        overrides += [*options.overrides, *(part for part in rest if _is_override(part))]
        rest = [part for part in rest if not _is_override(part)]
    if rest:
        _subparser(parser, options).error(f"unrecognized arguments: {rest[0]}")
    options.overrides = overrides
    act: Callable[[argparse.Namespace], int] = options.run
    return act(options)


def _is_override(part: str) -> bool:
    return "=" in part and not part.startswith("-")


def _subparser(
    parser: argparse.ArgumentParser, options: argparse.Namespace
) -> argparse.ArgumentParser:
    """The innermost parser of the command that was typed: its flags are those that were meant."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return _subparser(action.choices[getattr(options, action.dest)], options)
    return parser


def _parser(asked: Sequence[str]) -> _Parser:
    """All commands, and the arguments of the one asked for: the others' modules stay unread."""
    command, below = [*asked[:2], "", ""][:2]
    parser = _Parser(prog="frontload", description=DESCRIPTION, epilog=EPILOG)
    choices = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (
        ("plan", "what would be made, why, and at what price"),
        ("run", "run or resume a study, then write its report"),
        ("status", "what is built, begun or missing"),
        ("report", "write tables, verdicts and report.html of a finished study"),
    ):
        one = choices.add_parser(name, help=text, description=text)
        one.add_argument("study", help="a name under recipes/studies or cluster_studies, or a path")
        _add_store(one)
        one.add_argument("--seeds", type=int, help="number of seeds, as the override seeds=N")
        one.add_argument("--workers", type=int, default=0, help="worker processes; one a core")
        if name in ("run", "report"):
            one.add_argument("--out", type=Path, help="folder of the report; results/STUDY")
        if name == "status":
            one.add_argument("--verify", action="store_true", help="read and compare every byte")
        one.set_defaults(run=_later("frontload.launch.commands", name))
    one = choices.add_parser("explain", help="why this key; where this training sample came from")
    one.add_argument("what", nargs="+", metavar="KEY-OR-LABEL | sample N")
    one.add_argument(
        "--blend",
        help=f"key or label of the blend of `sample N`; {FIRST_PHASE} if not given",
    )
    one.add_argument("--study", help="the study a label belongs to")
    _add_store(one)
    one.set_defaults(run=_later("frontload.launch.explain", "explain"))
    text = "two studies: the same cells with their difference, verdicts, recipes; a page"
    compare = choices.add_parser("compare", help=text, description=text)
    if command == "compare":
        importlib.import_module("frontload.launch.compare").add_arguments(compare)
    _add_launch(choices)
    _add_train(choices)
    _add_rl(choices)
    text = "parameters, FLOPs, memory, time and price of a recipe, and its legal layouts"
    estimate = choices.add_parser("estimate", help=text, description=text)
    if command == "estimate":
        importlib.import_module("frontload.launch.estimate").add_arguments(estimate)
    text = "which GEMMs run in FP8, and how far a precision moves a model, emulated here"
    precision = choices.add_parser("precision", help=text, description=text)
    if command == "precision":
        importlib.import_module("frontload.launch.precision").add_arguments(precision)
    data = choices.add_parser("data", help="preprocess, curate, verify: data from files to tokens")
    if command == "data":  # imported only when asked for: the other commands start faster
        tools = data.add_subparsers(dest="data_command", required=True, metavar="COMMAND")
        importlib.import_module("frontload.data_tools.cli").add_commands(tools, asked=below)
    text = "what this machine has and lacks; with --nodes, which nodes of a job are slow"
    doctor = choices.add_parser("doctor", help=text, description=text)
    if command == "doctor":
        importlib.import_module("frontload.launch.doctor.command").add_arguments(doctor)
    text = "checkpoints to Hugging Face folders and back"
    convert = choices.add_parser("convert", help=text, description=text)
    if command == "convert":
        ways = convert.add_subparsers(dest="convert_command", required=True, metavar="DIRECTION")
        importlib.import_module("frontload.launch.convert").add_commands(ways)
    return parser


def _add_launch(choices: "argparse._SubParsersAction[_Parser]") -> None:
    text = "print or submit a training recipe, or every run of a study, as jobs of a cluster"
    one = choices.add_parser("launch", help=text, description=text)
    one.add_argument(
        "recipe", help="a name under recipes/training or recipes/cluster_studies, or a .yaml path"
    )
    one.add_argument(
        "--placement", help="of a training recipe: a name under recipes/placements, or a path"
    )
    one.add_argument(
        "--only", nargs="+", default=[], metavar="LABEL", help="of a study: these runs, or kinds"
    )
    one.add_argument("--dry-run", action="store_true", help="print the job, start nothing")
    one.add_argument("--model", type=Path, help="Hugging Face folder to start from")
    one.add_argument("--prompts", type=Path, help="parquet of training prompts")
    one.add_argument("--validation", type=Path, help="parquet of validation prompts")
    _add_training_data(one)
    one.add_argument("--chain", type=int, default=1, metavar="N", help="N jobs, one after another")
    one.add_argument("--out", type=Path, help="folder of the run; runs/RECIPE-KEY if not given")
    one.set_defaults(run=_launch)


def _launch(options: argparse.Namespace) -> int:
    """One recipe, or a whole study: what the name says."""
    plan: Any = importlib.import_module("frontload.launch.cluster_plan")
    if plan.is_cluster_study(options.recipe):
        return importlib.import_module("frontload.launch.cluster_submit").launch_study(options)
    return importlib.import_module("frontload.launch.submit").launch(options)


def _add_run(choices: "argparse._SubParsersAction[_Parser]", name: str, text: str) -> _Parser:
    """A command that makes one run of a training recipe in a folder of its own."""
    one = choices.add_parser(name, help=text, description=text)
    one.add_argument("recipe", help="a name under recipes/training, or a path ending in .yaml")
    one.add_argument(
        "--placement", default="cpu", help="a name under recipes/placements, or a path"
    )
    one.add_argument("--out", type=Path, required=True, help="folder of the run")
    one.add_argument("--say-every", type=float, default=10.0, help="seconds between its lines")
    return one


def _add_train(choices: "argparse._SubParsersAction[_Parser]") -> None:
    text = "run one training recipe: alone, or as a rank that torchrun started"
    one = _add_run(choices, "train", text)
    _add_training_data(one)
    one.set_defaults(run=_later("frontload.launch.train", "train"))


def _add_rl(choices: "argparse._SubParsersAction[_Parser]") -> None:
    text = "run one GRPO recipe on this machine's CPU"
    one = _add_run(choices, "rl", text)
    one.add_argument(
        "--model", required=True, help="Hugging Face folder, or a checkpoint: folder, key or label"
    )
    one.add_argument("--tokenizer", type=Path, help="of a checkpoint; its study's if not given")
    for name, text in (("prompts", "to train on"), ("validation", "to validate on")):
        one.add_argument(
            f"--{name}", type=Path, required=True, help=f"parquet or JSON lines {text}"
        )
    _add_store(one)
    one.set_defaults(run=_later("frontload.launch.rl", "reinforce"))


def _add_training_data(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "--blend", type=Path, nargs="+", default=[], help="blend of each phase, in order"
    )
    one.add_argument(
        "--index", type=Path, nargs="+", default=[], help="indexes that the blends were planned on"
    )
    one.add_argument("--pack", type=Path, help="pack of a fine-tuning")
    one.add_argument("--start", type=Path, help="checkpoint to go on from")
    one.add_argument("--until", default="", metavar="PHASE", help="last phase to train")


def _later(module: str, function: str) -> Callable[[argparse.Namespace], int]:
    """A command whose module is imported when it runs: the others start faster."""
    return lambda options: getattr(importlib.import_module(module), function)(options)


def _add_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--store", type=Path, default=Path("store"), help="folder of artifacts")


if __name__ == "__main__":
    sys.exit(main())
