"""Readers of the blend and pack artifacts: sample number to tokens, documents and loss mask."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from frontload.recipes.artifact import PACK_STEPS, index_prefix
from frontload.recipes.errors import ArtifactError

Array = npt.NDArray[Any]

_MAGIC = b"MMIDIDX\x00\x00"  # megatron/core/datasets/indexed_dataset.py _INDEX_HEADER
_DTYPES = {1: "u1", 2: "i1", 3: "i2", 4: "i4", 5: "i8", 6: "f8", 7: "f4", 8: "u2"}  # DType
PAD = 0  # id of <|pad|>, fixed for every tokenizer of this project


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Some samples side by side. Shapes: int64 tokens and labels, float32 mask, int32 documents."""

    tokens_BS: Array
    labels_BS: Array
    loss_mask_BS: Array
    document_ids_BS: Array


class Samples(Protocol):
    """What the loop needs of a data set."""

    num_samples: int

    def read(self, samples: Sequence[int]) -> Rows: ...

    def with_text(self, samples: range) -> range:
        """Those before the samples that are padding alone, which end a step."""
        ...

    def describe(self, sample: int) -> str:
        """Where a sample comes from, for a person who has to look at it."""
        ...


class TokenIndex:
    """A Megatron .bin/.idx pair, both mapped into memory: opening it reads a few pages, not files.

    Raises: ArtifactError for a missing or torn file, or an index that does not fit its data.
    """

    def __init__(self, prefix: Path) -> None:
        self.prefix = prefix
        raw = self._map_index()
        code = int(raw[17])
        num_sequences, num_documents = (int(n) for n in np.frombuffer(raw, "<i8", 2, 18))
        need = 34 + num_sequences * 12 + num_documents * 8
        if code not in _DTYPES or len(raw) != need:
            raise self._broken(
                f"{len(raw)} bytes, dtype code {code}", f"{need} bytes by its header"
            )
        self.dtype = np.dtype(_DTYPES[code]).newbyteorder("<")
        self.lengths = np.frombuffer(raw, "<i4", num_sequences, 34)
        after = 34 + self.lengths.nbytes
        self.pointers = np.frombuffer(raw, "<i8", num_sequences, after)
        self.documents = np.frombuffer(raw, "<i8", num_documents, after + self.pointers.nbytes)
        self.tokens = self._map_tokens()

    def _map_index(self) -> Array:
        path = self.prefix.with_name(self.prefix.name + ".idx")
        try:
            size = path.stat().st_size
        except FileNotFoundError as error:
            raise self._broken("no .idx file", "an index has .bin and .idx") from error
        if size < 34:
            raise self._broken(f"an .idx of {size} bytes", "its header alone has 34")
        raw = np.asarray(np.memmap(path, np.uint8, "r"))
        if raw[:9].tobytes() != _MAGIC:
            raise self._broken(f"header {raw[:9].tobytes()!r}", f"an index starts with {_MAGIC!r}")
        return raw

    def _map_tokens(self) -> Array:
        path = self.prefix.with_name(self.prefix.name + ".bin")
        size = path.stat().st_size if path.exists() else -1
        need = 0  # where the last sequence ends
        if len(self.lengths):
            need = int(self.pointers[-1]) + int(self.lengths[-1]) * self.dtype.itemsize
        if size != need:
            found = "no .bin file" if size < 0 else f"a .bin of {size} bytes"
            rule = f"its .idx counts {need} bytes ({self.dtype.name} tokens)"
            raise self._broken(found, rule)
        if need == 0:
            return np.empty(0, self.dtype)
        return np.asarray(np.memmap(path, self.dtype, "r"))

    def _broken(self, found: str, rule: str) -> ArtifactError:
        do = "delete the artifact by its key and run the study again"
        return ArtifactError(f"token index {self.prefix}", found=found, rule=rule, do=do)

    def sequence(self, number: int) -> Array:
        """Tokens of one sequence, without a copy."""
        start = int(self.pointers[number]) // self.dtype.itemsize
        return self.tokens[start : start + int(self.lengths[number])]

    def document(self, number: int, length: int) -> Array:
        """The `length` tokens of one document, of whichever sequences, without a copy."""
        if length == 0:
            return self.tokens[:0]
        start = int(self.pointers[int(self.documents[number])]) // self.dtype.itemsize
        return self.tokens[start : start + length]


