"""The command `completion`: shell scripts that complete commands, flags and names of recipes.

The scripts hold every word: a shell that completes starts no Python. Print them again after an
update.
"""

import argparse
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from frontload.launch.cli import COMMANDS, PROGRAM
from frontload.recipes.command_line import Command, command_parser, find_object
from frontload.recipes.grammar.load import recipe_names
from frontload.recipes.machines.precision import PRECISIONS

NAMED: Mapping[str, tuple[str, ...]] = {
    "placement": ("placements",),
    "study": ("studies",),
    "suite": ("suites",),
}
"""Flags whose value is the name of a recipe, and the folders of those names."""


@dataclass(frozen=True, kw_only=True)
class Completed:
    """What may follow the words of one command."""

    words: tuple[str, ...]  # the command, e.g. ("data", "pack")
    flags: tuple[str, ...]
    values: Mapping[str, tuple[str, ...]]  # flag -> its values; a flag of other values has none
    valued: tuple[str, ...]  # flags that take a value: after one, a file may follow
    names: tuple[str, ...]  # what its first argument may be, besides a file


def add_arguments(one: argparse.ArgumentParser) -> None:
    """The arguments of `frontload completion`."""
    one.add_argument("shell", choices=tuple(SHELLS), metavar="SHELL", help=" or ".join(SHELLS))
    one.epilog = (
        'bash: eval "$(frontload completion bash)" in ~/.bashrc; '
        "zsh: frontload completion zsh > a folder of $fpath/_frontload; "
        "fish: frontload completion fish > ~/.config/fish/completions/frontload.fish"
    )
    one.set_defaults(run=print_script)


def print_script(options: argparse.Namespace) -> int:
    """Prints the script of a shell."""
    print(SHELLS[options.shell](), end="")
    return 0


def completed_commands() -> list[Completed]:
    """Every command and family, with what may follow it."""
    return [
        Completed(
            words=(), flags=("--help", "--version"), values={}, valued=(), names=tuple(COMMANDS)
        ),
        *_below((), COMMANDS),
    ]


def _below(words: tuple[str, ...], table: Mapping[str, Command]) -> Iterator[Completed]:
    for name, command in table.items():
        path = (*words, name)
        if command.below:
            below: Mapping[str, Command] = find_object(command.below)
            alone = Completed(words=path, flags=("--help",), values={}, valued=(), names=())
            own = _of_command(path, command) if command.adds else alone
            yield replace(own, names=(*own.names, *below))
            yield from _below(path, below)
        else:
            yield _of_command(path, command)


def _of_command(words: tuple[str, ...], command: Command) -> Completed:
    parser = command_parser(command, prog=" ".join((PROGRAM, *words)))
    flags = [flag for flag in parser.flags if flag.startswith("--")]
    values = {flag: found for flag in flags if (found := _values(parser.flags[flag]))}
    names = [name for folder in command.names for name in recipe_names(folder)]
    names += [str(one) for action in parser.positionals for one in action.choices or ()]
    return Completed(
        words=words,
        flags=tuple(sorted(flags)),
        values=values,
        valued=tuple(sorted(flag for flag in flags if parser.flags[flag].nargs != 0)),
        names=tuple(sorted(names)),
    )


def _values(action: argparse.Action) -> tuple[str, ...]:
    """What a flag may be followed by, where that is a list."""
    if action.choices is not None:
        return tuple(map(str, action.choices))
    if action.dest == "precision":
        return tuple(PRECISIONS)
    return tuple(name for folder in NAMED.get(action.dest, ()) for name in recipe_names(folder))


def _tables() -> list[tuple[str, dict[str, str]]]:
    """What is looked up, in this order: the expression, and its cases with the words they give.

    A flag with values of any kind gives no words: the shell completes files there.
    """
    commands = completed_commands()
    after = {
        f"{' '.join(one.words)}:{flag}": " ".join(one.values.get(flag, ()))
        for one in commands
        for flag in one.valued
    }
    flags = {" ".join(one.words): " ".join(one.flags) for one in commands}
    names = {" ".join(one.words): " ".join(one.names) for one in commands if one.names}
    return [("after", after), ("flags", flags), ("names", names)]


def bash_script() -> str:
    """For bash."""
    return _posix_words() + _with_pairs(_BASH, between="|")


