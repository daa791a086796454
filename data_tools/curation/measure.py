"""The first pass over a row: adapter, filters, evaluation items, lengths, hashes, signatures.

A row's result depends on the row and the recipe alone, so batches may be cut anywhere.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from frontload.data_tools.curation.adapters import ADAPTERS, Rules, special_token_drop
from frontload.data_tools.curation.columns import (
    DOCUMENT,
    QUESTION,
    Columns,
    Layout,
    band_column,
    signature,
)
from frontload.data_tools.curation.inputs import InputFile, columns_to_read
from frontload.data_tools.curation.items import Item
from frontload.data_tools.curation.matches import (
    ItemIndex,
    Match,
    build_index,
    find_matches,
    is_leak,
)
from frontload.data_tools.curation.sketch import band_keys, signatures
from frontload.data_tools.preprocess.request import EncoderChoice, SpecialText
from frontload.data_tools.preprocess.text_encoder import TextEncoder
from frontload.data_tools.preprocess.vocabulary import Spellings, load_vocabulary
from frontload.data_tools.raw.rows import BadRow, RawRow, read_rows
from frontload.data_tools.text.example import ASSISTANT, UNCLOSED_THINK, Drop, Example, split_think
from frontload.data_tools.text.words import WordHasher, WordHashes, normalise_question
from frontload.recipes.runs.curation import Curation

BATCH_ROWS = 256  # ours: with BATCH_CHARACTERS, decides messages between processes, not bytes
BATCH_CHARACTERS = 1 << 20
SHOWN_BYTES = 2000  # of a broken row, in the rejects
SAMPLED_FILES, SAMPLED_ROWS = 64, 1000  # ours: as `frontload data preprocess` compares
LONG_ROWS, LONG_CHARACTERS, SAMPLED_CHARACTERS = 100, 1 << 18, 1000  # so too
WORDS_SEED = 0  # of hashes that only have to differ


@dataclass(frozen=True, kw_only=True)
class RowBatch:
    """Some rows of one file."""

    source: str
    file: Path
    rows: tuple[RawRow | BadRow, ...]


@dataclass(frozen=True, kw_only=True)
class DroppedRow:
    """One row that is left out of everything."""

    row: int
    drop: Drop
    content: bytes  # JSON of the row as it was read


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What became of a batch."""

    columns: Columns
    domains: list[str]  # of the kept rows, like `families`
    families: list[str]
    dropped: list[DroppedRow]
    matches: list[tuple[int, list[Match]]]  # row -> what it shares with evaluation items


def cut_batches(source: str, file: Path, rows: Iterator[RawRow | BadRow]) -> Iterator[RowBatch]:
    """Rows in batches of about a MiB."""
    held: list[RawRow | BadRow] = []
    size = 0
    for row in rows:
        held.append(row)
        size += _size(row)
        if len(held) >= BATCH_ROWS or size >= BATCH_CHARACTERS:
            yield RowBatch(source=source, file=file, rows=tuple(held))
            held, size = [], 0
    if held:
        yield RowBatch(source=source, file=file, rows=tuple(held))


def _size(row: RawRow | BadRow) -> int:
    """About how many characters a row has: long texts stand in its fields or their messages."""
    if isinstance(row, BadRow):
        return len(row.raw)
    return sum(
        len(value) if isinstance(value, str) else 4096 if value else 0
        for value in row.value.values()
    )


class Converter:
    """Rows of a recipe's sources as examples."""

    def __init__(self, recipe: Curation) -> None:
        self.recipe = recipe
        self._rules = {
            name: Rules.of(source, recipe.policy) for name, source in recipe.sources.items()
        }
        drops = recipe.policy.special_text == SpecialText.DROP
        special = load_vocabulary(Path(recipe.tokenizer)).special
        self._refused = Spellings(special if drops else ())

    def convert(self, source: str, row: RawRow | BadRow) -> Example | Drop:
        """The row through its source's adapter and the policy on special tokens."""
        if isinstance(row, BadRow):
            return Drop(reason=str(row.reason))
        adapter = ADAPTERS[self.recipe.sources[source].adapter]
        found = adapter.convert(row.value, self._rules[source])
        if isinstance(found, Drop):
            return found
        return special_token_drop(found, self._refused) or found


