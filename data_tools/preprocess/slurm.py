"""A Slurm array that preprocesses in shards and merges them: printed, for `sbatch` to read."""

import shlex
from pathlib import Path

from frontload.data_tools.preprocess.request import (
    EncoderChoice,
    PreprocessRequest,
    SpecialText,
    check_request,
)
from frontload.data_tools.raw.bad_rate import MAX_BAD_RATE
from frontload.data_tools.raw.parse import MAX_ROW_BYTES
from frontload.data_tools.stores.path import StorePath, is_url
from frontload.recipes.errors import RecipeError

SCRIPT = """\
#!/bin/bash
#SBATCH --job-name=preprocess-{name}
#SBATCH --array=1-{shards}
#SBATCH --ntasks=1
#SBATCH --cpus-per-task={workers}
#SBATCH --requeue
#SBATCH --output={prefix}-%a.log
#SBATCH --open-mode=append
# One shard a task; a task that is killed and requeued goes on where it was.
# The last task to end merges the shards: until all are there, merging is refused and left alone.
set -euo pipefail
cd {folder}
{command} --shard "${{SLURM_ARRAY_TASK_ID}}/{shards}"
shopt -s nullglob
shards=({quoted_prefix}-*-of-{shards:05d}.manifest.json)
if [ "${{#shards[@]}}" -eq {shards} ]; then
    frontload data merge "${{shards[@]}}" --output-prefix {quoted_prefix}
fi
"""


def array_script(request: PreprocessRequest, *, shards: int) -> str:
    """The job script of `shards` tasks, each with the request's workers.

    Raises: RecipeError when there is no shard, or the request names one of its own.
    """
    check_request(request)
    if shards < 1:
        raise RecipeError(
            "--print-slurm-array",
            found=str(shards),
            rule="an array has at least one task",
            do="write the number of shards, for example 16",
        )
    if request.shard is not None or request.rejects is not None:
        raise RecipeError(
            "--print-slurm-array",
            found="--shard" if request.shard else "--rejects",
            rule="each task of the array names its own shard, and tasks share no file",
            do="leave it out",
        )
    if isinstance(request.output_prefix, StorePath):
        raise RecipeError(
            f"--print-slurm-array with --output-prefix {request.output_prefix}",
            found="an output in a store",
            rule="shards lie on a disk that all tasks share, until they are merged",
            do="name a prefix on that disk; `data merge` may write to a store",
        )
    signed = [
        path for name in request.inputs if is_url(name) and (path := StorePath(name)).has_secret
    ]
    if signed:
        raise RecipeError(
            f"--print-slurm-array with {signed[0]}",
            found="a signed URL",
            rule="a script is kept, and holds no credentials",
            do="name the file by a URL without a query, with credentials where the store's own"
            " tools look for them",
        )
    prefix = request.output_prefix.absolute()
    return SCRIPT.format(
        name=shlex.quote(prefix.name),
        shards=shards,
        workers=request.workers,
        prefix=str(prefix).replace("%", "%%"),
        folder=shlex.quote(str(Path.cwd())),
        command=_command(request, prefix),
        quoted_prefix=shlex.quote(str(prefix)),
    )


def _command(request: PreprocessRequest, prefix: Path) -> str:
    words: list[object] = ["frontload", "data", "preprocess", "--input", *request.inputs]
    words += ["--output-prefix", prefix, "--tokenizer", request.tokenizer]
    words += ["--chat"] if request.is_chat else ["--json-key", request.json_key]
    words += ["--workers", request.workers]
    if request.append_eod:
        words.append("--append-eod")
    if request.prepend_bos is not None:
        words += ["--prepend-bos", *filter(None, [request.prepend_bos])]
    optional = (
        ("--eod-token", request.eod_token, None),
        ("--date", request.day, None),
        ("--encoder", request.encoder, EncoderChoice.AUTO),
        ("--special-text", request.special_text, SpecialText.DROP),
        ("--max-bad-rate", request.max_bad_rate, MAX_BAD_RATE),
        ("--max-row-bytes", request.max_row_bytes, MAX_ROW_BYTES),
    )
    for flag, value, neutral in optional:
        if value != neutral:
            words += [flag, value]
    return shlex.join(str(word) for word in words)
