"""Conversations to sequences of tokens with a loss mask by position; too long is cut or told.

The mask never looks at an id: a template may end turns with the token that also pads.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from frontload.data_tools.raw.parse import BadRow, RawRow, RejectReason
from frontload.data_tools.text.chat import ChatTemplate
from frontload.data_tools.text.messages import UNCLOSED, USER, Dialogue, Misfit, read_dialogue
from frontload.data_tools.text.targets import USUAL, ChatRow, TargetRules, cut_rows
from frontload.data_tools.text.tokenizer import TextTokenizer

DROP, SPLIT = "drop", "split_at_turn"
OVER_LONG = "longer than a row"
TURN_OVER_LONG = "one turn and its answer longer than a row"
CUT_OFF = frozenset({OVER_LONG, TURN_OVER_LONG, UNCLOSED})
"""Drops that say how long an answer is, and that no mending of rows or options brings back."""


@dataclass(frozen=True, kw_only=True)
class PackRules:
    """What decides a pack's sequences."""

    sequence_tokens: int
    over_long: str
    source_field: str
    targets: TargetRules = USUAL

    @property
    def row_tokens(self) -> int:
        return self.sequence_tokens + 1


@dataclass(frozen=True, kw_only=True)
class EncodedSequence:
    """One sequence. Shapes: tokens int32 [S], mask uint8 [S]; `part` counts cuts from 0."""

    tokens: np.ndarray
    mask: np.ndarray
    part: int
    joined: int = 0  # targets that begin inside a token of their prompt


@dataclass(kw_only=True)
class Counts:
    """What became of rows; every counter is keyed `source`, or `source<TAB>reason`.

    `examples` are the first drop of each: its reason, and where it is.
    """

    rows: Counter[str] = field(default_factory=Counter)
    packed: Counter[str] = field(default_factory=Counter)
    split: Counter[str] = field(default_factory=Counter)
    parts: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    cut_turns: Counter[str] = field(default_factory=Counter)  # dropped out of a split conversation
    joined: Counter[str] = field(default_factory=Counter)  # see `EncodedSequence`
    by_turn: Counter[str] = field(default_factory=Counter)  # conversations of which a row ends ...
    turn_rows: Counter[str] = field(default_factory=Counter)  # ... with each turn, and these rows
    context_turns: Counter[str] = field(default_factory=Counter)  # see `ChatRow.left_out`
    unopened: Counter[str] = field(default_factory=Counter)  # see `ChatRow`
    examples: dict[str, str] = field(default_factory=dict)

    def drop(self, source: str, misfit: Misfit, *, row: RawRow | BadRow) -> None:
        """Counts a row that is left out."""
        key = f"{source}\t{misfit.reason}"
        self.dropped[key] += 1
        where = f"{row.file.name}:{row.number}"
        self.examples.setdefault(key, f"{where} {misfit.detail}".rstrip())

    def as_dicts(self) -> dict[str, dict[str, Any]]:
        """The counters as plain dicts by name, which JSON and `add` take."""
        return {name: dict(counter) for name, counter in vars(self).items()}

    def add(self, more: Mapping[str, Mapping[str, Any]]) -> None:
        """Adds the counters of later rows."""
        for name, counter in more.items():
            if name == "examples":
                self.examples = {**counter, **self.examples}
            else:
                getattr(self, name).update(counter)


