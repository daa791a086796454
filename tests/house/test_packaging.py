"""The import root: setup.py and .imports name the same rooms; a wheel installs only `frontload`."""

import ast
import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def rooms_of_setup() -> set[str]:
    tree = ast.parse((ROOT / "setup.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "ROOMS":
            return set(ast.literal_eval(node.value))
    raise AssertionError("setup.py has no ROOMS")


def test_links_and_setup_name_the_same_rooms() -> None:
    links = {path.name for path in (ROOT / ".imports" / "frontload").iterdir() if path.is_symlink()}
    assert links == rooms_of_setup()
    for room in links:
        assert (ROOT / ".imports" / "frontload" / room).resolve() == ROOT / room
        assert (ROOT / room / "__init__.py").is_file()


def test_a_module_shows_the_path_where_it_lies() -> None:
    """As in tracebacks and breakpoints: no link to it."""
    import frontload.launch.cli
    import frontload.recipes.grammar.load

    assert Path(frontload.launch.cli.__file__) == ROOT / "launch/cli.py"
    assert Path(frontload.recipes.grammar.load.__file__) == ROOT / "recipes/grammar/load.py"


def test_wheel_installs_only_frontload_and_its_recipes(tmp_path: Path) -> None:
    script = (
        "import setuptools.build_meta as backend, os, sys;print(backend.build_wheel(sys.argv[1]))"
    )
    copy = tmp_path / "source"
    copy.mkdir()
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    for name in tracked:
        source = ROOT / name
        if source.is_symlink() or not source.is_file():
            continue
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(source.read_bytes())
    out = tmp_path / "wheel"
    out.mkdir()
    environment = {**os.environ, "PYTHONPATH": ""}
    subprocess.run(
        [sys.executable, "-c", script, str(out)],
        cwd=copy, check=True, capture_output=True, env=environment,
    )  # fmt: skip
    (wheel,) = out.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"frontload"}
    packed = {name.removeprefix("frontload/") for name in names}
    data = {
        path.relative_to(ROOT).as_posix()
        for room, patterns in (
            ("recipes", ("**/*.yaml", "**/*.jinja", "**/*.json")),
            ("eval", ("**/*.jinja", "**/*.css", "**/*.js")),
        )
        for pattern in patterns
        for path in (ROOT / room).glob(pattern)
    }
    assert {"recipes", "eval"} == {name.split("/")[0] for name in data}
    assert data <= packed
