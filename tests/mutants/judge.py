"""Runs the tests of a room on a copy of the tree: as it is, then with one mutant at a time."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.sites import Mutant

ROOT = Path(__file__).resolve().parents[2]
SHARED = ("property", "parity", "fault", "golden")  # folders of tests about several rooms
ELSEWHERE = {  # tests that run a lower room through the commands of a higher one
    "recipes": (
        "tests/unit/launch/test_study_commands.py",
        "tests/unit/megatron_ext/test_census.py",
        "tests/unit/megatron_ext/test_placements.py",
    ),
}
QUICK = "not smoke and not slow and not gpu and not multi_gpu"
SMOKE = "tests/golden/test_smoke_study.py"
SMOKE_SECONDS = 1800.0
# No process outlives its run or sees those beside it, whatever a mutant makes of a process id.
ALONE = ("unshare", "--map-current-user", "--pid", "--fork", "--kill-child", "--mount-proc")
# A mutant that eats memory or disk fails. The shell stays: it takes in orphaned processes.
LIMITED = 'ulimit -d 8388608; ulimit -f 4194304; "$@"; exit $?'


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of a mutant."""

    by: str  # the test that noticed it, "time", or "" for a survivor
    seconds: float


@dataclass(kw_only=True)
class Bench:
    """A copy of the tree, and what each test of the room ran on it."""

    copy: Path
    lines: dict[str, dict[str, set[int]]]  # test, or file for what its tests share -> path -> lines
    seconds: dict[str, float]  # of each test, set-up included
    num_judged: int = 0

    def judge(self, mutant: Mutant, *, golden: bool = False) -> Verdict:
        """Runs the tests that may notice until one fails; then the smoke study, where asked."""
        began = time.monotonic()
        file = self.copy / mutant.path
        kept = file.read_text()
        try:
            self._write(file, mutant.text)
            by = self._killer(self.tests_for(mutant))
            if not by and golden:
                by = self._run([SMOKE], limit=SMOKE_SECONDS, marks="smoke")
        finally:
            self._write(file, kept)
        return Verdict(by=by, seconds=time.monotonic() - began)

    def tests_for(self, mutant: Mutant) -> list[str]:
        """Tests that run the mutant's lines, the quickest file first, in it the quickest test."""
        wanted = set(range(mutant.first_line, mutant.last_line + 1))
        runs = {name for name in self.lines if self._runs(name, mutant, wanted)}
        tests = [test for test in self.seconds if {test, _file_of(test)} & runs]
        total: dict[str, float] = defaultdict(float)
        for test in tests:
            total[_file_of(test)] += self.seconds[test]
        return sorted(tests, key=lambda t: (total[_file_of(t)], _file_of(t), self.seconds[t]))

    def _runs(self, name: str, mutant: Mutant, wanted: set[int]) -> bool:
        """Whether a test ran one of the lines, or its file starts processes that may."""
        lines = self.lines[name].get(mutant.path, set())
        if lines & wanted or (mutant.at_import and lines):
            return True
        text = (self.copy / _file_of(name)).read_text() if name == _file_of(name) != "" else ""
        module = "frontload." + mutant.path.removesuffix(".py").replace("/", ".")
        return module in text and re.search("subprocess|fork|process", text) is not None

    def _write(self, file: Path, text: str) -> None:
        """A time of change that no other version has: bytecode of another would look fresh."""
        file.write_text(text)
        self.num_judged += 1
        os.utime(file, (self.num_judged, self.num_judged))

    def _killer(self, tests: list[str]) -> str:
        """The quickest file first, by itself: most mutants die there."""
        quickest = [test for test in tests if _file_of(test) == _file_of(tests[0])]
        for part in (quickest, tests[len(quickest) :]):
            by = self._chosen(part) if part else ""
            if by:
                return by
        return ""

    def _chosen(self, tests: list[str]) -> str:
        chosen = self.copy.parent / "chosen.json"
        chosen.write_text(json.dumps(tests))
        files = list(dict.fromkeys(map(_file_of, tests)))
        limit = 60 + 10 * sum(self.seconds[test] for test in tests)
        return self._run(files, limit=limit, MUTANTS_CHOSEN=str(chosen))

    def _run(
        self, files: list[str], *, limit: float, marks: str = QUICK, **environment: str
    ) -> str:
        """The test that failed, "time", or ""."""
        code, printed = run_pytest(self.copy, files, limit=limit, marks=marks, **environment)
        if code is None:
            return "time"
        if code in (4, 5):
            raise RuntimeError(f"pytest found no test in {files}:\n{printed[-2000:]}")
        failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", printed, re.MULTILINE)
        return "" if code == 0 else failed[0] if failed else f"exit code {code}"


