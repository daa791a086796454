"""The tool behind `make mutants`, on a small tree of its own with a real pytest."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mutants import judge
from tests.mutants.judge import ALONE, ROOT, Bench, bench_of, room_of
from tests.mutants.listed import FILE, Listed, gone, read_listed, shown
from tests.mutants.sites import Mutant, mutants_of

PAY = '''"""Pay: 3 > 2."""

LEAST = 5


def pay(hours: int, *, is_night: bool = False) -> int:
    """What is paid."""
    if hours > 10:
        raise ValueError(f"{hours} > 10")
    rate = 2 if is_night else 1
    while hours < 0:
        hours += 1
    return max(LEAST, rate * hours)


def unpaid(hours: int) -> int:
    return hours - 1
'''
TESTS = """import pytest
from frontload.eval.pay import pay


@pytest.fixture(scope="module")
def night() -> int:
    return pay(6, is_night=True)


def test_night(night: int) -> None:
    assert night == 12


def test_least() -> None:
    assert pay(-1) == 5
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one room of one module."""
    root = tmp_path_factory.mktemp("repository")
    files = {"eval/__init__.py": "", "eval/pay.py": PAY, "tests/unit/eval/test_pay.py": TESTS}
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / ".imports" / "frontload").mkdir(parents=True)
    shutil.copy(ROOT / ".imports/frontload/__init__.py", root / ".imports/frontload")
    shutil.copytree(
        ROOT / "tests/mutants", root / "tests/mutants", ignore=shutil.ignore_patterns("test_*")
    )
    for name in ("pyproject.toml", "tests/__init__.py"):
        shutil.copy(ROOT / name, root / name)
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    return root


@pytest.fixture(scope="module")
def bench(tree: Path) -> Iterator[Bench]:
    if subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody make a namespace of processes")
    with bench_of("eval", root=tree) as made:
        yield made


def mutant(new: str) -> Mutant:
    """The mutant of pay.py that has this line."""
    (found,) = [one for one in mutants_of("eval/pay.py", PAY) if one.new == new]
    return found


def test_what_is_changed_and_what_nobody_would_miss() -> None:
    changes = {one.new for one in mutants_of("eval/pay.py", PAY)}
    assert changes == {
        "LEAST = 6",
        "def pay(hours: int, *, is_night: bool = True) -> int:",
        "if hours >= 10:",
        "if hours <= 10:",
        "if hours > 11:",
        "rate = 3 if is_night else 1",
        "rate = 2 if not is_night else 1",
        "rate = 2 if is_night else 0",
        "while hours <= 0:",
        "while hours >= 0:",
        "while hours < 1:",
        "hours -= 1",
        "hours += 0",
        "return min(LEAST, rate * hours)",
        "return max(LEAST, rate / hours)",
        "return hours + 1",
        "return hours - 0",
    }


@pytest.mark.parametrize(
    ("line", "changed"),
    [
        ("if not a and (b or c is not None):", "if a and (b or c is not None):"),
        ("if not a and (b or c is not None):", "if not a or (b or c is not None):"),
        ("if not a and (b or c is not None):", "if not a and (b and c is not None):"),
        ("if not a and (b or c is not None):", "if not a and (b or c is None):"),
        ("if (a) not in (b) or -c > 0:", "if (a) in (b) or -c > 0:"),
        ("if (a) not in (b) or -c > 0:", "if (a) not in (b) or c > 0:"),
        ("if any(x for x in a if x):", "if all(x for x in a if x):"),
        ("if any(x for x in a if x):", "if any(x for x in a if not x):"),
        ("if f(a, b, deep=True)[-1] / 0.25:", "if f(a, b, deep=False)[-1] / 0.25:"),
        ("if f(a, b, deep=True)[-1] / 0.25:", "if f(a, b, deep=True)[-0] / 0.25:"),
        ("if f(a, b, deep=True)[-1] / 0.25:", "if f(a, b, deep=True)[-1] / 0.5:"),
    ],
)
def test_one_operator_constant_or_flag_at_a_time(line: str, changed: str) -> None:
    assert changed in {one.new for one in mutants_of("a.py", f"{line}\n    pass\n")}


@pytest.mark.parametrize(
    "text",
    [
        'raise Wrong("a", found=f"{a + 1}", rule="b" * 2)',
        "assert a > 1",
        "log.info(1)",
        "zip(a, b, strict=True)",
        "@dataclass(frozen=True)\nclass A:\n    a: B[0] | None",
        'a = folder / "name" + f"{b}"',
        "a = int | None",
        "if TYPE_CHECKING or 1 > 2:\n    b = 1",
    ],
)
def test_texts_types_and_assertions_stay(text: str) -> None:
    assert mutants_of("a.py", f"{text}\n") == []


@pytest.mark.parametrize(
    ("new", "by"),
    [
        ("rate = 3 if is_night else 1", "tests/unit/eval/test_pay.py::test_night"),
        ("LEAST = 6", "tests/unit/eval/test_pay.py::test_least"),
        ("hours -= 1", "time"),
        ("if hours >= 10:", ""),
        ("return hours + 1", ""),
    ],
)
def test_a_mutant_is_killed_by_a_test_by_time_or_lives(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, new: str, by: str
) -> None:
    if by == "time":
        usual = judge.run_pytest
        monkeypatch.setattr(judge, "run_pytest", lambda *a, **k: usual(*a, **{**k, "limit": 5.0}))
    assert bench.judge(mutant(new)).by == by
    assert (bench.copy / "eval/pay.py").read_text() == PAY


def test_only_tests_that_run_the_line_are_asked(bench: Bench) -> None:
    file = "tests/unit/eval/test_pay.py::"
    assert bench.tests_for(mutant("hours += 0")) == [f"{file}test_least"]
    shared = bench.tests_for(mutant("rate = 2 if is_night else 0"))
    assert set(shared) == {f"{file}test_night", f"{file}test_least"}, "a set-up ran it"
    assert set(bench.tests_for(mutant("LEAST = 6"))) == set(shared), "an import ran it"
    assert bench.tests_for(mutant("return hours + 1")) == []


def test_the_work_tree_is_never_written(bench: Bench, tree: Path) -> None:
    def files() -> dict[Path, bytes]:
        paths = (path for path in tree.rglob("*") if path.is_file() and ".git" not in path.parts)
        return {path: path.read_bytes() for path in paths}

    before = files()
    assert bench.judge(mutant("return max(LEAST, rate / hours)")).by
    assert files() == before


def test_asked_of_some_modules_only_tests_that_name_them_run(tree: Path) -> None:
    files = {"a": "from frontload.eval.pay import pay", "b": "from frontload.eval import cost, pay"}
    files |= {"c": "import frontload.eval.pay_day", "d": "pay = 1"}
    for name, text in files.items():
        (tree / name).write_text(text)
    assert judge._naming(["eval/pay.py"], list(files), root=tree) == ["a", "b"]
    assert judge._naming(["eval/other.py"], list(files), root=tree) == list(files)
    assert judge._naming([], list(files), root=tree) == list(files)
    for name in files:
        (tree / name).unlink()


def test_a_room_whose_tests_fail_is_not_judged(bench: Bench, tree: Path) -> None:
    wrong = tree / "tests/unit/eval/test_wrong.py"
    wrong.write_text("def test_wrong() -> None:\n    assert False\n")
    try:
        with pytest.raises(RuntimeError, match="unchanged"), bench_of("eval", root=tree):
            pass
    finally:
        wrong.unlink()


def test_an_entry_follows_its_line_and_is_told_when_the_line_has_changed() -> None:
    text = "# note\neval/pay.py\n- LEAST = 5\n+ LEAST = 6\nnobody\n  works so little\n"
    (listed,) = read_listed(text)
    assert listed == Listed(
        path="eval/pay.py", old="LEAST = 5", new="LEAST = 6", reason="nobody works so little"
    )
    moved = mutants_of("eval/pay.py", "\n\n" + PAY)
    assert [one.line for one in moved if listed.matches(one)] == [5]
    assert gone([listed], moved) == []
    changed = mutants_of("eval/pay.py", PAY.replace("LEAST = 5", "LEAST = 4"))
    assert gone([listed], changed) == [listed]
    assert gone([listed], mutants_of("eval/other.py", PAY)) == [], "another file was asked"
    survivor = shown(mutant("LEAST = 6")).replace("pay.py:3", "pay.py") + "a reason\n"
    assert read_listed(survivor)[0].matches(mutant("LEAST = 6")), "what is printed can be pasted"
    with pytest.raises(ValueError, match="a reason"):
        read_listed("eval/pay.py\n- LEAST = 5\n+ LEAST = 6\n")


def test_every_entry_that_ships_has_a_file_and_a_reason() -> None:
    for one in read_listed(FILE.read_text()):
        assert (ROOT / one.path).is_file(), one
        assert len(one.reason) > 10, one


def test_a_test_belongs_to_the_room_that_it_imports_most_from() -> None:
    ours = (
        "from frontload.recipes.schema import A\n" * 3 + "from frontload.rl.plugins.scan import B\n"
    )
    assert room_of(ours) == "rl"
    assert room_of("from frontload.recipes.schema import A") == "recipes"
