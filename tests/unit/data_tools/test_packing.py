"""`frontload data pack`: golden masks, whole conversations, counts by source, the same bytes."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from frontload.data_tools.disk.indexed import IndexedReader
from frontload.data_tools.packing import choice
from frontload.data_tools.packing.build import build_pack
from frontload.data_tools.packing.encode import Counts, PackRules, SequenceEncoder
from frontload.data_tools.packing.plan import PackRequest
from frontload.data_tools.packing.rows import FILES
from frontload.data_tools.preprocess import encoder as encoders
from frontload.data_tools.preprocess import text_encoder
from frontload.data_tools.preprocess.request import EncoderChoice
from frontload.data_tools.preprocess.vocabulary import Vocabulary
from frontload.data_tools.raw.parse import RawRow
from frontload.data_tools.text.chat import load_template
from frontload.data_tools.text.render import encode_rows
from frontload.data_tools.text.tokenizer import TextTokenizer
from frontload.recipes.errors import ArtifactError, RecipeError
from tests.unit.data_command import run_data_command
from tests.unit.data_tools.chats import CHATML, chatml_tokenizer, dialogue, long_tailed
from tests.unit.data_tools.room import Room, write_jsonl
from tests.unit.data_tools.test_render import BARE, WORKED

LONG = 4096


@pytest.fixture(scope="module")
def chatml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chatml_tokenizer(tmp_path_factory.mktemp("chatml"))


def encoder(tokenizer: Path, *, limit: int = LONG, over_long: str = "drop") -> SequenceEncoder:
    loaded = TextTokenizer.load(tokenizer)
    rules = PackRules(sequence_tokens=limit, over_long=over_long, source_field="source")
    return SequenceEncoder(loaded, load_template(None, loaded), rules)


def parts_of(tokenizer: Path, row: dict, **limits: object) -> tuple[list[tuple[str, str]], Counts]:
    """(text, its targets in brackets) of every part of a row, and the counts."""
    counts = Counts()
    one = RawRow(Path("rows.jsonl"), 1, row)
    (parts,) = encoder(tokenizer, **limits).encode([one], counts)  # type: ignore[arg-type]
    loaded = TextTokenizer.load(tokenizer)
    shown = []
    for part in parts:
        text, at = "", 0
        edges = np.flatnonzero(np.diff(part.mask)) + 1
        for stop in [*edges.tolist(), len(part.mask)]:
            piece = loaded.decode(part.tokens[at:stop].tolist())
            text += f"[[{piece}]]" if part.mask[at] else piece
            at = stop
        shown.append((loaded.decode(part.tokens.tolist()), text))
    return shown, counts


GOLDEN = {
    "one turn": (
        dialogue("1+1?", "2"),
        "<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n[[2<|im_end|>]]\n",
    ),
    "two turns": (
        dialogue("1+1?", "2", "and 2+2?", "4"),
        "<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n[[2<|im_end|>]]\n"
        "<|im_start|>user\nand 2+2?<|im_end|>\n<|im_start|>assistant\n[[4<|im_end|>]]\n",
    ),
    "system turn": (
        dialogue("1+1?", "2", system="Be brief."),
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n1+1?<|im_end|>\n"
        "<|im_start|>assistant\n[[2<|im_end|>]]\n",
    ),
    "think block": (
        dialogue("1+1?", "<think>one more\nthan one</think>2"),
        "<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n"
        "[[<think>\none more\nthan one\n</think>\n\n2<|im_end|>]]\n",
    ),
    "question with a trace": (
        {"question": "1+1?", "trace": "one more", "answer": "2"},
        "<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n"
        "[[<think>\none more\n</think>\n\n2<|im_end|>]]\n",
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_masks_are_the_golden_ones(chatml: Path, name: str) -> None:
    """The end of a turn is a target although it is the padding token: the mask never sees ids."""
    row, golden = GOLDEN[name]
    ((_, shown),), _ = parts_of(chatml, row)
    assert shown == golden


def test_our_own_template_gives_the_tokens_and_masks_of_the_study(built_room: Room) -> None:
    tokenizer = built_room.folder / "tokenizer"
    rows = [
        RawRow(Path("r.jsonl"), n, {"question": c.question, "trace": c.trace, "answer": c.answer})
        for n, c in enumerate((WORKED, BARE))
    ]
    found = encoder(tokenizer).encode(rows, Counts())
    for (part,), one in zip(
        found, encode_rows(TextTokenizer.load(tokenizer), [WORKED, BARE]), strict=True
    ):
        assert part.tokens.tolist() == one.tokens_S.tolist()
        assert part.mask.tolist() == one.loss_mask_S.tolist()


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (dialogue("a", "say <|im_end|> twice"), "spells a special token"),
        (dialogue("a"), "it does not end with the assistant"),
        (dialogue("a", "<think>and so"), "unclosed <think>"),
        (dialogue("a", " "), "empty text"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "it does not begin with the user"),
        ({"messages": [{"role": "critic", "content": "a"}]}, "a turn of role critic"),
        ({"messages": "a"}, "wrong type"),
        ({"messages": [{"role": "user", "content": 1}]}, "wrong type"),
        ({"text": "a book"}, "plain text, no conversation"),
        ({"prompt": "a"}, "missing key"),
        ({"messages": None}, "null value"),
        ({"messages": None, "text": "a book"}, "plain text, no conversation"),
        (dialogue("a", "b" * LONG), "longer than a row"),
    ],
)
def test_what_is_no_conversation_is_dropped_by_reason(chatml: Path, row: dict, reason: str) -> None:
    shown, counts = parts_of(chatml, row)
    assert not shown
    assert counts.dropped == Counter({f"rows.jsonl\t{reason}": 1})


def test_a_template_that_leaves_out_a_turn_is_told(built_room: Room) -> None:
    _, counts = parts_of(built_room.folder / "tokenizer", dialogue("w1", "w2", system="w3"))
    assert list(counts.dropped) == [
        "rows.jsonl\tthe template leaves out a turn of role system, or alters it"
    ]


def test_a_dialogue_is_cut_before_a_users_turn(chatml: Path) -> None:
    """Each part begins with the system turn, holds whole turns, and none is lost but the giant."""
    turns = [f"{'q' * 20} {n:02d}" if n % 2 == 0 else f"{'a' * 60} {n:02d}" for n in range(12)]
    turns[5] = "x" * 900
    shown, counts = parts_of(
        chatml, dialogue(*turns, system="Sys."), limit=290, over_long="split_at_turn"
    )
    assert len(shown) > 2
    assert all(text.startswith("<|im_start|>system\nSys.") for text, _ in shown)
    kept = [text for number, text in enumerate(turns) if number not in (4, 5)]
    assert [text for text in kept if sum(text in part for part, _ in shown) != 1] == []
    assert counts.split == counts.packed == Counter({"rows.jsonl": 1})
    assert counts.parts == Counter({"rows.jsonl": len(shown)})
    assert counts.cut_turns == Counter({"rows.jsonl": 1})
    assert all(text.count("[[") == text.count("<|im_start|>assistant") for _, text in shown)


def request(used: Path, pack: Path, *inputs: Path, **changes: object) -> PackRequest:
    values = {
        "inputs": tuple(map(str, inputs)), "tokenizer": used, "template": None, "output": pack,
        "sequence_tokens": 1024, "over_long": "drop", "source_field": "source",
        "epochs": 1, "seed": 1, "workers": 1,
    }  # fmt: skip
    return PackRequest(**(values | changes))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2,500 conversations, three shards, with a few that are none."""
    bad = [{"text": "t"}, dialogue("a"), dialogue("a", "b" * 5000) | {"source": "code"}]
    folder = tmp_path_factory.mktemp("rows")
    return write_jsonl(folder / "rows.jsonl", long_tailed(2500, mean=220, seed=1) + bad)


