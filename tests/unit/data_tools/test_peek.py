"""What `peek` and `explain` show of files, prefixes, packs and blends: text, masks, origins."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from frontload.data_tools.disk.indexed import IndexedReader
from frontload.data_tools.shown.masked import has_colour, masked_text, open_console
from frontload.recipes.errors import FrontloadError, RecipeError
from frontload.recipes.schema import Blend, Window
from tests.unit.data_command import run_data_command as run
from tests.unit.data_tools.chats import chatml_tokenizer, dialogue
from tests.unit.data_tools.room import Room, write_jsonl
from tests.unit.data_tools_blending.small import write_source

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def made(built_room: Room, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """chats.jsonl and its pack; text.jsonl with two bad rows and its prefix; a blend of it."""
    folder = tmp_path_factory.mktemp("peek")
    chatml = chatml_tokenizer(folder / "chatml")
    chats = [dialogue(f"question {n}?", f"answer {n}") for n in range(30)]
    chats.insert(3, {"text": "no chat"})
    write_jsonl(folder / "chats.jsonl", chats)
    size = ("--sequence-tokens", 512, "--over-long", "drop", "--output", folder / "pack")
    rule = ("--max-bad-rate", 0.5)
    assert run("pack", folder / "chats.jsonl", "--tokenizer", chatml, *size, *rule) == 0
    rows = [{"text": f"w{n} w{n % 7} w3 w4 w5"} for n in range(40)]
    rows[4]["text"], rows[9]["text"] = "w1 <|end|> w2", " "
    write_jsonl(folder / "text.jsonl", rows)
    tokenizer = built_room.folder / "tokenizer"
    given = ("--input", folder / "text.jsonl", "--output-prefix", folder / "P")
    assert run("preprocess", *given, "--tokenizer", tokenizer, "--append-eod", *rule) == 0
    return folder


def test_a_pack_is_shown_with_its_targets_in_brackets(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("peek", made / "pack", "--tokenizer", made / "chatml", "--rows", 1) == 0
    printed = capsys.readouterr().out
    assert "<|im_start|>assistant\n[[answer " in printed
    assert printed.count("[[answer") == printed.count("<|im_end|>]]") > 1
    assert '"efficiency"' in printed
    assert "crc32" not in printed


def test_colour_takes_the_brackets_place() -> None:
    shown = masked_text([("to say", False), ("said", True)], is_coloured=True)
    assert shown.plain == "to saysaid"
    assert [str(span.style) for span in shown.spans] == ["dim", "bold green"]


@pytest.mark.parametrize(
    ("variables", "is_seen"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False), ({"is_file": "1"}, False)],
    ids=str,
)
def test_targets_stand_out_on_any_terminal(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], is_seen: bool
) -> None:
    """A dumb terminal shows neither colour nor bold: the mask was not to be seen there."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: "is_file" not in variables, raising=False)
    assert has_colour(open_console()) == is_seen


