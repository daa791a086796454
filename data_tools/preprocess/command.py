"""`frontload data preprocess` and `frontload data merge`: parses, calls, prints; exit code."""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

from frontload.data_tools.disk.indexed import manifest_file
from frontload.data_tools.disk.publish import check_place
from frontload.data_tools.preprocess.merge import merge
from frontload.data_tools.preprocess.progress import progress_for
from frontload.data_tools.preprocess.request import (
    AS_TOKENIZER,
    TEXT_FIELD,
    EncoderChoice,
    PreprocessRequest,
    SpecialText,
    parse_shard,
)
from frontload.data_tools.preprocess.run import preprocess
from frontload.data_tools.preprocess.slurm import array_script
from frontload.data_tools.raw.bad_rate import MAX_BAD_RATE
from frontload.data_tools.raw.parse import MAX_ROW_BYTES
from frontload.data_tools.stores.path import path_of
from frontload.data_tools.text.template import parse_day
from frontload.recipes.errors import RecipeError


def add_arguments(raw: argparse.ArgumentParser) -> None:
    """Those of `preprocess`; `run` goes from them to an exit code."""
    raw.add_argument(
        "--input",
        nargs="+",
        required=True,
        metavar="FILE",
        help="files or globs: .jsonl, .jsonl.gz, .jsonl.zst, .parquet; on a disk or at s3://, gs://,"
        " hf://, https://",
    )
    raw.add_argument(
        "--output-prefix",
        type=path_of,
        required=True,
        metavar="P",
        help="writes P.bin, P.idx and P.manifest.json, on a disk or at s3://, gs://",
    )
    raw.add_argument(
        "--tokenizer", type=Path, required=True, metavar="FILE_OR_DIR", help="a tokenizer.json"
    )
    raw.add_argument(
        "--json-key",
        metavar="KEY",
        help=f"field that holds the text (default {TEXT_FIELD}); a.b is a field below a, and a"
        " template such as '{question}\\n{answer}' joins fields, '{sentences: }' a list",
    )
    raw.add_argument(
        "--chat",
        action="store_true",
        help="instead of one field: rows of messages, or of question, trace and answer, become text"
        " by the tokenizer's chat template; rows of text stay",
    )
    raw.add_argument(
        "--date", metavar="DAY", help="that a chat template writes, such as 2026-01-31"
    )
    raw.add_argument("--append-eod", action="store_true", help="end every document with EOD")
    raw.add_argument("--eod-token", metavar="TOKEN", help="EOD, where its name does not tell")
    raw.add_argument(
        "--prepend-bos",
        nargs="?",
        const=AS_TOKENIZER,
        metavar="TOKEN",
        help="begin every document with TOKEN; without TOKEN put around it what the tokenizer's"
        " post_processor does, as Megatron's own tool",
    )
    _add_options(raw)
    raw.set_defaults(run=run_preprocess)


def add_merge_arguments(joined: argparse.ArgumentParser) -> None:
    """Those of `merge`."""
    joined.add_argument("shards", nargs="+", type=Path, metavar="P", help="prefixes or manifests")
    joined.add_argument(
        "--output-prefix",
        type=path_of,
        required=True,
        metavar="P",
        help="P.bin and P.idx are made, on a disk or at s3://, gs://",
    )
    joined.set_defaults(run=run_merge)


def _add_options(raw: argparse.ArgumentParser) -> None:
    raw.add_argument(
        "--workers",
        type=int,
        default=usable_processors(),
        help="processes (default all cores, here %(default)s); the bytes do not depend on it",
    )
    raw.add_argument(
        "--encoder",
        choices=[choice.value for choice in EncoderChoice],
        default=EncoderChoice.AUTO.value,
        help="auto: gigatoken where its ids are those of tokenizers (default)",
    )
    raw.add_argument(
        "--special-text",
        choices=[choice.value for choice in SpecialText],
        default=SpecialText.DROP.value,
        help="rows that spell a special token: drop and count them (default), encode its id, or"
        " encode its letters as text",
    )
    raw.add_argument(
        "--rejects", type=Path, metavar="FILE", help="JSONL of the rows that were dropped"
    )
    raw.add_argument(
        "--max-bad-rate",
        type=float,
        default=MAX_BAD_RATE,
        metavar="SHARE",
        help="publish nothing when more rows than that are dropped (default %(default)s)",
    )
    raw.add_argument(
        "--max-row-bytes",
        type=int,
        default=MAX_ROW_BYTES,
        metavar="N",
        help="rows above that are dropped (default %(default)s)",
    )
    raw.add_argument(
        "--shard", metavar="I/N", help="only part I of N; writes P-0000I-of-0000N for `merge`"
    )
    raw.add_argument(
        "--print-slurm-array",
        type=int,
        metavar="N",
        help="print a Slurm array job of N shards, and run nothing",
    )


