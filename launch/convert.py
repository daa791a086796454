"""The command `frontload convert`: between checkpoints of the store and Hugging Face folders."""

import argparse
import importlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from frontload.launch.origins.made_by import find_maker
from frontload.launch.origins.named import built_names, find_named, suggest
from frontload.launch.store import MANIFEST, Store, check_content, check_given, read_manifest
from frontload.recipes.command_line import Command
from frontload.recipes.errors import RecipeError

CHECKPOINTS = ("sft", "pretrain", "grpo")
"""The kinds of stages that leave a model."""


COMMANDS: Mapping[str, Command] = {
    "to-hf": Command(
        text="a checkpoint as a new Hugging Face folder",
        adds="frontload.launch.convert:add_to_hf",
    ),
    "from-hf": Command(
        text="a Hugging Face folder as a new checkpoint",
        adds="frontload.launch.convert:add_from_hf",
    ),
}


def add_to_hf(one: argparse.ArgumentParser) -> None:
    """The arguments of `convert to-hf`."""
    one.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="its folder, or its key or label in the store"
    )
    one.add_argument("--tokenizer", type=Path, help="tokenizer.json (default its study's)")
    one.add_argument(
        "--max-shard-bytes",
        type=int,
        default=5_000_000_000,
        help="largest safetensors file (default 5 GB)",
    )
    _add_out(one)
    one.set_defaults(run=convert_to_hf)


def add_from_hf(one: argparse.ArgumentParser) -> None:
    """The arguments of `convert from-hf`."""
    one.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="the folder with config.json and safetensors"
    )
    _add_out(one)
    one.set_defaults(run=convert_from_hf)


def _add_out(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "out", metavar="FOLDER", type=Path, help="the folder to make; it must not exist"
    )
    one.add_argument(
        "--dtype", default="fp32", help="fp32 or bf16, rounded to nearest (default fp32)"
    )
    one.add_argument("--store", type=Path, default=Path("store"), help="folder of artifacts")


def convert_to_hf(options: argparse.Namespace) -> int:
    """Exports a checkpoint with the tokenizer of its study."""
    store = Store(options.store)
    checkpoint = find_checkpoint(store, options.checkpoint, command="convert to-hf")
    tokenizer = options.tokenizer or find_tokenizer(store, checkpoint, command="convert to-hf")
    module: Any = importlib.import_module("frontload.megatron_ext.hf.convert")
    module.export_hf(
        checkpoint,
        options.out,
        tokenizer=tokenizer,
        dtype=options.dtype,
        max_shard_bytes=options.max_shard_bytes,
    )
    print(f"{options.out}: nemotron_h from {checkpoint}, tokenizer {tokenizer}")
    config = json.loads((options.out / "config.json").read_text())
    covered, trained = config["chunk_size"], config["max_position_embeddings"]
    if covered < trained and "M" in config["hybrid_override_pattern"]:
        print(
            f"  for GPUs: without GPU kernels transformers 5.10 is wrong beyond {covered} tokens "
            f"of a sequence, and a scan of {trained} in one chunk does not fit a CPU's memory"
        )
    return 0


def convert_from_hf(options: argparse.Namespace) -> int:
    """Imports a Hugging Face folder."""
    module: Any = importlib.import_module("frontload.megatron_ext.hf.convert")
    module.import_hf(Path(options.checkpoint), options.out, dtype=options.dtype)
    print(f"{options.out}: checkpoint from {options.checkpoint}")
    return 0


def find_checkpoint(store: Store, asked: str, *, command: str) -> Path:
    """A folder as it is named, or the built checkpoint of the store with this key or label.

    Raises: RecipeError if there is none; ArtifactError if its bytes are not those published.
    """
    if Path(asked).is_dir():
        check_given(Path(asked))
        return Path(asked)
    folder = find_named(store, asked, kinds=CHECKPOINTS)
    if folder is not None and (folder / "weights").is_dir():
        check_content(folder)
        return folder
    raise RecipeError(
        f"{command} {asked}",
        found=f"no such folder, and no such checkpoint in {store.root}",
        rule="a checkpoint is named by its folder, its key or its label",
        do=f"give the store of its run with --store, or run `{maker.command(store)}` first"
        if (maker := find_maker(asked, store, kinds=CHECKPOINTS))
        else suggest(asked, built_names(store, kinds=CHECKPOINTS))
        or "give the store of its run with --store",
    )


def stores_of(folder: Path, store: Store) -> tuple[Store, ...]:
    """Where the inputs of a folder are looked for: the store that it lies in, then `store`."""
    if not (folder / MANIFEST).is_file():
        return (store,)
    place, key = folder.resolve(), read_manifest(folder).get("key")
    is_placed = isinstance(key, str) and place.name.endswith(f"-{key}")
    return (Store(place.parent.parent), store) if is_placed else (store,)


def find_tokenizer(store: Store, checkpoint: Path, *, command: str) -> Path:
    """The tokenizer that the checkpoint's data was made with, by the manifests behind it.

    Raises: RecipeError if they lead to none.
    """
    waiting, seen, stores = [checkpoint], set[Path](), stores_of(checkpoint, store)
    while waiting:
        folder = waiting.pop()
        seen.add(folder)
        if not (folder / "manifest.json").is_file():
            continue
        for role, key in read_manifest(folder)["inputs"].items():
            found = built_folder(stores, key)
            if found is None or found in seen:
                continue
            if role == "tokenizer":
                return found
            waiting.append(found)
    raise RecipeError(
        f"{command} {checkpoint}",
        found=f"no manifest leads from it to a tokenizer in {store.root}",
        rule="a Hugging Face folder holds its tokenizer",
        do="name the tokenizer.json with --tokenizer, or the store of its run with --store",
    )


def built_folder(stores: Iterable[Store], key: str) -> Path | None:
    """The folder with this key, of whatever kind, in the first store that has it; None else."""
    for store in stores:
        for manifest in sorted(store.root.glob(f"*/*-{key}/{MANIFEST}")):
            return manifest.parent
    return None