class Measurer(Converter):
    """What a process holds to measure batches: tokenizer, hashes, the index of items."""

    def __init__(self, recipe: Curation, encoder: EncoderChoice, *, items: Sequence[Item]) -> None:
        super().__init__(recipe)
        self.layout = Layout.of(recipe)
        self._counter = TextEncoder(
            Path(recipe.tokenizer), encoder, special_text=counted_special(recipe)
        )
        self._hasher = WordHasher(WORDS_SEED)
        self.items = items
        self.index: ItemIndex | None = None
        if recipe.decontamination is not None:
            self.index = build_index(self.items, recipe.decontamination, hasher=self._hasher)

    def measure(self, batch: RowBatch) -> Measured:
        """Everything that is known of the batch's rows."""
        kept: list[tuple[RawRow | BadRow, Example]] = []
        dropped: list[DroppedRow] = []
        for row in batch.rows:
            found = self.convert(batch.source, row)
            if isinstance(found, Drop):
                dropped.append(DroppedRow(row=row.number, drop=found, content=raw_content(row)))
            else:
                kept.append((row, found))
        words = self._words([example.document for _, example in kept])
        matches: list[tuple[int, list[Match]]] = []
        leaked: set[int] = set()
        if self.index is not None:
            assert words is not None
            for place, found in find_matches(words, self.index, hasher=self._hasher).items():
                row = kept[place][0]
                matches.append((row.number, found))
                if drop := self._leak(found):
                    leaked.add(place)
                    dropped.append(DroppedRow(row=row.number, drop=drop, content=raw_content(row)))
        clean = [place for place in range(len(kept)) if place not in leaked]
        kept = [kept[place] for place in clean]
        examples = [example for _, example in kept]
        columns = self._columns(examples, words.of(clean) if words else None)
        columns["row"] = np.array([row.number for row, _ in kept], dtype=np.int64)
        return Measured(
            columns=columns,
            domains=[example.domain for example in examples],
            families=[example.family for example in examples],
            dropped=sorted(dropped, key=lambda each: each.row),
            matches=matches,
        )

    def _words(self, documents: Sequence[str]) -> WordHashes | None:
        """The words of the documents, where something is asked of them."""
        is_asked = self.index is not None or DOCUMENT in self.layout.near
        return self._hasher.words(documents) if is_asked else None

    def _leak(self, matches: Sequence[Match]) -> Drop | None:
        """The drop of a row that holds an item, naming the longest overlap."""
        rules, index = self.recipe.decontamination, self.index
        if rules is None or index is None:
            return None
        leaks = [match for match in matches if is_leak(match, index)] if rules.remove else []
        if not leaks:
            return None
        worst = max(leaks, key=lambda match: (match.overlap_words, match.share, -match.item))
        item = self.items[worst.item]
        return Drop(
            reason=f"holds an item of {item.benchmark}",
            detail=f"{item.name}, {worst.overlap_words} words, share {worst.share:.2f}",
        )

    def _columns(self, examples: Sequence[Example], words: WordHashes | None) -> Columns:
        columns = self._lengths(examples)
        exact = [text_digest(example.document) for example in examples]
        columns["exact"] = np.array(exact, dtype=np.uint64).reshape(-1, 2)
        columns["question"] = np.array(
            [
                text_digest(example.question)[0] if example.question else whole[0]
                for example, whole in zip(examples, exact, strict=True)
            ],
            dtype=np.uint64,
        )
        columns["truncated"] = np.array(
            [UNCLOSED_THINK in example.flags for example in examples], dtype=np.uint8
        )
        for text in self.layout.near:
            rules = self.layout.rules
            if text == QUESTION:
                questions = [example.question or example.document for example in examples]
                words = self._hasher.words(questions)
            assert words is not None
            columns[signature(text)] = found = signatures(words, rules, hasher=self._hasher)
            for band, keys in enumerate(band_keys(found, bands=rules.bands)):
                columns[band_column(text, band)] = keys
        return columns

    def _lengths(self, examples: Sequence[Example]) -> Columns:
        """Tokens of the whole row, of its last answer, of all of its answers (-1: no answer)."""
        texts: list[str] = []
        for example in examples:
            texts.extend(text for part in row_texts(example) for text in part)
        lengths = iter(self._counter.counts(texts))
        found = np.full((3, len(examples)), -1, dtype=np.int32)
        for number, example in enumerate(examples):
            total, answers = 0, []
            for part in row_texts(example):
                own = tuple(next(lengths) for _ in part)
                total += sum(own)
                if len(own) == 2:
                    answers.append(sum(own))  # trace and answer; the markers are not counted
            found[0, number] = total
            if answers:
                found[1, number], found[2, number] = answers[-1], sum(answers)
        return {"tokens": found[0], "answer_last": found[1], "answer_sum": found[2]}