class SequenceEncoder:
    """Rows to sequences, by one template and tokenizer. `ids` gives those of each text.

    A sequence has the ids of its whole text, as `apply_chat_template` gives them. Where the ids of
    its pieces, end to end, are others, targets are found by the places of the tokens in the text.
    """

    def __init__(
        self,
        tokenizer: TextTokenizer,
        template: ChatTemplate,
        rules: PackRules,
        *,
        ids: Callable[[Sequence[str]], Sequence[Sequence[int] | np.ndarray]] | None = None,
    ) -> None:
        self._tokenizer, self._template, self._rules = tokenizer, template, rules
        self._ids = ids or tokenizer.encode_batch
        special = [re.escape(token) for token in tokenizer.special_tokens if token]
        self._special = re.compile("|".join(special)) if special else None

    def encode(
        self, rows: Sequence[RawRow | BadRow], counts: Counts
    ) -> list[list[EncodedSequence]]:
        """The sequences of each row, none for a row that is dropped; `counts` says why."""
        cut = [self._cut(row) for row in rows]
        kept = [one for one in cut if not isinstance(one, Misfit)]
        encoded = iter(self._encode([chat for chats in kept for chat in chats]))
        found: list[list[EncodedSequence]] = []
        for row, chats in zip(rows, cut, strict=True):
            source = self._source(row)
            counts.rows[source] += 1
            misfit, sequences = chats, list[EncodedSequence]()
            if not isinstance(chats, Misfit):
                whole = [next(encoded) for _ in chats]
                sequences, misfit = self._fitting_of(row, whole, counts=counts)
                counts.context_turns[source] += sum(chat.left_out for chat in chats if sequences)
                counts.unopened[source] += sum(chat.unopened for chat in chats if sequences)
            if sequences:
                counts.packed[source] += 1
                counts.joined[source] += sum(one.joined for one in sequences)
            elif isinstance(misfit, Misfit):
                counts.drop(source, misfit, row=row)
            found.append(sequences)
        return found

    def texts(self, row: RawRow | BadRow) -> list[str]:
        """The texts of a row that are encoded, none for a row that is dropped."""
        chats = self._cut(row)
        return [] if isinstance(chats, Misfit) else [chat.text for chat in chats]

    def _fitting_of(
        self, row: RawRow | BadRow, whole: list[EncodedSequence], *, counts: Counts
    ) -> tuple[list[EncodedSequence], Misfit]:
        """Those of a row's sequences that fit, cut where it is asked for, or why none does."""
        source, limit = self._source(row), self._rules.row_tokens
        fitting = [one for one in whole if len(one.tokens) <= limit]
        if len(whole) > 1 and fitting:
            counts.by_turn[source] += 1
            counts.turn_rows[source] += len(fitting)
        if (
            not fitting
            and len(whole) == 1
            and self._rules.over_long == SPLIT
            and isinstance(row, RawRow)
        ):
            fitting, cut = self._split(row)
            if fitting:
                counts.split[source] += 1
                counts.parts[source] += len(fitting)
                counts.cut_turns[source] += cut
            return fitting, Misfit(reason=TURN_OVER_LONG)
        if fitting:  # where a row ends with each turn, those of later turns are longer
            counts.cut_turns[source] += len(whole) - len(fitting)
        fitting = [replace(one, part=part) for part, one in enumerate(fitting)]
        return fitting, Misfit(reason=OVER_LONG)

    def _source(self, row: RawRow | BadRow) -> str:
        if isinstance(row, BadRow):
            return row.file.name
        return str(row.value.get(self._rules.source_field) or row.file.name).replace("\t", " ")

    def _cut(self, row: RawRow | BadRow) -> list[ChatRow] | Misfit:
        if isinstance(row, BadRow):
            return Misfit(reason=str(row.reason))
        dialogue = read_dialogue(row.value)
        if isinstance(dialogue, Misfit):
            return dialogue
        if self._special:
            for text in dialogue.strings():
                if spelled := self._special.search(text):
                    return Misfit(reason=str(RejectReason.SPECIAL_TOKEN), detail=spelled[0])
        return cut_rows(self._template, dialogue, rules=self._rules.targets)

    def _encode(self, chats: Sequence[ChatRow]) -> list[EncodedSequence]:
        """Each row of a conversation as one sequence."""
        pieces = [piece for chat in chats for piece in chat.pieces]
        texts = [*(chat.text for chat in chats), *(piece.text for piece in pieces)]
        ids = self._ids(texts)
        parts = iter(ids[len(chats) :])
        found = []
        for chat, whole in zip(chats, ids, strict=False):
            tokens = np.array(whole, dtype=np.int32)
            mine = [np.array(next(parts), dtype=np.int32) for _ in chat.pieces]
            if np.array_equal(np.concatenate(mine), tokens):
                is_target = np.array([piece.is_target for piece in chat.pieces], np.uint8)
                mask = np.repeat(is_target, [len(part) for part in mine])
                found.append(EncodedSequence(tokens=tokens, mask=mask, part=0))
            else:
                found.append(self._by_place(chat))
        return found

    def _by_place(self, chat: ChatRow) -> EncodedSequence:
        """The mask of a text whose tokens reach over the ends of its pieces.

        As `return_assistant_tokens_mask`: a token that holds a character of a target is one.
        Differs: of a target's last character all tokens are targets, not the first byte alone.
        """
        encoding = self._tokenizer.library.encode(chat.text, add_special_tokens=False)
        tokens = np.array(encoding.ids, dtype=np.int32)
        places = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
        begins, ends = places[:, 0], np.maximum(places[:, 1], places[:, 0] + 1)
        mask, at, joined = np.zeros(len(tokens), np.uint8), 0, 0
        for piece in chat.pieces:
            stop = at + len(piece.text)
            if piece.is_target:
                mask |= (begins < stop) & (ends > at)
                joined += int(((begins < at) & (ends > at)).any())
            at = stop
        return EncodedSequence(tokens=tokens, mask=mask, part=0, joined=joined)

    def _split(self, row: RawRow) -> tuple[list[EncodedSequence], int]:
        """Parts of a conversation that each fit a row, cut before a user's turn.

        Every part begins with the turns before the first user's. A turn whose question and answer
        do not fit by themselves is left out and counted.
        """
        dialogue = read_dialogue(row.value)
        assert isinstance(dialogue, Dialogue), "the whole conversation was read a moment ago"
        roles = [message["role"] for message in dialogue.messages]
        starts = [number for number, role in enumerate(roles) if role == USER]
        opening = list(range(starts[0]))
        ends = [*starts[1:], len(roles)]
        exchanges = [list(range(*edges)) for edges in zip(starts, ends, strict=True)]
        sizes = [self._size(dialogue, opening + exchange) for exchange in exchanges]
        shared = max(sizes[0] - self._size(dialogue, exchanges[0]), 0) if opening else 0
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
                sequence = self._fitting(dialogue, opening + turns, part=len(found))
                taken -= sequence is None
            if sequence is None:
                cut += 1
            else:
                found.append(sequence)
            at += max(taken, 1)
        return found, cut

    def _fitting(
        self, dialogue: Dialogue, numbers: list[int], *, part: int
    ) -> EncodedSequence | None:
        one = self._sequence(dialogue, numbers)
        if one is None or len(one.tokens) > self._rules.row_tokens:
            return None
        return replace(one, part=part)

    def _size(self, dialogue: Dialogue, numbers: list[int]) -> int:
        """Tokens of some turns; of the opening ones nearly: parts are measured again."""
        one = self._sequence(dialogue, numbers)
        return self._rules.row_tokens + 1 if one is None else len(one.tokens)

    def _sequence(self, dialogue: Dialogue, numbers: list[int]) -> EncodedSequence | None:
        """Some turns of a conversation as one sequence, where the template can."""
        chats = cut_rows(self._template, dialogue.part(numbers), rules=self._rules.targets)
        if isinstance(chats, Misfit) or len(chats) > 1:
            return None
        return self._encode(chats)[0]


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
        for name in ("joined", "by_turn", "turn_rows", "context_turns", "unopened"):
            if number := getattr(counts, name)[source]:
                table[source][name] = number
        if examples := _examples(counts, source):
            table[source]["examples"] = examples
    return table


def _examples(counts: Counts, source: str) -> dict[str, str]:
    """Reason -> the first row that was dropped for it; of lengths none is an example."""
    keys = (key.split("\t", 1) for key in sorted(counts.examples))
    return {
        reason: counts.examples[f"{name}\t{reason}"]
        for name, reason in keys
        if name == source and reason not in CUT_OFF
    }
