"""The grammar of the command line: overrides anywhere, whole flags, what is missing or too much."""

import argparse

import pytest

from frontload.recipes.command_line import (
    Command,
    Parser,
    command_parser,
    family_parser,
    read_command,
)
from frontload.recipes.errors import RecipeError

HERE = "tests.unit.recipes.test_command_line"


def add_sample(one: argparse.ArgumentParser) -> None:
    """A study, a folder, a count, a list, a list of pairs, a choice, a switch."""
    one.add_argument("study", metavar="STUDY")
    one.add_argument("--out")
    one.add_argument("--count", type=int)
    one.add_argument("--blend", nargs="+", default=[])
    one.add_argument("--index", nargs="+", default=[], metavar="NAME=PREFIX")
    one.add_argument("--part", choices=("first", "second"))
    one.add_argument("--dry-run", action="store_true")
    one.set_defaults(run=lambda options: 0)


def add_needy(one: argparse.ArgumentParser) -> None:
    """Several files, and a flag that must be there."""
    one.add_argument("files", nargs="+", metavar="FILE")
    one.add_argument("--out", required=True)


def add_kinds(one: argparse.ArgumentParser) -> None:
    """Some of a few words, as `list` has them."""
    one.add_argument("kinds", nargs="*", choices=("models", "studies"), metavar="KIND")


def add_paths(one: argparse.ArgumentParser) -> None:
    """One of a few words, then files."""
    one.add_argument("kind", choices=("models", "studies"))
    one.add_argument("files", nargs="+")


SAMPLE = Command(
    text="sample",
    adds=f"{HERE}:add_sample",
    overrides="sft.learning_rate=1.0e-5",
)
PLAIN = Command(text="plain", adds=f"{HERE}:add_sample")
NEEDY = Command(text="needy", adds=f"{HERE}:add_needy")
INNER = {"pack": NEEDY}
TABLE = {
    "sample": SAMPLE,
    "plain": PLAIN,
    "needy": NEEDY,
    "kinds": Command(text="kinds", adds=f"{HERE}:add_kinds"),
    "paths": Command(text="paths", adds=f"{HERE}:add_paths"),
    "data": Command(text="family", below=f"{HERE}:INNER"),
}


def read(*words: str) -> argparse.Namespace:
    return read_command(words, TABLE, prog="tool", help_parser=Parser(prog="tool"))


def refusal(*words: str) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        read(*words)
    return caught.value


@pytest.mark.parametrize(
    "words",
    [
        ("a.b=1", "smoke", "--count", "-3", "c=2"),
        ("--count", "-3", "a.b=1", "c=2", "smoke"),
        ("smoke", "--count=-3", "a.b=1", "--dry-run", "c=2"),
    ],
)
def test_overrides_stand_anywhere_and_keep_their_order(words: tuple[str, ...]) -> None:
    options = read("sample", *words)
    assert (options.study, options.count, options.overrides) == ("smoke", -3, ["a.b=1", "c=2"])
    assert options.command == "sample"


def test_the_value_of_a_flag_is_never_an_override() -> None:
    options = read("sample", "smoke", "--out", "runs/lr=3", "a=1")
    assert (options.out, options.overrides) == ("runs/lr=3", ["a=1"])


def test_a_list_of_values_ends_before_an_override() -> None:
    options = read("sample", "--blend", "one", "two", "a=1", "--dry-run", "smoke")
    assert (options.blend, options.overrides, options.study) == (["one", "two"], ["a=1"], "smoke")
    assert options.dry_run


def test_a_list_of_pairs_keeps_its_pairs() -> None:
    options = read("sample", "smoke", "a=1", "--index", "base=x", "ldq=y")
    assert (options.index, options.overrides) == (["base=x", "ldq=y"], ["a=1"])


def test_a_command_without_overrides_takes_the_word_as_it_is() -> None:
    options = read("plain", "a=1")
    assert (options.study, options.overrides) == ("a=1", [])


def test_words_behind_two_dashes_are_no_flags() -> None:
    assert read("plain", "--out", "x", "--", "--strange").study == "--strange"


@pytest.mark.parametrize(
    ("words", "asked", "do"),
    [
        (("sampel",), "sampel", "write 'sample'"),
        (("nothing",), "nothing", "`tool --help`"),
        ((), "command line", "`tool COMMAND`"),
        (("data",), "data", "`tool data COMMAND`"),
        (("data", "pak"), "data pak", "write 'pack'"),
        (("sample",), "sample", "add STUDY"),
        (("needy", "x"), "needy", "add --out OUT"),
        (("needy", "--out", "x"), "needy", "add FILE"),
        (("data", "pack"), "data pack", "add --out OUT and FILE"),
        (("sample", "smoke", "--dry"), "sample --dry", "write '--dry-run'"),
        (("sample", "smoke", "--cuont=1"), "sample --cuont", "write '--count'"),
        (("sample", "smoke", "--xyz"), "sample --xyz", "see `tool sample --help`"),
        (("sample", "smoke", "more"), "sample more", "leave it out"),
        (("sample", "smoke", "--part", "frist"), "sample --part", "write 'first'"),
        (("sample", "smoke", "--part=third"), "sample --part", "write one of first, second"),
        (("sample", "smoke", "--out"), "sample", "as the help shows it"),
        (("sample", "smoke", "--count", "three"), "sample", "as the help shows it"),
    ],
)
def test_a_wrong_word_is_answered_with_what_to_write(
    words: tuple[str, ...], asked: str, do: str
) -> None:
    error = refusal(*words)
    assert error.asked == asked
    assert do in error.do


def test_words_of_a_few_are_checked_and_others_are_not() -> None:
    assert read("kinds", "models", "studies").kinds == ["models", "studies"]
    assert read("paths", "models", "a", "b", "c").files == ["a", "b", "c"]
    assert "write 'studies'" in refusal("kinds", "models", "studys").do


def test_a_flag_is_not_the_value_of_the_flag_before_it() -> None:
    assert "expected one argument" in refusal("sample", "smoke", "--out", "--dry-run").found
    assert "expected one argument" in refusal("sample", "--out", "--", "smoke").found


def test_the_help_of_a_family_lists_its_commands_and_ends_with_its_last_word() -> None:
    text = family_parser(TABLE, prog="tool", description="x", epilog="Begin here.").format_help()
    assert "  plain   plain\n" in text
    assert text.rstrip().endswith("Begin here.")
    assert (
        family_parser(INNER, prog="tool data", description="x")
        .format_help()
        .rstrip()
        .endswith("`tool data COMMAND --help` says what one takes.")
    )


def test_help_says_what_an_override_is() -> None:
    text = command_parser(SAMPLE, prog="tool sample").format_help()
    assert "PATH=VALUE" in text
    assert "sft.learning_rate=1.0e-5" in text
    assert "PATH=VALUE" not in command_parser(PLAIN, prog="tool plain").format_help()


def test_help_is_printed_before_anything_is_missed(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (("needy", "-h"), ("data", "pack", "--help"), ("--help",), ("data", "-h")):
        with pytest.raises(SystemExit) as caught:
            read(*words)
        assert caught.value.code == 0
        assert "usage: tool" in capsys.readouterr().out
