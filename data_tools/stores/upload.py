"""Files of this machine to a store: each once, and the one that describes the others last."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from frontload.data_tools.stores.errors import told
from frontload.data_tools.stores.path import StorePath, asked_now, open_store
from frontload.recipes.artifact import write_json
from frontload.recipes.errors import RecipeError

WRITTEN = ("s3", "gs")  # fsspec writes to others not at all, or as commits
JOURNAL = "uploaded.json"


def check_target(out: StorePath, *, asked: str) -> None:
    """Refuses an output in a store that nothing is written to.

    Raises: RecipeError.
    """
    if out.scheme not in WRITTEN or out.has_secret:
        raise RecipeError(
            f"{asked} {out}",
            found="a signed URL" if out.has_secret else f"a place at {out.scheme}://",
            rule=f"outputs go to {' or '.join(f'{name}://' for name in WRITTEN)}, or to a disk",
            do="write to a disk, and upload the files with the tool of that place",
        )
    if len(out.parts) < 3:
        raise RecipeError(
            f"{asked} {out}",
            found="a bucket without a name in it",
            rule="what is written is new, so it ends in a name of its own",
            do=f"write for example {out}/data",
        )


def upload(names: Mapping[Path, StorePath], *, work: Path) -> None:
    """Uploads finished files in order, but those that an earlier, killed run has uploaded.

    The last one describes the others: it is made where there is none, and replaces nothing.

    Raises: RecipeError when something has taken its name meanwhile; StageError, and what is
            uploaded is noted in the work folder.
    """
    journal = work / JOURNAL
    noted: dict[str, list[str]] = {}
    with suppress(FileNotFoundError, ValueError):
        noted = json.loads(journal.read_text(encoding="utf-8"))
    last = list(names)[-1]
    for ready, out in names.items():
        store = open_store(out.scheme)
        with open(ready, "rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        with told(out, doing="writing"):
            if noted.get(str(out)) == [digest, _version(out)]:
                continue
            if ready == last:
                _create(store, ready, out=out)
            else:
                store.put_file(str(ready), out.url)
            noted[str(out)] = [digest, _version(out)]
        write_json(journal, noted)


def _version(out: StorePath) -> str:
    """The version of what lies there; nothing when nothing does."""
    try:
        return asked_now(out).version
    except FileNotFoundError:
        return ""


def _create(store: object, ready: Path, *, out: StorePath) -> None:
    try:
        store.pipe_file(out.url, ready.read_bytes(), mode="create")  # type: ignore[attr-defined]
    except FileExistsError as error:
        raise RecipeError(
            f"publishing {out}",
            found="something that came while it was made",
            rule="an output never replaces what is there",
            do="run the same command again to see what it is, or name another place",
        ) from error
