"""Which library encodes a pack, and why: chosen once, kept in the work folder, in pack.json."""

from collections.abc import Iterable, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from frontload.data_tools.disk.files import read_json
from frontload.data_tools.preprocess.request import EncoderChoice
from frontload.data_tools.preprocess.text_encoder import choose_encoder
from frontload.data_tools.preprocess.vocabulary import package_versions
from frontload.recipes.artifact import write_json

COMPARED_ROWS = 1000  # ours: the gate of gigatoken, of at most ...
COMPARED_CHARACTERS = 1_000_000  # ours: ... these, half a second
ENCODER = "encoder.json"


def chosen_encoder(work: Path, tokenizer: Path, rows: Iterable[Sequence[str]]) -> dict[str, Any]:
    """The encoder for the texts of these rows, as `made_by`; a killed run's choice stays."""
    if (work / ENCODER).is_file():
        return read_json(work / ENCODER)
    texts: list[str] = []
    left = COMPARED_CHARACTERS
    for text in chain.from_iterable(islice(rows, COMPARED_ROWS)):
        texts.append(text[:left])
        left -= len(text)
        if left <= 0:
            break
    choice, reason = choose_encoder(tokenizer, texts)
    return note_encoder(work, choice, reason=reason or "ids compared with tokenizers")


def note_encoder(work: Path, choice: EncoderChoice, *, reason: str) -> dict[str, Any]:
    """Keeps a choice in the work folder."""
    made_by = {"encoder": str(choice), "encoder_reason": reason, "packages": package_versions()}
    write_json(work / ENCODER, made_by)
    return made_by
