"""Files of conversations to a pack: encoded shard by shard, placed, written, published at once.

Killed at any moment, the same command goes on: encoded shards are kept, rows are placed again, and
every byte comes out the same.
"""

import hashlib
import json
import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import batched, chain
from pathlib import Path
from typing import Any

from frontload.data_tools.disk.files import file_sha256, read_json
from frontload.data_tools.disk.indexed import token_dtype
from frontload.data_tools.disk.publish import (
    check_place,
    check_there,
    clear,
    new_folder,
    publish_folder,
    tidy,
    workplace,
)
from frontload.data_tools.packing.choice import chosen_encoder, note_encoder
from frontload.data_tools.packing.encode import (
    DROP,
    OVER_LONG,
    SPLIT,
    TURN_OVER_LONG,
    Counts,
    EncodedSequence,
    PackRules,
    SequenceEncoder,
)
from frontload.data_tools.packing.rows import write_rows
from frontload.data_tools.packing.spill import Spill, SpillReader
from frontload.data_tools.preprocess.encoder import ParityError
from frontload.data_tools.preprocess.request import EncoderChoice
from frontload.data_tools.preprocess.text_encoder import TextEncoder
from frontload.data_tools.preprocess.vocabulary import load_vocabulary
from frontload.data_tools.raw.bad_rate import MAX_BAD_RATE, ROWS_TO_JUDGE, check_bad_rate
from frontload.data_tools.raw.inputs import expand_inputs
from frontload.data_tools.raw.parse import BadRow, RawRow
from frontload.data_tools.raw.rows import read_rows
from frontload.data_tools.text.chat import ChatTemplate, load_template
from frontload.data_tools.text.messages import UNCLOSED
from frontload.data_tools.text.tokenizer import TextTokenizer
from frontload.recipes.artifact import write_json
from frontload.recipes.errors import RecipeError

SHARD_ROWS = 1024  # ours: 40 MB of long traces; what a kill can cost
CHUNK_ROWS = 64  # ours: rows that a worker is handed; decides nothing but speed
POLICIES = (DROP, SPLIT)
FORMAT = 2
ONE_PACK_ONLY = ("budget_tokens", "buffer_conversations")
"""Of a request, what a plan states where it was asked for."""
CUT_OFF = frozenset({OVER_LONG, TURN_OVER_LONG, UNCLOSED})
"""Drops that say how long an answer is, and that no mending of rows or options brings back."""
MOST_TOKENS = (1 << 31) - 2  # Megatron's .idx holds int32 lengths, and a row has one token more

Progress = Callable[[int, int], None]
"""Told the rows read so far, and the sequences in them."""


@dataclass(frozen=True, kw_only=True)
class PackRequest:
    """What `frontload data pack` was asked for."""

    inputs: tuple[str, ...]
    tokenizer: Path
    template: Path | None
    output: Path
    sequence_tokens: int
    over_long: str
    source_field: str
    epochs: int
    seed: int
    workers: int
    max_bad_rate: float = MAX_BAD_RATE
    budget_tokens: int = 0  # instead of epochs: so many samples of sequence_tokens; 0 = by epochs
    buffer_conversations: int = 0  # placed together; 0 = all


class TooManyBad(RecipeError):
    """More rows are bad than asked for; what was encoded is still good for a higher rate."""


_worker_state: dict[
    str, SequenceEncoder
] = {}  # the encoder of a worker process, set when it starts


def build_pack(
    request: PackRequest, *, progress: Progress = lambda rows, kept: None
) -> dict[str, Any]:
    """Writes the pack and returns its pack.json; does nothing when it is there already.

    Raises: RecipeError for a wrong option or input, or an output that is something else; nothing
            is published then.
    """
    _check(request)
    files = expand_inputs(request.inputs, asked_by="FILE")
    tokenizer = load_vocabulary(request.tokenizer).loaded
    template = load_template(request.template, tokenizer)
    plan = _plan(request, files, tokenizer, template)
    finished = _finished(request.output, plan)
    if finished is not None:
        return finished
    with workplace(request.output, asked="--output") as work:
        _enter_plan(work, plan)
        try:
            ready = _write(request, files, plan=plan, work=work, progress=progress)
        except TooManyBad:
            raise
        except RecipeError:  # the input is wrong: there is nothing to go on from
            clear(work)
            raise
        publish_folder(ready, request.output)
    return read_json(request.output / "pack.json")


