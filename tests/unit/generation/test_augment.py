"""`frontload data augment`: what is kept of a reply, what is left out, what a kill costs."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fastapi.responses import JSONResponse, Response

from frontload.data_tools.generation.thinking import RejectedThinking, Reply, read_thinking
from frontload.data_tools.text.tokenizer import TextTokenizer
from frontload.recipes.errors import RecipeError, StageError
from tests.unit.eval_serving.small_server import make_small, serve
from tests.unit.generation.backend import backend, chat
from tests.unit.generation.generation_commands import run_data

COPIED = "the heron stands in cold water and waits for a fish that does not know it is there"
TEXTS = (
    "plain story number one",
    "plain story number two",
    "empty please",
    "special please",
    COPIED,
    "loop please",
    "cut please",
    "garble please",
    "refuse please",
    "busy please",
    "control please",
)
THOUGHT = "first the story names a thing , then it counts it , so the number is what matters here"
_busy = iter([True, False])


def lying(prompt: str) -> Response:
    """One sort of fault per document."""
    kind = prompt.split()[0]
    if kind == "busy" and next(_busy, False):
        return JSONResponse({"error": {"message": "slow down"}}, status_code=429)
    if kind == "garble":
        return JSONResponse({"choices": "none"})
    if kind == "refuse":
        return JSONResponse({"error": {"message": "not this one"}}, status_code=400)
    texts = {
        "empty": "  \n",
        "special": "well <|end|> then",
        "the": COPIED + " indeed",
        "loop": "and so it goes on and on for ever " * 5,
        "control": "a bell \x07 rings",
    }
    if kind == "cut":
        return chat("this thought has no", "length")
    return chat(texts.get(kind, THOUGHT))


def write_documents(path: Path, texts: Sequence[str] = TEXTS) -> Path:
    rows = [{"text": text, "meta": {"n": n}} for n, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def augment(source: Path, url: str, out: Path, *more: object) -> int:
    return run_data("augment", "--input", source, "--backend", url, "--out", out, *more)


def test_every_reply_is_used_or_counted_by_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_documents(tmp_path / "in.jsonl", [*TEXTS, "word " * 9])
    with backend(lying) as server:
        assert augment(source, server.url, tmp_path / "out", "--most-words", 18) == 0
    rows = rows_of(tmp_path / "out" / "documents.jsonl")
    used = [TEXTS[0], TEXTS[1], "busy please", ("word " * 9).rstrip()]
    assert [row["text"] for row in rows] == [f"{text}\n\n{THOUGHT}" for text in used]
    assert [row["meta"]["n"] for row in rows] == [0, 1, 9, 11], "fields stay, in the files' order"
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["dropped"] == {
        str(RejectedThinking.EMPTY): 1,
        str(RejectedThinking.SPECIAL_TOKEN): 1,
        str(RejectedThinking.COPY): 1,
        str(RejectedThinking.LOOP): 1,
        str(RejectedThinking.CUT): 1,
        str(RejectedThinking.CONTROL): 1,
        "the backend garbled it": 1,
        "the backend refused it": 1,
    }
    dropped = rows_of(tmp_path / "out" / "dropped.jsonl")
    assert [row["row"] for row in dropped] == [3, 4, 5, 6, 7, 8, 9, 11]
    assert manifest["documents"] == 4
    sizes = [(len("word " * 9) if text[:4] == "word" else len(text)) for text in used]
    assert manifest["letters"]["document"] == sum(sizes)
    shown = capsys.readouterr().out
    assert "4 of 12 documents with thinking" in shown
    assert "most documents were left out" in shown


def test_long_rows_and_bad_rows_are_never_sent(tmp_path: Path) -> None:
    source = write_documents(tmp_path / "in.jsonl", ["one two three", "one two", "a <|end|> b"])
    with source.open("a") as stream:
        stream.write('{"text": 7}\n{"body": "x"}\nno json\n')
    with backend(lying) as server:
        augment(source, server.url, tmp_path / "out", "--most-words", 2)
        assert len(server.prompts) == 1
        assert server.prompts[0].startswith("one two\n")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["dropped"] == {
        "over 2 words": 1,
        "spells a special token": 1,
        "wrong type": 1,
        "missing key": 1,
        "broken JSON": 1,
    }


def test_a_request_of_your_own_carries_the_document_and_the_draws(tmp_path: Path) -> None:
    source = write_documents(tmp_path / "in.jsonl", ["the lake"])
    (tmp_path / "ask.txt").write_text("Read {document} now")
    flags = ("--request", tmp_path / "ask.txt", "--temperature", 0.25, "--top-p", 0.5)
    with backend(lying) as server:
        augment(source, server.url, tmp_path / "out", *flags, "--max-reply-tokens", 33)
        (body,) = server.bodies
    assert body["messages"] == [{"role": "user", "content": "Read the lake now"}]
    assert (body["temperature"], body["top_p"], body["max_tokens"]) == (0.25, 0.5, 33)
    assert body["stop"] == ["</think>"]


def test_the_project_s_own_server_writes_and_tokens_are_counted(tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    small = make_small(tmp_path / "small")
    texts = [f"the box {n} holds a ring" for n in range(12)]
    source = write_documents(tmp_path / "in.jsonl", texts)
    flags = ("--tokenizer", tmp_path / "small", "--max-reply-tokens", 12, "--keep-cut")
    with serve(small) as running:
        assert augment(source, running.url, tmp_path / "out", *flags) == 0
        assert augment(source, running.url, tmp_path / "again", *flags) == 0
    rows = rows_of(tmp_path / "out" / "documents.jsonl")
    assert rows, "of twelve replies of drawn weights some have no control characters"
    first, second = ((tmp_path / one / "documents.jsonl").read_bytes() for one in ("out", "again"))
    assert first == second, "a draw depends on the seed and the document"
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    tokenizer = TextTokenizer.load(tmp_path / "small")
    texts = [row["text"] for row in rows]
    assert manifest["tokens"]["text"] == sum(len(tokenizer.encode(text)) for text in texts)
    documents = [text.partition("\n\n")[0] for text in texts]
    before = sum(len(tokenizer.encode(text)) for text in documents)
    assert manifest["inflation"] == pytest.approx(manifest["tokens"]["text"] / before)
    prefix, source = tmp_path / "tokens", tmp_path / "out" / "documents.jsonl"
    flags = ("--tokenizer", tmp_path / "small", "--append-eod", "--workers", 1)
    assert run_data("preprocess", "--input", source, "--output-prefix", prefix, *flags) == 0
    ids = prefix.with_suffix(".bin").stat().st_size // 2  # uint16: 400 words
    assert ids == manifest["tokens"]["text"] + len(rows), "the result is read as any raw file"


def test_a_run_goes_on_from_a_torn_file_to_the_same_bytes(tmp_path: Path) -> None:
    source = write_documents(tmp_path / "in.jsonl", [f"story {n}" for n in range(6)])

    with backend(lambda prompt: chat(THOUGHT)) as server:
        augment(source, server.url, tmp_path / "good")
    lines = (tmp_path / "good" / "replies.jsonl").read_bytes()
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "replies.jsonl").write_bytes(lines[: len(lines) // 2])
    with backend(lambda prompt: chat(THOUGHT)) as server:
        augment(source, server.url, tmp_path / "half")
        assert 0 < len(server.bodies) < 6, "what is there is not asked again"
    for name in ("documents.jsonl", "replies.jsonl", "dropped.jsonl", "manifest.json"):
        assert (tmp_path / "half" / name).read_bytes() == (tmp_path / "good" / name).read_bytes()


def test_a_backend_that_refuses_everything_ends_the_run(tmp_path: Path) -> None:
    source = write_documents(tmp_path / "in.jsonl", [f"story {n}" for n in range(60)])
    refusal = JSONResponse({"error": {"message": "no key"}}, status_code=401)
    with (
        backend(lambda _: refusal) as one,
        pytest.raises(StageError, match="21 refused or garbled; the last: .*no key"),
    ):
        augment(source, one.url, tmp_path / "out")
    assert not (tmp_path / "out" / "documents.jsonl").exists()
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_kill_at_any_reply_leaves_the_bytes_of_an_undisturbed_run(tmp_path: Path) -> None:
    source = write_documents(tmp_path / "in.jsonl", [f"story {n}" for n in range(40)])

    def slow(prompt: str) -> Response:
        time.sleep(0.1)
        return chat(f"{THOUGHT} {prompt.split()[1]}")

    with backend(slow) as server:
        words = ["augment", "--input", source, "--backend", server.url, "--out", tmp_path / "out"]
        script = "from tests.unit.generation.generation_commands import run_data; import sys; "
        script += "run_data(*sys.argv[1:])"
        process = subprocess.Popen([sys.executable, "-c", script, *map(str, words)])
        replies = tmp_path / "out" / "replies.jsonl"
        while not (replies.is_file() and replies.read_bytes().count(b"\n") >= 3):
            assert process.poll() is None
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert replies.read_bytes().count(b"\n") < 40
        augment(source, server.url, tmp_path / "out")
        augment(source, server.url, tmp_path / "whole")
    for name in ("documents.jsonl", "replies.jsonl", "manifest.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    ("flags", "asked", "rule"),
    [
        ((), "no-such-model", "a checkpoint is named by"),
        (("--model", "large"), "--model large", "is of a server"),
        (("--api-key-env", "KEY"), "--api-key-env KEY", "is of a server"),
    ],
)
def test_a_checkpoint_as_the_backend_is_looked_up_here(
    tmp_path: Path, flags: tuple[str, ...], asked: str, rule: str
) -> None:
    source, out = write_documents(tmp_path / "in.jsonl"), tmp_path / "out"
    with pytest.raises(RecipeError) as refused:
        augment(source, "no-such-model", out, "--store", tmp_path, *flags)
    assert asked in str(refused.value)
    assert rule in str(refused.value)
    assert not out.exists()


def test_a_finished_folder_is_not_written_over(tmp_path: Path) -> None:
    source = write_documents(tmp_path / "in.jsonl", ["the lake"])
    with backend(lying) as server:
        augment(source, server.url, tmp_path / "out")
        before = (tmp_path / "out" / "documents.jsonl").read_bytes()
        with pytest.raises(RecipeError, match="seed was 1, now 2"):
            augment(source, server.url, tmp_path / "out", "--seed", 2)
        augment(source, server.url, tmp_path / "out")
    assert (tmp_path / "out" / "documents.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--temperature", -1), "--temperature -1.0"),
        (("--top-p", 0), "--top-p 0.0"),
        (("--max-reply-tokens", 0), "--max-reply-tokens 0"),
        (("--most-words", 0), "--most-words 0"),
        (("--seed", -3), "--seed -3"),
    ],
)
def test_numbers_out_of_range_are_refused_before_anything_is_made(
    tmp_path: Path, flags: Sequence[object], words: str
) -> None:
    source = write_documents(tmp_path / "in.jsonl", ["the lake"])
    with pytest.raises(RecipeError, match=words):
        augment(source, "http://127.0.0.1:9/v1", tmp_path / "out", *flags)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["no place", "{document} and {document}"])
def test_a_request_names_the_document_once(tmp_path: Path, text: str) -> None:
    source = write_documents(tmp_path / "in.jsonl", ["the lake"])
    (tmp_path / "ask.txt").write_text(text)
    with pytest.raises(RecipeError, match="stands [02] times"):
        augment(source, "http://x/v1", tmp_path / "out", "--request", tmp_path / "ask.txt")


def test_thinking_ends_where_its_mark_is() -> None:
    reply = Reply(text="<think>\n so it is \n</think>\n The answer", is_cut=True)
    assert read_thinking(reply, document="a") == "so it is"
    cut = Reply(text="so it", is_cut=True)
    assert read_thinking(cut, document="a") is RejectedThinking.CUT
    assert read_thinking(cut, document="a", keeps_cut=True) == "so it"
