"""YAML to recipes: conversion by declared type, one parent, overrides, errors with places."""

import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from frontload.recipes.errors import RecipeError
from frontload.recipes.grammar.load import load_recipe
from frontload.recipes.grammar.tree import compose
from frontload.recipes.machines.placement import Placement
from frontload.recipes.runs.blend import BlendRecipe
from frontload.recipes.runs.curation import Curation
from frontload.recipes.study.schema import StudyRecipe


@dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float
    steps: int
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    is_on: bool
    inner: Inner
    shares: dict[str, float] = field(default_factory=dict)
    limit: int | None = None


GOOD = """\
name: first
is_on: true
inner:
  rate: 3.0e-4
  steps: 1_000_000
  tags: [a, b]
shares: {x: 0.5, y: 0.5}
"""


def write(folder: Path, text: str, name: str = "one.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def refusal(path: Path, *overrides: str) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, Outer, overrides=overrides)
    return caught.value


def test_values_get_their_declared_type(tmp_path: Path) -> None:
    value = load_recipe(write(tmp_path, GOOD), Outer).value
    assert value == Outer(
        name="first",
        is_on=True,
        inner=Inner(rate=3e-4, steps=1_000_000, tags=("a", "b")),
        shares={"x": 0.5, "y": 0.5},
    )


@pytest.mark.parametrize(
    ("written", "meant"),
    [("3e-4", 3e-4), ("1e12", 1e12), ("5", 5.0), ("-0.5", -0.5), ("1_0.5", 10.5)],
)
def test_a_float_is_a_float_however_yaml_reads_it(
    tmp_path: Path, written: str, meant: float
) -> None:
    found = load_recipe(write(tmp_path, GOOD.replace("3.0e-4", written)), Outer).value.inner.rate
    assert found == meant
    assert isinstance(found, float)


@pytest.mark.parametrize(
    ("key", "old", "new", "do"),
    [
        ("inner.steps", "1_000_000", "1e12", "1_000_000_000_000"),
        ("inner.steps", "1_000_000", "1:30", "digits"),
        ("inner.steps", "1_000_000", "0777", "digits"),
        ("inner.steps", "1_000_000", "1.5", "digits"),
        ("inner.steps", "1_000_000", '"7"', "quotes"),
        ("inner.steps", "1_000_000", "[7]", "value"),
        ("inner.steps", "1_000_000", "", "digits"),
        ("inner.rate", "3.0e-4", ".nan", "3.0e-4"),
        ("inner.rate", "3.0e-4", "fast", "3.0e-4"),
        ("is_on", "true", "on", "true or false"),
        ("is_on", "true", "yes", "true or false"),
        ("is_on", "true", "1", "true or false"),
        ("name", "first", "on", '"on" in quotes'),
        ("name", "first", "1.10", '"1.10" in quotes'),
        ("inner.tags", "[a, b]", "a", "value"),
        ("shares.x", "{x: 0.5, y: 0.5}", "{x: half}", "0.05"),
    ],
)
def test_what_is_not_exactly_the_type_is_refused_with_its_line(
    tmp_path: Path, key: str, old: str, new: str, do: str
) -> None:
    text = GOOD.replace(old, new)
    error = refusal(write(tmp_path, text))
    leaf = key.split(".")[0] if key == "shares.x" else key.split(".")[-1]
    line = 1 + next(i for i, row in enumerate(text.splitlines()) if row.strip().startswith(leaf))
    assert f"one.yaml:{line}: {key}" in error.asked
    assert do in error.do
    assert error.exit_code == 2


def test_an_unknown_key_names_the_nearest_one(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, GOOD.replace("  rate:", "  rat:")))
    assert "one.yaml:4: inner.rat" in error.asked
    assert error.do == "write 'rate'"


def test_a_missing_key_names_the_section_it_belongs_to(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, GOOD.replace("  rate: 3.0e-4\n", "")))
    assert "one.yaml:3: inner.rate" in error.asked
    assert error.found == "missing"


def test_a_key_set_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, GOOD + "is_on: false\n"))
    assert "one.yaml:8" in error.asked
    assert "one.yaml:2" in error.found


def test_text_that_is_not_yaml_is_refused_with_its_line(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, "name: [a\nis_on: true\n"))
    assert "one.yaml:2" in error.asked


