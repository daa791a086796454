"""Windows, epochs, disjointness and the ledger of a blend, down to single tokens."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from frontload.data_tools.disk.files import read_json
from frontload.data_tools.disk.indexed import IndexedReader
from frontload.recipes.artifact import index_prefix
from frontload.recipes.errors import RecipeError
from frontload.recipes.schema import Blend, Window
from tests.unit.data_tools.room import Room

S = 64


def recipe(phase: str, *windows: tuple[str, int, int], epochs: float = 1.0, seed: int = 1) -> Blend:
    """Windows are (source, start in samples, samples)."""
    return Blend(
        phase=phase,
        windows=tuple(
            Window(source=name, start_tokens=S * start, tokens=S * samples)
            for name, start, samples in windows
        ),
        sequence_tokens=S,
        max_epochs={name: epochs for name, _, _ in windows},
        seed=seed,
    )


def blend(room: Room, made: Blend, *, name: str, **more: Path) -> Path:
    indexes = {w.source: room.folder / f"index-{w.source}" for w in made.windows}
    return room.run("blend", made, name=name, **indexes, **more)


def sample_tokens(room: Room, folder: Path, number: int) -> list[int]:
    """Reads one sample as the trainer does, from the files alone: S inputs and a label."""
    plan = read_json(folder / "plan.json")
    source, place = np.load(folder / "samples.npy")[number]
    name = plan["sources"][source]["name"]
    reader = IndexedReader(index_prefix(room.folder / f"index-{name}"))
    order = np.load(folder / f"{name}.order.npy")
    stream = np.concatenate([reader.document(int(document)) for document in order])
    assert len(stream) == np.load(folder / f"{name}.offsets.npy")[-1]
    return stream[place : place + S + 1].tolist()


def test_label_overlaps_and_inputs_follow_on(built_room: Room) -> None:
    folder = blend(built_room, recipe("a", ("base", 3, 9)), name="blend-follow")
    samples = [sample_tokens(built_room, folder, number) for number in range(9)]
    assert all(len(sample) == S + 1 for sample in samples)
    assert [sample[0] for sample in samples[1:]] == [sample[-1] for sample in samples[:-1]]


def test_two_phases_read_every_token_at_most_once(built_room: Room) -> None:
    """All 313 whole samples of one epoch, in two phases: inputs together are the stream's head."""
    one_epoch = IndexedReader(index_prefix(built_room.folder / "index-base")).num_tokens
    samples = one_epoch // S
    first = blend(built_room, recipe("a", ("base", 0, 200)), name="blend-once-a")
    second = blend(
        built_room,
        recipe("b", ("base", 200, samples - 200)),
        name="blend-once-b",
        before=first,
    )
    read = [
        token
        for folder, count in ((first, 200), (second, samples - 200))
        for number in range(count)
        for token in sample_tokens(built_room, folder, number)[:-1]
    ]
    whole = blend(built_room, recipe("all", ("base", 0, samples)), name="blend-once-all")
    order = np.load(whole / "base.order.npy")
    assert len(set(order.tolist())) == len(order)
    reader = IndexedReader(index_prefix(built_room.folder / "index-base"))
    stream = np.concatenate([reader.document(int(document)) for document in order])
    assert read == stream[: samples * S].tolist()
    ledger = read_json(second / "plan.json")["ledger"]["base"]
    assert ledger["repeated_tokens"] == 0
    assert ledger["unique_tokens"] == ledger["tokens"] == (samples - 200) * S


def test_each_epoch_is_a_new_shuffle_of_every_document(built_room: Room) -> None:
    one_epoch = IndexedReader(index_prefix(built_room.folder / "index-ldq")).num_tokens
    samples = 3 * one_epoch // S
    folder = blend(built_room, recipe("a", ("ldq", 0, samples), epochs=3.0), name="blend-epochs")
    order = np.load(folder / "ldq.order.npy")
    first, second = order[:300], order[300:600]
    assert sorted(first) == sorted(second) == list(range(300))
    assert not np.array_equal(first, second)
    ledger = read_json(folder / "plan.json")["ledger"]["ldq"]
    assert ledger["tokens_by_epoch"] == {
        "0": one_epoch,
        "1": one_epoch,
        "2": samples * S - 2 * one_epoch,
    }
    assert ledger["unique_tokens"] == one_epoch
    assert ledger["repeated_tokens"] == samples * S - one_epoch


