"""What both commands are told: files, the model that writes, how its replies are drawn."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from frontload.data_tools.disk.files import read_json
from frontload.data_tools.raw.inputs import expand_inputs
from frontload.recipes.errors import RecipeError
from frontload.recipes.grammar.limits import LEAST_TEMPERATURE
from frontload.recipes.runs.suite import AnswerSampling

REPLIES, DROPPED, MANIFEST = "replies.jsonl", "dropped.jsonl", "manifest.json"


def add_source(parser: argparse.ArgumentParser) -> None:
    """Files and fields."""
    parser.add_argument("--input", nargs="+", required=True, metavar="FILE", help="files or globs")
    parser.add_argument("--json-key", default="text", metavar="KEY", help="field with the text")
    parser.add_argument(
        "--most-words", type=int, default=1_500, metavar="N", help="longer documents are left out"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="made by this")


def add_backend(parser: argparse.ArgumentParser, *, tokens: int, also: str = "") -> None:
    """The model and its draws; `also` names what serves beside a model."""
    parser.add_argument(
        "--backend",
        required=True,
        metavar="MODEL",
        help="the address of a server of the OpenAI protocol, as http://127.0.0.1:8000/v1; a "
        "checkpoint's folder, key or label in the store; or hf:FOLDER" + also,
    )
    parser.add_argument("--model", help="of a server that has several")
    parser.add_argument(
        "--api-key-env", metavar="NAME", help="environment variable with the key of a server"
    )
    parser.add_argument("--tokenizer", type=Path, help="counts tokens (default the checkpoint's)")
    parser.add_argument("--store", type=Path, default=Path("store"), help="folder of artifacts")
    parser.add_argument("--temperature", type=float, default=0.6, help="0 = greedy (default 0.6)")
    parser.add_argument("--top-p", type=float, default=0.9, help="default 0.9")
    parser.add_argument(
        "--max-reply-tokens", type=int, default=tokens, metavar="N", help=f"default {tokens:,}"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the draws (default 1)")


def sampling_of(options: argparse.Namespace) -> AnswerSampling:
    """How replies are drawn.

    Raises: RecipeError for a number outside its range.
    """
    for flag, value, holds, rule in (
        (
            "--temperature",
            options.temperature,
            options.temperature == 0 or LEAST_TEMPERATURE <= options.temperature <= 10,
            f"it is 0, or {LEAST_TEMPERATURE:g} to 10",
        ),
        ("--top-p", options.top_p, 0 < options.top_p <= 1, "it is above 0 and at most 1"),
        ("--max-reply-tokens", options.max_reply_tokens, options.max_reply_tokens > 0, "1 or more"),
        ("--seed", options.seed, options.seed >= 0, "a seed is 0 or more"),
    ):
        if not holds:
            raise RecipeError(
                f"{flag} {value}", found="a number out of range", rule=rule, do="write another"
            )
    return AnswerSampling(
        samples=1,
        temperature=options.temperature,
        top_p=options.top_p,
        max_new_tokens=options.max_reply_tokens,
    )


def source_files(options: argparse.Namespace) -> tuple[Path, ...]:
    """The input files.

    Raises: RecipeError for one that cannot be read, or a limit below 1.
    """
    if options.most_words < 1:
        raise RecipeError(
            f"--most-words {options.most_words}",
            found="no room for a document",
            rule="it is 1 or more",
            do="write for example 1500",
        )
    return expand_inputs(options.input)


def check_same_request(out: Path, asked: Mapping[str, Any]) -> None:
    """Refuses a folder that holds what another request made.

    Raises: RecipeError naming the first thing that differs.
    """
    if not (out / MANIFEST).is_file():
        return
    before = read_json(out / MANIFEST)["asked"]
    now = json.loads(json.dumps(asked))
    differ = sorted(key for key in before | now if before.get(key) != now.get(key))
    if differ:
        raise RecipeError(
            f"--out {out}",
            found=f"the result of another request: {differ[0]} was "
            f"{str(before.get(differ[0]))[:60]}, now {str(now.get(differ[0]))[:60]}",
            rule="a finished folder is never written over",
            do="name another folder, or delete this one",
        )
