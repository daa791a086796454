"""Files of conversations to a pack: encoded shard by shard, placed, written, published at once.

Killed at any moment, the same command goes on: encoded shards are kept, rows are placed again, and
every byte comes out the same.
"""

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import batched, chain
from pathlib import Path
from typing import Any

from frontload.data_tools.disk.files import read_json
from frontload.data_tools.disk.indexed import token_dtype
from frontload.data_tools.disk.publish import (
    check_there,
    clear,
    is_finished,
    new_folder,
    publish_folder,
    tidy,
    workplace,
)
from frontload.data_tools.packing.choice import chosen_encoder, note_encoder
from frontload.data_tools.packing.encode import CUT_OFF, Counts, EncodedSequence, SequenceEncoder
from frontload.data_tools.packing.plan import PackRequest, check_pack, pack_plan, pack_rules
from frontload.data_tools.packing.rows import write_rows
from frontload.data_tools.packing.spill import Spill, SpillReader
from frontload.data_tools.preprocess.encoder import ParityError
from frontload.data_tools.preprocess.request import EncoderChoice
from frontload.data_tools.preprocess.text_encoder import TextEncoder
from frontload.data_tools.preprocess.vocabulary import load_vocabulary
from frontload.data_tools.raw.bad_rate import ROWS_TO_JUDGE
from frontload.data_tools.raw.inputs import expand_inputs
from frontload.data_tools.raw.parse import BadRow, RawRow
from frontload.data_tools.raw.rows import read_rows
from frontload.data_tools.text.chat import load_template
from frontload.recipes.artifact import write_json
from frontload.recipes.errors import RecipeError

WORK_FORMAT = 3  # of a work folder: 3 has the ids of whole texts, and where the first drops are
SHARD_ROWS = 1024  # ours: 40 MB of long traces; what a kill can cost
CHUNK_ROWS = 64  # ours: rows that a worker is handed; decides nothing but speed
Progress = Callable[[int, int], None]
"""Told the rows read so far, and the sequences in them."""


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
    check_pack(request)
    files = expand_inputs(request.inputs, asked_by="FILE")
    tokenizer = load_vocabulary(request.tokenizer).loaded
    template = load_template(request.template, tokenizer, day=request.day)
    plan = pack_plan(request, files, tokenizer=tokenizer, template=template)
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
    """Stops a run that loses too many rows, for another reason than their length or for any.

    Raises: TooManyBad.
    """
    rows = counts.rows.total()
    lost = counts.dropped.total()
    if lost > rows * request.max_lost_rate:
        raise TooManyBad(
            f"--max-lost-rate {request.max_lost_rate:g}",
            found=f"{lost} of {rows} rows are lost" + _dropped(counts),
            rule="a pack that lost more rows than that is not what was asked for",
            do="raise --sequence-tokens where rows are longer, mend rows that are dropped for"
            " another reason, or raise the rate to publish what is left: what is encoded is kept",
        )
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
    told = ""
    for key, number in sorted(counts.dropped.items()):
        source, _, why = key.partition("\t")
        if why not in but:
            first = counts.examples.get(key)
            told += f"; {number} of {source} dropped: {why}" + (f" (first {first})" * bool(first))
    return told


def _finished(output: Path, plan: dict[str, Any]) -> dict[str, Any] | None:
    """The pack.json of the same pack, when it is there.

    Raises: RecipeError when something else is; ArtifactError when a file is gone or cut since.
    """
    if not is_finished(output, described_by="pack.json"):
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
    plan = plan | {"work_format": WORK_FORMAT}
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
    template = load_template(request.template, tokenizer, day=request.day)
    ids = TextEncoder(request.tokenizer, choice).ids
    return SequenceEncoder(tokenizer, template, pack_rules(request), ids=ids)


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