@dataclass(frozen=True, kw_only=True)
class _Source:
    """One source of a blend: which documents follow each other in this phase."""

    name: str
    index: TokenIndex
    order: Array
    offsets: Array

    def documents_between(self, start: int, stop: int) -> range:
        first = int(np.searchsorted(self.offsets, start, side="right")) - 1
        last = int(np.searchsorted(self.offsets, stop, side="left"))
        return range(first, last)


class BlendSamples:
    """Samples of one pretraining phase in their order."""

    def __init__(self, blend: Path, indexes: Mapping[str, Path]) -> None:
        plan = json.loads(_read_text(blend / "plan.json", "blend"))
        self.sequence_tokens = int(plan["sequence_tokens"])
        self._samples = _map_array(blend / "samples.npy")
        self.num_samples = len(self._samples)
        self._sources = [
            _Source(
                name=entry["name"],
                index=TokenIndex(index_prefix(_input_of(entry["name"], indexes))),
                order=_map_array(blend / f"{entry['name']}.order.npy"),
                offsets=_map_array(blend / f"{entry['name']}.offsets.npy"),
            )
            for entry in plan["sources"]
        ]

    def read(self, samples: Sequence[int]) -> Rows:
        """Reads S inputs and S labels a sample; every token has loss."""
        shape = (len(samples), self.sequence_tokens)
        tokens = np.empty((shape[0], shape[1] + 1), np.int64)
        documents = np.empty(shape, np.int32)
        for row, sample in enumerate(samples):
            self._fill(int(sample), tokens[row], documents[row])
        return Rows(
            tokens_BS=tokens[:, :-1],
            labels_BS=tokens[:, 1:],
            loss_mask_BS=np.ones(shape, np.float32),
            document_ids_BS=documents,
        )

    def with_text(self, samples: range) -> range:
        """All of them."""
        return samples

    def _fill(self, sample: int, tokens: Array, documents: Array) -> None:
        number, start = (int(value) for value in self._samples[sample])
        source = self._sources[number]
        stop = start + len(tokens)
        for place, position in enumerate(source.documents_between(start, stop)):
            begins, ends = int(source.offsets[position]), int(source.offsets[position + 1])
            low, high = max(begins, start), min(ends, stop)
            text = source.index.document(int(source.order[position]), ends - begins)
            tokens[low - start : high - start] = text[low - begins : high - begins]
            documents[low - start : high - start] = place

    def describe(self, sample: int) -> str:
        """Source and documents of a sample."""
        number, start = (int(value) for value in self._samples[sample])
        source = self._sources[number]
        listed = source.documents_between(start, start + self.sequence_tokens + 1)
        documents = ", ".join(str(int(source.order[position])) for position in listed)
        return f"sample {sample} ({source.name}, documents {documents})"