def test_an_optional_value_may_be_null_or_left_out(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD + "limit: null\n")
    assert load_recipe(path, Outer).value.limit is None
    assert load_recipe(path, Outer, overrides=["limit=3"]).value.limit == 3


# ---------------------------------------------------------------- parents


def test_a_child_changes_keys_of_sections_and_replaces_lists_and_free_mappings(
    tmp_path: Path,
) -> None:
    write(tmp_path, GOOD)
    child = "extends: one\ninner: {steps: 5, tags: [c]}\nshares: {z: 1.0}\n"
    value = load_recipe(write(tmp_path, child, "two.yaml"), Outer).value
    assert value.inner == Inner(rate=3e-4, steps=5, tags=("c",))
    assert value.shares == {"z": 1.0}
    assert value.name == "first"


def test_an_error_in_the_parent_names_the_parents_file(tmp_path: Path) -> None:
    write(tmp_path, GOOD.replace("1_000_000", "many"))
    error = refusal(write(tmp_path, "extends: one\nis_on: false\n", "two.yaml"))
    assert "one.yaml:5: inner.steps" in error.asked


def test_an_unknown_parent_names_the_nearest_one(tmp_path: Path) -> None:
    write(tmp_path, GOOD, "laptop_like.yaml")
    error = refusal(write(tmp_path, "extends: laptop_lik\n", "two.yaml"))
    assert "two.yaml:1: extends" in error.asked
    assert "laptop_like" in error.do


def test_a_parent_that_ships_is_suggested_too(tmp_path: Path) -> None:
    path = write(tmp_path, "extends: laptop.yaml\n", "mine.yaml")
    with pytest.raises(RecipeError) as found:
        load_recipe(path, StudyRecipe)
    assert found.value.do == "write 'laptop'"


def test_a_key_that_is_no_word_is_refused_with_its_line(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, GOOD + "? [a, b]\n: 1\n"))
    assert error.asked.endswith("one.yaml:8")
    assert "a list or a mapping" in error.found


def test_a_circle_of_parents_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "extends: two\n" + GOOD)
    error = refusal(write(tmp_path, "extends: one\n", "two.yaml"))
    assert "leads back" in error.found


# ---------------------------------------------------------------- overrides


def test_overrides_win_over_the_file_and_a_part_over_its_whole(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    whole = "inner={rate: 0.5, steps: 7}"
    value = load_recipe(path, Outer, overrides=[whole, "inner.steps=8", "shares.x=0.1"]).value
    assert (value.inner.steps, value.inner.rate) == (8, 0.5)
    assert value.shares == {"x": 0.1, "y": 0.5}


@pytest.mark.parametrize(
    ("overrides", "found"),
    [
        (["inner.steps=7", "is_on=false", "inner.steps=8"], "set twice"),
        (["inner.steps=7", "inner={rate: 0.5, steps: 8}"], "undoes inner.steps"),
    ],
)
def test_an_override_that_undoes_another_is_refused(
    tmp_path: Path, overrides: list[str], found: str
) -> None:
    error = refusal(write(tmp_path, GOOD), *overrides)
    assert error.asked == f"command line: {overrides[-1]}"
    assert error.found == found


def test_a_value_that_holds_itself_is_refused(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, "name: &name [*name]\n"))
    assert error.asked.endswith("one.yaml:1")
    assert "an alias of a value that holds this one" in error.found


