"""What `frontload data preprocess` was asked for, and what is refused before anything starts."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from pathlib import Path

from frontload.data_tools.disk.publish import check_place
from frontload.data_tools.raw.bad_rate import MAX_BAD_RATE, check_bad_rate
from frontload.data_tools.raw.parse import MAX_ROW_BYTES
from frontload.recipes.errors import RecipeError

TEXT_FIELD = "text"
AS_TOKENIZER = ""
"""Of `prepend_bos`: the ids that the tokenizer's own post-processor puts around a text."""


class EncoderChoice(StrEnum):
    """Which library encodes: `auto` takes gigatoken when its ids are those of `tokenizers`."""

    AUTO = "auto"
    TOKENIZERS = "tokenizers"
    GIGATOKEN = "gigatoken"


class SpecialText(StrEnum):
    """What becomes of a row whose text spells a special token."""

    DROP = "drop"
    ENCODE = "encode"  # as the token's id
    TEXT = "text"  # as the letters that it is spelled with


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Part `number` (from 1) of `of` parts of the inputs."""

    number: int
    of: int

    @property
    def suffix(self) -> str:
        return f"-{self.number:05d}-of-{self.of:05d}"


@dataclass(frozen=True, kw_only=True)
class PreprocessRequest:
    """Inputs, output and rules of one run. Only `workers` and `encoder` cannot change bytes."""

    inputs: Sequence[str | Path]
    output_prefix: Path
    tokenizer: Path
    json_key: str = TEXT_FIELD
    is_chat: bool = False  # instead of a field: conversations, by the tokenizer's chat template
    day: date | None = None  # that the chat template writes, where it writes one
    append_eod: bool = False
    eod_token: str | None = None
    prepend_bos: str | None = (
        None  # the token before each document; AS_TOKENIZER: what its file says
    )
    workers: int = 1
    encoder: EncoderChoice = EncoderChoice.AUTO
    special_text: SpecialText = SpecialText.DROP
    shard: Shard | None = None
    rejects: Path | None = None
    max_bad_rate: float = MAX_BAD_RATE
    max_row_bytes: int = MAX_ROW_BYTES
    part_bytes: int | None = None

    @property
    def text_option(self) -> str:
        """The option that says where the text of a row is, as messages name it."""
        return "--chat" if self.is_chat else f"--json-key {self.json_key}"

    @property
    def prefix(self) -> Path:
        """Where the files go: the prefix asked for, or the shard's own next to it."""
        if self.shard is None:
            return self.output_prefix
        return self.output_prefix.with_name(self.output_prefix.name + self.shard.suffix)


def parse_shard(text: str) -> Shard:
    """The shard that `i/n` names.

    Raises: RecipeError when it is none.
    """
    number, slash, of = text.partition("/")
    if slash and number.isascii() and number.isdigit() and of.isascii() and of.isdigit():
        shard = Shard(number=int(number), of=int(of))
        if 1 <= shard.number <= shard.of:
            return shard
    raise RecipeError(
        f"--shard {text}",
        found="no i/n with i from 1 to n",
        rule="shards count from 1: 1/16 is the first of 16 and 16/16 the last",
        do="write for example --shard 1/16",
    )


def check_request(request: PreprocessRequest) -> None:
    """Refuses numbers and folders that cannot work.

    Raises: RecipeError.
    """
    if request.workers < 1:
        raise RecipeError(
            "--workers",
            found=str(request.workers),
            rule="at least one process encodes",
            do="write 1 or more",
        )
    if request.day and not request.is_chat:
        raise RecipeError(
            f"--date {request.day}",
            found="no --chat",
            rule="a day is written by a chat template, and no template is used",
            do="add --chat, or leave --date out",
        )
    check_bad_rate(request.max_bad_rate)
    if request.max_row_bytes < 1:
        raise RecipeError(
            "--max-row-bytes",
            found=str(request.max_row_bytes),
            rule="a row has at least one byte",
            do=f"write for example {MAX_ROW_BYTES}",
        )
    check_place(request.output_prefix, asked="--output-prefix")
