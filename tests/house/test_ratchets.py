"""Rules of CONVENTIONS.md that old code breaks: how often, which may only fall."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.house.test_limits import MODULES, ROOT, functions, parsed

POSITIONAL, NESTING = 2, 3  # CONVENTIONS.md 10 and 46
WITH_MORE_POSITIONAL = 362
"""Functions that take more than two arguments by position. Lower it when one goes."""
NESTED_DEEPER = 23
"""Functions with more than three levels of nesting. Lower it when one goes."""
CLASSES_WITH_TWO_HOMES = 4
FUNCTIONS_WITH_TWO_HOMES = 47
"""Public names that two modules define: lower it when one goes; goal: 1.5%."""

INTERNALS = ROOT / "megatron_ext/cpu.py"


def by_position(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How many arguments may be given by position, beside self or cls."""
    arguments = (*function.args.posonlyargs, *function.args.args)
    return len([one for one in arguments if one.arg not in ("self", "cls")])


def blocks_of(statement: ast.stmt) -> Iterator[tuple[Sequence[ast.stmt], int]]:
    """The blocks of a statement, each with the levels that it adds: an elif adds none."""
    for name in ("body", "orelse", "finalbody"):
        block: list[ast.stmt] = getattr(statement, name, [])
        is_elif = name == "orelse" and len(block) == 1 and isinstance(block[0], ast.If)
        yield block, 0 if is_elif and isinstance(statement, ast.If) else 1
    for name in ("handlers", "cases"):
        for part in getattr(statement, name, []):
            yield part.body, 1


def levels(block: Sequence[ast.stmt]) -> int:
    """The deepest nesting of a block; a function or a class inside counts by itself."""
    inner = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    depths = [
        added + levels(below)
        for statement in block
        if not isinstance(statement, inner)
        for below, added in blocks_of(statement)
        if below
    ]
    return max(depths, default=0)


def homes(sources: dict[str, str], kind: type[ast.ClassDef] | type[ast.FunctionDef]) -> set[str]:
    """Public names that more than one module defines at its top."""
    found: dict[str, set[str]] = defaultdict(set)
    for module, source in sources.items():
        for node in parsed(source).body:
            if isinstance(node, kind) and not node.name.startswith("_"):
                found[node.name].add(module)
    return {name for name, modules in found.items() if len(modules) > 1}


def megatron_internals(source: str) -> list[str]:
    """Private names of Megatron's modules that a module uses."""
    tree = parsed(source)
    names, private = set(), []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("megatron."):
            names |= {one.asname or one.name for one in node.names}
            private += [one.name for one in node.names if re.match("_[^_]", one.name)]
        if isinstance(node, ast.Import):
            names |= {
                (one.asname or "megatron")
                for one in node.names
                if one.name.split(".")[0] == "megatron"
            }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and re.match("_[^_]", node.attr):
            root = ast.unparse(node.value).partition(".")[0]
            private += [ast.unparse(node)] if root in names else []
    return private


def sources() -> dict[str, str]:
    return {path.relative_to(ROOT).as_posix(): path.read_text() for path in MODULES}


def all_functions() -> Iterator[tuple[Path, ast.FunctionDef | ast.AsyncFunctionDef]]:
    return ((path, function) for path in MODULES for function in functions(path))


def test_arguments_after_the_first_two_are_keyword_only() -> None:
    wide = [one.name for _, one in all_functions() if by_position(one) > POSITIONAL]
    assert len(wide) <= WITH_MORE_POSITIONAL, f"{len(wide)}: write * after the second argument"


def test_nesting_has_at_most_three_levels() -> None:
    deep = [
        f"{path.name}:{one.name}" for path, one in all_functions() if levels(one.body) > NESTING
    ]
    assert len(deep) <= NESTED_DEEPER, f"return early, or name a part: {deep}"


def test_a_public_name_has_one_home() -> None:
    classes, verbs = (homes(sources(), kind) for kind in (ast.ClassDef, ast.FunctionDef))
    assert len(classes) <= CLASSES_WITH_TWO_HOMES, f"rename one of each: {sorted(classes)}"
    assert len(verbs) <= FUNCTIONS_WITH_TWO_HOMES, f"rename one of each: {sorted(verbs)}"


def test_private_names_of_megatron_are_used_in_one_module() -> None:
    used = {
        path.relative_to(ROOT).as_posix(): found
        for path in MODULES
        if path != INTERNALS and (found := megatron_internals(path.read_text()))
    }
    assert not used, used


def test_what_breaks_a_rule_is_seen() -> None:
    function = ast.parse("class A:\n def f(self, a, b, c, *, d): ...").body[0].body[0]  # type: ignore[attr-defined]
    assert by_position(function) == 3
    deep = "for a in b:\n if a:\n  with a:\n   try: pass\n   except E:\n    f()"
    assert levels(ast.parse(deep).body) == 4
    assert levels(ast.parse("if a: f()\nelif b: f()\nelif c: f()").body) == 1
    assert homes({"a": "class A: ...", "b": "class A: ...\nclass B: ..."}, ast.ClassDef) == {"A"}
    assert megatron_internals("from megatron.core import parallel_state as p\np._GROUP") == [
        "p._GROUP"
    ]
    assert megatron_internals("import megatron.core\nmegatron.core.a._b()") == [
        "megatron.core.a._b"
    ]
    assert megatron_internals("from megatron.core.a import _b") == ["_b"]
    assert not megatron_internals("from megatron.core import a\na.__dict__\nself._b")
