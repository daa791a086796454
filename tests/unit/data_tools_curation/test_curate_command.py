"""`frontload data curate` as its user meets it: sets, reports, determinism, refusals."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from frontload.data_tools.curation import measure, run
from frontload.data_tools.disk.files import read_json
from frontload.data_tools.text.document import BaseText, read_documents
from frontload.data_tools.text.messages import Dialogue, Misfit, read_dialogue
from tests.unit.data_tools_curation.workbench import Workbench, folder_bytes, read_jsonl

PAPER = """
sources:
  ldq_math: {files: ["math/*.jsonl"], adapter: nemotron_pretraining_sft, domain: math}
  ldq_general:
    files: [general.jsonl.gz]
    adapter: nemotron_pretraining_sft
    domain: general
    unsplit: whole_text
  ot3: {files: [ot3.parquet], adapter: openthoughts3}
sets:
  ldq: {members: [ldq_math, ldq_general], duplicates: [exact, near]}
  shq: {members: [ot3], duplicates: [exact, near_question]}
  lmq: {members: [ldq, shq]}
  alf: {members: [ldq], answer_tokens_above: 40}
  alf_prime: {members: [alf, shq], share_of_member: {shq: 0.5}}
overlaps:
  sft_in_pretraining: [ldq, shq]
"""


def words(draw: random.Random, count: int) -> str:
    return " ".join(f"w{draw.randrange(3000)}" for _ in range(count))


def write_paper_files(bench: Workbench) -> None:
    """LDQ in three files with copies and rows that cannot be split; SHQ, 4 answers a question."""
    draw = random.Random(2)
    (bench.folder / "math").mkdir()
    maths = [
        {"id": f"m{n}", "text": f"Problem: {words(draw, 12)}\nSolution: {words(draw, 5 + n)}"}
        for n in range(60)
    ]
    near = maths[40]["text"].rsplit(" ", 1)[0] + " changed"
    copies = [{"id": "copy", "text": maths[0]["text"].replace("w", "W").replace(" ", "  ")}]
    copies += [{"id": "near", "text": near}, {"id": "open", "text": words(draw, 9)}, "{broken"]
    bench.rows("math/b.jsonl", [*maths[30:], *copies])
    bench.rows("math/a.jsonl", maths[:30])
    general = [{"id": f"g{n}", "text": f"<extra_id_1>User\nhi {n}\n<extra_id_1>Assistant\n{n} yes"}
               for n in range(10)]  # fmt: skip
    bench.rows("general.jsonl.gz", [*general, {"id": "whole", "text": "Pick. The answer is A."}])
    asked = [words(draw, 20) for _ in range(6)]
    asked.append(asked[2] + " please")
    rows = [
        {
            "difficulty": 3,
            "source": "olympiad",
            "domain": "math" if number % 3 else "science",
            "conversations": [
                {"from": "human", "value": question},
                {"from": "gpt", "value": f"<think>{words(draw, 50)}</think>{words(draw, 9)}"},
            ],
        }
        for number, question in enumerate(asked)
        for _ in range(4)
    ]
    rows[5]["conversations"][1]["value"] = "<think>cut"
    bench.rows("ot3.parquet", rows)


def test_the_sets_of_the_paper(bench: Workbench) -> None:
    write_paper_files(bench)
    out = bench.curate(PAPER, more=("--rejects", "rejects.jsonl"))
    sets = {name: read_jsonl(out / f"{name}.jsonl") for name in ("ldq", "shq", "lmq", "alf")}
    assert [row["id"] for row in sets["ldq"]] == [
        *(f"m{n}" for n in range(60)),
        *(f"g{n}" for n in range(10)),
        "whole",
    ]
    assert len(sets["shq"]) == 24, "all answers to 6 questions; the seventh is near the third"
    assert [row["id"] for row in sets["lmq"]] == [
        row["id"] for name in ("ldq", "shq") for row in sets[name]
    ]
    assert [row["id"] for row in sets["alf"]] == [f"m{n}" for n in range(36, 60)], "41 words and on"
    assert len(read_jsonl(out / "alf_prime.jsonl")) == 24 + 12
    assert sets["ldq"][0]["file"] == "math/a.jsonl"
    assert (sets["shq"][5]["flags"], sets["shq"][5]["row"]) == (["unclosed_think"], 6)
    composition = read_json(out / "compositions.json")
    assert composition["ldq"]["dropped"] == {
        "ldq_math: exact duplicate": 1,
        "ldq_math: near duplicate": 1,
    }
    assert composition["alf"]["dropped"] == {
        "ldq_math: answer of 40 tokens or fewer": 36,
        "ldq_general: answer of 40 tokens or fewer": 10,
        "ldq_general: answer not told apart from its question": 1,
    }
    assert composition["shq"]["distinct_questions"] == 6
    assert composition["shq"]["domains"]["science"]["rows"] == 8
    assert composition["ldq"]["answer_tokens_histogram"][-1] == {"at_most": 64, "rows": 32}
    rejects = read_jsonl(bench.folder / "rejects.jsonl")
    assert {(row["reason"], row["detail"]) for row in rejects} == {
        ("broken JSON", ""),
        ("no marker shows where the answer begins", ""),
        ("exact duplicate", "kept instead: ldq_math math/a.jsonl:1"),
        ("near duplicate", "kept instead: ldq_math math/b.jsonl:11"),
        *(("near duplicate of a question", f"kept instead: ot3 ot3.parquet:{n}") for n in (9,)),
    }


def test_every_row_has_one_fate(bench: Workbench) -> None:
    write_paper_files(bench)
    out = bench.curate(PAPER)
    manifest = read_json(out / "manifest.json")
    read = sum(each["rows_read"] for each in manifest["inputs"])
    kept = sum(each["rows_kept"] for each in manifest["inputs"])
    dropped = sum(count for source in manifest["dropped"].values() for count in source.values())
    assert read == kept + dropped == 64 + 11 + 28
    composition = read_json(out / "compositions.json")
    for name, members in (("ldq", 62 + 11), ("shq", 28)):
        found = composition[name]
        assert found["rows"] + sum(found["dropped"].values()) == members
        assert found["tokens"] == sum(part["tokens"] for part in found["domains"].values())


def test_tokens_are_those_of_the_tokenizer(bench: Workbench) -> None:
    bench.rows("r.jsonl", [{"question": "one two three", "answer": "four five\n#### 6"}])
    out = bench.curate(
        "sources: {own: {files: [r.jsonl], adapter: gsm8k, domain: math}}\n"
        "sets: {own_set: {members: [own]}}\n"
    )
    found = read_json(out / "compositions.json")["own_set"]
    assert found["tokens"] == 6
    assert found["answers"]["longest"] == 3


@pytest.mark.parametrize("setting", ["two workers", "small batches", "again"])
def test_bytes_do_not_depend_on_workers_or_batches(
    bench: Workbench, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_paper_files(bench)
    more = ("--rejects", "rejects.jsonl", "heldout_share=0.3")
    first = folder_bytes(bench.curate(PAPER, out="first", more=more))
    rejects = (bench.folder / "rejects.jsonl").read_bytes()
    if setting == "small batches":
        monkeypatch.setattr(measure, "BATCH_ROWS", 3)
    workers = ("--workers", "2") if setting == "two workers" else ()
    second = folder_bytes(bench.curate(PAPER, out="second", more=(*more, *workers)))
    assert second == first
    assert (bench.folder / "rejects.jsonl").read_bytes() == rejects


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.mark.parametrize("call", [1, 3, 5])
def test_a_killed_run_goes_on_to_the_same_bytes(
    bench: Workbench, call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed as a receipt or a report is written; files with a receipt are not measured again."""
    write_paper_files(bench)
    expected = folder_bytes(bench.curate(PAPER, out="whole"))
    calls = 0

    def die(path: Path, value: object) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            raise Killed
        path.write_text(json.dumps(value, sort_keys=True, indent=1) + "\n")

    with monkeypatch.context() as patch:
        patch.setattr(run, "write_json", die)
        with pytest.raises(Killed):
            bench.run("mine.yaml", "--out", "out")
    assert not (bench.folder / "out").exists()
    measured: list[str] = []
    real = measure.open_input

    def watched(source: str, file: Path, recipe: Any) -> Any:
        measured.append(str(file))
        return real(source, file, recipe)

    monkeypatch.setattr(run, "open_input", watched)
    assert folder_bytes(bench.curate(PAPER)) == expected
    assert len(measured) == max(4 - (call - 1), 0)
    assert [path.name for path in bench.folder.glob("out.work")] == []


