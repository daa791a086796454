"""A manifest that somebody edited: merge, explain and a run of the same request say so in words."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from frontload.data_tools.blending.build import check_tokenizers
from frontload.data_tools.disk.indexed import manifest_file
from frontload.data_tools.preprocess.merge import merge
from frontload.data_tools.preprocess.request import Shard
from frontload.data_tools.preprocess.run import preprocess
from frontload.data_tools.shown.provenance import Trail, origins
from frontload.data_tools.text.tokenizer import TextTokenizer
from frontload.launch.cli import main
from frontload.recipes.errors import ArtifactError, FrontloadError
from tests.unit.data_tools_preprocess.files import request_for

OTHERS: tuple[Any, ...] = (None, [], "words", -1, {}, [1], {"a": 1})


@pytest.fixture
def shard(
    corpus: Path, foreign: Path, tmp_path: Path
) -> tuple[Path, dict[str, Callable[[], object]]]:
    """A manifest, and what reads it: each has to end well or with a message."""
    request = replace(request_for(corpus, tmp_path / "P", foreign), shard=Shard(number=1, of=1))
    preprocess(request)
    prefix, tokenizer = request.prefix, TextTokenizer.load(foreign)
    return manifest_file(prefix), {
        "preprocess": lambda: preprocess(request),
        "merge": lambda: merge([prefix], output_prefix=tmp_path / "M"),
        "explain": lambda: origins(Trail(prefix=prefix), {3}, tokenizer),
        "blend": lambda: check_tokenizers({"base": prefix}),
    }


@pytest.mark.parametrize("reader", ["preprocess", "merge", "explain", "blend"])
def test_a_field_that_is_gone_or_of_another_type_is_told(
    shard: tuple[Path, dict[str, Callable[[], object]]], reader: str
) -> None:
    file, readers = shard
    whole = json.loads(file.read_text())
    edits: list[Any] = list(OTHERS)
    for name in whole:
        edits.append({key: value for key, value in whole.items() if key != name})
        edits += [whole | {name: value} for value in OTHERS]
    refused = 0
    for edited in edits:
        file.write_text(json.dumps(edited))
        for part in ("bin", "idx", "manifest.json"):
            (file.parent / f"M.{part}").unlink(missing_ok=True)
        try:
            readers[reader]()
        except FrontloadError as error:
            refused += error.exit_code == 2
        assert not (file.parent / "M.work").exists()
    assert refused >= (5 if reader == "blend" else 20)


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda manifest: [manifest], "JSON that is a list; a description has the fields"),
        (lambda manifest: manifest | {"num_rows": "9"}, "num_rows is a str"),
        (lambda manifest: manifest | {"made_by": {}}, "no field made_by.plan"),
        (lambda manifest: manifest | {"parts": [*manifest["parts"], {}]}, r"no field parts\.\d+.i"),
        (lambda manifest: manifest | {"shard": {"number": 1}}, "no field shard.of"),
    ],
)
def test_the_message_names_the_field(
    shard: tuple[Path, dict[str, Callable[[], object]]], edit: Callable, told: str
) -> None:
    file, readers = shard
    file.write_text(json.dumps(edit(json.loads(file.read_text()))))
    with pytest.raises(ArtifactError, match=told):
        readers["merge"]()


@pytest.mark.parametrize("written", ['{"a"', "[1]", "{}"], ids=["torn", "list", "nothing"])
def test_what_to_do_about_a_manifest_is_true_for_a_prefix(
    shard: tuple[Path, dict[str, Callable[[], object]]],
    written: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """P is no folder of an artifact, and no stage made it."""
    file, _ = shard
    file.write_text(written)
    for command in ("verify", "merge"):
        more = ["--output-prefix", str(file.parent / "M")] if command == "merge" else []
        assert main(["data", command, str(file), *more]) != 0
    shown = capsys.readouterr()
    assert not {"stage", "folder"} & set(f"{shown.out} {shown.err}".split())
