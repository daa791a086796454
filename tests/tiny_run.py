"""Inputs of the tiny training recipes: indexes, a blend for each phase, a pack, a start model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from frontload.data_tools import stages as data_stages
from frontload.recipes.grammar.load import find_recipe, load_recipe
from frontload.recipes.runs.training import PretrainRecipe
from frontload.recipes.schema import Blend, Window
from tests.training_inputs import workspace, write_index, write_pack


@dataclass(frozen=True, kw_only=True)
class TinyData:
    """Folders that `frontload train pretrain_tiny` reads."""

    first: Path
    second: Path
    base: Path
    ldq: Path

    def flags(self, *phases: str) -> list[str]:
        """The flags of the command line for these phases; both if none is named."""
        blends = [str(getattr(self, name)) for name in phases or ("first", "second")]
        return ["--blend", *blends, "--index", str(self.base), str(self.ldq)]


def tiny_recipe(path: Path | None = None) -> PretrainRecipe:
    """The recipe of a file, or the one that ships."""
    path = path or find_recipe("training", "pretrain_tiny")
    assert path is not None
    return load_recipe(path, PretrainRecipe).value


def write_longer_recipe(folder: Path, **upkeep: Any) -> Path:
    """pretrain_tiny with 40 and 20 steps, so that there is time to kill a part of it."""
    path = folder / "pretrain_longer.yaml"
    told = ", ".join(f"{name}: {value}" for name, value in upkeep.items())
    path.write_text(
        "extends: pretrain_tiny\n"
        "phases:\n"
        "  - {name: first, tokens: 5_120, sources: {base: 1.0}}\n"
        "  - {name: second, tokens: 2_560, sources: {base: 0.5, ldq: 0.5}}\n"
        f"upkeep: {{{told}}}\n"
    )
    return path


def write_tiny_data(
    root: Path, recipe_file: Path | None = None, *, num_documents: int = 480
) -> TinyData:
    """Two sources and the blends of both phases, made by the data tools themselves."""
    recipe = tiny_recipe(recipe_file)
    indexes: dict[str, Path] = {}
    rng = np.random.default_rng(11)
    for number, name in enumerate(("base", "ldq")):
        documents = [
            np.append(6 + number + rng.integers(0, 200, rng.integers(4, 40)), 1)
            for _ in range(num_documents)
        ]
        indexes[name] = root / name
        write_index(root / name / "documents", documents, list(range(len(documents) + 1)), "uint16")
    blends: dict[str, Path] = {}
    used = dict.fromkeys(indexes, 0)
    for phase in recipe.phases:
        windows = []
        for source, share in phase.sources.items():
            tokens = round(phase.tokens * share)
            windows.append(Window(source=source, start_tokens=used[source], tokens=tokens))
            used[source] += tokens
        plan = Blend(
            phase=phase.name,
            windows=tuple(windows),
            sequence_tokens=recipe.sequence_tokens,
            max_epochs={window.source: 1.0 for window in windows},
            seed=1,
        )
        inputs: dict[str, Path] = {window.source: indexes[window.source] for window in windows}
        if blends:
            inputs["before"] = blends["first"]
        work = workspace(root / f"blend-{phase.name}")
        data_stages.blend(plan, inputs, work)
        blends[phase.name] = work.path
    return TinyData(**blends, **indexes)


def write_tiny_pack(root: Path, rows: int) -> Path:
    """A pack of `rows` rows with the small file that says what it is."""
    write_pack(root, rows)
    (root / "pack.json").write_text('{"sequence_tokens": 32}\n')
    return root


def artifact_bytes(folder: Path) -> dict[str, bytes]:
    """Every file of an artifact; equal for equal training."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def words_of(*parts: Any) -> list[str]:
    """A command line from texts, paths and lists of them."""
    found: list[str] = []
    for part in parts:
        found.extend(words_of(*part) if isinstance(part, (list, tuple)) else [str(part)])
    return found