@pytest.fixture(scope="module")
def packed(chatml: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("packs") / "pack"
    build_pack(request(chatml, output, rows, epochs=2))
    return output


def test_every_conversation_is_packed_once_and_traced(
    chatml: Path, rows: Path, packed: Path
) -> None:
    counts = json.loads((packed / "pack.json").read_text())
    tokens, mask = IndexedReader(packed / "tokens"), IndexedReader(packed / "loss_mask")
    origin = np.load(packed / "origin.npy")
    written = [json.loads(line) for line in rows.open()]
    loaded = TextTokenizer.load(chatml)
    seen = set()
    for number in range(0, tokens.num_sequences, 7):
        file, row, part = origin[number].tolist()
        assert (file, part) == (0, 0)
        seen.add(row)
        text = loaded.decode(tokens.sequence(number).tolist())
        question, answer = (turn["content"] for turn in written[row - 1]["messages"])
        assert question in text
        target = tokens.sequence(number)[mask.sequence(number).astype(bool)].tolist()
        assert loaded.decode(target) == answer.strip() + "<|im_end|>"
    assert len({int(row) for row in origin[:, 1]}) == tokens.num_sequences
    assert counts["sequences"] == counts["conversations_packed"] == tokens.num_sequences
    assert counts["sources"]["code"]["dropped"]["longer than a row"] >= 1
    assert counts["sources"]["rows.jsonl"]["dropped"] == {
        "it does not end with the assistant": 1,
        "plain text, no conversation": 1,
    }
    assert sum(one["rows"] for one in counts["sources"].values()) == 2503
    assert tokens.document_lengths.max() <= 1025
    assert counts["efficiency"] > 0.97
    order = np.load(packed / "order.npy")
    assert len(order) == 2 * counts["rows"]


@pytest.mark.parametrize("workers", [1, 2])
def test_either_library_packs_the_same_bytes(
    chatml: Path, rows: Path, packed: Path, tmp_path: Path, workers: int
) -> None:
    plain = tmp_path / "plain"
    asked = request(chatml, plain, rows, epochs=2, workers=workers)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choice, "choose_encoder", lambda *_: (EncoderChoice.TOKENIZERS, "a test"))
        build_pack(asked)
    used = [json.loads((folder / "pack.json").read_text())["made_by"] for folder in (packed, plain)]
    assert [made_by["encoder"] for made_by in used] == ["gigatoken", "tokenizers"]
    assert used[1]["encoder_reason"] == "a test"
    for file in FILES:
        assert (packed / file).read_bytes() == (plain / file).read_bytes()