@contextmanager
def bench_of(room: str, *, modules: Sequence[str] = (), root: Path = ROOT) -> Iterator[Bench]:
    """A bench in a folder of its own, which is removed at the end.

    With `modules` (as `eval/statistics/score.py`) it has the tests that name one of them, not all
    of the room.

    Raises: RuntimeError when a test fails without a mutant: every mutant would look killed.
    """
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy, record = Path(folder) / "tree", Path(folder) / "record.json"
        _copy_tree(root, copy)
        watched = {"MUTANTS_RECORD": str(record), "MUTANTS_ROOM": room}
        files = _naming(modules, _files_of(room, root), root=root)
        code, printed = run_pytest(copy, files, limit=3600.0, marks=QUICK, **watched)
        if code != 0:
            raise RuntimeError(f"tests of {room} end with {code}, unchanged:\n{printed[-4000:]}")
        found = json.loads(record.read_text())
        lines = {
            name: {path: set(numbers) for path, numbers in by_file.items()}
            for name, by_file in found["lines"].items()
        }
        yield Bench(copy=copy, lines=lines, seconds=found["seconds"])


def run_pytest(
    copy: Path, files: list[str], *, limit: float, marks: str, **environment: str
) -> tuple[int | None, str]:
    """Exit code and output of pytest, ended by the first failure; no code when time was up."""
    temporary = copy.parent / "tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(copy / ".hypothesis", ignore_errors=True)
    options = ["-x", "-rfE", "--tb=no", "-m", marks, "--hypothesis-seed=0"]
    options += ["-p", "tests.mutants.plugin", "-p", "no:xdist", "-p", "no:cacheprovider"]
    path = os.pathsep.join([str(copy / ".imports"), str(copy)])
    try:
        done = subprocess.run(
            [*ALONE, "sh", "-c", LIMITED, "sh", sys.executable, "-m", "pytest"]
            + [*options, f"--basetemp={temporary}", *files],
            cwd=copy,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment},
        )
    except subprocess.TimeoutExpired:
        return None, ""
    return done.returncode, done.stdout + done.stderr


def _copy_tree(root: Path, copy: Path) -> None:
    """What git tracks or would, as it is in the work tree, and a link to the environment."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (root / name).is_symlink() or (root / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, copy / name, follow_symlinks=False)
    if not (copy / ".venv").is_symlink():
        (copy / ".venv").symlink_to(sys.prefix)


def _files_of(room: str, root: Path) -> list[str]:
    """The room's test files: its folders of tests/unit, and what else is about it."""
    found = sorted(root.glob(f"tests/unit/{room}*/test_*.py"))
    for folder in SHARED:
        paths = sorted((root / "tests" / folder).glob("test_*.py"))
        found += [p for p in paths if room_of(p.read_text()) == room and p != root / SMOKE]
    named = [path.relative_to(root).as_posix() for path in found]
    return named + [name for name in ELSEWHERE.get(room, ()) if (root / name).is_file()]


def _naming(modules: Sequence[str], files: list[str], *, root: Path) -> list[str]:
    """Of the test files those that name one of the modules; all where no file does."""
    names = [re.escape(module.removesuffix(".py").replace("/", ".")) for module in modules]
    split = [name.rpartition(r"\.")[::2] for name in names]
    named = [rf"frontload\.{name}\b" for name in names]
    named += [rf"from frontload\.{above} import .*\b{name}\b" for above, name in split]
    texts = {file: (root / file).read_text() for file in files}
    return [f for f in files if names and re.search("|".join(named), texts[f])] or files


def room_of(text: str) -> str:
    """The room that a test imports most from; recipes where it imports from no other."""
    counts: dict[str, int] = defaultdict(int)
    for name in re.findall(r"frontload\.([a-z_]+)", text):
        counts[name] += 1
    return max(counts, key=lambda name: (name != "recipes", counts[name]), default="")


def _file_of(test: str) -> str:
    return test.partition("::")[0]