def counted_special(recipe: Curation) -> SpecialText:
    """How special tokens that a kept row spells are counted."""
    is_text = recipe.policy.special_text == SpecialText.TEXT
    return SpecialText.TEXT if is_text else SpecialText.ENCODE


_state: dict[str, Measurer] = {}  # the measurer of a worker process, set when it starts


def start_measurer(asked: tuple[Curation, EncoderChoice, Sequence[Item]]) -> None:
    """Makes this process ready to measure."""
    _state["measurer"] = Measurer(*asked[:2], items=asked[2])


def current_measurer() -> Measurer:
    return _state["measurer"]


def measure_batch(batch: RowBatch) -> Measured:
    return current_measurer().measure(batch)


def open_input(source: str, file: Path, recipe: Curation) -> Iterator[RawRow | BadRow]:
    """The raw rows of one file, with the fields that its adapter reads."""
    adapter = ADAPTERS[recipe.sources[source].adapter]
    rules = Rules.of(recipe.sources[source], recipe.policy)
    return read_rows(file, columns=columns_to_read(file, adapter, rules))


def row_texts(example: Example) -> list[tuple[str, ...]]:
    """The texts whose tokens are counted: one a turn, of an answer its trace and what follows."""
    if not example.turns:
        return [(example.text,)]
    return [
        split_think(turn.text) if turn.role == ASSISTANT else (turn.text,) for turn in example.turns
    ]


def text_digest(text: str) -> tuple[int, int]:
    """128 bits of the normalised text: equal for texts that differ in case and spaces only."""
    digest = hashlib.blake2b(normalise_question(text).encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


def raw_content(row: RawRow | BadRow) -> bytes:
    """JSON of a row as it was read; of a broken one its first bytes as text."""
    if isinstance(row, BadRow):
        return orjson.dumps(row.raw[:SHOWN_BYTES].decode("utf-8", "backslashreplace"))
    try:
        return orjson.dumps(row.value, default=_shown)
    except TypeError:  # nested deeper than it writes, or a number over 64 bits: JSON, but as text
        return orjson.dumps(json.dumps(row.value, default=_shown))


def _shown(value: Any) -> str:
    return repr(value)


def sample_texts(recipe: Curation, files: Sequence[InputFile]) -> list[str]:
    """About a thousand rows' texts from the files' beginnings, on which encoders must agree."""
    converter = Converter(recipe)
    texts: list[str] = []
    for file in files[:SAMPLED_FILES]:
        rows = open_input(file.source, file.file, recipe)
        for number, row in enumerate(islice(rows, SAMPLED_ROWS // len(files) + 1)):
            found = converter.convert(file.source, row)
            stop = LONG_CHARACTERS if number < LONG_ROWS // len(files) + 1 else SAMPLED_CHARACTERS
            if isinstance(found, Example):
                texts.extend(text[:stop] for part in row_texts(found) for text in part)
    return texts
