"""`data preprocess` under kill -9 at every rename and sync, full disks, dead workers, two runs."""

import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from frontload.data_tools.disk.publish import work_folder
from frontload.data_tools.preprocess import crew, publish
from frontload.data_tools.preprocess.merge import merge
from frontload.data_tools.preprocess.progress import Lines
from frontload.data_tools.preprocess.request import PreprocessRequest, Shard
from frontload.data_tools.preprocess.run import preprocess
from frontload.recipes.errors import ArtifactError, FrontloadError, RecipeError, StageError
from tests.unit.data_tools_preprocess.files import EOD, documents, pair, train_foreign, write_texts

TEXTS = documents(150, seed=4)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_foreign(tmp_path_factory.mktemp("foreign") / "tokenizer.json")


@pytest.fixture
def request_of(tmp_path: Path, foreign: Path) -> Callable[[str], PreprocessRequest]:
    """A request of three parts, by the name of its output."""
    corpus = write_texts(tmp_path / "corpus.jsonl", TEXTS)
    part_bytes = corpus.stat().st_size // 3 + 1

    def make(name: str) -> PreprocessRequest:
        return PreprocessRequest(
            inputs=[corpus],
            output_prefix=tmp_path / name,
            tokenizer=foreign,
            append_eod=True,
            eod_token=EOD,
            part_bytes=part_bytes,
        )

    return make