def _write(
    request: PackRequest,
    files: Sequence[Path],
    *,
    plan: dict[str, Any],
    work: Path,
    progress: Progress,
) -> Path:
    """The pack, whole, in a folder of the work folder."""
    dtype = token_dtype(plan["vocab_size"])
    rows = chain.from_iterable(map(read_rows, files))
    sample = _encoder(request, EncoderChoice.TOKENIZERS)
    made_by = chosen_encoder(work, request.tokenizer, map(sample.texts, rows))
    while True:
        try:
            with Spill(work / "spill", dtype) as spill:
                _encode_all(request, files, spill, made_by=made_by, progress=progress)
                counts, num_sequences = spill.counts, spill.num_sequences
            break
        except ParityError as error:  # what gigatoken gave before is in doubt as well
            made_by = note_encoder(work, EncoderChoice.TOKENIZERS, reason=str(error))
            new_folder(work / "spill")
    _judge(request, counts)
    if not num_sequences:
        raise RecipeError(
            f"packing {', '.join(request.inputs)}",
            found="no conversation to pack" + _dropped(counts),
            rule="at least one conversation is kept",
            do="look at the reasons: the files, --template or --sequence-tokens are wrong",
        )
    ready = new_folder(work / "pack")
    sequences = SpillReader(work / "spill", dtype)
    write_rows(ready, sequences, plan=plan, counts=counts, made_by=made_by)
    return ready


def _judge(request: PackRequest, counts: Counts) -> None:
    """Stops a run that loses too many rows for another reason than their length.

    Raises: TooManyBad.
    """
    rows = counts.rows.total()
    bad = sum(n for name, n in counts.dropped.items() if name.partition("\t")[2] not in CUT_OFF)
    if bad > rows * request.max_bad_rate:
        raise TooManyBad(
            f"--max-bad-rate {request.max_bad_rate:g}",
            found=f"{bad} of {rows} rows cannot be used" + _dropped(counts, but=CUT_OFF),
            rule="nothing is published when more rows than that are lost",
            do="mend the rows or --template, or raise the rate and run again: what is encoded is"
            " kept",
        )


def _dropped(counts: Counts, *, but: frozenset[str] = frozenset()) -> str:
    """The drops by source and reason, as a message says them; nothing when no row was read."""
    told = [(name.partition("\t"), number) for name, number in sorted(counts.dropped.items())]
    told = [each for each in told if each[0][2] not in but]
    return "".join(f"; {number} of {source} dropped: {why}" for (source, _, why), number in told)


def _check(request: PackRequest) -> None:
    for option, found in (
        ("--sequence-tokens", request.sequence_tokens),
        ("--epochs", request.epochs),
        ("--workers", request.workers),
    ):
        if found < 1:
            raise RecipeError(
                option, found=str(found), rule="it is at least 1", do="write 1 or more"
            )
    if request.sequence_tokens > MOST_TOKENS:
        raise RecipeError(
            "--sequence-tokens",
            found=str(request.sequence_tokens),
            rule=f"lengths are stored in 32 bits, so a row has {MOST_TOKENS} tokens at most",
            do="write for example 32768",
        )
    check_bad_rate(request.max_bad_rate)
    if request.budget_tokens % request.sequence_tokens:
        down = request.budget_tokens // request.sequence_tokens * request.sequence_tokens
        raise RecipeError(
            "pack.tokens",
            found=str(request.budget_tokens),
            rule=f"it is a positive multiple of sequence_tokens {request.sequence_tokens}",
            do=f"write {max(down, request.sequence_tokens)}",
        )
    if request.over_long not in POLICIES:
        raise RecipeError(
            "--over-long",
            found=repr(request.over_long),
            rule=f"it is one of {', '.join(POLICIES)}; no conversation is truncated",
            do=f"write {DROP}, or {SPLIT} to cut dialogues before a user's turn",
        )
    check_place(request.output, asked="--output")


