"""SFT rows: whole conversations, counted drops, exact epochs, loss by position."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from frontload.data_tools.disk.files import read_json
from frontload.data_tools.disk.indexed import IndexedReader
from frontload.data_tools.packing.place import first_fit
from frontload.data_tools.text.document import read_documents
from frontload.data_tools.text.render import encode_rows
from frontload.data_tools.text.tokenizer import TextTokenizer
from frontload.recipes.errors import RecipeError
from frontload.recipes.schema import Pack
from tests.unit.data_tools.room import Room

S = 64


def pack(room: Room, *, name: str, mix: str = "lmq", **fields: object) -> Path:
    values = {"sequence_tokens": S, "tokens": S * 300, "over_long": "drop", "seed": 4} | fields
    return room.run(
        "pack",
        Pack(**values),  # type: ignore[arg-type]
        name=name,
        documents=room.folder / f"mix-{mix}",
        tokenizer=room.folder / "tokenizer",
    )


def rendered(room: Room, mix: str) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    rows = list(read_documents(room.folder / f"mix-{mix}" / "documents.jsonl"))
    found = encode_rows(TextTokenizer.load(room.folder / "tokenizer"), rows)
    return [(tuple(one.tokens_S.tolist()), tuple(one.loss_mask_S.tolist())) for one in found]


def packed(folder: Path) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    tokens, mask = IndexedReader(folder / "tokens"), IndexedReader(folder / "loss_mask")
    return [
        (tuple(tokens.sequence(n).tolist()), tuple(mask.sequence(n).tolist()))
        for n in range(tokens.num_sequences)
    ]


def test_every_conversation_is_packed_once_with_its_mask(built_room: Room) -> None:
    folder = pack(built_room, name="pack-once")
    assert Counter(packed(folder)) == Counter(rendered(built_room, "lmq"))
    rows = IndexedReader(folder / "tokens").document_lengths
    assert rows.max() <= S + 1
    counts = read_json(folder / "pack.json")
    assert counts["rows"] == len(rows)
    assert counts["padding_share"] == str_share(len(rows) * (S + 1) - int(rows.sum()), len(rows))


def str_share(padding: int, rows: int) -> str:
    from fractions import Fraction

    return str(Fraction(padding, rows * (S + 1)))


def test_over_long_conversations_are_dropped_and_counted(built_room: Room) -> None:
    limit = 20
    folder = pack(built_room, name="pack-long", sequence_tokens=limit, tokens=limit * 50)
    long = [one for one in rendered(built_room, "lmq") if len(one[0]) > limit + 1]
    counts = read_json(folder / "pack.json")
    assert counts["dropped"] == {"longer than a row": len(long)}
    assert len(long) > 0
    of_families = [one["dropped"].get("longer than a row", 0) for one in counts["sources"].values()]
    assert sum(of_families) == len(long)
    assert len(of_families) > 1
    assert counts["conversations"] == counts["conversations_packed"] + len(long)
    assert not Counter(packed(folder)) & Counter(long)


def test_a_row_as_long_as_a_row_is_kept(built_room: Room) -> None:
    longest = max(len(tokens) for tokens, _ in rendered(built_room, "lmq"))
    folder = pack(
        built_room, name="pack-edge", sequence_tokens=longest - 1, tokens=10 * (longest - 1)
    )
    assert read_json(folder / "pack.json")["dropped"] == {}


def test_order_is_epoch_after_epoch_and_exact(built_room: Room) -> None:
    folder = pack(built_room, name="pack-order")
    order = np.load(folder / "order.npy")
    num_rows = read_json(folder / "pack.json")["rows"]
    assert len(order) == 300
    assert 300 / num_rows > 1
    epochs = [order[at : at + num_rows] for at in range(0, 300, num_rows)]
    assert sorted(epochs[0]) == list(range(num_rows))
    assert not np.array_equal(epochs[0][: len(epochs[-1])], epochs[-1])
    assert all(len(set(epoch)) == len(epoch) for epoch in epochs)


def test_the_same_recipe_gives_the_same_bytes(built_room: Room) -> None:
    folders = [pack(built_room, name=f"pack-same-{n}") for n in range(2)]
    for path in folders[0].iterdir():
        assert path.read_bytes() == (folders[1] / path.name).read_bytes(), path.name


def test_first_fit_takes_the_first_row_with_room() -> None:
    assert first_fit([10, 11, 12, 13, 14], [6, 5, 4, 3, 2], 10) == [[10, 12], [11, 13, 14]]
    assert first_fit([], [], 10) == []


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"tokens": S * 3 + 1}, f"pack.tokens: {S * 3 + 1}; .*; write {S * 3}"),
        ({"over_long": "truncate"}, "--over-long: 'truncate'"),
        ({"sequence_tokens": 4, "tokens": 40}, "no conversation to pack; .*longer than a row"),
        ({"mix": "base"}, "400 of 400 rows cannot be used; .*plain text, no conversation"),
    ],
)
def test_what_cannot_be_packed_is_refused(
    built_room: Room, fields: dict[str, object], told: str
) -> None:
    with pytest.raises(RecipeError, match=told):
        pack(built_room, name="pack-wrong", **fields)  # type: ignore[arg-type]


def test_counts_are_plain_json(built_room: Room) -> None:
    text = (pack(built_room, name="pack-json") / "pack.json").read_text()
    assert text == json.dumps(json.loads(text), sort_keys=True, indent=1) + "\n"
