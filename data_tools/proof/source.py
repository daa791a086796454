"""Proves a pack from its source: every row is encoded again, whole and by `tokenizers` alone.

What is compared is what a model is given at inference: the ids of the whole text that the chat
template writes, and the places of what there is loss on.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from itertools import batched, chain
from pathlib import Path
from typing import Any

import numpy as np

from frontload.data_tools.disk.files import file_sha256, read_array, read_json
from frontload.data_tools.disk.indexed import IndexedReader
from frontload.data_tools.packing.encode import Counts, EncodedSequence, PackRules, SequenceEncoder
from frontload.data_tools.proof.checks import Check, check, equal, wrong
from frontload.data_tools.raw.inputs import expand_inputs
from frontload.data_tools.raw.parse import BadRow, RawRow
from frontload.data_tools.raw.rows import read_rows
from frontload.data_tools.text.chat import load_template
from frontload.data_tools.text.targets import USUAL, History, TargetRules
from frontload.data_tools.text.tokenizer import TextTokenizer

ROWS_AT_ONCE = 64  # ours: 3 MB of long traces


def prove_pack_source(
    folder: Path, inputs: Sequence[str], *, tokenizer: TextTokenizer, template: Path | None
) -> list[Check]:
    """Compares every sequence of a pack with what its row gives.

    Raises: RecipeError for an input or a template that cannot be read.
    """
    stated, where = read_json(folder / "pack.json"), folder / "pack.json"
    day = date.fromisoformat(stated["day"]) if "day" in stated else None
    loaded = load_template(template, tokenizer, day=day)
    files = expand_inputs(inputs, asked_by="--input")
    digests = [file_sha256(file)[:12] for file in files]
    checks = [
        equal("sources", digests, [one["sha256"][:12] for one in stated["inputs"]], where=where),
        equal("tokenizer", tokenizer.sha256(), stated["tokenizer_sha256"], where=where),
        equal("template", loaded.sha256, stated["template_sha256"], where=where),
    ]
    if wrong(checks):
        return checks
    encoder = SequenceEncoder(tokenizer, loaded, _rules(stated))
    return [*checks, *_Comparison(folder, encoder).checks(files, stated)]


def _rules(stated: Mapping[str, Any]) -> PackRules:
    targets = TargetRules(
        history=History(stated.get("history", USUAL.history)),
        last_turn_only=stated.get("last_turn_only", USUAL.last_turn_only),
        masks_thinking=stated.get("masks_thinking", USUAL.masks_thinking),
    )
    return PackRules(
        sequence_tokens=stated["sequence_tokens"],
        over_long=stated["over_long"],
        source_field=stated["source_field"],
        targets=targets,
    )


class _Comparison:
    """The sequences of a pack in the order of their rows, beside those that rows give."""

    def __init__(self, folder: Path, encoder: SequenceEncoder) -> None:
        self._folder, self._encoder = folder, encoder
        self._tokens = IndexedReader(folder / "tokens")
        self._mask = IndexedReader(folder / "loss_mask")
        self._origin = read_array(folder / "origin.npy", np.int64)
        file, row, part = self._origin.T
        self._order = np.lexsort((part, row, file))
        self._at = 0
        self._first = ""  # what is wrong, and where, of the first that is
        self._wrong = 0

    def checks(self, files: Sequence[Path], stated: Mapping[str, Any]) -> list[Check]:
        """What became of each row of the files."""
        counts = Counts()
        rows = chain.from_iterable(
            ((number, row) for row in read_rows(file)) for number, file in enumerate(files)
        )
        for some in batched(rows, ROWS_AT_ONCE):
            encoded = self._encoder.encode([row for _, row in some], counts)
            for (number, row), sequences in zip(some, encoded, strict=True):
                self._compare(row, sequences, file=number)
        left = len(self._order) - self._at
        packed = equal(
            "conversations of the source that are packed",
            counts.packed.total(),
            stated["conversations_packed"],
            where=self._folder / "pack.json",
        )
        found = f"{len(self._order)} sequences" + (
            f", {self._wrong + left} are not" * self._fails(left)
        )
        claim = "sequences have the ids and masks of their rows' whole texts"
        where = self._first or f"{self._folder / 'origin.npy'}: {left} rows that no file has"
        return [packed, check(claim, found, not self._fails(left), where=where)]

    def _fails(self, left: int) -> bool:
        return bool(self._wrong or left)

    def _compare(
        self, row: RawRow | BadRow, wanted: Sequence[EncodedSequence], *, file: int
    ) -> None:
        """Compares the sequences of one row, which come next."""
        for one in wanted:
            number = int(self._order[self._at]) if self._at < len(self._order) else -1
            origin = self._origin[number].tolist() if number >= 0 else []
            if origin != [file, row.number, one.part]:
                self._note(row, f"part {one.part} is not there")
                continue
            self._at += 1
            for what, reader, found in (
                ("tokens", self._tokens, one.tokens),
                ("loss_mask", self._mask, one.mask),
            ):
                if not np.array_equal(reader.sequence(number), found):
                    self._note(row, f"{what} of conversation {number}")
                    break

    def _note(self, row: RawRow | BadRow, what: str) -> None:
        self._wrong += 1
        self._first = self._first or f"{row.file}:{row.number}: {what}"
