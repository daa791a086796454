"""The parity gate runs beside the encoding: killed or dead, it lets nothing through uncompared."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from frontload.data_tools.disk.publish import work_folder
from frontload.data_tools.preprocess import crew, gate, publish
from frontload.data_tools.preprocess import encoder as encoders
from frontload.data_tools.preprocess.request import EncoderChoice, PreprocessRequest
from frontload.data_tools.preprocess.run import preprocess
from frontload.recipes.errors import RecipeError, StageError
from tests.fault.test_preprocess_faults import alive, in_child, published
from tests.unit.data_tools_preprocess.files import (
    EOD,
    documents,
    expected_pair,
    pair,
    train_foreign,
    write_texts,
)

TEXTS = [f"{text} odd one" if n == 3 else text for n, text in enumerate(documents(150, seed=4))]


@pytest.fixture
def request_of(tmp_path: Path) -> PreprocessRequest:
    """A request of three parts, for two workers."""
    corpus = write_texts(tmp_path / "corpus.jsonl", TEXTS)
    return PreprocessRequest(
        inputs=[corpus],
        output_prefix=tmp_path / "P",
        tokenizer=train_foreign(tmp_path / "tokenizer.json"),
        append_eod=True,
        eod_token=EOD,
        part_bytes=corpus.stat().st_size // 3 + 1,
        workers=2,
    )


@pytest.fixture
def plain(request_of: PreprocessRequest, tmp_path: Path) -> tuple[bytes, ...]:
    return pair(expected_pair(tmp_path / "plain", request_of.tokenizer, TEXTS, eod=0))


def break_gigatoken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other ids for one document, which only the gate looks at."""
    right = encoders.fast_encoder

    def wrong(vocabulary: Any) -> Callable[[str], np.ndarray]:
        encode = right(vocabulary)
        return lambda text: encode(text)[:-1] if text.endswith("odd one") else encode(text)

    monkeypatch.setattr(encoders, "fast_encoder", wrong)


def note_and_die(listed: Path) -> None:
    """Notes the processes that this one started, and ends it as kill -9 does."""
    listed.write_text(" ".join(str(child.pid) for child in multiprocessing.active_children()))
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for_the_end_of(listed: Path) -> list[int]:
    numbers = [int(number) for number in listed.read_text().split()]
    deadline = time.monotonic() + 30
    for number in numbers:
        while alive(number):
            assert time.monotonic() < deadline, f"process {number} outlived its parent"
            time.sleep(0.05)
    return numbers


def leave_parts_without_a_gate(request: PreprocessRequest) -> None:
    """A run that is killed when all parts are encoded and the gate is about to be asked."""
    listed = request.output_prefix.with_name("processes")

    def run() -> None:
        def finish(self: gate.Gate, encoder: encoders.Encoder) -> None:
            note_and_die(listed)

        gate.Gate.look = lambda self, encoder: None  # type: ignore[method-assign]
        gate.Gate.finish = finish  # type: ignore[method-assign]
        preprocess(request)

    assert in_child(run) == -signal.SIGKILL
    wait_for_the_end_of(listed)
    assert len(list(work_folder(request.output_prefix).glob("unit-*.json"))) == 3
    assert not published(request.output_prefix)


