"""Conversations to sequences of tokens with a loss mask by position; too long is cut or told.

The mask never looks at an id: a template may end turns with the token that also pads.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from frontload.data_tools.raw.parse import BadRow, RawRow, RejectReason
from frontload.data_tools.text.chat import ChatPiece, ChatTemplate
from frontload.data_tools.text.messages import ASSISTANT, SYSTEM, Message, read_messages
from frontload.data_tools.text.tokenizer import TextTokenizer

DROP, SPLIT = "drop", "split_at_turn"
OVER_LONG = "longer than a row"
TURN_OVER_LONG = "one turn and its answer longer than a row"


@dataclass(frozen=True, kw_only=True)
class PackRules:
    """What decides a pack's sequences."""

    sequence_tokens: int
    over_long: str
    source_field: str

    @property
    def row_tokens(self) -> int:
        return self.sequence_tokens + 1


@dataclass(frozen=True, kw_only=True)
class EncodedSequence:
    """One sequence. Shapes: tokens int32 [S], mask uint8 [S]; `part` counts cuts from 0."""

    tokens: np.ndarray
    mask: np.ndarray
    part: int


@dataclass(kw_only=True)
class Counts:
    """What became of rows; every counter is keyed `source`, or `source<TAB>reason`."""

    rows: Counter[str] = field(default_factory=Counter)
    packed: Counter[str] = field(default_factory=Counter)
    split: Counter[str] = field(default_factory=Counter)
    parts: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    cut_turns: Counter[str] = field(default_factory=Counter)  # dropped out of a split conversation

    def as_dicts(self) -> dict[str, dict[str, int]]:
        """The counters as plain dicts by name, which JSON and `add` take."""
        return {name: dict(counter) for name, counter in vars(self).items()}

    def add(self, more: Mapping[str, Mapping[str, int]]) -> None:
        """Adds the counters of other rows."""
        for name, counter in more.items():
            getattr(self, name).update(counter)


