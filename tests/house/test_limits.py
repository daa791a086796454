"""House rules that a machine can check: sizes, names, ASCII, paths, and imports that do no work."""

import ast
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("recipes", "data_tools", "megatron_ext", "eval", "rl", "launch")
MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))

FILE_LINES, FUNCTION_LINES, ARGUMENTS = 400, 60, 6
FORBIDDEN_WORDS = {"utils", "util", "common", "helpers", "helper", "misc", "manager", "handler"}

# function -> why it may be longer or wider than the rule
EXCEPTIONS: dict[str, str] = {}


@cache
def parsed(source: str) -> ast.Module:
    """The tree of a source, which several rules read and none changes."""
    return ast.parse(source)


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = parsed(path.read_text())
    return [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_module_keeps_the_house_rules(path: Path) -> None:
    text = path.read_text()
    name = path.relative_to(ROOT).as_posix()
    problems = []
    if len(text.splitlines()) > FILE_LINES:
        problems.append(f"{len(text.splitlines())} lines, at most {FILE_LINES}")
    if not text.isascii():
        problems.append("not ASCII")
    if set(path.stem.split("_")) & FORBIDDEN_WORDS:
        problems.append("a name that says nothing")
    if ast.get_docstring(parsed(text)) is None:
        problems.append("no module docstring")
    for function in functions(path):
        where = f"{name}:{function.name}"
        if where in EXCEPTIONS:
            continue
        length = (function.end_lineno or 0) - function.lineno + 1
        if length > FUNCTION_LINES:
            problems.append(f"{function.name} has {length} lines, at most {FUNCTION_LINES}")
        arguments = function.args
        positional = [a.arg for a in (*arguments.posonlyargs, *arguments.args)]
        own = len([a for a in positional if a not in ("self", "cls")]) + len(arguments.kwonlyargs)
        if own > ARGUMENTS and not function.name.startswith("__init__"):
            problems.append(f"{function.name} takes {own} arguments, at most {ARGUMENTS}")
        if function.returns is None:
            problems.append(f"{function.name} states no return type")
    assert not problems, f"{name}: " + "; ".join(problems)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_public_functions_have_docstrings(path: Path) -> None:
    bare = [
        node.name
        for node in parsed(path.read_text()).body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
        and not node.name.startswith("_")
        and ast.get_docstring(node) is None
        and (node.end_lineno or 0) - node.lineno > 3
    ]
    assert not bare, f"without a docstring: {bare}"


def test_importing_a_module_reads_no_environment_and_parses_no_arguments() -> None:
    offenders = []
    for path in MODULES:
        for node in parsed(path.read_text()).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
                continue
            if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test):
                continue
            source = ast.unparse(node)
            if re.search(r"os\.environ|os\.getenv|parse_args|open\(|\.read_text\(", source):
                offenders.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not offenders, offenders


def test_no_file_names_a_machine_or_a_registry() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    pattern = re.compile(
        r"/wor"
        + r"k/|/far"
        + r"m/|/ro"
        + r"ot/|py"
        + r"pi\.org|python"
        + r"hosted|registry\.npm"
        + "js"
    )
    offenders = []
    for name in filter(None, tracked):
        path = ROOT / name
        if (
            path.is_symlink()
            or path.suffix in {".png", ".bin", ".idx", ".gz"}
            or not path.is_file()
        ):
            continue
        if pattern.search(path.read_text(errors="ignore")):
            offenders.append(name)
    assert not offenders, offenders
