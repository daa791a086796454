"""Wings, the folders inside a room: few modules each, a line that says what they hold, one way."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.house.test_limits import MODULES, ROOMS, ROOT, parsed

MODULES_OF_A_WING = 16
NAMES = {path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".") for path in MODULES}
WINGS = sorted({path.parent for path in MODULES if path.parent.parent != ROOT})
FLAT = sorted(path for path in MODULES if path.parent.parent == ROOT)


def imported_modules(path: Path) -> set[str]:
    """Modules of the house that a module imports: at its top, in a function, or by name."""
    names: set[str] = set()
    for node in ast.walk(parsed(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{one.name}" for one in node.names)}
        elif isinstance(node, ast.Import):
            names |= {one.name for one in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            names |= {one.value for one in node.args if isinstance(one, ast.Constant)}
    return {name.removeprefix("frontload.") for name in names if isinstance(name, str)} & NAMES


def box_of(module: str) -> str:
    """The wing of a module, or the module itself where it lies in no wing."""
    return ".".join(module.split(".")[:2])


def arrows_of(room: str) -> dict[str, set[str]]:
    """Box of a room -> the boxes of the room that it imports from."""
    arrows: dict[str, set[str]] = {}
    for path in MODULES:
        module = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
        if module.startswith(f"{room}."):
            below = {box_of(one) for one in imported_modules(path) if one.startswith(f"{room}.")}
            arrows.setdefault(box_of(module), set()).update(below - {box_of(module)})
    return arrows


@pytest.mark.parametrize("room", ROOMS)
def test_wings_of_a_room_import_one_way(room: str) -> None:
    try:
        TopologicalSorter(arrows_of(room)).prepare()
    except CycleError as error:
        raise AssertionError(f"each imports the one before: {error.args[1]}") from error


def test_an_arrow_back_is_seen() -> None:
    arrows = arrows_of("recipes")
    assert "recipes.grammar" in arrows["recipes.study"]
    arrows["recipes.grammar"].add("recipes.study")
    with pytest.raises(CycleError):
        TopologicalSorter(arrows).prepare()


@pytest.mark.parametrize("wing", WINGS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_wing_is_small_and_says_what_it_holds(wing: Path) -> None:
    modules = [path for path in wing.glob("*.py") if path.name != "__init__.py"]
    assert 2 <= len(modules) <= MODULES_OF_A_WING
    tree = ast.parse((wing / "__init__.py").read_text())
    assert ast.get_docstring(tree)
    assert len(tree.body) == 1, "a wing is a folder: what is imported is one of its modules"


def test_no_module_has_the_name_of_a_wing_beside_it() -> None:
    """One of the two could not be imported."""
    assert not {path.with_suffix("") for path in FLAT} & set(WINGS)
