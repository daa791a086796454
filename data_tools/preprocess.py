"""Raw JSONL to one Megatron .bin/.idx pair and a manifest: the same bytes for any worker count."""

import hashlib
import multiprocessing
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import batched, chain
from pathlib import Path
from typing import Any

import numpy as np

from frontload.data_tools.document import TextField, open_bytes, parse_object, take_text
from frontload.data_tools.files import write_json
from frontload.data_tools.indexed import IndexedWriter, bin_file, idx_file, token_dtype
from frontload.data_tools.render import has_special_token
from frontload.data_tools.tokenizer import END, TextTokenizer
from frontload.recipes.artifact import tokenizer_file
from frontload.recipes.errors import RecipeError

CHUNK_LINES = 1024  # ours: about 1 MB of web text; decides messages between processes, not bytes


@dataclass(frozen=True, kw_only=True)
class PreprocessRequest:
    """What `frontload data preprocess` was asked for."""

    inputs: tuple[Path, ...]
    output_prefix: Path
    tokenizer: Path
    json_key: str
    append_eod: bool
    workers: int


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Some lines of one input, with the number of the first."""

    file: Path
    first_line: int
    lines: tuple[bytes, ...]


@dataclass(frozen=True, kw_only=True)
class EncodedChunk:
    """Tokens of the kept rows of a chunk, end to end, and the drops by reason."""

    tokens: np.ndarray
    lengths: np.ndarray
    dropped: Counter[str]


_worker_state: dict[str, Any] = {}  # tokenizer and request of a worker process, set when it starts


def preprocess(request: PreprocessRequest) -> dict[str, Any]:
    """Writes `P.bin`, `P.idx` and, last, `P.manifest.json`, and returns the manifest.

    Rows with an empty text and rows that spell a special token are dropped and counted.

    Raises: RecipeError for a bad input row (file:line), no usable row, or a missing folder.
    """
    _check(request)
    tokenizer = TextTokenizer.load(request.tokenizer)
    dtype = token_dtype(tokenizer.vocab_size)
    digests = {file: hashlib.sha256() for file in request.inputs}
    dropped: Counter[str] = Counter()
    num_tokens = 0
    with IndexedWriter(request.output_prefix, dtype) as writer:
        chunks = _read_chunks(request.inputs, digests)
        with _encoder(request, tokenizer) as encode:
            for encoded in encode(chunks):
                writer.add_documents(encoded.tokens, encoded.lengths)
                dropped.update(encoded.dropped)
                num_tokens += len(encoded.tokens)
        if writer.num_documents == 0:
            raise RecipeError(
                f"preprocessing {', '.join(str(file) for file in request.inputs)}",
                found=f"no row to write; dropped {dict(dropped)}",
                rule="at least one row has text",
                do=f"check the files and --json-key {request.json_key}",
            )
        num_documents = writer.num_documents
    manifest = {
        "format": 1,
        "inputs": [
            {"name": file.name, "sha256": digests[file].hexdigest()} for file in request.inputs
        ],
        "tokenizer_sha256": _sha256(_tokenizer_file(request.tokenizer)),
        "json_key": request.json_key,
        "append_eod": request.append_eod,
        "dtype": dtype.name,
        "num_documents": num_documents,
        "num_tokens": num_tokens,
        "dropped": dict(dropped),
        "bin_sha256": _sha256(bin_file(request.output_prefix)),
        "idx_sha256": _sha256(idx_file(request.output_prefix)),
    }
    write_json(manifest_file(request.output_prefix), manifest)
    return manifest


def manifest_file(prefix: Path) -> Path:
    return prefix.with_name(prefix.name + ".manifest.json")


def _check(request: PreprocessRequest) -> None:
    for file in request.inputs:
        if not file.is_file():
            raise RecipeError(
                f"--input {file}",
                found="there is no such file",
                rule="inputs are JSONL files, plain or .gz",
                do="correct the path",
            )
    if request.workers < 1:
        raise RecipeError(
            "--workers",
            found=str(request.workers),
            rule="at least one process encodes",
            do="write 1 or more",
        )
    if not request.output_prefix.parent.is_dir():
        raise RecipeError(
            f"--output-prefix {request.output_prefix}",
            found=f"no folder {request.output_prefix.parent}",
            rule="the prefix's folder exists",
            do="make the folder first",
        )


def _read_chunks(inputs: Sequence[Path], digests: dict[Path, Any]) -> Iterator[Chunk]:
    for file in inputs:
        first_line = 1
        with open_bytes(file) as stream:
            for lines in batched(stream, CHUNK_LINES):
                for line in lines:
                    digests[file].update(line)
                yield Chunk(file=file, first_line=first_line, lines=lines)
                first_line += len(lines)


@contextmanager
def _encoder(request: PreprocessRequest, tokenizer: TextTokenizer) -> Iterator[Any]:
    """A function from chunks to encoded chunks in the same order, in this process or in a pool."""
    if request.workers == 1:
        yield partial(map, partial(encode_chunk, tokenizer=tokenizer, request=request))
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(request.workers, _start_worker, (request,)) as pool:
        yield partial(pool.imap, _encode_in_worker)


def _start_worker(request: PreprocessRequest) -> None:
    _worker_state["tokenizer"] = TextTokenizer.load(request.tokenizer)
    _worker_state["request"] = request


def _encode_in_worker(chunk: Chunk) -> EncodedChunk:
    return encode_chunk(chunk, **_worker_state)


def encode_chunk(
    chunk: Chunk, *, tokenizer: TextTokenizer, request: PreprocessRequest
) -> EncodedChunk:
    """Encodes the text of every row of a chunk.

    Raises: RecipeError naming file and line of a row without the text.
    """
    field = TextField(name=request.json_key, asked_by="--json-key", error_type=RecipeError)
    dropped: Counter[str] = Counter()
    texts: list[str] = []
    for number, line in enumerate(chunk.lines, start=chunk.first_line):
        if not line.strip():
            continue
        where = f"{chunk.file}:{number}"
        row = parse_object(line, where=where, error_type=RecipeError)
        text = take_text(row, field, where=where)
        if not text.strip():
            dropped["empty text"] += 1
        elif has_special_token(text):
            dropped["spells a special token"] += 1
        else:
            texts.append(text)
    encoded = tokenizer.encode_batch(texts)
    if request.append_eod:
        for ids in encoded:
            ids.append(END)
    lengths = np.fromiter((len(ids) for ids in encoded), dtype=np.int32, count=len(encoded))
    tokens = np.fromiter(chain.from_iterable(encoded), np.int32, int(lengths.sum()))
    return EncodedChunk(tokens=tokens, lengths=lengths, dropped=dropped)


def _tokenizer_file(path: Path) -> Path:
    return tokenizer_file(path) if path.is_dir() else path


def _sha256(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