def test_the_same_command_again_does_nothing_and_a_changed_file_is_refused(
    bench: Workbench,
) -> None:
    write_paper_files(bench)
    out = bench.curate(PAPER)
    before = {file: file.stat().st_mtime_ns for file in out.iterdir()}
    code, text, _ = bench.run("mine.yaml", "--out", "out")
    assert code == 0
    assert "already made" in text
    assert {file: file.stat().st_mtime_ns for file in out.iterdir()} == before
    assert "never written over" in bench.refusal("mine.yaml", "seed=2", "--out", "out")
    with open(out / "shq.jsonl", "a") as stream:
        stream.write("more\n")
    assert "nothing edits a result" in bench.refusal("mine.yaml", "--out", "out")


def test_heldout_questions_stand_in_no_set(bench: Workbench) -> None:
    write_paper_files(bench)
    out = bench.curate(PAPER, more=("heldout_share=0.4",))
    heldout, trained = set(), set()
    for file in out.glob("*.jsonl"):
        questions = {row.get("question") for row in read_jsonl(file) if "question" in row}
        (heldout if ".heldout." in file.name else trained).update(questions)
    assert heldout
    assert trained
    assert not heldout & trained


def test_overlap_is_measured_and_not_removed(bench: Workbench) -> None:
    draw = random.Random(7)
    shared = [(words(draw, 15), words(draw, 40)) for _ in range(10)]
    sft = [
        {"domain": "math", "conversations": [
            {"from": "human", "value": question}, {"from": "gpt", "value": answer}]}
        for question, answer in shared
    ]  # fmt: skip
    pretraining = [{"text": f"{question}\n\n{answer}"} for question, answer in shared[:4]]
    pretraining += [{"text": f"{shared[4][0]}\n\n{shared[4][1]} and"}]
    pretraining += [{"text": f"Question: {shared[5][0]}\nAnswer: {words(draw, 40)}"}]
    pretraining += [{"text": words(draw, 50)} for _ in range(4)]
    bench.rows("sft.jsonl", sft)
    bench.rows("pt.jsonl", pretraining)
    out = bench.curate(
        "sources:\n"
        "  sft: {files: [sft.jsonl], adapter: openthoughts3}\n"
        "  pt: {files: [pt.jsonl], adapter: nemotron_pretraining_sft, domain: math,"
        " unsplit: whole_text}\n"
        "sets: {shq: {members: [sft]}, ldq: {members: [pt]}}\n"
        "overlaps: {reuse: [shq, ldq]}\n"
    )
    found = read_json(out / "overlaps.json")["reuse"]
    rows = {
        how: found[how]["of_first"]["rows"] for how in ("same_row", "exact", "near", "question")
    }
    assert rows == {"same_row": 0, "exact": 4, "near": 5, "question": 1}
    assert found["exact"]["of_first"]["tokens"] == 4 * 55
    assert found["exact"]["of_second"]["share_of_rows"] == 0.4
    assert len(read_jsonl(out / "shq.jsonl")) == len(read_jsonl(out / "ldq.jsonl")) == 10