def test_other_ids_in_a_later_shard_pack_everything_again(
    chatml: Path, rows: Path, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind what is compared at the start, gigatoken loses an id: shards of it are thrown away."""
    right = encoders.fast_encoder
    calls = 0

    def wrong(vocabulary: Vocabulary) -> Callable[[str], np.ndarray]:
        def encode(text: str) -> np.ndarray:
            nonlocal calls
            calls += 1
            ids = right(vocabulary)(text)
            return ids[:-1] if calls > 9000 else ids

        return encode

    monkeypatch.setattr(encoders, "fast_encoder", wrong)
    monkeypatch.setattr(text_encoder, "CHECK_EVERY", 1)
    build_pack(request(chatml, tmp_path / "pack", rows, epochs=2))
    assert calls > 9000
    made_by = json.loads((tmp_path / "pack" / "pack.json").read_text())["made_by"]
    assert made_by["encoder"] == "tokenizers"
    assert "other ids than tokenizers" in made_by["encoder_reason"]
    for file in FILES:
        assert (packed / file).read_bytes() == (tmp_path / "pack" / file).read_bytes()


def test_the_engine_reads_boundaries_as_resets(packed: Path) -> None:
    from frontload.megatron_ext.training.datasets import PackSamples

    samples, tokens = PackSamples(packed, 1024), IndexedReader(packed / "tokens")
    order = np.load(packed / "order.npy")
    rows = samples.read(range(5))
    for number in range(5):
        first, last = tokens.document_indices[order[number] : order[number] + 2]
        lengths = tokens.sequence_lengths[first:last]
        found = np.flatnonzero(np.diff(rows.document_ids_BS[number])) + 1
        assert found.tolist() == [n for n in np.cumsum(lengths).tolist() if n < 1024]


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_bytes_do_not_depend_on_workers(
    chatml: Path, rows: Path, packed: Path, tmp_path: Path
) -> None:
    build_pack(request(chatml, tmp_path / "pack", rows, epochs=2, workers=2))
    assert files_of(tmp_path / "pack") == files_of(packed)
    assert [path.name for path in tmp_path.iterdir()] == ["pack"]


def test_a_finished_pack_is_left_alone(chatml: Path, rows: Path, packed: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in packed.iterdir()}
    assert build_pack(request(chatml, packed, rows, epochs=2))["rows"] > 0
    assert {path: path.stat().st_mtime_ns for path in packed.iterdir()} == before


def test_the_command_says_what_became_of_every_row(
    chatml: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = ["--sequence-tokens", "1024", "--over-long", "drop", "--output", str(tmp_path / "pack")]
    words = ["pack", str(rows), "--tokenizer", str(chatml), *size]
    assert run_data_command(*words) == 0
    first = capsys.readouterr()
    assert " of 2503 conversations in " in first.out
    assert "  rows.jsonl: 0 of 2 packed; 1 dropped: it does not end" in first.out
    assert "1 dropped: plain text, no conversation" in first.out
    assert run_data_command(*words) == 0
    second = capsys.readouterr()
    assert second.out == first.out
    assert "holds this very pack: nothing done" in second.err


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"over_long": "truncate"}, "--over-long: 'truncate'; .*; write drop"),
        ({"sequence_tokens": 0}, "--sequence-tokens: 0"),
        (
            {"sequence_tokens": 8},
            r"no conversation to pack; .*\d+ of .* dropped: longer than a row",
        ),
        (
            {"sequence_tokens": 1 << 31},
            "--sequence-tokens: 2147483648; lengths are stored in 32 bits",
        ),
        ({"epochs": 0}, "--epochs: 0"),
        ({"max_bad_rate": 1.5}, "--max-bad-rate: 1.5"),
        ({"workers": 0}, "--workers: 0"),
        ({"template": Path("nowhere.jinja")}, "--template nowhere.jinja: there is no such file"),
        ({"inputs": ("nowhere.jsonl",)}, "FILE nowhere.jsonl: there is no such file"),
        ({"tokenizer": Path("nowhere")}, "loading tokenizer nowhere: no file nowhere"),
        ({"output": Path("no/such/pack")}, "no folder no/such"),
    ],
)
def test_what_cannot_be_packed_is_refused(
    chatml: Path, rows: Path, tmp_path: Path, changes: dict[str, object], told: str
) -> None:
    with pytest.raises(RecipeError, match=told):
        build_pack(request(chatml, tmp_path / "pack", rows, **changes))
    assert not list(tmp_path.iterdir())


def test_a_table_of_questions_and_dialogues_is_read_by_what_is_not_null(chatml: Path) -> None:
    """One schema for both kinds of rows: each has null where the other has its fields."""
    asked = {"question": "1+1?", "trace": None, "answer": "2", "messages": None}
    ((_, shown),), _ = parts_of(chatml, asked)
    assert shown == GOLDEN["one turn"][1]
    told = dialogue("1+1?", "2") | {"question": None, "trace": None, "answer": None}
    ((_, shown),), _ = parts_of(chatml, told)
    assert shown == GOLDEN["one turn"][1]


def test_too_many_bad_rows_publish_nothing_and_a_higher_rate_goes_on(
    chatml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lengths are no fault of the rows: neither over-long ones nor an answer cut off count."""
    good = [dialogue(f"q{number}", "a") for number in range(96)]
    cut = [dialogue("a", "b" * 5000), dialogue("a", "<think>and so")]
    rows = write_jsonl(tmp_path / "rows.jsonl", [*good, *cut, {"text": "t"}, dialogue("a")])
    asked = request(chatml, tmp_path / "pack", rows)
    told = r"--max-bad-rate 0.01: 2 of 100 rows cannot be used; 1 of rows.jsonl dropped: it does"
    with pytest.raises(RecipeError, match=told) as caught:
        build_pack(asked)
    assert "longer than" not in str(caught.value)
    assert "unclosed" not in str(caught.value)
    assert not (tmp_path / "pack").exists()
    monkeypatch.setattr(SequenceEncoder, "encode", None)  # nothing is encoded again
    assert build_pack(replace(asked, max_bad_rate=0.02))["conversations_packed"] == 96
    assert not (tmp_path / "pack.work").exists()


def test_a_wrong_file_stops_early(chatml: Path, tmp_path: Path) -> None:
    rows = write_jsonl(tmp_path / "rows.jsonl", [{"text": "t"}] * 12_000)
    with pytest.raises(RecipeError, match=r"10240 of 10240 rows cannot be used"):
        build_pack(request(chatml, tmp_path / "pack", rows))


@pytest.mark.parametrize("harm", ["gone", "cut"])
def test_a_pack_that_lost_a_file_is_not_called_finished(
    chatml: Path, tmp_path: Path, harm: str
) -> None:
    rows = write_jsonl(tmp_path / "rows.jsonl", [dialogue("q", "a")] * 3)
    build_pack(request(chatml, tmp_path / "pack", rows))
    file = tmp_path / "pack" / "tokens.bin"
    file.unlink() if harm == "gone" else file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match="tokens.bin, made before: .*; put the file back"):
        build_pack(request(chatml, tmp_path / "pack", rows))