def _plan(
    request: PackRequest,
    files: Sequence[Path],
    tokenizer: TextTokenizer,
    template: ChatTemplate,
) -> dict[str, Any]:
    """All that decides the bytes. Files are named without their folders."""
    inputs = []
    for file in files:
        digest = file_sha256(file)
        inputs.append({"name": file.name, "sha256": digest, "size_bytes": file.stat().st_size})
    plan = {
        "format": FORMAT,
        "inputs": inputs,
        "tokenizer_sha256": tokenizer.sha256(),
        "vocab_size": tokenizer.vocab_size,
        "template": template.name,
        "template_sha256": template.sha256,
        "reasoning": "reasoning_content" if template.has_reasoning else "<think>",
        **asdict(_rules(request)),
        "epochs_asked": request.epochs,
        "seed": request.seed,
        **{name: asked for name in ONE_PACK_ONLY if (asked := getattr(request, name))},
    }
    text = json.dumps(plan, sort_keys=True)
    return plan | {"plan_sha256": hashlib.sha256(text.encode()).hexdigest()}


def _rules(request: PackRequest) -> PackRules:
    return PackRules(
        sequence_tokens=request.sequence_tokens,
        over_long=request.over_long,
        source_field=request.source_field,
    )


def _finished(output: Path, plan: dict[str, Any]) -> dict[str, Any] | None:
    """The pack.json of the same pack, when it is there.

    Raises: RecipeError when something else is; ArtifactError when a file is gone or cut since.
    """
    if not output.exists():
        return None
    if (output / "pack.json").is_file():
        found = read_json(output / "pack.json")
        if isinstance(found, dict) and found.get("plan_sha256") == plan["plan_sha256"]:
            check_there({output / name: one["size_bytes"] for name, one in found["files"].items()})
            tidy(output, asked="--output")
            return found
        what = "a pack of other inputs or options"
    else:
        what = "something that is no pack"
    raise RecipeError(
        f"--output {output}",
        found=what,
        rule="a pack is never written over",
        do="name another folder, or delete this one",
    )


def _enter_plan(work: Path, plan: dict[str, Any]) -> None:
    """Keeps what a run of the same plan left, and nothing else."""
    if not (work / "plan.json").is_file() or read_json(work / "plan.json") != plan:
        clear(work)  # of other inputs or options
        write_json(work / "plan.json", plan)


def _encode_all(
    request: PackRequest,
    files: Sequence[Path],
    spill: Spill,
    *,
    made_by: Mapping[str, Any],
    progress: Progress,
) -> None:
    """Encodes every shard that the spill does not hold yet."""
    rows = ((number, row) for number, file in enumerate(files) for row in read_rows(file))
    done, kept_shards = 0, spill.num_shards
    with _encoding(request, EncoderChoice(made_by["encoder"])) as encode:
        for number, shard in enumerate(batched(rows, SHARD_ROWS)):
            done += len(shard)
            if number >= kept_shards:
                counts, sequences = Counts(), []
                chunks = [tuple(row for _, row in chunk) for chunk in batched(shard, CHUNK_ROWS)]
                for found, counted in encode(chunks):
                    sequences += found
                    counts.add(counted.as_dicts())
                origins = [(file, row.number) for file, row in shard]
                named = (
                    (origin, one)
                    for origin, parts in zip(origins, sequences, strict=True)
                    for one in parts
                )
                spill.add_shard(named, counts)
                if done >= ROWS_TO_JUDGE:
                    _judge(request, spill.counts)
            progress(done, spill.num_sequences)


@contextmanager
def _encoding(request: PackRequest, choice: EncoderChoice) -> Iterator[Callable[..., Any]]:
    """A function from chunks of rows to what they give, in order, here or in a pool."""
    if request.workers == 1:
        yield partial(map, partial(_encode_chunk, encoder=_encoder(request, choice)))
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(request.workers, _start_worker, (request, choice)) as pool:
        yield partial(pool.imap, _encode_in_worker)


def _encoder(request: PackRequest, choice: EncoderChoice) -> SequenceEncoder:
    tokenizer = load_vocabulary(request.tokenizer).loaded
    template = load_template(request.template, tokenizer)
    ids = TextEncoder(request.tokenizer, choice).ids
    return SequenceEncoder(tokenizer, template, _rules(request), ids=ids)


def _start_worker(request: PackRequest, choice: EncoderChoice) -> None:
    _worker_state["encoder"] = _encoder(request, choice)


def _encode_in_worker(
    rows: Sequence[RawRow | BadRow],
) -> tuple[list[list[EncodedSequence]], Counts]:
    return _encode_chunk(rows, encoder=_worker_state["encoder"])


def _encode_chunk(
    rows: Sequence[RawRow | BadRow], *, encoder: SequenceEncoder
) -> tuple[list[list[EncodedSequence]], Counts]:
    counts = Counts()
    return encoder.encode(rows, counts), counts