def laughs(levels: int) -> str:
    """Each list holds the one before ten times: 400 letters stand for 10 ** levels values."""
    lines = ["a: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for level in range(1, levels):
        lines.append(f"b{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]")
    return "\n".join(lines) + "\n"


def test_aliases_that_stand_for_too_many_values_are_refused_at_once(tmp_path: Path) -> None:
    began = time.monotonic()
    error = refusal(write(tmp_path, laughs(30)))
    assert time.monotonic() - began < 10.0
    assert error.asked.endswith("one.yaml:5"), "the first line that is too much by itself"
    assert error.found == "aliases that stand for 111,111 values"
    assert len(compose(write(tmp_path, laughs(4))).value) == 4, "10,000 values are none too many"


@pytest.mark.parametrize("text", ["name: " + "[" * 3_000, "name: " + "{a: " * 3_000])
def test_a_recipe_of_endless_depth_is_refused(tmp_path: Path, text: str) -> None:
    error = refusal(write(tmp_path, "is_on: true\n" + text))
    assert error.asked.endswith("one.yaml:2")
    assert error.rule == "values lie at most 30 levels deep"
    assert "name: " not in refusal(write(tmp_path, GOOD), f"inner.tags={'[' * 100}").found


@pytest.mark.parametrize(
    ("parent", "found"),
    [("[a, b]", "a list"), ("{a: b}", "a mapping"), ("folder", "'folder'")],
)
def test_a_parent_that_is_no_recipe_is_shown_as_it_was_written(
    tmp_path: Path, parent: str, found: str
) -> None:
    (tmp_path / "folder.yaml").mkdir()
    error = refusal(write(tmp_path, f"extends: {parent}\n"))
    assert found in error.found
    assert error.do != "write 'folder'", "a folder is no recipe, whatever its name"


@pytest.mark.parametrize(
    ("text", "line", "tag"),
    [
        ("name: !!str 3\n", 1, "!!str"),
        ("is_on: true\ninner: {steps: !!int '7'}\n", 2, "!!int"),
        ("name: !!python/object:os.system x\n", 1, "!!python/object:os.system"),
        ("name: !secret x\n", 1, "!secret"),
        ("name: ! x\n", 1, "!"),
        ("inner:\n  tags: !!set {a, b}\n", 2, "!!set"),
        ("inner: !Inner {steps: 7}\n", 1, "!Inner"),
    ],
)
def test_a_tag_is_refused_with_its_line(tmp_path: Path, text: str, line: int, tag: str) -> None:
    error = refusal(write(tmp_path, text))
    assert error.asked.endswith(f"one.yaml:{line}")
    assert error.found == f"the tag {tag}"
    assert error.exit_code == 2


def test_a_tag_in_an_override_is_refused(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, GOOD), "inner.steps=!!int 7")
    assert error.asked == "command line: inner.steps"
    assert error.found == "the tag !!int"


def test_a_number_too_large_for_a_float_is_refused(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, GOOD), "inner.rate=1e400")
    assert "finite" in error.rule


@pytest.mark.parametrize(
    ("override", "asked", "do"),
    [
        ("inner.stps=7", "command line: inner.stps", "write 'steps'"),
        ("iner.steps=7", "command line: iner", "write 'inner'"),
        ("inner.steps=\t7", "command line: inner.steps", "check indentation"),
        ("inner.steps=7\x07", "command line: inner.steps", "check indentation"),
        ("inner.steps=lots", "command line: inner.steps", "digits"),
        ("name.first=7", "command line: name.first", "whole value"),
        ("inner.steps", "command line: inner.steps", "sft.learning_rate=1.0e-5"),
        ("=7", "command line: =7", "sft.learning_rate=1.0e-5"),
    ],
)
def test_a_wrong_override_is_told_like_a_wrong_file(
    tmp_path: Path, override: str, asked: str, do: str
) -> None:
    error = refusal(write(tmp_path, GOOD), override)
    assert error.asked == asked
    assert do in error.do


def test_a_rule_over_several_values_names_the_place_that_broke_it(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    told = load_recipe(path, Outer).refuse("shares", found="f", rule="r", do="d")
    assert told.asked.endswith("one.yaml:7: shares")
    told = load_recipe(path, Outer, overrides=["shares.x=1.0"]).refuse(
        "shares", found="f", rule="r", do="d"
    )
    assert told.asked == "command line: shares"


def test_a_file_that_a_child_names_replaces_its_parents_whole(tmp_path: Path) -> None:
    (tmp_path / "above.yaml").write_text("extends: laptop\nplacement: one_gpu\n")
    (tmp_path / "mine.yaml").write_text("extends: above\nplacement: cpu\n")
    placement = load_recipe(tmp_path / "mine.yaml", StudyRecipe).value.placement
    assert placement == Placement(name="cpu"), "nothing of the parent's GPU is left"
    (tmp_path / "changed.yaml").write_text("extends: mine\nplacement: {threads_per_rank: 2}\n")
    placement = load_recipe(tmp_path / "changed.yaml", StudyRecipe).value.placement
    assert placement == Placement(threads_per_rank=2)


def test_a_parent_that_shares_its_name_is_the_one_of_the_childs_kind(tmp_path: Path) -> None:
    """recipes/curations and recipes/blends both hold a gsm8k.yaml."""
    mine = write(tmp_path, "extends: gsm8k\nseed: 7\n", "mine.yaml")
    assert load_recipe(mine, BlendRecipe).value.seed == 7
    assert load_recipe(mine, Curation).value.seed == 7
