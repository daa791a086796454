"""`make test` says the same every time: drawn examples are fixed, no number comes from nowhere."""

import ast
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
MEASURES = ("bench", "gpu")  # folders in which what is drawn is timed, not judged
TESTS = sorted(p for p in (ROOT / "tests").rglob("*.py") if p.parent.name not in MEASURES)

# A draw without a seed of its own, as it is written down.
UNSEEDED = re.compile(
    r"torch\.(rand|randn|randint|randperm)\((?!.*\bgenerator=)"
    r"|\brandom\.(random|randrange|randint|choice|choices|sample|shuffle|uniform|gauss)\("
    r"|\brandom\.Random\(\)|default_rng\(\)|\bnp\.random\.(?!default_rng|Generator)"
    r"|\buuid\.uuid4",
    re.DOTALL,
)


def drawn() -> list[tuple[int, str]]:
    seen: list[tuple[int, str]] = []

    @given(st.integers(), st.text())
    def draw(number: int, text: str) -> None:
        seen.append((number, text))

    draw()
    return seen


def test_the_same_examples_are_drawn_whatever_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """hypothesis draws constants of the modules that it sees, where it may."""
    first = drawn()
    odd = tmp_path / "odd_numbers.py"
    odd.write_text(f"NUMBERS = {list(range(10**9, 10**9 + 400))}\n")
    monkeypatch.syspath_prepend(tmp_path)
    __import__("odd_numbers")
    monkeypatch.delitem(sys.modules, "odd_numbers", raising=False)
    assert len(first) > 50
    assert drawn() == first


@pytest.mark.parametrize("path", TESTS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_what_a_test_draws_has_a_seed(path: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    unseeded = [call.lineno for call in calls if UNSEEDED.match(ast.unparse(call))]
    assert not unseeded, f"lines {unseeded}"


def test_explore_finds_a_failure_and_prints_its_case(tmp_path: Path) -> None:
    (tmp_path / "test_planted.py").write_text(
        textwrap.dedent("""
            from hypothesis import given, strategies as st

            @given(number=st.integers(0, 10**6))
            def test_planted(number):
                assert number < 77_777

            def test_that_draws_nothing():
                raise AssertionError
        """)
    )
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    command = [sys.executable, "-m", "tests.explore", "--seconds=60", "--seed=5", str(tmp_path)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 1, found.stderr
    assert re.search(r"@example\(\s*number=77777,\s*\)", found.stdout), found.stdout
    assert re.search(r"make explore SEED=\d+ SUITE=\S*test_planted.py::test_planted", found.stdout)
    assert "test_that_draws_nothing" not in found.stdout