def test_answers_a_question_and_summed_turns(bench: Workbench) -> None:
    turns = "<extra_id_1>User\nq\n<extra_id_1>Assistant\na b c\n"
    bench.rows("d.jsonl", [{"text": turns + turns}, {"text": turns}, {"text": turns + " d"}])
    recipe = (
        "sources: {own: {files: [d.jsonl], adapter: nemotron_pretraining_sft, domain: general}}\n"
        "sets:\n  long: {members: [own], answer_tokens_above: 4}\n"
        "  one: {members: [own], answers_per_question: 1}\n"
    )
    out = bench.curate(recipe, more=("multi_turn_answer=sum",))
    assert [row["row"] for row in read_jsonl(out / "long.jsonl")] == [1]
    assert [row["row"] for row in read_jsonl(out / "one.jsonl")] == [1, 2]


def test_every_kind_of_row_is_read_by_those_who_come_next(bench: Workbench) -> None:
    """Conversations by the packer of SFT rows; texts and copies by `read_documents`."""
    write_paper_files(bench)
    out = bench.curate(PAPER, more=("sets.lmq.text_copy=true",))
    rows = read_jsonl(out / "lmq.jsonl")
    texts = list(read_documents(out / "lmq.text.jsonl"))
    assert len(texts) == len(rows)
    kinds = set()
    for row, text in zip(rows, texts, strict=True):
        assert isinstance(text, BaseText)
        kinds.add("text" if "text" in row else "question")
        if "text" in row:
            assert text.text == row["text"]
            continue
        assert text.text.startswith(row["question"] + "\n\n")
        dialogue = read_dialogue(row)
        if "flags" in row:
            assert isinstance(dialogue, Misfit), "an answer that was cut is no answer"
            assert dialogue.reason == "empty text"
        else:
            assert isinstance(dialogue, Dialogue)
            assert dialogue.messages[-1]["content"] == row["answer"]
    assert kinds == {"text", "question"}
