"""How an output appears: made in `NAME.work`, by one run at a time, then renamed to NAME, whole.

The lock is a file in that folder, held until the process ends, however it ends. What a killed run
leaves lies in NAME.work and nowhere else; the next run decides what of it is still good.
"""

import errno
import fcntl
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from frontload.data_tools.stores.path import StorePath
from frontload.data_tools.stores.upload import check_target, upload
from frontload.recipes.artifact import sync_path
from frontload.recipes.errors import ArtifactError, RecipeError, StageError

LOCK = "lock"
DESCRIBING = ("manifest.json", "pack.json", "ledger.json")  # of a folder: written last
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def work_folder(out: Path) -> Path:
    """The folder beside an output that holds it while it is made.

    Of an output in a store it lies in the folder where the command is typed.
    """
    if isinstance(out, StorePath):
        return Path(out.name + ".work")
    return out.with_name(out.name + ".work")


def check_place(out: Path, *, asked: str) -> None:
    """Refuses an output that has no name, or no folder to lie in.

    Raises: RecipeError.
    """
    if isinstance(out, StorePath):
        check_target(out, asked=asked)
        return
    if out.name in ("", ".."):
        raise RecipeError(
            f"{asked} {out}",
            found="a folder without a name in it",
            rule="what is written is new, so it ends in a name of its own",
            do=f"write for example {out / 'data'}",
        )
    if not out.absolute().parent.is_dir():
        raise RecipeError(
            f"{asked} {out}",
            found=f"no folder {out.parent}",
            rule="what is written lies in a folder that exists",
            do="make the folder first",
        )


def is_finished(out: Path, *, described_by: str) -> bool:
    """Whether an output is there; in a store, the file that was written last."""
    if isinstance(out, StorePath):
        return (out / described_by).is_file()
    return out.exists()


def make_folder(folder: Path, *, asked: str) -> None:
    """Makes a folder, and those above it.

    Raises: RecipeError where the file system makes none, as below /proc.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:
        raise RecipeError(
            f"{asked} {folder}",
            found=f"no folder can be made there ({error.strerror})",
            rule="what is written lies in a folder of its own, made when it is not there",
            do="name a folder on a disk",
        ) from error


@contextmanager
def folders_above(out: Path, *, asked: str) -> Iterator[None]:
    """Makes the folders that an output lies in; takes them away again when the block fails.

    Raises: RecipeError where the file system makes none.
    """
    made = [folder for folder in out.absolute().parents if not folder.exists()]
    try:
        make_folder(out.absolute().parent, asked=asked)
        yield
    except BaseException:
        for folder in made:
            with suppress(OSError):  # not made, or somebody has put something into it meanwhile
                folder.rmdir()
        raise


@contextmanager
def workplace(out: Path, *, asked: str) -> Iterator[Path]:
    """Makes and locks the work folder of an output; removes it when the block ends well.

    A block that ends with an error leaves the folder, unless there is nothing in it to go on from.

    Raises: RecipeError when another run has it; StageError when the disk refuses.
    """
    folder = work_folder(out)
    handle = _locked(folder, f"{asked} {out}")
    try:
        try:
            yield folder
        except BaseException as error:
            if isinstance(error, OSError) and error.errno in DISK_FULL and not error.filename:
                error.filename = str(out)  # the system names no file that was open
            if [path.name for path in folder.iterdir()] == [LOCK]:
                _remove(folder)
            raise
        clear(folder)
        _remove(folder)
    finally:
        os.close(handle)


def tidy(out: Path, *, asked: str) -> None:
    """Removes the work folder of a finished output, whose run was killed before it could.

    Raises: RecipeError when another run has it.
    """
    if work_folder(out).exists():
        with workplace(out, asked=asked):
            pass


def check_there(sizes: Mapping[Path, int]) -> None:
    """Refuses a finished output of which a file is gone or has another size than was written.

    Its bytes are not read: that is for `frontload data verify`.

    Raises: ArtifactError.
    """
    for file, size in sizes.items():
        found = f"{file.stat().st_size} bytes" if file.is_file() else "there is no such file"
        if found != f"{size} bytes":
            raise ArtifactError(
                f"finding {file}, made before",
                found=found,
                rule=f"a finished output is left as it is: {size} bytes, as its manifest states",
                do="put the file back, or delete the output and run the same command again",
            )


def new_folder(folder: Path) -> Path:
    """An empty folder, whatever a killed run has left under its name."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    return folder