def usable_processors() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_preprocess(arguments: argparse.Namespace) -> int:
    """Writes P.bin, P.idx and P.manifest.json, or prints the job that would."""
    if arguments.chat and arguments.json_key is not None:
        raise RecipeError(
            f"--chat --json-key {arguments.json_key}",
            found="two answers to where the text of a row is",
            rule="--chat renders whole rows; --json-key names one field",
            do="leave one of the two out",
        )
    request = PreprocessRequest(
        inputs=tuple(arguments.input),
        output_prefix=arguments.output_prefix,
        tokenizer=arguments.tokenizer,
        json_key=arguments.json_key or TEXT_FIELD,
        is_chat=arguments.chat,
        day=parse_day(arguments.date) if arguments.date else None,
        append_eod=arguments.append_eod,
        eod_token=arguments.eod_token,
        prepend_bos=arguments.prepend_bos,
        workers=arguments.workers,
        encoder=EncoderChoice(arguments.encoder),
        special_text=SpecialText(arguments.special_text),
        shard=parse_shard(arguments.shard) if arguments.shard else None,
        rejects=arguments.rejects,
        max_bad_rate=arguments.max_bad_rate,
        max_row_bytes=arguments.max_row_bytes,
    )
    if arguments.print_slurm_array is not None:
        print(array_script(request, shards=arguments.print_slurm_array), end="")
        return 0
    check_place(request.output_prefix, asked="--output-prefix")
    was_there = manifest_file(request.prefix).is_file()
    began = time.monotonic()
    manifest = preprocess(request, progress=progress_for(sys.stderr))
    print(describe(request.prefix, manifest))
    if was_there:
        _tell_kept(request.prefix)
        return 0
    seconds = time.monotonic() - began
    rate = manifest["text_bytes"] / seconds / 1e6
    print(f"{seconds:.1f} s, {rate:.0f} MB/s of text", file=sys.stderr)
    return 0


def run_merge(arguments: argparse.Namespace) -> int:
    """Joins shards."""
    check_place(arguments.output_prefix, asked="--output-prefix")
    was_there = manifest_file(arguments.output_prefix).is_file()
    manifest = merge(arguments.shards, output_prefix=arguments.output_prefix)
    print(describe(arguments.output_prefix, manifest))
    if was_there:
        _tell_kept(arguments.output_prefix)
    return 0


def _tell_kept(prefix: Path) -> None:
    print(
        f"{prefix} holds this very output: nothing done, and its bytes not compared"
        f" (`frontload data verify {prefix}` does)",
        file=sys.stderr,
    )


def describe(prefix: Path, manifest: dict[str, Any]) -> str:
    """What was written, in a few lines."""
    made_by = manifest["made_by"]
    dropped = sum(manifest["dropped"].values())
    lines = [
        f"{prefix}.bin, .idx, .manifest.json: {manifest['num_documents']:,} documents,"
        f" {manifest['num_tokens']:,} tokens ({manifest['dtype']}),"
        f" {dropped:,} of {manifest['num_rows']:,} rows dropped",
        *(
            f"  dropped {count:,} ({count / max(manifest['num_rows'], 1):.2%}): {reason}"
            for reason, count in manifest["dropped"].items()
        ),
        f"  encoder {made_by['encoder']}: {made_by['encoder_reason']}"
        f" ({made_by['documents_compared']:,} comparisons)",
    ]
    if left_out := manifest.get("left_out_around"):
        named = ", ".join([*left_out["before"], *left_out["behind"]])
        lines.append(
            f"  without {named}, which the tokenizer puts around a text: --prepend-bos writes it"
        )
    if ids_around := manifest.get("ids_around"):
        lines.append(f"  ids before each document: {ids_around[0]}, behind it: {ids_around[1]}")
    if not manifest["append_eod"]:
        lines.append("  documents do not end with EOD: Megatron usually wants --append-eod")
    return "\n".join(lines)
