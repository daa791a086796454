"""Who answers `frontload eval`: a checkpoint, a stranger's folder, or a server."""

import argparse
import importlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frontload.launch.convert import find_checkpoint, find_tokenizer
from frontload.launch.evaluation.training_files import training_files
from frontload.launch.serve import TRANSFORMERS
from frontload.launch.store import Store
from frontload.recipes.errors import RecipeError

SERVERS = ("http://", "https://")


@dataclass(frozen=True, kw_only=True)
class ChosenAnswerer:
    """A model that is asked, and the name of its folder of scores."""

    answerer: Any  # of frontload.eval.protocol.answers
    tokenizer: Any  # None where it is not known
    name: str
    training_files: tuple[Path, ...] | None = None  # None where they are not known


def choose_answerer(
    options: argparse.Namespace, asked: str, *, beside: str | None = None
) -> ChosenAnswerer:
    """The model that a name stands for: http(s)://..., hf:FOLDER, a folder, or a name in the store.

    `beside` names the other model of the same command, whose options may be a server's.

    Raises: RecipeError for one that is not there, or has no tokenizer.
    """
    if asked.startswith(SERVERS):
        return _server(options, asked)
    if not (beside or "").startswith(SERVERS):
        _refuse_server_options(options, asked)
    files: tuple[Path, ...] | None = None
    models: Any = importlib.import_module("frontload.eval.protocol.in_process")
    if asked.startswith(TRANSFORMERS):
        folder = Path(asked.removeprefix(TRANSFORMERS))
        answerer = models.load_stranger(folder, options.tokenizer or folder)
    else:
        store = Store(options.store)
        folder = find_checkpoint(store, asked, command="eval")
        tokenizer = options.tokenizer or find_tokenizer(store, folder, command="eval")
        answerer = models.load_in_process(folder, tokenizer)
        files = training_files(store, folder)
    return ChosenAnswerer(
        answerer=answerer,
        tokenizer=answerer.tokenizer,
        name=folder.resolve().name,
        training_files=files,
    )


def _refuse_server_options(options: argparse.Namespace, asked: str) -> None:
    """Refuses what is said of a server where models of this process alone are asked.

    Raises: RecipeError.
    """
    for flag, value in (("--model", options.model), ("--api-key-env", options.api_key_env)):
        if value is not None:
            raise RecipeError(
                f"{asked} {flag} {value}",
                found="a checkpoint that this process asks itself",
                rule=f"{flag} is of a server, whose address begins with http:// or https://",
                do=f"name a server, or leave {flag} out",
            )


def _server(options: argparse.Namespace, url: str) -> ChosenAnswerer:
    client: Any = importlib.import_module("frontload.eval.serving.client")
    texts: Any = importlib.import_module("frontload.data_tools.text.tokenizer")
    tokenizer = texts.TextTokenizer.load(options.tokenizer) if options.tokenizer else None
    settings = client.ServerSettings(
        url=url, model=options.model, api_key=_key(options.api_key_env)
    )
    answerer = client.ServerAnswerer(settings, tokenizer)
    name = options.model or url.partition("://")[2]
    safe = "".join(letter if letter.isalnum() or letter in ".-_" else "_" for letter in name)
    return ChosenAnswerer(answerer=answerer, tokenizer=tokenizer, name=safe)


def _key(name: str | None) -> str | None:
    if name is None:
        return None
    key = os.environ.get(name)
    if not key:
        raise RecipeError(
            f"eval --api-key-env {name}",
            found="no such environment variable, or an empty one",
            rule="the variable holds the key that the server wants",
            do=f"export {name}=..., or leave the flag out",
        )
    return key
