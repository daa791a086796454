"""Rows in proportion to whole weights: exact sums, shares rounded, the same draw every time."""

import json
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest

from frontload.data_tools.corpus.weights import times_of, write_weighted
from frontload.data_tools.text.tokenizer import TextTokenizer
from frontload.recipes.errors import RecipeError
from frontload.recipes.schema import Mix, RowWeights
from tests.unit.data_tools.room import Room


def ids(path: Path) -> list[str]:
    return [json.loads(line)["id"] for line in path.read_text().splitlines()]


def test_each_row_stands_as_often_as_its_share_rounded_down_or_up() -> None:
    weights = [0, 1, 1, 2, 3, 5, 8, 13, 21, 10**30]
    for seed in range(50):
        times = times_of(weights, seed=seed)
        assert sum(times) == len(weights)
        for weight, count in zip(weights, times, strict=True):
            share = Fraction(weight * len(weights), sum(weights))
            assert int(share) <= count <= -int(-share // 1)


def test_the_mean_over_seeds_is_the_share_and_equal_weights_keep_each_row_once() -> None:
    weights = [1, 2, 3, 4, 10]
    found = [times_of(weights, seed=seed) for seed in range(2000)]
    means = [sum(times[place] for times in found) / 2000 for place in range(5)]
    assert means == pytest.approx([0.25, 0.5, 0.75, 1.0, 2.5], abs=0.04)  # se 0.011 at most
    assert times_of([7] * 9, seed=3) == [1] * 9
    assert times_of(weights, seed=1) == times_of(weights, seed=1)


def curate(room: Room, by: RowWeights) -> Path:
    recipe = Mix(
        name="shq",
        members=("shq",),
        min_answer_tokens=0,
        share_of_member={},
        seed=3,
        row_weights=by,
    )
    inputs = {"corpus": room.corpus, "tokenizer": room.folder / "tokenizer"}
    return room.run("curate", recipe, name=f"weighted-{by.field}", **inputs)


def test_a_set_by_length_has_as_many_rows_and_longer_answers(tmp_path: Path) -> None:
    room = Room(tmp_path)
    room.tokenizer()
    plain, made = (
        room.mix("plain", "shq"),
        curate(room, RowWeights(field="answer_tokens", weights={})),
    )
    before, after = ids(plain / "documents.jsonl"), ids(made / "documents.jsonl")
    assert len(after) == len(before) == 80
    lines = (plain / "documents.jsonl").read_text().splitlines()
    rows = {json.loads(one)["id"]: json.loads(one) for one in lines}
    # <|answer|> and <|end|> are targets too
    length = {
        name: len(f"{row['trace']} {row['answer']}".split()) + 2 for name, row in rows.items()
    }
    copies = Counter(after)
    for name in before:
        share = Fraction(80 * length[name], sum(length.values()))
        assert int(share) <= copies[name] <= int(share) + 1
    assert sum(length[name] for name in after) > sum(length.values())
    facts = json.loads((made / "composition.json").read_text())["row_weights"]
    assert facts == {
        "by": "answer_tokens",
        "rows": 80,
        "distinct_rows": len(copies),
        "most_copies": max(copies.values()),
    }
    first = after[: len(copies)]  # a round holds each row once, in the order of the set
    assert first == [name for name in before if name in copies]


def test_families_are_weighed_and_one_without_a_weight_is_refused(tmp_path: Path) -> None:
    room = Room(tmp_path)
    tokenizer = TextTokenizer.load_ours(room.tokenizer())
    source, out = room.corpus / "shq.jsonl", tmp_path / "out.jsonl"
    names = sorted({json.loads(line)["family"] for line in source.read_text().splitlines()})
    weights = {name: 0 for name in names} | {names[0]: 2}

    def write(by: dict[str, int]) -> None:
        row_weights = RowWeights(field="family", weights=by)
        write_weighted(source, out, row_weights=row_weights, tokenizer=tokenizer, seed=3)

    write(weights)
    written = [json.loads(line)["family"] for line in out.read_text().splitlines()]
    assert written == [names[0]] * 80
    out.unlink()
    with pytest.raises(RecipeError, match=f"no weight for {names[1]}"):
        write({names[0]: 1})
    with pytest.raises(RecipeError, match="0 for each of 80 rows"):
        write(dict.fromkeys(names, 0))
    assert not out.exists()