def in_child(call: Callable[[], object]) -> int:
    """The exit code of a call in a forked process, negative for a signal; 3 for our errors."""
    child = os.fork()
    if child == 0:
        code = 9
        try:
            call()
            code = 0
        except FrontloadError as error:
            code = 10 + error.exit_code
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_at(number: int) -> Callable[[], None]:
    """Makes this process kill itself just before its number-th rename, sync or deletion."""
    left = number

    def before(name: str, module: Any) -> None:
        right = getattr(module, name)

        def counted(*arguments: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return right(*arguments, **named)

        setattr(module, name, counted)

    def arm() -> None:
        before("replace", os)
        before("fsync", os)
        before("unlink", os)
        before("rmdir", os)
        before("append", publish.JoinedFile)

    return arm


def published(prefix: Path) -> bool:
    return prefix.with_name(f"{prefix.name}.manifest.json").exists()


def test_killed_at_any_write_and_run_again_it_ends_with_the_same_bytes(
    request_of: Callable[[str], PreprocessRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = preprocess(request_of("whole"))
    assert len(whole["parts"]) == 3
    encoded: list[int] = []
    right = crew.encode_unit

    def counted(job: Any, *arguments: Any, **named: Any) -> Any:
        encoded.append(job.unit.number)
        return right(job, *arguments, **named)

    monkeypatch.setattr(crew, "encode_unit", counted)
    for number in range(1, 200):
        request = request_of(f"P{number}")
        arm = killed_at(number)
        code = in_child(lambda: (arm(), preprocess(request)))  # noqa: B023
        assert code in (0, -signal.SIGKILL)
        prefix = request.output_prefix
        if published(prefix):
            assert pair(prefix) == pair(request_of("whole").output_prefix)
        folder = work_folder(prefix)
        receipts = len(list(folder.glob("unit-*.json"))) if folder.exists() else 0
        was_published = published(prefix)
        encoded.clear()
        manifest = preprocess(request)
        assert pair(prefix) == pair(request_of("whole").output_prefix)
        assert {**manifest, "made_by": 0} == {**whole, "made_by": 0}
        assert len(encoded) == (0 if was_published else 3 - receipts)  # finished parts stay
        assert not folder.exists()
        assert not list(prefix.parent.glob(f"{prefix.name}.*partial"))
        if code == 0:
            break
    assert code == 0
    assert number > 30, "kills were to be tried at more places"


def test_a_killed_merge_run_again_ends_with_the_same_bytes(
    request_of: Callable[[str], PreprocessRequest],
) -> None:
    whole = preprocess(request_of("whole"))
    shards = [replace(request_of("S"), shard=Shard(number=number, of=3)) for number in (1, 2, 3)]
    for shard in shards:
        preprocess(shard)
    prefixes = [shard.prefix for shard in shards]
    for number in range(1, 40):
        prefix = prefixes[0].with_name(f"M{number}")
        arm = killed_at(number)
        code = in_child(lambda: (arm(), merge(prefixes, output_prefix=prefix)))  # noqa: B023
        assert code in (0, -signal.SIGKILL)
        if code == 0:
            break
        manifest = merge(prefixes, output_prefix=prefix)
        assert {**manifest, "made_by": 0} == {**whole, "made_by": 0}
        assert pair(prefix) == pair(request_of("whole").output_prefix)
        assert not work_folder(prefix).exists()
    assert code == 0
    assert number > 8, "kills were to be tried at more places"
    assert {**merge(prefixes, output_prefix=prefix), "made_by": 0} == {**whole, "made_by": 0}
    with pytest.raises(RecipeError, match="is there, of another request or origin"):
        merge(prefixes, output_prefix=request_of("whole").output_prefix)


@pytest.mark.parametrize("torn", ["bin", b"", b'{"unit": 0', b'{"unit": 0, "odd": 1}', b"[]"])
def test_a_torn_part_or_receipt_is_made_again(
    request_of: Callable[[str], PreprocessRequest], torn: str | bytes
) -> None:
    """After a power cut either may be there without all of its bytes."""
    preprocess(request_of("whole"))
    request = request_of("P")
    in_child(lambda: (killed_at(16)(), preprocess(request)))
    folder = work_folder(request.output_prefix)
    receipts = sorted(folder.glob("unit-*.json"))
    assert len(receipts) >= 2
    first = receipts[0].with_suffix(".bin")
    if isinstance(torn, bytes):
        receipts[0].write_bytes(torn)
    else:
        first.write_bytes(first.read_bytes()[:-2])
    manifest = preprocess(request)
    assert manifest["made_by"]["parts_kept_from_an_earlier_run"] == len(receipts) - 1
    assert pair(request.output_prefix) == pair(request_of("whole").output_prefix)


def test_a_killed_parent_takes_its_workers_along_and_another_run_goes_on(
    request_of: Callable[[str], PreprocessRequest], tmp_path: Path
) -> None:
    preprocess(request_of("whole"))
    request = replace(request_of("P"), workers=2)
    listed = tmp_path / "workers"

    def run() -> None:
        right = crew.EncoderCrew.run

        def noted(self: crew.EncoderCrew, tasks: Any) -> Any:
            if not listed.exists():  # armed after the workers were made: they are not to die
                listed.write_text(" ".join(str(member.process.pid) for member in self._members))
                killed_at(2)()
            yield from right(self, tasks)

        crew.EncoderCrew.run = noted  # type: ignore[method-assign]
        preprocess(request)

    assert in_child(run) == -signal.SIGKILL
    deadline = time.monotonic() + 30
    for number in map(int, listed.read_text().split()):
        while alive(number):
            assert time.monotonic() < deadline, f"worker {number} outlived its parent"
            time.sleep(0.05)
    preprocess(request)
    assert pair(request.output_prefix) == pair(request_of("whole").output_prefix)


def alive(number: int) -> bool:
    """Whether a thread of the process is left, which has its files open and so its locks."""
    try:
        threads = list(Path(f"/proc/{number}/task").iterdir())
        states = [(thread / "stat").read_text().rpartition(")")[2].split()[0] for thread in threads]
    except OSError:
        return Path(f"/proc/{number}").exists()
    return any(state not in "ZX" for state in states)


def test_a_dead_worker_is_told_and_the_next_run_goes_on(
    request_of: Callable[[str], PreprocessRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    preprocess(request_of("whole"))
    request = replace(request_of("P"), workers=2)
    right = crew.encode_unit

    def dies(job: Any, *arguments: Any, **named: Any) -> Any:
        if job.unit.number == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return right(job, *arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(crew, "encode_unit", dies)
        with pytest.raises(
            StageError, match=r"ended with code -9, killed.*finished parts are kept"
        ):
            preprocess(request)
    assert not published(request.output_prefix)
    manifest = preprocess(request)
    assert manifest["made_by"]["parts_kept_from_an_earlier_run"] > 0
    assert pair(request.output_prefix) == pair(request_of("whole").output_prefix)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("limit", ["a receipt", "a part", "the joined file"])
def test_a_full_disk_publishes_nothing_and_the_next_run_goes_on(
    request_of: Callable[[str], PreprocessRequest], workers: int, limit: str
) -> None:
    """A limit on the size of files stands for a disk that fills while `limit` is written."""
    whole = preprocess(request_of("whole"))
    request = replace(request_of("P"), workers=workers)
    largest = max(part["tokens"] for part in whole["parts"]) * 2
    sizes = {"a receipt": 1, "a part": largest - 1, "the joined file": whole["bin_bytes"] - 1}

    def run() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (sizes[limit], sizes[limit]))
        preprocess(request)

    assert in_child(run) == 11  # a StageError: exit code 1
    assert not published(request.output_prefix)
    assert not list(request.output_prefix.parent.glob("P.*partial"))
    preprocess(request)
    assert pair(request.output_prefix) == pair(request_of("whole").output_prefix)


def test_an_output_folder_without_permission_is_told(
    request_of: Callable[[str], PreprocessRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **named: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StageError, match=r"P.work: Permission denied.*correct permissions"):
        preprocess(request_of("P"))


def test_a_second_run_at_one_output_is_refused(
    request_of: Callable[[str], PreprocessRequest], tmp_path: Path
) -> None:
    request = request_of("P")
    started, go_on = os.pipe(), os.pipe()

    class Waiting(Lines):
        def start(self, total_bytes: int, *, done: int) -> None:
            os.write(started[1], b"x")
            os.read(go_on[0], 1)

    child = os.fork()
    if child == 0:
        try:
            preprocess(request, progress=Waiting(sys.stderr))
        finally:
            os._exit(0)
    os.read(started[0], 1)
    with pytest.raises(RecipeError, match=f"another run is writing it .process {child} on "):
        preprocess(request)
    os.write(go_on[1], b"x")
    os.waitpid(child, 0)
    assert preprocess(request)["num_documents"] == len(TEXTS)  # the first one ended well


@pytest.mark.parametrize("change", ["json_key", "the inputs", "--shard or --rejects"])
def test_parts_of_another_request_are_never_mixed(
    request_of: Callable[[str], PreprocessRequest], tmp_path: Path, change: str
) -> None:
    request = request_of("P")
    in_child(lambda: (killed_at(16)(), preprocess(request)))
    if change == "json_key":
        other = replace(request, json_key="n")
    elif change == "the inputs":
        write_texts(tmp_path / "corpus.jsonl", [*TEXTS, "one more"])
        other = request
    else:
        other = replace(request, rejects=tmp_path / "rejects.jsonl")
    with pytest.raises(RecipeError, match=f"unfinished parts of another request: {change} changed"):
        preprocess(other)


def test_a_refused_run_does_not_stand_in_the_way_of_the_corrected_one(
    request_of: Callable[[str], PreprocessRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refusal says what to correct; killed while it clears up, it still mixes no parts."""
    preprocess(request_of("whole"))
    request = replace(request_of("P"), json_key="n")
    folder = work_folder(request.output_prefix)
    with pytest.raises(RecipeError, match="wrong type 150"):
        preprocess(request)
    assert list(folder.glob("unit-*.json")), "a higher --max-bad-rate goes on with the parts"
    for number in range(20):
        kills = iter([*[False] * number, True])
        right = Path.unlink

        def unlink(path: Path, missing_ok: bool = False) -> None:
            if next(kills, False):  # noqa: B023
                os.kill(os.getpid(), signal.SIGKILL)
            right(path, missing_ok=missing_ok)  # noqa: B023

        def run() -> None:
            monkeypatch.setattr(Path, "unlink", unlink)
            preprocess(request_of("P"))

        if in_child(run) == 0:
            break
    assert number > 3, "kills were to be tried at more places"
    assert pair(request.output_prefix) == pair(request_of("whole").output_prefix)
    assert not folder.exists()


def test_an_input_that_changes_under_way_is_refused(
    request_of: Callable[[str], PreprocessRequest], tmp_path: Path
) -> None:
    request = request_of("P")

    class Appending(Lines):
        def start(self, total_bytes: int, *, done: int) -> None:
            with open(tmp_path / "corpus.jsonl", "a") as stream:
                stream.write(json.dumps({"text": "late"}) + "\n")

    with pytest.raises(RecipeError, match="it changed while it was read"):
        preprocess(request, progress=Appending(sys.stderr))
    assert not published(request.output_prefix)


def test_a_finished_output_is_neither_redone_nor_overwritten(
    request_of: Callable[[str], PreprocessRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    request = request_of("P")
    manifest = preprocess(request)
    with monkeypatch.context() as patched:
        patched.setattr(crew, "encode_unit", None)  # would fail if anything were encoded again
        assert preprocess(request) == manifest
    with pytest.raises(RecipeError, match="P.manifest.json is there, of another request or origin"):
        preprocess(replace(request, append_eod=False))
    assert not work_folder(request.output_prefix).exists()


@pytest.mark.parametrize("part", ["bin", "idx"])
@pytest.mark.parametrize("harm", ["gone", "cut"])
def test_an_output_that_lost_a_file_is_not_called_finished(
    request_of: Callable[[str], PreprocessRequest], part: str, harm: str
) -> None:
    request = request_of("P")
    shard = replace(request, shard=Shard(number=1, of=1))
    merged = request.output_prefix.with_name("M")
    runs = {request.prefix: lambda: preprocess(request)}
    preprocess(shard)
    runs[merged] = lambda: merge([shard.prefix], output_prefix=merged)
    for prefix, run in runs.items():
        manifest = run()
        file = prefix.with_name(f"{prefix.name}.{part}")
        data = file.read_bytes()
        file.unlink() if harm == "gone" else file.write_bytes(data[:-1])
        told = "no such file" if harm == "gone" else f"{len(data) - 1} bytes"
        with pytest.raises(ArtifactError, match=rf"{file.name}, made before: .*{told}"):
            run()
        file.write_bytes(data)
        assert run() == manifest
        assert not work_folder(prefix).exists()
