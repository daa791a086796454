"""The commands of the data room: exit codes and what they print."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from frontload.recipes.errors import RecipeError
from frontload.recipes.schema import Blend, Window
from tests.unit.data_command import run_data_command as run
from tests.unit.data_tools.room import Room


def blend_of_base(phase: str, *, start: int, tokens: int) -> Blend:
    window = Window(source="base", start_tokens=start, tokens=tokens)
    max_epochs = {"base": 1.0}
    return Blend(phase=phase, windows=(window,), sequence_tokens=64, max_epochs=max_epochs, seed=1)


@pytest.fixture(scope="module")
def store(built_room: Room) -> Path:
    """A trunk, two arms that branch from it, and their index, as the store lays them out."""
    base = built_room.folder / "index-base"
    trunk = blend_of_base("general", start=0, tokens=640)
    blend = built_room.run("blend", trunk, name="store/blend/general-0", base=base)
    for arm, tokens in (("one", 640), ("two", 1280)):
        recipe = blend_of_base("second", start=640, tokens=tokens)
        inputs = {"base": base, "before": blend}
        built_room.run("blend", recipe, name=f"store/blend/{arm}-0", **inputs)
    shutil.copytree(base, blend.parents[1] / "index" / "base-0")
    return blend.parents[1]


def test_verify_compares_phases_of_one_run_and_not_two_arms(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("verify", *sorted((store / "blend").iterdir())) == 0
    printed = capsys.readouterr().out
    assert printed.count("base: disjoint from phase general: 0 stream tokens in both") == 2
    assert "disjoint from phase second" not in printed


def test_verify_finds_the_index_in_the_store(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("verify", store / "blend" / "general-0", store / "index" / "base-0") == 0
    printed = capsys.readouterr().out
    assert "ok    base: samples tile the window in order" in printed
    assert "all statements hold" in printed


def test_verify_says_1_when_a_statement_is_wrong(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = tmp_path / "store"
    shutil.copytree(store, copied)
    samples = copied / "blend" / "general-0" / "samples.npy"
    np.save(samples, np.load(samples)[::-1])
    assert run("verify", copied / "blend" / "general-0") == 1
    assert "WRONG base: samples tile the window" in capsys.readouterr().out


def test_verify_refuses_what_is_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="none of the files that tell a kind"):
        run("verify", tmp_path)
    with pytest.raises(RecipeError, match="no such folder"):
        run("verify", tmp_path / "nowhere")


def test_peek_shows_counts_and_text(built_room: Room, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = built_room.folder / "tokenizer"
    index = built_room.folder / "index-ldq"
    assert run("peek", index, "--rows", 1, "--tokenizer", tokenizer) == 0
    printed = capsys.readouterr().out
    assert '"num_documents": 300' in printed
    assert "0: <|user|> what is" in printed
    assert run("peek", built_room.folder / "mix-lmq") == 0
    assert '{"id": "ldq-0"' in capsys.readouterr().out


@pytest.mark.parametrize("command", ["blend", "curate", "synth"])
def test_a_recipe_is_required_and_overrides_are_not(command: str) -> None:
    with pytest.raises(RecipeError) as caught:
        run(command)
    assert re.search("(RECIPE|STUDY)$", caught.value.do)
    assert "PATH=VALUE" not in str(caught.value)
