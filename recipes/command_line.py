"""The grammar of the command line: a table of commands, whole flags, and PATH=VALUE overrides.

No command is here: `launch/cli.py` and `data_tools/cli.py` hold the tables.
"""

import argparse
import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, NoReturn

from frontload.recipes.errors import RecipeError
from frontload.recipes.grammar.load import nearest

OVERRIDES = "overrides"
OVERRIDES_HELP = "overrides of single values, anywhere in the line, e.g. "
NUMBER = re.compile(r"-(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
HELP = ("-h", "--help")
SEVERAL = ("*", "+")


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command, or a family of them. Its module is imported only when it is typed."""

    text: str  # its line in --help
    adds: str = ""  # "module:function": adds the arguments, and the default `run`
    below: str = ""  # "module:TABLE" of a family; with `adds`, of commands beside its own
    overrides: str = ""  # one example of each sort that it takes; "" = it takes none
    names: tuple[str, ...] = ()  # folders of recipes whose names its first argument may be


class Parser(argparse.ArgumentParser):
    """The parser of one command: no flag is abbreviated, and every error has four parts."""

    def __init__(self, **settings: Any) -> None:
        self.arguments: list[argparse.Action] = []
        super().__init__(**settings)

    def add_argument(self, *names: Any, **settings: Any) -> argparse.Action:
        """As argparse has it; the argument is also kept in `arguments`."""
        action = super().add_argument(*names, **settings)
        self.arguments.append(action)
        return action

    def error(self, message: str) -> NoReturn:
        raise RecipeError(
            self.place or "command line",
            found=message,
            rule=f"arguments are those of `{self.prog} --help`",
            do="write the argument as the help shows it",
        )

    @property
    def place(self) -> str:
        """The command without the program's name, which every message begins with."""
        return self.prog.partition(" ")[2]

    @property
    def flags(self) -> dict[str, argparse.Action]:
        """Every flag of the command, by each way to write it."""
        return {flag: action for action in self.arguments for flag in action.option_strings}

    @property
    def positionals(self) -> list[argparse.Action]:
        """Arguments without a flag, in order, without the overrides."""
        plain = [action for action in self.arguments if not action.option_strings]
        return [action for action in plain if action.dest != OVERRIDES]

    def read(self, words: Sequence[str]) -> argparse.Namespace:
        """The values of the arguments. Overrides are taken out wherever they stand.

        Raises: RecipeError for a word that the command does not take, and for one that is missing.
        """
        sorted_words = _Words(self, words)
        if any(flag in HELP for flag in sorted_words.flags):
            self.print_help()
            raise SystemExit(0)
        self._check_flags(sorted_words)
        self._check_positionals(sorted_words)
        options = self.parse_args([*sorted_words.others, *sorted_words.behind])
        options.command, options.overrides = self.place, sorted_words.overrides
        return options

    def _check_flags(self, words: "_Words") -> None:
        for word in words.flags:
            if word not in self.flags:
                raise self._unknown(word, list(self.flags))
        for flag, value in words.values:
            self._check_choice(flag, value, self.flags[flag])

    def _check_positionals(self, words: "_Words") -> None:
        allowed = self.positionals
        if len(allowed) == 1:
            for word in words.positionals:
                self._check_choice(_metavar(allowed[0]), word, allowed[0])
        least = sum(action.nargs in (None, "+") for action in allowed)
        takes_several = any(action.nargs in SEVERAL for action in allowed)
        if len(words.positionals) > len(allowed) and not takes_several:
            raise self._unknown(words.positionals[len(allowed)], list(self.flags))
        missing = [
            f"{action.option_strings[-1]} {_metavar(action)}"
            for action in self.arguments
            if action.required and action.option_strings
            if not set(action.option_strings) & set(words.flags)
        ]
        missing += [_metavar(action) for action in allowed[len(words.positionals) : least]]
        if missing:
            raise RecipeError(
                self.place or "command line",
                found="no " + ", no ".join(missing),
                rule=f"`{self.prog} --help` says what it takes, `frontload list` what there is",
                do="add " + " and ".join(missing),
            )

    def _check_choice(self, name: str, value: str, action: argparse.Action) -> None:
        choices = [str(choice) for choice in action.choices or ()]
        if choices and value not in choices:
            raise RecipeError(
                f"{self.place} {name}",
                found=f"'{value}'",
                rule="it is one of " + ", ".join(choices),
                do=nearest(value, choices),
            )

    def _unknown(self, word: str, flags: Sequence[str]) -> RecipeError:
        name = word.partition("=")[0]
        is_flag = name.startswith("-")
        begun = [flag for flag in flags if flag.startswith(name)] if is_flag else []
        close = begun or (get_close_matches(name, flags, n=1) if is_flag else [])
        see = f"see `{self.prog} --help`" if is_flag else "leave it out"
        return RecipeError(
            f"{self.place} {word}".strip(),
            found=f"'{word}' is not understood",
            rule=f"arguments are those of `{self.prog} --help`, each written out",
            do="write " + " or ".join(f"'{flag}'" for flag in close) if close else see,
        )


class _Words:
    """The words of a command line by what they are, for the flags of one parser."""

    def __init__(self, parser: Parser, words: Sequence[str]) -> None:
        self.flags: list[str] = []
        self.values: list[tuple[str, str]] = []  # flag and value
        self.positionals: list[str] = []
        self.overrides: list[str] = []
        self.others: list[str] = []  # all but the overrides, in order
        self.behind: list[str] = []  # "--" and what follows it
        self._known = parser.flags
        self._takes_overrides = any(action.dest == OVERRIDES for action in parser.arguments)
        rest = list(words)
        while rest:
            rest = self._take(rest)

    def _take(self, rest: list[str]) -> list[str]:
        """Sorts the first word, with the values of a flag; returns the words after them."""
        word, rest = rest[0], rest[1:]
        if word == "--":
            self.behind = [word, *rest]
            self.positionals += rest
            return []
        if not _is_flag(word):
            self._take_plain(word)
            return rest
        self.others.append(word)
        flag, equals, value = word.partition("=")
        self.flags.append(flag)
        action = self._known.get(flag)
        if action is None:
            return rest
        if equals:
            self.values.append((flag, value))
            return rest
        count = self._count_values(action, rest)
        self.values += [(flag, value) for value in rest[:count]]
        self.others += rest[:count]
        return rest[count:]

    def _take_plain(self, word: str) -> None:
        if self._takes_overrides and "=" in word:
            self.overrides.append(word)
        else:
            self.positionals.append(word)
            self.others.append(word)

    def _count_values(self, action: argparse.Action, rest: Sequence[str]) -> int:
        """How many of the next words are the flag's. A list of values ends before an override,
        unless its own values are written NAME=VALUE."""
        most = len(rest) if action.nargs in SEVERAL else _num_values(action)
        has_pairs = "=" in str(action.metavar)
        for place, word in enumerate(rest[:most]):
            is_override = self._takes_overrides and "=" in word and not has_pairs
            if _is_flag(word) or word == "--" or (action.nargs in SEVERAL and is_override):
                return place
        return min(most, len(rest))


def read_command(
    words: Sequence[str], commands: Mapping[str, Command], *, prog: str, help_parser: Parser
) -> argparse.Namespace:
    """The arguments of the command that the words begin with; `run` in them carries it out.

    Raises: RecipeError for an unknown command, flag or word, and for a missing one.
    """
    name = words[0] if words else ""
    if name in HELP:
        help_parser.print_help()
        raise SystemExit(0)
    if name not in commands:
        raise _not_a_command(name, commands, prog=prog)
    command, prog = commands[name], f"{prog} {name}"
    if command.below and (not command.adds or words[1:2]):
        table = find_object(command.below)
        if command.adds and words[1] not in table:  # its first argument is a name of its own
            return command_parser(command, prog=prog).read(words[1:])
        family = family_parser(table, prog=prog, description=command.text)
        return read_command(words[1:], table, prog=prog, help_parser=family)
    return command_parser(command, prog=prog).read(words[1:])


def command_parser(command: Command, *, prog: str) -> Parser:
    """The parser of one command, with the arguments that its module adds."""
    parser = Parser(prog=prog, description=command.text)
    find_object(command.adds)(parser)
    if command.below:
        others = [
            f"`{prog} {name}`: {one.text}" for name, one in find_object(command.below).items()
        ]
        parser.epilog = "also: " + "; ".join(others)
    if command.overrides:
        text = OVERRIDES_HELP + command.overrides
        parser.add_argument(OVERRIDES, nargs="*", default=[], metavar="PATH=VALUE", help=text)
    return parser


def family_parser(
    commands: Mapping[str, Command], *, prog: str, description: str, epilog: str = ""
) -> Parser:
    """A parser for the help of a table of commands: one line each."""
    width = max(map(len, commands))
    lines = ["commands:", *(f"  {name:{width}}  {one.text}" for name, one in commands.items())]
    lines += ["", f"`{prog} COMMAND --help` says what one takes.", *([epilog] if epilog else [])]
    return Parser(
        prog=prog,
        usage=f"{prog} [-h] COMMAND ...",
        description=description,
        epilog="\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def find_object(place: str) -> Any:
    """What "module:name" names, imported now."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def _not_a_command(name: str, commands: Mapping[str, Command], *, prog: str) -> RecipeError:
    place = prog.partition(" ")[2]
    if not name:
        return RecipeError(
            place or "command line",
            found="no COMMAND",
            rule="commands are " + ", ".join(commands),
            do=f"write `{prog} COMMAND`; `{prog} --help` says what each does",
        )
    close = get_close_matches(name, list(commands), n=1)
    return RecipeError(
        f"{place} {name}".strip(),
        found=f"'{name}' is not a command",
        rule="commands are " + ", ".join(commands),
        do=f"write '{close[0]}'" if close else f"`{prog} --help` says what each does",
    )


def _is_flag(word: str) -> bool:
    return word.startswith("-") and word not in ("-", "--") and not NUMBER.fullmatch(word)


def _num_values(action: argparse.Action) -> int:
    """Words that a flag of a fixed number takes."""
    if isinstance(action.nargs, int):
        return action.nargs
    return 1


def _metavar(action: argparse.Action) -> str:
    """How the help writes the value of an argument."""
    if isinstance(action.metavar, str):
        return action.metavar
    return action.dest.upper()
