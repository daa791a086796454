"""The command `frontload serve`: a checkpoint behind the OpenAI protocol."""

import argparse
import importlib
import os
from pathlib import Path
from typing import Any

from frontload.launch.convert import find_checkpoint, find_tokenizer
from frontload.launch.store import Store
from frontload.recipes.errors import RecipeError

TRANSFORMERS = "hf:"
MAX_ROWS = 256  # as in megatron_ext/inference/generate.py


def add_arguments(one: argparse.ArgumentParser) -> None:
    """The arguments of `frontload serve`."""
    one.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="its folder, its key or label in the store, or hf:FOLDER for a model of transformers",
    )
    one.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    one.add_argument("--port", type=int, default=8000, help="0 = any free one (default 8000)")
    one.add_argument(
        "--api-key-env",
        metavar="NAME",
        help="environment variable that holds the key which clients must send",
    )
    one.add_argument("--name", help="the model's name in requests (default: its folder's)")
    one.add_argument("--tokenizer", type=Path, help="tokenizer.json (default its study's)")
    one.add_argument("--template", type=Path, help="chat template (default the tokenizer's)")
    one.add_argument(
        "--max-rows",
        type=int,
        default=MAX_ROWS,
        help=f"answers written side by side (default {MAX_ROWS})",
    )
    one.add_argument("--store", type=Path, default=Path("store"), help="folder of artifacts")
    one.set_defaults(run=run_serve)


def run_serve(options: argparse.Namespace) -> int:
    """Serves until SIGINT or SIGTERM."""
    if options.max_rows < 1:
        raise RecipeError(
            f"serve --max-rows {options.max_rows}",
            found=f"{options.max_rows} rows",
            rule="one answer or more is written at a time",
            do=f"leave it out: it is {MAX_ROWS} then",
        )
    app: Any = importlib.import_module("frontload.eval.serving.app")
    address = app.Address(
        host=options.host, port=options.port, api_key=_api_key(options.api_key_env)
    )
    address.check()
    folder, tokenizer = _find_model(options)
    model = app.CheckpointToServe(
        folder=folder,
        is_transformers=options.checkpoint.startswith(TRANSFORMERS),
        tokenizer=tokenizer,
        template=options.template,
        name=options.name or folder.resolve().name,
    )
    try:
        app.serve_checkpoint(model, address, max_rows=options.max_rows)
    except KeyboardInterrupt:  # uvicorn raises its signal again when it has ended
        print("stopped")
    return 0


def _find_model(options: argparse.Namespace) -> tuple[Path, Path]:
    """The folder of the model, and its tokenizer."""
    if options.checkpoint.startswith(TRANSFORMERS):
        folder = Path(options.checkpoint.removeprefix(TRANSFORMERS))
        return folder, options.tokenizer or folder
    store = Store(options.store)
    checkpoint = find_checkpoint(store, options.checkpoint, command="serve")
    return checkpoint, options.tokenizer or find_tokenizer(store, checkpoint, command="serve")


def _api_key(name: str | None) -> str | None:
    if name is None:
        return None
    key = os.environ.get(name)
    if not key:
        raise RecipeError(
            f"serve --api-key-env {name}",
            found="it is not set" if key is None else "it is empty",
            rule="the variable holds the key which clients must send",
            do=f"set {name}, or leave the option out and listen on 127.0.0.1",
        )
    return key