class PackSamples:
    """Samples of supervised fine-tuning: packed conversations, loss where the mask says.

    A pack without steps gives its rows in order. One of a budget in real tokens gives each step's
    rows, then rows of padding up to the batch; the last row ends where the budget does.
    """

    def __init__(self, pack: Path, sequence_tokens: int) -> None:
        self.sequence_tokens = sequence_tokens
        self._tokens = TokenIndex(pack / "tokens")
        self._mask = TokenIndex(pack / "loss_mask")
        if not np.array_equal(self._tokens.lengths, self._mask.lengths):
            raise ArtifactError(
                f"pack {pack}",
                found="tokens and loss_mask have other lengths",
                rule="every token has a mask value",
                do="delete the artifact by its key and run the study again",
            )
        self._order = _map_array(pack / "order.npy")
        self._starts: Array | None = None  # of the steps, in places of the order
        self._last_row_tokens = sequence_tokens + 1
        self.batch_rows = 0  # of a step, padding included; 0 = any number
        self.num_samples = len(self._order)
        if (pack / PACK_STEPS).is_file():
            counts = json.loads(_read_text(pack / "pack.json", "pack"))
            self._starts = _map_array(pack / PACK_STEPS)
            self._last_row_tokens = int(counts["last_row_tokens"])
            self.batch_rows = int(counts["step_budget"]["batch_rows"])
            self.num_samples = (len(self._starts) - 1) * self.batch_rows

    def _place(self, sample: int) -> int | None:
        """Where a sample's row stands in the order; None of a row of padding."""
        if self._starts is None:
            return sample
        step, row = divmod(sample, self.batch_rows)
        place = int(self._starts[step]) + row
        return place if place < self._starts[step + 1] else None

    def read(self, samples: Sequence[int]) -> Rows:
        """Reads rows, padded to S + 1 tokens; padding is a document of its own without loss."""
        size = self.sequence_tokens + 1
        tokens = np.full((len(samples), size), PAD, np.int64)
        mask = np.zeros((len(samples), size), np.float32)
        documents = np.zeros((len(samples), size), np.int32)
        for row, sample in enumerate(samples):
            place = self._place(int(sample))
            if place is None:
                continue
            at, most = 0, self._last_row_tokens if place == len(self._order) - 1 else size
            conversations = self._conversations(int(self._order[place]))
            for document, number in enumerate(conversations):
                text = self._tokens.sequence(number)[: most - at]
                end = at + len(text)
                tokens[row, at:end] = text
                mask[row, at:end] = self._mask.sequence(number)[: most - at]
                documents[row, at:end] = document
                at = end
            documents[row, at:] = len(conversations)
        return Rows(
            tokens_BS=tokens[:, :-1],
            labels_BS=tokens[:, 1:],
            loss_mask_BS=mask[:, 1:],
            document_ids_BS=documents[:, :-1],
        )

    def with_text(self, samples: range) -> range:
        """Those before the rows of padding that fill a batch; `samples` are of one step."""
        if self._starts is None or not len(samples):
            return samples
        step, row = divmod(samples.start, self.batch_rows)
        num_rows = int(self._starts[step + 1] - self._starts[step])
        return samples[: max(num_rows - row, 0)]

    def _conversations(self, row: int) -> range:
        return range(int(self._tokens.documents[row]), int(self._tokens.documents[row + 1]))

    def describe(self, sample: int) -> str:
        """Row and conversations of a sample, by its number in the pack's order."""
        place = self._place(sample)
        if place is None:
            return "a row of padding"
        row = int(self._order[place])
        numbers = ", ".join(str(number) for number in self._conversations(row))
        return f"sample {place} (row {row}, conversations {numbers})"


def share_of_rank(
    first: int, *, per_rank: int, micro_sequences: int, data_rank: int
) -> list[range]:
    """The sample numbers of each micro-batch of one data-parallel rank in one step."""
    start = first + data_rank * per_rank
    return [
        range(at, at + micro_sequences) for at in range(start, start + per_rank, micro_sequences)
    ]


def _map_array(path: Path) -> Array:
    """A stored array, read when touched; as a plain array, which numpy indexes faster."""
    try:
        return np.asarray(np.load(path, mmap_mode="r"))
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"array {path}",
            found=str(error).splitlines()[0],
            rule="it must be a whole .npy file",
            do="delete the artifact by its key and run the study again",
        ) from error


def _input_of(name: str, indexes: Mapping[str, Path]) -> Path:
    if name not in indexes:
        raise ArtifactError(
            f"source {name!r} of the blend",
            found=f"inputs {', '.join(sorted(indexes))}",
            rule="every source has an input of its own name",
            do=f"add the index of {name} to the inputs of this stage",
        )
    return indexes[name]


def _read_text(path: Path, what: str) -> str:
    try:
        return path.read_text()
    except FileNotFoundError as error:
        raise ArtifactError(
            f"{what} {path.parent}",
            found=f"no {path.name}",
            rule=f"a {what} has a {path.name}",
            do="delete the artifact by its key and run the study again",
        ) from error
