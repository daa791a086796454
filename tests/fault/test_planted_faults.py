"""Every planted fault is found by `frontload data verify`, which names the file and the place.

A fault is planted on a fresh copy of a small artifact. Where it says so the manifest is written
anew after the damage, as if the fault had been there from the start: then no digest can tell.
"""

import json
import random
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from frontload.data_tools.disk.digests import BLOCK_BYTES, block_digests
from frontload.data_tools.disk.indexed import IndexedReader, IndexedWriter, bin_file, idx_file
from frontload.data_tools.packing.rows import describe_file
from frontload.data_tools.text.tokenizer import END, TextTokenizer
from frontload.recipes.errors import FrontloadError
from frontload.recipes.schema import Blend, Pack, Window
from tests.unit.data_command import run_data_command as run
from tests.unit.data_tools.chats import chatml_tokenizer, long_tailed
from tests.unit.data_tools.room import Room, write_jsonl

DOCUMENTS = 12_000
S = 64


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Room:
    """Two preprocessed shards of more than a block each, two phases of a blend, two packs."""
    room = Room(tmp_path_factory.mktemp("planted"))
    tokenizer = room.tokenizer()
    rng = random.Random(1)
    words = [f"w{number}" for number in range(40)]
    (room.folder / "P").mkdir()
    for name in ("one", "two", "earlier"):
        rows = [
            {"text": " ".join(rng.choices(words, k=rng.randrange(40, 80)))}
            for _ in range(DOCUMENTS - (name == "earlier"))
        ]
        raw = write_jsonl(room.folder / f"{name}.jsonl", rows)
        prefix = room.folder / "P" / name
        given = ("--input", raw, "--output-prefix", prefix, "--tokenizer", tokenizer)
        assert run("preprocess", *given, "--append-eod") == 0
    room.mix("base", "base")
    room.mix("lmq", "ldq", "shq")
    index = room.index("base")
    first: dict[str, Path] = {}
    for phase, start in (("a", 0), ("b", 60)):
        window = Window(source="base", start_tokens=S * start, tokens=S * 60)
        recipe = Blend(
            phase=phase, windows=(window,), sequence_tokens=S, max_epochs={"base": 1.0}, seed=1
        )
        first["before"] = room.run("blend", recipe, name=phase, base=index, **first)
    inputs = {"documents": room.folder / "mix-lmq", "tokenizer": tokenizer}
    room.run(
        "pack", Pack(sequence_tokens=S, tokens=S * 90, over_long="drop", seed=4),
        name="study-pack", **inputs,
    )  # fmt: skip
    chats = write_jsonl(room.folder / "chats.jsonl", long_tailed(600, mean=220, seed=1))
    chatml = chatml_tokenizer(room.folder / "chatml")
    options = ("--sequence-tokens", 1024, "--over-long", "drop", "--output", room.folder / "pack")
    assert run("pack", chats, "--tokenizer", chatml, *options) == 0
    return room


@pytest.fixture
def copied(built: Room, tmp_path: Path) -> Path:
    for name in ("P", "a", "b", "index-base", "study-pack", "pack"):
        shutil.copytree(built.folder / name, tmp_path / name)
    return tmp_path


def flip(file: Path, at: int, bit: int = 2) -> str:
    """Flips a bit and says where the verifier must see it."""
    data = bytearray(file.read_bytes())
    at = at % len(data)
    data[at] ^= 1 << bit
    file.write_bytes(bytes(data))
    return f"{file} byte {at}"


def put(file: Path, at: int, value: int, dtype: str) -> str:
    """Writes one number into a file."""
    data = bytearray(file.read_bytes())
    raw = np.array([value], dtype=dtype).tobytes()
    data[at : at + len(raw)] = raw
    file.write_bytes(bytes(data))
    return f"{file} byte {at}"