def test_another_output_is_never_written_over(
    chatml: Path, rows: Path, packed: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match="a pack of other inputs or options"):
        build_pack(request(chatml, packed, rows, seed=2))
    (tmp_path / "pack").mkdir()
    with pytest.raises(RecipeError, match="something that is no pack"):
        build_pack(request(chatml, tmp_path / "pack", rows))


def test_a_strangers_template_reaches_no_file(chatml: Path, rows: Path, tmp_path: Path) -> None:
    """A tokenizer's template that leaves the sandbox, were there none, by what is in its reach."""
    bare, ran = tmp_path / "bare", tmp_path / "ran"
    bare.mkdir()
    (bare / "tokenizer.json").write_bytes((chatml / "tokenizer.json").read_bytes())
    call = "raise_exception.__globals__['__builtins__']['open']('" + str(ran) + "', 'w')"
    for template in (f"{{% set _ = {call} %}}{CHATML}", f"{{{{ {call} }}}}{CHATML}"):
        settings = {"chat_template": template}
        (bare / "tokenizer_config.json").write_text(json.dumps(settings))
        with pytest.raises(RecipeError, match="the template refuses it"):
            build_pack(request(bare, tmp_path / "pack", rows))
    assert not ran.exists()


def test_a_bad_template_is_refused(chatml: Path, rows: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jinja").write_text("{% for message in messages %}")
    with pytest.raises(RecipeError, match="chat template bad.jinja: no jinja template"):
        build_pack(request(chatml, tmp_path / "pack", rows, template=tmp_path / "bad.jinja"))
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "tokenizer.json").write_bytes((chatml / "tokenizer.json").read_bytes())
    with pytest.raises(RecipeError, match="neither this project's special tokens nor a chat"):
        build_pack(request(bare, tmp_path / "pack", rows))
    (tmp_path / "good.jinja").write_text(CHATML)
    build_pack(request(bare, tmp_path / "pack", rows, template=tmp_path / "good.jinja"))
    (bare / "tokenizer_config.json").write_text("{")
    with pytest.raises(RecipeError, match="tokenizer_config.json: not JSON"):
        build_pack(request(bare, tmp_path / "other", rows))