def test_a_whole_epoch_may_end_with_the_next_epochs_label(room: Room) -> None:
    """A window of exactly max_epochs is allowed; only its last label lies behind it."""
    room.tokenizer()
    rows = room.corpus / "base.jsonl"
    rows.write_text("".join(f'{{"id": "{i}", "text": "w1 w2 w3"}}\n' for i in range(S)))
    room.mix("base", "base")
    room.index("base")  # 4 tokens a document: one epoch is 4 samples
    folder = blend(room, recipe("a", ("base", 0, 4)), name="blend-exact")
    assert len(np.load(folder / "base.order.npy")) == S + 1
    assert read_json(folder / "plan.json")["ledger"]["base"]["tokens_by_epoch"] == {"0": 4 * S}
    with pytest.raises(RecipeError, match="write at most 256 tokens"):
        blend(room, recipe("a", ("base", 0, 5)), name="blend-more")


def test_order_of_samples_is_stream_order_within_a_source(built_room: Room) -> None:
    made = recipe("b", ("base", 10, 80), ("ldq", 0, 20))
    samples = np.load(blend(built_room, made, name="blend-order") / "samples.npy")
    for source in (0, 1):
        assert set(np.diff(samples[samples[:, 0] == source, 1])) == {S}


def test_the_same_recipe_gives_the_same_bytes(built_room: Room) -> None:
    made = recipe("b", ("base", 10, 80), ("ldq", 0, 20))
    folders = [blend(built_room, made, name=f"blend-same-{n}") for n in range(2)]
    names = sorted(path.name for path in folders[0].iterdir())
    assert names == [
        *("base.offsets.npy", "base.order.npy", "ldq.offsets.npy", "ldq.order.npy"),
        *("plan.json", "samples.npy"),
    ]
    for name in names:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_another_seed_gives_another_stream(built_room: Room) -> None:
    orders = [
        np.load(
            blend(built_room, recipe("a", ("base", 0, 90), seed=seed), name=f"blend-seed{seed}")
            / "base.order.npy"
        )
        for seed in (1, 2)
    ]
    assert not np.array_equal(orders[0][:50], orders[1][:50])


def test_budget_beyond_the_windows_is_refused_with_what_fits(built_room: Room) -> None:
    one_epoch = IndexedReader(index_prefix(built_room.folder / "index-ldq")).num_tokens
    fits = int(1.5 * one_epoch) // S * S
    made = recipe("b", ("ldq", 0, fits // S + 1), epochs=1.5)
    with pytest.raises(RecipeError) as caught:
        blend(built_room, made, name="blend-big")
    assert f"max_epochs.ldq is 1.5: {int(1.5 * one_epoch)} tokens" in caught.value.rule
    assert f"write at most {fits} tokens" in caught.value.do
    blend(built_room, recipe("b", ("ldq", 0, fits // S), epochs=1.5), name="blend-fits")


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (recipe("b"), "no window"),
        (recipe("b", ("base", 0, 1), ("base", 1, 1)), "one window for each"),
        (recipe("b", ("base", -1, 1)), "a positive multiple"),
        (recipe("b", ("base", 0, 0)), "a positive multiple"),
    ],
)
def test_a_wrong_window_is_refused(built_room: Room, made: Blend, told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        blend(built_room, made, name="blend-wrong")


def test_a_misspelt_source_is_answered_with_the_nearest(built_room: Room) -> None:
    made = recipe("b", ("bsae", 0, 1))
    base = built_room.folder / "index-base"
    with pytest.raises(RecipeError, match="no input of that name .nearest: 'base'"):
        built_room.run("blend", made, name="blend-name", base=base)


def test_overlap_with_an_earlier_phase_is_refused_with_the_free_start(built_room: Room) -> None:
    first = blend(built_room, recipe("a", ("base", 0, 100)), name="blend-over-a")
    second = blend(built_room, recipe("b", ("base", 100, 50)), name="blend-over-b", before=first)
    made = recipe("c", ("base", 149, 10))
    with pytest.raises(RecipeError) as caught:
        blend(built_room, made, name="blend-over-c", before=second)
    assert f"write start_tokens: {150 * S}" in str(caught.value)
    with pytest.raises(RecipeError, match="seed 2; phase a had 1"):
        blend(built_room, recipe("c", ("base", 150, 10), seed=2), name="blend-c", before=second)


def test_another_index_may_not_continue_a_stream(room: Room) -> None:
    room.tokenizer()
    room.mix("base", "base")
    room.index("base")
    first = blend(room, recipe("a", ("base", 0, 100)), name="blend-a")
    rows = (room.corpus / "base.jsonl").read_text().splitlines(keepends=True)
    (room.corpus / "base.jsonl").write_text("".join(reversed(rows)))
    for name in ("mix-base", "index-base", "scratch"):  # a workspace is of one key
        shutil.rmtree(room.folder / name)
    room.mix("base", "base")
    room.index("base")
    with pytest.raises(RecipeError, match="index_sha256"):
        blend(room, recipe("b", ("base", 100, 10)), name="blend-b", before=first)
