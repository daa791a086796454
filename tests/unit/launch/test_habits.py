"""Habits of a command line: help that lists overrides, version, list, completion, errors, JSON."""

import io
import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from frontload.launch import cli
from frontload.launch.completion import SHELLS
from frontload.launch.listing import KINDS, first_sentence, list_kind, list_lines
from frontload.launch.store import Store, Ticket
from frontload.recipes.command_line import Command, command_parser, find_object
from frontload.recipes.errors import RecipeError
from frontload.recipes.grammar.load import RECIPES
from frontload.recipes.study.expand import load_study

ROOT = Path(__file__).resolve().parents[3]


def all_commands(
    table: Mapping[str, Command], before: tuple[str, ...] = ()
) -> Iterator[tuple[str, Command]]:
    for name, command in table.items():
        if command.below:
            yield from all_commands(find_object(command.below), (*before, name))
        if command.adds:
            yield " ".join((*before, name)), command


COMMANDS = dict(all_commands(cli.COMMANDS))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_every_argument(name: str) -> None:
    parser = command_parser(COMMANDS[name], prog=f"frontload {name}")
    assert parser.description
    assert callable(parser.get_default("run"))
    for action in parser.arguments:
        assert action.help, action.option_strings or action.dest
    assert ("PATH=VALUE" in parser.format_help()) == bool(COMMANDS[name].overrides)


@pytest.mark.parametrize("name", ["plan", "run", "status", "report", "train", "rl", "launch",
                                  "explain", "estimate", "precision", "data blend",
                                  "data curate", "eval"])  # fmt: skip