def test_wrong_parts_of_a_run_killed_before_its_gate_are_never_published(
    request_of: PreprocessRequest, plain: tuple[bytes, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    break_gigatoken(monkeypatch)
    leave_parts_without_a_gate(request_of)
    manifest = preprocess(request_of)
    assert "other ids than tokenizers" in manifest["made_by"]["encoder_reason"]
    assert manifest["made_by"]["parts_kept_from_an_earlier_run"] == 0
    assert pair(request_of.output_prefix) == plain


def test_right_parts_of_a_run_killed_before_its_gate_are_compared_and_kept(
    request_of: PreprocessRequest, plain: tuple[bytes, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_parts_without_a_gate(request_of)
    monkeypatch.setattr(crew, "encode_unit", None)  # would fail if anything were encoded again
    made_by = preprocess(request_of)["made_by"]
    assert (made_by["parts_kept_from_an_earlier_run"], made_by["encoder"]) == (3, "gigatoken")
    assert made_by["documents_compared"] == len(TEXTS) + 3  # and one of each part
    assert pair(request_of.output_prefix) == plain


def test_a_run_without_a_gate_trusts_no_part_that_never_passed_one(
    request_of: PreprocessRequest, plain: tuple[bytes, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    break_gigatoken(monkeypatch)
    leave_parts_without_a_gate(request_of)
    manifest = preprocess(replace(request_of, encoder=EncoderChoice.TOKENIZERS))
    assert manifest["made_by"]["parts_kept_from_an_earlier_run"] == 0
    assert pair(request_of.output_prefix) == plain


@pytest.mark.parametrize("asked", [EncoderChoice.AUTO, EncoderChoice.TOKENIZERS])
@pytest.mark.parametrize("is_broken", [False, True])
def test_a_run_that_finds_all_parts_says_what_encoded_them_and_why(
    request_of: PreprocessRequest,
    monkeypatch: pytest.MonkeyPatch,
    *,
    asked: EncoderChoice,
    is_broken: bool,
) -> None:
    if is_broken:
        break_gigatoken(monkeypatch)
    with open(request_of.inputs[0], "a", encoding="utf-8") as corpus:
        corpus.write("broken\n" * 3)
    first = replace(request_of, workers=1, output_prefix=request_of.prefix.with_name("first"))
    direct = preprocess(replace(first, max_bad_rate=0.5))
    with pytest.raises(RecipeError, match="max-bad-rate"):
        preprocess(request_of)
    found = preprocess(replace(request_of, encoder=asked, max_bad_rate=0.5))["made_by"]
    assert found["parts_kept_from_an_earlier_run"] == len(direct["parts"])
    names = ("encoder", "encoder_reason", "documents_compared")
    assert [found[name] for name in names] == [direct["made_by"][name] for name in names]
    assert (found["documents_compared"] == 0) == is_broken


def test_parts_of_a_version_that_noted_nothing_are_published(
    request_of: PreprocessRequest, plain: tuple[bytes, ...]
) -> None:
    with open(request_of.inputs[0], "a", encoding="utf-8") as corpus:
        corpus.write("broken\n" * 3)
    asked = replace(request_of, encoder=EncoderChoice.TOKENIZERS)
    with pytest.raises(RecipeError, match="max-bad-rate"):
        preprocess(asked)
    (work_folder(asked.output_prefix) / "encoders.json").unlink()
    made_by = preprocess(replace(asked, max_bad_rate=0.5))["made_by"]
    assert (made_by["encoder"], made_by["encoder_reason"]) == ("tokenizers", "not noted")
    assert pair(asked.output_prefix) == plain


def test_a_dead_gate_is_told_and_publishes_nothing(
    request_of: PreprocessRequest, plain: tuple[bytes, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(gate, "ids_digest", lambda ids: os.kill(os.getpid(), signal.SIGKILL))
        with pytest.raises(StageError, match=r"ended with code -9, killed"):
            preprocess(request_of)
    assert not published(request_of.output_prefix)
    preprocess(request_of)
    assert pair(request_of.output_prefix) == plain


def test_a_disk_that_refuses_behind_the_run_is_told_at_its_end(
    request_of: PreprocessRequest, plain: tuple[bytes, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(handle: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(publish, "SYNC_BYTES", 1)
        patched.setattr(os, "fdatasync", refuse)
        with pytest.raises(StageError, match="Input/output error.*finished parts stay"):
            preprocess(request_of)
    assert not published(request_of.output_prefix)
    assert preprocess(request_of)["made_by"]["parts_kept_from_an_earlier_run"] == 3
    assert pair(request_of.output_prefix) == plain


def test_a_killed_parent_takes_its_gate_along(
    request_of: PreprocessRequest, tmp_path: Path
) -> None:
    listed = tmp_path / "processes"

    def run() -> None:
        def slow(ids: Any) -> bytes:
            time.sleep(0.3)
            return b""

        def killed(self: crew.EncoderCrew, jobs: Any) -> Any:
            note_and_die(listed)

        gate.ids_digest = slow
        crew.EncoderCrew.run = killed  # type: ignore[method-assign]
        preprocess(request_of)

    assert in_child(run) == -signal.SIGKILL
    found = wait_for_the_end_of(listed)  # the gate's 150 texts alone would take 45 s
    assert len(found) == 3, "two workers and the gate were to be alive"