class SequenceEncoder:
    """Rows to sequences, by one template and tokenizer. `ids` gives those of each text."""

    def __init__(
        self,
        tokenizer: TextTokenizer,
        template: ChatTemplate,
        rules: PackRules,
        *,
        ids: Callable[[Sequence[str]], Sequence[Sequence[int] | np.ndarray]] | None = None,
    ) -> None:
        self._template, self._rules = template, rules
        self._ids = ids or tokenizer.encode_batch
        special = [re.escape(token) for token in tokenizer.special_tokens if token]
        self._special = re.compile("|".join(special)) if special else None

    def encode(
        self, rows: Sequence[RawRow | BadRow], counts: Counts
    ) -> list[list[EncodedSequence]]:
        """The sequences of each row, none for a row that is dropped; `counts` says why."""
        sources = [self._source(row) for row in rows]
        rendered = [self._pieces(row) for row in rows]
        encoded = self._encode([one for one in rendered if not isinstance(one, str)])
        found: list[list[EncodedSequence]] = []
        at = 0
        for row, source, pieces in zip(rows, sources, rendered, strict=True):
            counts.rows[source] += 1
            sequences: list[EncodedSequence] = []
            reason = pieces if isinstance(pieces, str) else OVER_LONG
            if not isinstance(pieces, str):
                sequence, at = encoded[at], at + 1
                if len(sequence.tokens) <= self._rules.row_tokens:
                    sequences = [sequence]
                elif self._rules.over_long == SPLIT and isinstance(row, RawRow):
                    sequences, cut = self._split(row)
                    reason = TURN_OVER_LONG
                    if sequences:
                        counts.split[source] += 1
                        counts.parts[source] += len(sequences)
                        counts.cut_turns[source] += cut
            if sequences:
                counts.packed[source] += 1
            else:
                counts.dropped[f"{source}\t{reason}"] += 1
            found.append(sequences)
        return found

    def texts(self, row: RawRow | BadRow) -> list[str]:
        """The texts of a row that are encoded, none for a row that is dropped."""
        pieces = self._pieces(row)
        return [] if isinstance(pieces, str) else [piece.text for piece in pieces]

    def _source(self, row: RawRow | BadRow) -> str:
        if isinstance(row, BadRow):
            return row.file.name
        return str(row.value.get(self._rules.source_field) or row.file.name).replace("\t", " ")

    def _pieces(self, row: RawRow | BadRow) -> list[ChatPiece] | str:
        if isinstance(row, BadRow):
            return str(row.reason)
        messages = read_messages(row.value)
        return messages if isinstance(messages, str) else self._rendered(messages)

    def _rendered(self, messages: list[Message]) -> list[ChatPiece] | str:
        if self._special and any(
            self._special.search(text) for turn in messages for text in turn.values()
        ):
            return str(RejectReason.SPECIAL_TOKEN)
        return self._template.pieces(messages)

    def _encode(self, conversations: Sequence[list[ChatPiece]]) -> list[EncodedSequence]:
        """Each conversation as one sequence; its pieces are encoded apart."""
        pieces = [piece for pieces in conversations for piece in pieces]
        ids = iter(self._ids([piece.text for piece in pieces]))
        found = []
        for conversation in conversations:
            parts = [(next(ids), piece.is_target) for piece in conversation]
            tokens = np.concatenate([np.array(part, dtype=np.int32) for part, _ in parts])
            lengths = [len(part) for part, _ in parts]
            mask = np.repeat(np.array([is_target for _, is_target in parts], np.uint8), lengths)
            found.append(EncodedSequence(tokens=tokens, mask=mask, part=0))
        return found

    def _split(self, row: RawRow) -> tuple[list[EncodedSequence], int]:
        """Parts of a conversation that each fit a row, cut before a user's turn.

        Every part begins with the system turn. A turn whose question and answer do not fit by
        themselves is left out and counted.
        """
        messages = read_messages(row.value)
        assert not isinstance(messages, str), "the whole conversation was read a moment ago"
        system = [turn for turn in messages[:1] if turn["role"] == SYSTEM]
        ends = [n + 1 for n, turn in enumerate(messages) if turn["role"] == ASSISTANT]
        starts = [len(system), *ends[:-1]]
        exchanges = [messages[start:end] for start, end in zip(starts, ends, strict=True)]
        sizes = [self._size(system + exchange) for exchange in exchanges]
        shared = self._size_of_system(system, exchanges[0], sizes[0])
        found: list[EncodedSequence] = []
        at = cut = 0
        while at < len(exchanges):
            taken, total = 0, shared
            while at + taken < len(exchanges):
                total += sizes[at + taken] - shared
                if total > self._rules.row_tokens:
                    break
                taken += 1
            sequence = None
            while taken and sequence is None:
                turns = [turn for one in exchanges[at : at + taken] for turn in one]
                sequence = self._fitting(system + turns, part=len(found))
                taken -= sequence is None
            if sequence is None:
                cut += 1
            else:
                found.append(sequence)
            at += max(taken, 1)
        return found, cut

    def _fitting(self, messages: list[Message], *, part: int) -> EncodedSequence | None:
        pieces = self._template.pieces(messages)
        if isinstance(pieces, str):
            return None
        (found,) = self._encode([pieces])
        if len(found.tokens) > self._rules.row_tokens:
            return None
        return EncodedSequence(tokens=found.tokens, mask=found.mask, part=part)

    def _size(self, messages: list[Message]) -> int:
        pieces = self._template.pieces(messages)
        if isinstance(pieces, str):
            return self._rules.row_tokens + 1
        return len(self._encode([pieces])[0].tokens)

    def _size_of_system(self, system: list[Message], first: list[Message], whole: int) -> int:
        """Tokens that the system turn adds to a part, nearly: parts are measured again."""
        return max(whole - self._size(first), 0) if system else 0


def counts_table(counts: Counts) -> dict[str, dict[str, Any]]:
    """source -> rows, packed, split, parts, cut turns, drops by reason."""
    table: dict[str, dict[str, Any]] = {}
    for source in sorted(counts.rows):
        dropped = {
            key.split("\t")[1]: number
            for key, number in sorted(counts.dropped.items())
            if key.split("\t")[0] == source
        }
        table[source] = {
            "rows": counts.rows[source],
            "packed": counts.packed[source],
            "split": counts.split[source],
            "parts": counts.parts[source],
            "cut_turns": counts.cut_turns[source],
            "dropped": dropped,
        }
    return table
