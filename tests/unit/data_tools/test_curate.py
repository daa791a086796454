"""Mixes: unions, the length filter of ALF, seeded shares, and what is counted."""

import json
from pathlib import Path

import pytest

from frontload.data_tools.disk.files import read_json
from frontload.recipes.errors import RecipeError
from frontload.recipes.schema import Mix
from tests.unit.data_tools.room import Room


def curate(room: Room, *, name: str = "made", **fields: object) -> Path:
    values = {"members": ("ldq",), "min_answer_tokens": 0, "share_of_member": {}, "seed": 3}
    recipe = Mix(name=name, **(values | fields))  # type: ignore[arg-type]
    inputs = {"corpus": room.corpus, "tokenizer": room.folder / "tokenizer"}
    return room.run("curate", recipe, name=f"curate-{name}", **inputs)


def rows(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture
def ready(room: Room) -> Room:
    room.tokenizer()
    return room


def test_a_union_is_its_members_in_order(ready: Room) -> None:
    made = rows(curate(ready, members=("ldq", "shq")) / "documents.jsonl")
    assert made == rows(ready.corpus / "ldq.jsonl") + rows(ready.corpus / "shq.jsonl")


def test_alf_keeps_answers_strictly_longer_and_alf_prime_all_of_shq(ready: Room) -> None:
    def answer_words(row: dict) -> int:
        return len(row["trace"].split()) + len(row["answer"].split())

    threshold = answer_words(next(r for r in rows(ready.corpus / "ldq.jsonl") if r["trace"]))
    long = [r for r in rows(ready.corpus / "ldq.jsonl") if answer_words(r) > threshold]
    alf = curate(ready, name="alf", min_answer_tokens=threshold)
    assert rows(alf / "documents.jsonl") == long
    dropped = read_json(alf / "composition.json")["dropped"]
    assert dropped == {f"ldq: answer of {threshold} tokens or fewer": 300 - len(long)}
    prime = curate(ready, name="prime", members=("ldq", "shq"), min_answer_tokens=threshold)
    assert rows(prime / "documents.jsonl") == long + rows(ready.corpus / "shq.jsonl")


def test_a_share_is_exact_and_a_larger_share_holds_the_smaller(ready: Room) -> None:
    kept = [
        {
            row["id"]
            for row in rows(
                curate(ready, name=f"s{share}", share_of_member={"ldq": share}) / "documents.jsonl"
            )
        }
        for share in (0.25, 0.5)
    ]
    assert [len(ids) for ids in kept] == [75, 150]
    assert kept[0] < kept[1]
    dropped = read_json(ready.folder / "curate-s0.25" / "composition.json")["dropped"]
    assert dropped == {"ldq: not in the drawn share": 225}


def test_parts_of_a_member_share_no_row_and_make_it_whole(ready: Room) -> None:
    parts = []
    for name, part in (("first", (0.0, 0.3)), ("second", (0.3, 1.0))):
        made = curate(ready, name=name, members=("ldq", "shq"), part_of_member={"ldq": part})
        parts.append([row["id"] for row in rows(made / "documents.jsonl") if "ldq" in row["id"]])
    assert [len(part) for part in parts] == [90, 210]
    assert sorted(parts[0] + parts[1]) == sorted(r["id"] for r in rows(ready.corpus / "ldq.jsonl"))
    shared = curate(ready, name="share", members=("ldq", "shq"), share_of_member={"ldq": 0.3})
    assert [r["id"] for r in rows(shared / "documents.jsonl") if "ldq" in r["id"]] == parts[0]


def test_composition_counts_words(ready: Room) -> None:
    found = read_json(curate(ready, members=("base", "shq")) / "composition.json")
    shq = rows(ready.corpus / "shq.jsonl")
    words = sum(len(f"{r['question']} {r['trace']} {r['answer']}".split()) for r in shq)
    assert found["members"]["shq"] == {"rows": 80, "tokens": words}
    assert sum(part["tokens"] for part in found["domains"].values()) == found["tokens"]
    assert sum(one["rows"] for one in found["answer_tokens_histogram"]) == 80


def test_rows_that_cannot_be_rendered_are_dropped_by_reason(ready: Room) -> None:
    bad = rows(ready.corpus / "shq.jsonl")[:3]
    bad[0]["question"] = "say <|end|> now"
    bad[1]["answer"] = ""
    bad[2]["question"] = " "
    with open(ready.corpus / "shq.jsonl", "a") as stream:
        stream.write("".join(json.dumps(row) + "\n" for row in bad))
    found = read_json(curate(ready, members=("shq",)) / "composition.json")
    assert found["rows"] == 80
    assert found["dropped"] == {
        "shq: empty answer": 1,
        "shq: empty question": 1,
        "shq: spells a special token": 1,
    }


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"members": ()}, "sources: empty; .* name at least one of the sources"),
        ({"members": ("lqd",)}, "lqd.jsonl: there is no such file"),
        ({"members": ("ldq", "ldq")}, "sets.mix.members: ldq, ldq; .*each named once"),
        (
            {"share_of_member": {"shq": 0.5}},
            "share_of_member: 'shq'.*shares are of members; write one of ldq",
        ),
        ({"share_of_member": {"ldq": 1.5}}, "share_of_member.ldq: 1.5; a share is above 0"),
        ({"members": ("shq",), "min_answer_tokens": 9}, "keeps long answers of ldq"),
        ({"min_answer_tokens": 9999}, "no row left"),
    ],
)
def test_a_mix_that_cannot_be_made_is_refused(
    ready: Room, fields: dict[str, object], told: str
) -> None:
    with pytest.raises(RecipeError, match=told):
        curate(ready, **fields)  # type: ignore[arg-type]
    assert not (ready.folder / "curate-made" / "documents.jsonl").exists()


def test_a_broken_corpus_line_is_counted(ready: Room) -> None:
    with open(ready.corpus / "ldq.jsonl", "a") as stream:
        stream.write('{"id": "x", "question": "q", "trace": 7, "answer": "a"}\n{"id": \n')
    found = read_json(curate(ready) / "composition.json")
    assert found["rows"] == 300
    assert found["dropped"] == {
        "ldq: broken JSON": 1,
        "ldq: question, trace and answer are not all text": 1,
    }