def resize(file: Path, change: int) -> str:
    """Cuts bytes off the end, or adds some; the shorter size is where it begins."""
    data, size = file.read_bytes(), file.stat().st_size
    file.write_bytes(data[: size + change] if change < 0 else data + b"\7" * change)
    return f"{file} byte {min(size, size + change)}"


def edit(file: Path, change: Callable[[dict], None]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def sign(prefix: Path) -> None:
    """Writes the manifest's digests anew, as if the damage had been there from the start."""

    def digests(manifest: dict) -> None:
        for part, file in (("bin", bin_file(prefix)), ("idx", idx_file(prefix))):
            manifest[f"{part}_sha256"] = describe_file(file)["sha256"]
            manifest[f"{part}_blocks"] = block_digests(file)

    edit(prefix.with_name(prefix.name + ".manifest.json"), digests)


def sign_pack(folder: Path) -> None:
    def digests(pack: dict) -> None:
        pack["files"] = {name: describe_file(folder / name) for name in pack["files"]}

    edit(folder / "pack.json", digests)


IDX = {"length": (34, 4), "pointer": (34 + 4 * DOCUMENTS, 8), "document": (34 + 12 * DOCUMENTS, 8)}


def entry(part: str, number: int) -> int:
    start, width = IDX[part]
    return start + width * number


def swap_shards(p: Path) -> str:
    shutil.copy(bin_file(p.with_name("two")), bin_file(p))
    return "it is two.bin, by that one's manifest"


def stale_index(p: Path) -> str:
    shutil.copy(idx_file(p.with_name("earlier")), idx_file(p))
    return "it is earlier.idx, by that one's manifest"


def no_end(p: Path) -> str:
    reader = IndexedReader(p)
    at = int(reader.sequence_pointers[5001]) - 2
    put(bin_file(p), at, END + 5, "<u2")
    sign(p)
    return f"{bin_file(p)} byte {at}, document 5000"


def beyond_vocabulary(p: Path) -> str:
    at = put(bin_file(p), BLOCK_BYTES + 2000, 60_000, "<u2")
    sign(p)
    return at


def moved_boundary(p: Path) -> str:
    """One document ends a token later, and the next begins there: only its end can tell."""
    reader = IndexedReader(p)
    lengths, pointers = reader.sequence_lengths.copy(), reader.sequence_pointers.copy()
    put(idx_file(p), entry("length", 700), int(lengths[700]) + 1, "<i4")
    put(idx_file(p), entry("length", 701), int(lengths[701]) - 1, "<i4")
    put(idx_file(p), entry("pointer", 701), int(pointers[701]) + 2, "<i8")
    sign(p)
    return f"{bin_file(p)} byte {pointers[701]}, document 700"


def miscounted(p: Path) -> str:
    edit(p.with_name("one.manifest.json"), lambda manifest: manifest.update(num_tokens=7))
    return "tokens: "


def edited(place: str, change: Callable[[dict], object]) -> Callable[[Path], str]:
    """A manifest whose other counts are left as they were."""

    def plant(p: Path) -> str:
        file = p.with_name("one.manifest.json")
        edit(file, change)
        return f"{file} {place}"

    return plant


def emptied(p: Path) -> str:
    edit(p.with_name("one.manifest.json"), lambda manifest: manifest.clear())
    return f"{p}.manifest.json bin_sha256"


ON_PREFIX: dict[str, Callable[[Path], str]] = {
    "bit of the first token": lambda p: flip(bin_file(p), 0),
    "bit in the middle": lambda p: flip(bin_file(p), 700_001, bit=7),
    "bit in the second block": lambda p: flip(bin_file(p), BLOCK_BYTES + 77, bit=0),
    "bit of the last byte": lambda p: flip(bin_file(p), -1),
    "whole byte of a token": lambda p: put(bin_file(p), 654_321, 0x2A, "u1"),
    "idx magic": lambda p: flip(idx_file(p), 3),
    "idx version": lambda p: put(idx_file(p), 9, 2, "<u8"),
    "idx dtype": lambda p: put(idx_file(p), 17, 4, "u1"),
    "idx dtype that is none": lambda p: put(idx_file(p), 17, 99, "u1"),
    "idx number of sequences": lambda p: put(idx_file(p), 18, DOCUMENTS + 1, "<u8"),
    "idx number of sequences, huge": lambda p: put(idx_file(p), 18, 1 << 61, "<u8"),
    "idx number of documents": lambda p: put(idx_file(p), 26, DOCUMENTS, "<u8"),
    "idx length": lambda p: put(idx_file(p), entry("length", 77), 3, "<i4"),
    "idx length below zero": lambda p: put(idx_file(p), entry("length", 78), -1, "<i4"),
    "idx length of the last": lambda p: put(idx_file(p), entry("length", DOCUMENTS - 1), 3, "<i4"),
    "idx first pointer": lambda p: put(idx_file(p), entry("pointer", 0), 2, "<i8"),
    "idx pointer": lambda p: put(idx_file(p), entry("pointer", 5000), 10, "<i8"),
    "idx last pointer": lambda p: flip(idx_file(p), entry("pointer", DOCUMENTS - 1)),
    "idx document index": lambda p: put(idx_file(p), entry("document", 41), 40, "<i8"),
    "idx last document index": lambda p: flip(idx_file(p), entry("document", DOCUMENTS)),
    "bin cut off": lambda p: resize(bin_file(p), -101),
    "bin cut by a block": lambda p: resize(bin_file(p), -BLOCK_BYTES),
    "bin longer": lambda p: resize(bin_file(p), 2),
    "idx cut off": lambda p: resize(idx_file(p), -8),
    "idx cut to its header": lambda p: resize(idx_file(p), 20 - idx_file(p).stat().st_size),
    "idx longer": lambda p: resize(idx_file(p), 5),
    "shards swapped": swap_shards,
    "idx of an earlier build": stale_index,
    "no end of document (signed)": no_end,
    "id beyond the vocabulary (signed)": beyond_vocabulary,
    "boundary moved (signed)": moved_boundary,
    "manifest miscounts": miscounted,
    "manifest emptied": emptied,
    "manifest without its last part": edited("parts", lambda m: m["parts"].pop()),
    "manifest miscounts rows": edited("dropped", lambda m: m.update(num_rows=5)),
    "manifest hides a drop": edited("dropped", lambda m: m["dropped"].update(empty=2)),
    "manifest says there is no end": edited("append_eod", lambda m: m.update(append_eod=False)),
}  # fmt: skip


def test_undamaged_artifacts_pass(
    copied: Path, built: Room, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = built.folder / "tokenizer"
    assert run("verify", copied / "P" / "one", "--tokenizer", tokenizer, "--samples", 2) == 0
    printed = capsys.readouterr().out
    assert "all statements hold" in printed
    assert "ok    documents end in EOD, id 1: 12000 of 12000" in printed
    assert printed.count("\n  document ") == 2
    assert "MB/s" in printed
    paths = [copied / name for name in ("a", "b", "index-base", "study-pack", "pack")]
    assert run("verify", *paths) == 0
    assert "base: disjoint from phase a" in capsys.readouterr().out


@pytest.mark.parametrize("fault", ON_PREFIX)
def test_a_fault_of_a_pair_is_found(
    copied: Path, built: Room, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = copied / "P" / "one"
    place = ON_PREFIX[fault](prefix)
    tokenizer = built.folder / "tokenizer"
    assert run("verify", prefix, "--tokenizer", tokenizer) == 1
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  WRONG")]
    assert any(place in line for line in told), (place, told)


def test_another_tokenizer_is_found(
    copied: Path, built: Room, capsys: pytest.CaptureFixture[str]
) -> None:
    other = built.folder / "chatml"
    assert run("verify", copied / "P" / "one", "--tokenizer", other) == 1
    assert f"[{other / 'tokenizer.json'}]" in capsys.readouterr().out


def change_ledger(folder: Path) -> str:
    edit(folder / "plan.json", lambda plan: plan["ledger"]["base"].update(unique_tokens=1))
    return f"{folder / 'plan.json'} ledger.base.unique_tokens"


def change_seed(folder: Path) -> str:
    edit(folder / "plan.json", lambda plan: plan.update(seed=2))
    return f"{folder / 'plan.json'} seed"


def overlap_windows(folder: Path) -> str:
    edit(folder / "plan.json", lambda plan: plan["sources"][0].update(start_tokens=S * 59))
    return f"{folder / 'plan.json'} sources.base.start_tokens, and {folder.parent / 'a'}"


def shift_sample(folder: Path) -> str:
    samples = np.load(folder / "samples.npy")
    samples[7, 1] += 1
    np.save(folder / "samples.npy", samples)
    return f"{folder / 'samples.npy'} byte {128 + 7 * 16}, row 7"


def swap_documents(folder: Path) -> str:
    order = np.load(folder / "base.order.npy")
    order[[3, 4]] = order[[4, 3]]
    np.save(folder / "base.order.npy", order)
    return f"{folder / 'base.offsets.npy'} byte {128 + 4 * 8}, row 4"


def empty_order(folder: Path) -> str:
    np.save(folder / "base.order.npy", np.zeros(0, np.int32))
    return f"base: documents are listed: 0  [{folder / 'base.order.npy'}]"


ON_BLEND = {
    "ledger edited": change_ledger,
    "seed edited": change_seed,
    "windows overlap": overlap_windows,
    "sample shifted": shift_sample,
    "documents swapped": swap_documents,
    "no document listed": empty_order,
}


@pytest.mark.parametrize("fault", ON_BLEND)
def test_a_fault_of_a_blend_is_found(
    copied: Path, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ON_BLEND[fault](copied / "b")
    assert run("verify", copied / "b", copied / "a", copied / "index-base") == 1
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  WRONG")]
    assert any(place in line for line in told), (place, told)


def test_a_source_that_the_plan_does_not_have_is_found(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(copied / "b" / "plan.json", lambda plan: plan["sources"][0].update(index_sha256="0" * 64))
    assert run("verify", copied / "b", copied / "index-base") == 1
    assert f"{copied / 'b' / 'plan.json'} sources.base.index_sha256" in capsys.readouterr().out


def shifted_mask(folder: Path) -> tuple[int, int]:
    """Moves every mask one place to the right, within its conversation: (byte, conversation)."""
    tokens, mask = IndexedReader(folder / "tokens"), IndexedReader(folder / "loss_mask")
    first = int(np.argmax(mask.tokens))
    shifted = []
    for row in range(mask.num_documents):
        low, high = mask.document_indices[row : row + 2]
        parts = [np.roll(mask.sequence(n), 1) for n in range(low, high)]
        for part in parts:
            part[0] = 0
        shifted.append((np.concatenate(parts), [len(part) for part in parts]))
    with IndexedWriter(folder / "loss_mask", np.dtype(np.uint8)) as writer:
        for row_mask, lengths in shifted:
            writer.add_document(row_mask, lengths)
    conversation = int(np.searchsorted(tokens.sequence_pointers, first * 2, side="right")) - 1
    return first, conversation


def shift_mask(folder: Path) -> str:
    first, conversation = shifted_mask(folder)
    sign_pack(folder)
    return f"{folder / 'loss_mask.bin'} byte {first + 1}, row 0, conversation {conversation}"


def move_boundary(folder: Path, number: int = 5) -> str:
    """Conversation `number` begins a token late, in tokens and mask alike."""
    for name in ("tokens", "loss_mask"):
        reader = IndexedReader(folder / name)
        count, width = reader.num_sequences, reader.dtype.itemsize
        lengths, pointers = reader.sequence_lengths.copy(), reader.sequence_pointers.copy()
        file = idx_file(folder / name)
        at, late = 34 + 4 * number, int(pointers[number]) + width
        before, after = int(lengths[number - 1]) + 1, int(lengths[number]) - 1
        put(file, at - 4, before, "<i4")
        put(file, at, after, "<i4")
        put(file, 34 + 4 * count + 8 * number, late, "<i8")
    sign_pack(folder)
    return f"{folder / 'tokens.bin'} byte {late_byte(folder, number)}"


def late_byte(folder: Path, number: int) -> int:
    return int(IndexedReader(folder / "tokens").sequence_pointers[number])


def move_one_boundary(folder: Path) -> str:
    """As above, in the mask alone."""
    before = idx_file(folder / "tokens").read_bytes()
    move_boundary(folder)
    idx_file(folder / "tokens").write_bytes(before)
    sign_pack(folder)
    return f"{folder / 'loss_mask.idx'} sequence 4"


def swap_order(folder: Path) -> str:
    order = np.load(folder / "order.npy")
    order[[2, 3]] = order[[3, 2]]
    np.save(folder / "order.npy", order)
    sign_pack(folder)
    return f"{folder / 'order.npy'} byte {128 + 2 * 8}, row 2"


def miscount_pack(folder: Path) -> str:
    edit(folder / "pack.json", lambda pack: pack.update(loss_tokens=3))
    return f"{folder / 'pack.json'} loss_tokens"


def lose_order(folder: Path) -> str:
    (folder / "order.npy").unlink()
    return f"{folder / 'order.npy'}"


ON_PACK: dict[str, tuple[str, Callable[[Path], str]]] = {
    "mask shifted by one (signed)": ("pack", shift_mask),
    "mask of the study shifted by one (signed)": ("study-pack", shift_mask),
    "boundary moved (signed)": ("pack", move_boundary),
    "boundary of the mask moved (signed)": ("pack", move_one_boundary),
    "order edited (signed)": ("pack", swap_order),
    "bit of a token": ("pack", lambda folder: flip(folder / "tokens.bin", 999)),
    "bit of the mask": ("pack", lambda folder: flip(folder / "loss_mask.bin", 50, bit=0)),
    "bit of the origins": ("pack", lambda folder: flip(folder / "origin.npy", 500)),
    "mask cut off": ("pack", lambda folder: resize(folder / "loss_mask.bin", -1)),
    "counts edited": ("pack", miscount_pack),
    "order lost": ("pack", lose_order),
}


@pytest.mark.parametrize("fault", ON_PACK)
def test_a_fault_of_a_pack_is_found(
    copied: Path, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name, plant = ON_PACK[fault]
    place = plant(copied / name)
    assert run("verify", copied / name) == 1
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  WRONG")]
    assert any(place in line for line in told), (place, told)


def planned(folder: Path) -> Path:
    """The two phases under one ledger, as `frontload data blend` lays them out."""
    phases, first = [], 0
    for name in ("a", "b"):
        shutil.copytree(folder / name, folder / "planned" / name)
        start = first * S
        part = {
            "name": "base", "tokens": S * 60, "num_samples": 60, "share": "1",
            "start_tokens": start, "end_tokens": start + S * 60, "repeated_tokens": 0,
        }  # fmt: skip
        part["epochs"] = str(Fraction(S * 60, tokens_of_base(folder)))
        phases.append({"name": name, "tokens": S * 60, "num_samples": 60, "first_sample": first})
        phases[-1]["sources"] = [part]
        first += 60
    read = {"read_tokens": S * 120, "epochs": str(Fraction(S * 120, tokens_of_base(folder)))}
    read |= {"repeated_tokens": 0, "unread_tokens": tokens_of_base(folder) - S * 120}
    ledger = {"seed": 1, "sequence_tokens": S, "tokens": S * 120, "num_samples": 120}
    ledger |= {"phases": phases, "sources": {"base": read}}
    (folder / "planned" / "ledger.json").write_text(json.dumps(ledger))
    return folder / "planned"


def tokens_of_base(folder: Path) -> int:
    return IndexedReader(folder / "index-base" / "documents").num_tokens


def test_the_ledger_of_a_planned_blend_is_counted_again(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = planned(copied)
    assert run("verify", folder, copied / "index-base") == 0
    assert "base: disjoint from phase a" in capsys.readouterr().out
    file = folder / "ledger.json"
    edit(file, lambda ledger: ledger["phases"][1]["sources"][0].update(share="1/2"))
    assert run("verify", folder, copied / "index-base") == 1
    assert f"[{file} b.base.share]" in capsys.readouterr().out
    edit(file, lambda ledger: ledger["phases"][1].update(name="c"))
    with pytest.raises(FrontloadError, match="ledger.json: phase c, which has no plan.json"):
        run("verify", folder)
    edit(file, lambda ledger: ledger.pop("phases"))
    with pytest.raises(FrontloadError, match="no names of phases"):
        run("verify", folder)


@pytest.mark.parametrize(
    "described", ["P/one.manifest.json", "a/plan.json", "b/plan.json", "pack/pack.json"]
)
def test_a_damaged_description_is_told_in_words(
    copied: Path, described: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Numbers, names and marks of a JSON changed at random: an answer, never a traceback."""
    file, rng = copied / described, random.Random(described)
    whole, told = file.read_bytes(), 0
    path = file.parent if file.name in ("plan.json", "pack.json") else copied / "P" / "one"
    more = [copied / "a", copied / "index-base"] if described[0] in "ab" else []
    for _ in range(25):
        damaged = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(min(len(damaged), 3000))
            damaged[at] = rng.choice(b'0123456789abz"{}[],:- ')
        file.write_bytes(bytes(damaged))
        try:
            told += run("verify", path, *more)
        except FrontloadError as error:
            told += error.exit_code > 0
        assert "Traceback" not in capsys.readouterr().out
    assert told > 10


def test_a_missing_field_is_a_statement_that_does_not_hold(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(copied / "pack" / "pack.json", lambda pack: pack.pop("rows"))
    assert run("verify", copied / "pack") == 1
    printed = capsys.readouterr().out
    assert "WRONG its JSON has the fields and types of its format: no field 'rows'" in printed
    assert f"[{copied / 'pack' / 'pack.json'}]" in printed


@pytest.mark.parametrize("written", ["[]", "null", '"words"', "3"])
def test_a_description_that_is_no_object_is_told_as_such(
    copied: Path, capsys: pytest.CaptureFixture[str], written: str
) -> None:
    for described in ("P/one.manifest.json", "pack/pack.json", "a/plan.json"):
        file = copied / described
        whole = file.read_bytes()
        file.write_text(written)
        path = copied / "P" / "one" if described.startswith("P") else file.parent
        assert run("verify", path, copied / "index-base") == 1
        printed = capsys.readouterr().out
        assert f"JSON, but a {type(json.loads(written)).__name__}; it is an object" in printed
        assert f"[{file}]" in printed
        assert "Error" not in printed
        file.write_bytes(whole)


def test_a_manifest_without_the_end_of_documents_is_told(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(copied / "P" / "one.manifest.json", lambda manifest: manifest.pop("eod_id"))
    assert run("verify", copied / "P" / "one") == 1
    assert "WRONG manifest states eod_id: None" in capsys.readouterr().out


def test_shown_samples_are_the_documents_own_words(
    copied: Path, built: Room, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = built.folder / "tokenizer"
    run("verify", copied / "P" / "one", "--tokenizer", tokenizer, "--samples", 3, "--seed", 9)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  document")]
    rows = [json.loads(line)["text"] for line in (built.folder / "one.jsonl").open()]
    decode = TextTokenizer.load(tokenizer).decode
    for line in lines:
        number = int(line.split()[1].rstrip(","))
        assert repr(decode(TextTokenizer.load(tokenizer).encode(rows[number])))[1:-1] in line