def zsh_script() -> str:
    """For zsh: to be sourced, or a file of $fpath."""
    return "#compdef frontload\n" + _posix_words() + _with_pairs(_ZSH, between="|")


def fish_script() -> str:
    """For fish."""
    lines = ["# Completion of frontload for fish.", "function __frontload_words"]
    for name, cases in _tables():
        lines.append(f"    if {_FISH_TESTS[name]}")
        lines.append(f"        switch {_FISH_KEYS[name]}")
        for key, words in cases.items():
            lines.append(f"            case {shlex.quote(key)}")
            lines += [f"                string split ' ' -- {shlex.quote(words)}"] if words else []
            lines += ["                return"]
        lines += ["        end", *(["        return"] if name == "flags" else []), "    end"]
    return "\n".join([*lines, "end"]) + _with_pairs(_FISH, between=" ")


def _posix_words() -> str:
    """A function of bash and zsh that prints what may follow: command, last word, word begun."""
    lines = ["# Completion of frontload.", "__frontload_words() {"]
    for name, cases in _tables():
        lines.append(f"    case {_POSIX_KEYS[name]} in")
        for key, words in cases.items():
            say = f"echo {shlex.quote(words)}; " if words else ""
            lines.append(f"        {_POSIX_CASES[name].format(shlex.quote(key))}) {say}return ;;")
        lines.append("    esac")
    return "\n".join([*lines, "}"])


_POSIX_KEYS = {"after": '"$1:$2"', "flags": '"$1:$3"', "names": '"$1"'}
_POSIX_CASES = {"after": "{}", "flags": "{}:-*", "names": "{}"}
_FISH_TESTS = {"after": "true", "flags": "string match -q -- '-*' $argv[3]", "names": "true"}
_FISH_KEYS = {"after": '"$argv[1]:$argv[2]"', "flags": '"$argv[1]"', "names": '"$argv[1]"'}
_PAIRS = "@PAIRS@"  # commands of two words, quoted


def _with_pairs(text: str, *, between: str) -> str:
    """The text with the commands of two words in it: `eval data` is one, `eval FOLDER` is none."""
    pairs = [" ".join(one.words) for one in completed_commands() if len(one.words) > 1]
    return text.replace(_PAIRS, between.join(map(shlex.quote, pairs)))


_BASH = f"""
_frontload() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}" command=""
    if [ "$COMP_CWORD" -gt 1 ]; then
        command="${{COMP_WORDS[1]}}"
        if [ "$COMP_CWORD" -gt 2 ]; then
            case "$command ${{COMP_WORDS[2]}}" in
                {_PAIRS}) command="$command ${{COMP_WORDS[2]}}" ;;
            esac
        fi
    fi
    local IFS=$' \t\n'
    COMPREPLY=($(compgen -W "$(__frontload_words "$command" "$previous" "$current")" -- "$current"))
}}
complete -o default -F _frontload frontload
"""

_ZSH = f"""
_frontload() {{
    local command="" previous="$words[CURRENT-1]"
    if (( CURRENT > 2 )); then
        command="$words[2]"
        if (( CURRENT > 3 )); then
            case "$command $words[3]" in
                {_PAIRS}) command="$command $words[3]" ;;
            esac
        fi
    fi
    local -a found
    found=(${{=$(__frontload_words "$command" "$previous" "$PREFIX")}})
    compadd -a found || _files
}}
if [[ "$funcstack[1]" == _frontload ]]; then _frontload "$@"; else compdef _frontload frontload; fi
"""

_FISH = f"""

function __frontload_complete
    set -l done (commandline -opc)
    set -l current (commandline -ct)
    set -l command
    if test (count $done) -gt 1
        set command $done[2]
        if test (count $done) -gt 2; and contains -- "$done[2] $done[3]" {_PAIRS}
            set command "$done[2] $done[3]"
        end
    end
    set -l found (__frontload_words "$command" $done[-1] "$current" | string match -- "$current*")
    if test (count $found) -gt 0
        printf '%s\\n' $found
    else
        __fish_complete_path "$current"
    end
end
complete -c frontload -f -a '(__frontload_complete)'
"""

SHELLS: Mapping[str, Callable[[], str]] = {
    "bash": bash_script,
    "zsh": zsh_script,
    "fish": fish_script,
}
