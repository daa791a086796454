"""What went wrong at a store, in four parts and without what a signed URL keeps secret."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

from frontload.recipes.errors import FrontloadError, RecipeError, StageError

QUERY = re.compile(r"\?[^\s'\"<>)]+")
FORBIDDEN, MISSING, CHANGED = (401, 403), (404, 410), 412


class StoreFault(StrEnum):
    """What a store's failure means to who reads."""

    GONE = "gone"
    REFUSED = "refused"
    MOVED = "moved"
    UNREACHABLE = "unreachable"


def fault_of(error: BaseException) -> StoreFault:
    """The kind of a failure of any of the stores' libraries."""
    status = _status(error)
    if isinstance(error, FileNotFoundError) or status in MISSING:
        return StoreFault.GONE
    if isinstance(error, PermissionError) or status in FORBIDDEN:
        return StoreFault.REFUSED
    if status == CHANGED or type(error).__name__ == "FileExpired":  # of s3fs: If-Match failed
        return StoreFault.MOVED
    if type(error).__name__ == "NoCredentialsError":  # of botocore
        return StoreFault.REFUSED
    return StoreFault.UNREACHABLE


def _status(error: BaseException) -> int:
    """The status of HTTP that aiohttp or huggingface_hub were answered with; 0 for none."""
    from aiohttp import ClientResponseError
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, ClientResponseError):
        return error.status
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code
    return 0


def shown_error(error: BaseException) -> str:
    """The first line of an error, without the query of any URL."""
    lines = QUERY.sub("", str(error)).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def refusal(
    path: Path, error: BaseException, *, at: int | None = None, doing: str = "reading"
) -> FrontloadError:
    """What a store's failure is told as; `at` is the byte that was read, of an open file."""
    place = f"{doing} {path}" + (f" at byte {at}" if at is not None else "")
    match fault_of(error):
        case StoreFault.GONE:
            if doing != "reading":
                found, rule = "there is no such bucket", "what is written lies in one that exists"
                return StageError(place, found=found, rule=rule, do="make it, and run again")
            found = "there is no such file" if at is None else "the file is gone"
            rule = "every input is there until the run has ended"
            do = "correct the URL" if at is None else "put it back and run the same command again"
            kind = RecipeError if at is None else StageError
            return kind(place, found=found, rule=rule, do=do)
        case StoreFault.REFUSED:
            is_first = at is None and doing == "reading"
            kind = RecipeError if is_first else StageError  # what was done before it stays
            return kind(
                place,
                found=f"the store refuses access ({shown_error(error)})",
                rule="credentials allow it from the first byte to the last",
                do="renew the token or the rights where the store's own tools look for them, and"
                " run the same command: finished parts are kept",
            )
        case StoreFault.MOVED:
            return moved(path)
        case StoreFault.UNREACHABLE:
            return StageError(
                place,
                found=f"the store does not answer ({shown_error(error)})",
                rule="a store answers, at the latest when it is asked once more",
                do="see whether it is up and the endpoint is right, and run the same command:"
                " finished parts are kept",
            )


def moved(path: Path, *, was: str = "", now: str = "") -> FrontloadError:
    """Of a file that is another one than when it was first looked at."""
    versions = f": version {was}, now {now}" if was else ""
    return RecipeError(
        f"reading {path}",
        found="the file was written anew since the run has looked at it" + versions,
        rule="an input stays as it is until the run has ended",
        do="run the same command again: it begins anew with the file as it is now",
    )


@contextmanager
def told(path: Path, *, doing: str = "reading") -> Iterator[None]:
    """Turns what a store's library raises into an error of four parts.

    Raises: RecipeError, StageError.
    """
    try:
        yield
    except FrontloadError:
        raise
    except Exception as error:
        raise refusal(
            path, error, doing=doing
        ) from None  # its message may hold what a URL keeps secret