def test_a_reader_that_went_away_is_no_failure(made: Path) -> None:
    """`frontload data peek ... | head -1` ended with 1, and a script under pipefail with it."""
    asked = [str(made / "pack"), "--tokenizer", str(made / "chatml"), "--rows", "9"]
    shown = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "frontload.launch.cli", "data", "peek", *asked],
        env={"PYTHONPATH": str(ROOT / ".imports"), "PATH": "/usr/bin:/bin", "HOME": str(made)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert shown.stdout is not None
    assert shown.stderr is not None
    shown.stdout.close()
    assert shown.stderr.read() == b""
    assert shown.wait(60) == 0
    shown.stderr.close()


def test_rows_of_a_file_are_shown_as_their_template_says_them(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--tokenizer", made / "chatml", "--rows", 2, "--first", 2)
    assert run("peek", made / "chats.jsonl", *options) == 0
    printed = capsys.readouterr().out
    assert "row 3\n<|im_start|>user\nquestion 2?<|im_end|>" in printed
    assert "[[answer 2<|im_end|>]]" in printed
    assert '{"text": "no chat"}' in printed
    with pytest.raises(RecipeError, match="--rows and --first: -1 rows"):
        run("peek", made / "chats.jsonl", "--rows", -1)


def test_a_first_row_behind_the_last_is_told(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    for first in (2, 7):
        assert run("peek", tmp_path / "rows.jsonl", "--first", first) == 0
        told = f"nothing from {first} on: there are 2, counted from 0"
        assert told in capsys.readouterr().out
    assert run("peek", made / "P.bin", "--first", 9999) == 0
    assert "nothing from 9999 on: there are" in capsys.readouterr().out
    assert run("peek", tmp_path / "rows.jsonl", "--first", 1) == 0
    assert "nothing" not in capsys.readouterr().out


def test_parquet_rows_are_shown(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"text": ["a book", "b"]}), made / "rows.parquet")
    assert run("peek", made / "rows.parquet", "--rows", 1) == 0
    assert '  {"text": "a book"}' in capsys.readouterr().out


def test_a_document_is_traced_through_the_parts_of_its_prefix(
    made: Path, built_room: Room, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--tokenizer", built_room.folder / "tokenizer")
    assert run("explain", made / "P", 6, *options) == 0
    assert "document 6: text.jsonl one of rows 7 to 9; 6 tokens" in capsys.readouterr().out
    assert run("explain", made / "P", 6, *options, "--input", made / "text.jsonl") == 0
    printed = capsys.readouterr().out
    assert "document 6: text.jsonl row 8; 6 tokens at byte 72 of P.bin\n  w7 w0 w3" in printed
    with pytest.raises(RecipeError, match="document 38: there are 38; .*; ask for 0 to 37"):
        run("explain", made / "P", 38, *options)


def test_a_packs_sample_is_traced_to_rows(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("explain", made / "pack", 0, "--tokenizer", made / "chatml") == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [json.loads(line) for line in (made / "chats.jsonl").open()]
    named = [line for line in lines if line.startswith("  conversation")]
    assert len(named) > 1
    for line in named:
        row = int(line.split("row ")[1].split(";")[0])
        question = rows[row - 1]["messages"][0]["content"]
        at = lines.index(line)
        assert question in "\n".join(lines[at : at + 4])
    with pytest.raises(RecipeError, match="sample 99: there are"):
        run("explain", made / "pack", 99, "--tokenizer", made / "chatml")


def test_a_blends_samples_are_shown_and_traced(
    built_room: Room, capsys: pytest.CaptureFixture[str]
) -> None:
    window = Window(source="base", start_tokens=0, tokens=640)
    recipe = Blend(
        phase="one", windows=(window,), sequence_tokens=64, max_epochs={"base": 1.0}, seed=1
    )
    index = built_room.folder / "index-base"
    blend = built_room.run("blend", recipe, name="peek-blend", base=index)
    tokenizer = ("--tokenizer", built_room.folder / "tokenizer")
    assert run("peek", blend, *tokenizer, "--index", f"base={index}", "--rows", 2) == 0
    printed = capsys.readouterr().out
    assert "sample 1 of phase one: source base, stream token 64\n  document " in printed
    pair = f"base={index / 'documents'}.idx"
    assert run("explain", blend, 3, *tokenizer, "--index", pair) == 0
    assert "sample 3 of phase one" in capsys.readouterr().out
    other = write_source(built_room.folder / "other", 3)
    for command in (("peek", blend), ("explain", blend, 3)):
        for told, words in (
            ("no index of base", ()),
            ("no NAME=PREFIX", ("--index", index)),
            ("no source 'bas'; .* write 'base'", ("--index", f"bas={index}")),
            ("an .idx of sha256 .* planned on the one", ("--index", f"base={other}")),
            ("no such pair", ("--index", f"base={other}x")),
        ):
            with pytest.raises(RecipeError, match=told):
                run(*command, *tokenizer, *words)


def test_a_study_is_traced_through_its_store(
    built_room: Room, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Index, documents and corpus of a store are found by the keys in their manifests."""
    for kind, name, inputs in (
        ("index", "index-base", {"documents": "d0"}),
        ("curate", "mix-base", {"corpus": "c0"}),
        ("synthesize", "corpus", {}),
    ):
        key = {"index": "i0", "curate": "d0", "synthesize": "c0"}[kind]
        folder = tmp_path / "store" / kind / f"base-{key}"
        shutil.copytree(built_room.folder / name, folder)
        (folder / "manifest.json").write_text(json.dumps({"inputs": inputs, "files": {}}))
    window = Window(source="base", start_tokens=0, tokens=640)
    recipe = Blend(
        phase="one", windows=(window,), sequence_tokens=64, max_epochs={"base": 1.0}, seed=1
    )
    index = tmp_path / "store" / "index" / "base-i0"
    blend = built_room.run("blend", recipe, name="peek-store", base=index)
    shutil.move(blend, tmp_path / "store" / "blend" / "one-b0")
    options = ("--tokenizer", built_room.folder / "tokenizer")
    assert run("explain", tmp_path / "store" / "blend" / "one-b0", 0, *options) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = (built_room.corpus / "base.jsonl").read_text().splitlines()
    named = [line for line in lines if ": base-c0/base.jsonl row " in line]
    assert named
    for line in named:
        name, row = line.split()[0], int(line.split("row ")[1].split(";")[0])
        assert json.loads(rows[row - 1])["id"] == name


def test_only_samples_are_explained(built_room: Room) -> None:
    tokenizer = built_room.folder / "tokenizer"
    with pytest.raises(RecipeError, match="an artifact of kind curate"):
        run("explain", built_room.folder / "mix-lmq", 0, "--tokenizer", tokenizer)


def test_a_planned_blend_is_explained_by_phase(built_room: Room, tmp_path: Path) -> None:
    blend = tmp_path / "blend"
    for phase in ("first", "second"):
        (blend / phase).mkdir(parents=True)
        (blend / phase / "plan.json").write_text("{}")
    (blend / "ledger.json").write_text('{"phases": [{"name": "first"}, {"name": "second"}]}')
    with pytest.raises(RecipeError, match=f"name one of its phases: {blend}/first, {blend}/second"):
        run("explain", blend, 0, "--tokenizer", built_room.folder / "tokenizer")


def test_ids_are_not_read_with_another_tokenizer(made: Path, built_room: Room) -> None:
    ours, chatml = built_room.folder / "tokenizer", made / "chatml"
    for name, other in (("pack", ours), ("P", chatml)):
        for command in (("peek", made / name), ("explain", made / name, 0)):
            with pytest.raises(FrontloadError, match="the tokenizer that gave them"):
                run(*command, "--tokenizer", other)


def test_damaged_descriptions_and_wrong_places_are_told_in_words(
    made: Path, built_room: Room, tmp_path: Path
) -> None:
    tokenizer = ("--tokenizer", built_room.folder / "tokenizer")
    pack = shutil.copytree(made / "pack", tmp_path / "pack")
    (pack / "origin.npy").write_bytes((pack / "origin.npy").read_bytes()[:50])
    with pytest.raises(FrontloadError, match=r"origin.npy: no readable array"):
        run("explain", pack, 0, "--tokenizer", made / "chatml")
    (pack / "pack.json").write_text("[1]")
    with pytest.raises(FrontloadError, match=r"pack.json: JSON, but a list"):
        run("peek", pack)
    with pytest.raises(FrontloadError, match=r"nowhere.jsonl: there is no such file"):
        run("explain", made / "P", 0, *tokenizer, "--input", tmp_path / "nowhere.jsonl")
    for command in (("peek", "."), ("verify", "."), ("explain", ".", 0, *tokenizer)):
        with pytest.raises(FrontloadError, match="none of the files that tell a kind"):
            run(*command)


def test_shown_documents_are_the_prefixs(
    made: Path, built_room: Room, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = built_room.folder / "tokenizer"
    assert run("peek", made / "P.bin", "--tokenizer", tokenizer, "--first", 37) == 0
    printed = capsys.readouterr().out
    assert "37: w39 w4 w3 w4 w5 <|end|>" in printed
    assert '"num_documents": 38' in printed
    reader = IndexedReader(made / "P")
    assert np.array_equal(reader.document_lengths, np.full(38, 6))
