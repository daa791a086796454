"""A pack as Megatron-Bridge's packed Parquet: its rows, with masks as that reader takes them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow
from pyarrow import parquet

from frontload.data_tools.disk.files import replacing
from frontload.data_tools.disk.indexed import IndexedReader
from frontload.recipes.errors import RecipeError

SCHEMA = pyarrow.schema(
    [
        ("input_ids", pyarrow.list_(pyarrow.int32())),
        ("loss_mask", pyarrow.list_(pyarrow.int8())),
        ("seq_start_id", pyarrow.list_(pyarrow.int32())),
    ]
)
"""Source: megatron-bridge 0.6.2, bridge/data/packing/parquet.py, GPTSFTPackedParquetDataset."""
GROUP_ROWS = 500  # of the same file's writer
SUFFIXES = (".parquet", ".pq")  # its packing/paths.py


@dataclass(frozen=True, kw_only=True)
class PackExport:
    """What was written, and what of it that reader leaves out."""

    rows: int
    sequences: int
    tokens: int
    loss_tokens: int
    first_targets: int  # of a sequence's first token, which no token stands before


def check_parquet_name(out: Path) -> None:
    """Refuses a name that the reader would not take.

    Raises: RecipeError.
    """
    if not out.name.endswith(SUFFIXES):
        raise RecipeError(
            f"--out {out}",
            found="a name without .parquet",
            rule="Megatron-Bridge knows a packed file by its name",
            do=f"write for example {out.with_name('pack.idx.parquet')}",
        )


def write_packed_parquet(pack: Path, out: Path) -> PackExport:
    """Writes the rows of a pack, whole or not at all.

    The reader takes the mask at i for the label at i + 1; a pack's mask is 1 on the label itself.
    So the mask is moved by one within each sequence.

    Source: megatron-bridge 0.6.2, bridge/data/packing/gpt_sft.py, GPTSFTPackedDataset: collate_fn,
            _build_loss_mask; packing/algorithms.py:278 moves its own masks so.
    """
    tokens, masks = IndexedReader(pack / "tokens"), IndexedReader(pack / "loss_mask")
    loss_tokens = first_targets = 0
    with (
        replacing(out) as stream,
        parquet.ParquetWriter(stream, SCHEMA, compression="zstd") as writer,
    ):
        for first in range(0, tokens.num_documents, GROUP_ROWS):
            some = range(first, min(first + GROUP_ROWS, tokens.num_documents))
            rows = [_row(tokens, masks, number=number) for number in some]
            writer.write_table(
                pyarrow.table(
                    {
                        name: pyarrow.array(values, type=SCHEMA.field(name).type)
                        for name, values in zip(SCHEMA.names, zip(*rows, strict=True), strict=True)
                    }
                ),
                row_group_size=GROUP_ROWS,
            )
            loss_tokens += sum(int(mask.sum()) for _, mask, _ in rows)
    for number in range(masks.num_sequences):
        first_targets += int(masks.sequence(number)[:1].sum())
    return PackExport(
        rows=tokens.num_documents,
        sequences=tokens.num_sequences,
        tokens=tokens.num_tokens,
        loss_tokens=loss_tokens,
        first_targets=first_targets,
    )


def _row(
    tokens: IndexedReader, masks: IndexedReader, *, number: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids, moved mask and starts of a row."""
    lengths = np.array([len(one) for one in _sequences(tokens, number)])
    moved = [np.append(one[1:], 0) for one in _sequences(masks, number)]
    starts = np.cumsum([0, *lengths[:-1]])
    ids = tokens.document(number)
    return ids.astype(np.int32), np.concatenate(moved).astype(np.int8), starts.astype(np.int32)


def _sequences(reader: IndexedReader, number: int) -> Iterator[np.ndarray]:
    first, last = (int(at) for at in reader.document_indices[number : number + 2])
    return map(reader.sequence, range(first, last))