def clear(folder: Path, *, last: tuple[str, ...] = ()) -> None:
    """Deletes all that a work folder holds but its lock, the names in `last` after the others."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name in last):
        if path.name == LOCK:
            continue
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def publish_folder(ready: Path, out: Path) -> None:
    """Brings a folder to the disk and gives it its name; in a store what describes it comes last.

    Raises: RecipeError when something has taken the name meanwhile; StageError.
    """
    if isinstance(out, StorePath):
        files = sorted(path for path in ready.rglob("*") if path.is_file())
        files.sort(key=lambda path: path.name in DESCRIBING and path.parent == ready)
        upload({file: out / file.relative_to(ready) for file in files}, work=ready.parent)
        return
    if out.exists():
        raise RecipeError(
            f"publishing {out}",
            found="something that came while it was made",
            rule="an output never replaces what is there",
            do="run the same command again to see what it is, or name another folder",
        )
    with disk_told(out):
        for path in (*sorted(ready.rglob("*")), ready):
            sync_path(path)
        os.rename(ready, out)
        sync_path(out.absolute().parent)


def publish_files(names: Mapping[Path, Path]) -> None:
    """Brings finished files of one folder to the disk, then gives each its name, in order.

    In a store the last one describes the others, and replaces nothing.

    Raises: StageError; RecipeError when something has taken that name meanwhile.
    """
    in_store = {ready: out for ready, out in names.items() if isinstance(out, StorePath)}
    if in_store:
        upload(in_store, work=next(iter(in_store)).parent)
        return
    for ready, out in names.items():
        with disk_told(out):
            sync_path(ready)
    for ready, out in names.items():
        with disk_told(out):
            os.replace(ready, out)
    for folder in {out.absolute().parent for out in names.values()}:
        sync_path(folder)


@contextmanager
def disk_told(file: Path) -> Iterator[None]:
    """Says what to do when the disk refuses a write.

    Raises: StageError.
    """
    try:
        yield
    except OSError as error:
        raise StageError(
            f"writing {file}",
            found=error.strerror or str(error),
            rule="the folder of an output takes it and the parts that it is made of",
            do="free space or correct permissions and run the same command: finished parts stay",
        ) from error


def _locked(folder: Path, asked: str) -> int:
    """The open lock of a work folder, held.

    A file, since not every network file system locks folders.
    """
    file = folder / LOCK
    while True:
        with disk_told(folder):
            with suppress(FileExistsError):
                folder.mkdir()
            try:
                handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
            except FileNotFoundError:
                continue  # the run that had it ended, and took the folder with it
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 200).decode("utf-8", "replace").strip() or "another process"
            os.close(handle)
            raise RecipeError(
                asked,
                found=f"another run is writing it ({holder})",
                rule="one run writes an output at a time",
                do="wait until it ends, or choose another name",
            ) from None
        if _is_at(file, handle):
            break
        os.close(handle)
    with disk_told(file):
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    return handle


def _is_at(file: Path, handle: int) -> bool:
    """Whether an open file still has its name: the run that had it may have deleted it."""
    try:
        return os.path.samestat(os.fstat(handle), file.stat())
    except FileNotFoundError:
        return False


def _remove(folder: Path) -> None:
    """Deletes a work folder that holds its lock alone."""
    (folder / LOCK).unlink()
    with suppress(OSError):  # a run that came just now has made a lock of its own in it
        folder.rmdir()