def test_what_takes_overrides_says_so(name: str) -> None:
    assert COMMANDS[name].overrides


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("plan", ["plan", "laptop", "-v"]),
        ("status", ["status", "smoke"]),
        ("explain", ["explain", "sft/base+ldq-x1", "--study", "smoke"]),
        ("launch", ["launch", "sft_8b", "--placement", "paper_tp8pp8", "--dry-run", "--start", "/a",
                    "--pack", "/b"]),
        ("estimate", ["estimate", "sft_8b", "--placement", "slurm"]),
        ("precision", ["precision", "hybrid_1b"]),
        ("data blend", ["data", "blend", "paper_80_20_ldq", "--plan-only"]),
    ],
)  # fmt: skip
def test_the_overrides_shown_in_help_are_taken(
    command: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 0, capsys.readouterr().err
    plain = capsys.readouterr().out
    assert cli.main([*words, *COMMANDS[command].overrides.split()]) == 0, capsys.readouterr().err
    assert capsys.readouterr().out != plain


# ---------------------------------------------------------------- version, list


def test_version_names_what_a_report_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    first, *others = capsys.readouterr().out.splitlines()
    head = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert first.startswith("frontload 0.")
    assert (head.stdout.strip() or "no git checkout") in first
    named = {line.split()[0]: line.split()[1] for line in others}
    assert named["python"].startswith("3.12")
    assert named["torch"][0].isdigit()
    assert named["megatron-core"] == "0.19.2"


def test_list_names_everything_that_ships(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    listed = {row["path"] for row in rows if row["path"]}
    nameless = {"blend_sources"}  # read by name in a blend, not on the command line
    files = {
        str(path)
        for path in RECIPES.rglob("*.yaml")
        if path.relative_to(RECIPES).parts[0] not in nameless
    }
    assert listed == files
    assert {"base", "sft", "rl"} == {row["name"] for row in rows if row["kind"] == "suites"}


@pytest.mark.parametrize("kind", KINDS)
def test_everything_listed_has_a_line(kind: str) -> None:
    for row in list_kind(kind):
        assert 3 < len(row.text) < 160, f"{row.name}: the first sentence of its comment"


def test_the_first_sentence_ends_at_a_full_stop_alone(tmp_path: Path) -> None:
    path = tmp_path / "one.yaml"
    path.write_text("# Sizes of v2.5 (1.2 B)\n# are ours. Not this.\nname: x\n# nor this\n")
    assert first_sentence(path) == "Sizes of v2.5 (1.2 B) are ours"


def test_list_is_filtered_and_wrapped(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "placements", "suites"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line and not line.startswith(" ")] == ["placements", "suites"]
    narrow = list_lines(list_kind("studies"), width=60)
    assert max(map(len, narrow)) <= 60
    assert len(narrow) > 1 + len(list_kind("studies"))
    assert cli.main(["list", "modles"]) == 2
    assert "write 'models'" in capsys.readouterr().err


# ---------------------------------------------------------------- completion

LINES = {
    "frontload pl": ["plan"],
    "frontload plan lapt": ["laptop"],
    "frontload plan --s": ["--seeds", "--store"],
    "frontload data pac": ["pack"],
    "frontload data pack --seq": ["--sequence-tokens"],
    "frontload eval data --fr": ["--from"],
    "frontload eval my_model --su": ["--suite"],
    "frontload train sft_tiny --placement o": ["one_gpu", "one_gpu_proxy", "one_node"],
    "frontload convert ": ["from-hf", "to-hf"],
    "frontload train sft_tiny --out ": [],  # a path: the shell completes files
}
DRIVERS = {
    "bash": "source {script}; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}}-1)); "
    '_frontload; echo "${{COMPREPLY[*]}}"',
    "zsh": "compdef() {{}}; source {script}; _files() {{}}; words=({words}); CURRENT=$#words; "
    'PREFIX="$words[-1]"; compadd() {{ print -rl -- "${{(@P)2}}" | grep "^$PREFIX"; }}; _frontload',
    "fish": "source {script}; complete -C {line}",
}


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_works_in_the_shell_itself(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not on this machine")
    script = tmp_path / "script"
    script.write_text(SHELLS[shell]())
    for line, expected in LINES.items():
        words = shlex.join(line.split(" "))
        driver = DRIVERS[shell].format(script=script, words=words, line=shlex.quote(line))
        plain = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
        done = subprocess.run(
            [shell, *plain, "-c", driver], capture_output=True, text=True, check=False, cwd=tmp_path
        )
        found = [word for word in done.stdout.split() if word != "script"]
        assert sorted(found) == expected, f"{line}: {done.stderr}"


def test_completion_prints_the_script(capsys: pytest.CaptureFixture[str]) -> None:
    for shell, script in SHELLS.items():
        assert cli.main(["completion", shell]) == 0
        assert capsys.readouterr().out == script()
    assert cli.main(["completion", "csh"]) == 2
    assert "it is one of bash, zsh, fish" in capsys.readouterr().err


# ---------------------------------------------------------------- errors


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


ERROR = RecipeError(
    "study 'laptpo'", found="no such file; none", rule="a study is " + "x, " * 40, do="write it"
)


def test_a_terminal_gets_four_labelled_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    stream = Terminal()
    cli.print_error(ERROR, stream, as_json=False)
    lines = stream.getvalue().splitlines()
    starts = [line.split(":")[0] for line in lines if not line.startswith(" ")]
    assert starts == ["asked", "found", "rule", "do"]
    assert max(map(len, lines)) <= 60
    assert "found: no such file; none" in lines


def test_a_log_gets_one_line() -> None:
    stream = io.StringIO()
    cli.print_error(ERROR, stream, as_json=False)
    assert stream.getvalue() == f"frontload: {ERROR}\n"


def test_with_json_the_error_is_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["estimate", "hybrid_8", "--placement", "slurm", "--json"]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert set(json.loads(err)["error"]) == {"asked", "found", "rule", "do"}


def test_a_name_far_from_all_is_not_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["nothing"]) == 2
    message = capsys.readouterr().err
    assert "write 'train'" not in message
    assert "`frontload --help`" in message


# ---------------------------------------------------------------- explain --json


def test_explain_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study = load_study("smoke")
    corpus = next(stage for stage in study.stages if stage.kind == "synthesize")
    assert cli.main(["explain", corpus.key, "--study", "smoke", "--json"]) == 0
    before = json.loads(capsys.readouterr().out)
    assert (before["folder"], before["state"]) == (None, "ready")
    assert before["payload"] == json.loads(json.dumps(corpus.payload()))
    assert before["price"]["seconds"] > 0
    store = Store(tmp_path / "store")
    (store.workspace(Ticket.of(corpus)) / "path").mkdir(parents=True)
    store.publish(Ticket.of(corpus))
    assert cli.main(["explain", corpus.key, "--json"]) == 0
    built = json.loads(capsys.readouterr().out)
    assert built["folder"] == os.path.join("store", corpus.folder)
    assert built["state"] == "built"
    assert built["payload"] == before["payload"]
    assert built["made_on"] is not None
