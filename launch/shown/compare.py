"""The command `compare`: two studies beside each other, by name, file, result folder or key."""

import argparse
import importlib
import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from frontload.data_tools.disk.files import read_object
from frontload.launch.origins.made_by import find_maker, run_command
from frontload.launch.origins.named import built_names, find_named, name_parts, suggest
from frontload.launch.run.out_folder import check_out
from frontload.launch.store import Store, read_manifest
from frontload.launch.study.settle import settle
from frontload.recipes.errors import ArtifactError, RecipeError
from frontload.recipes.grammar.load import find_recipe, nearest, recipe_names
from frontload.recipes.stage import canonical
from frontload.recipes.study.expand import Study, load_study, seeds_override

TABULATE = "tabulate"
CELLS, VERDICTS, ORIGINS, RECIPE = "cells.json", "verdicts.json", "origins.json", "recipe.yaml"
METRIC_FIELDS = frozenset({"value", "se", "seeds", "num_items"})
SEED = " seed "  # within the role of an evaluation: `pt:LMQ seed 2`


def add_arguments(one: argparse.ArgumentParser) -> None:
    """The arguments of `frontload compare`."""
    what = "a study's name or file, in quotes with path=value overrides; a result folder; or the "
    for name in ("first", "second"):
        one.add_argument(name, metavar=f"STUDY_{name.upper()}", help=what + "key of its tables")
    one.add_argument("--store", type=Path, default=Path("store"), help="folder of artifacts")
    one.add_argument("--seeds", help="of studies by name or file: how many, or which (4,5,6)")
    one.add_argument("--out", type=Path, help="folder of the page; results/compare-A-B")
    one.add_argument("--json", action="store_true", help="print JSON; a page only with --out")
    one.set_defaults(run=compare)


def compare(options: argparse.Namespace) -> int:
    """Prints two studies beside each other, and writes a page."""
    words = importlib.import_module("frontload.eval.report.compare")
    store = Store(options.store)
    sides = [_side(name, store, seeds=options.seeds) for name in (options.first, options.second)]
    found = words.compare_studies(*sides)
    out = options.out or Path("results") / _folder_name(options.first, options.second)
    page: Any = importlib.import_module("frontload.eval.report.compare_page")
    if options.json:
        print(json.dumps(found.to_json(), indent=1))
        if options.out:
            page.write_comparison(found, check_out(out, what="the comparison"))
        return 0
    written = page.write_comparison(found, check_out(out, what="the comparison"))
    print(page.comparison_text(found))
    print(f"comparison: {written}")
    return 0


def _folder_name(first: str, second: str) -> str:
    plain = [re.sub(r"[^\w.@+-]+", "-", Path(name).name).strip("-") for name in (first, second)]
    return "-".join(["compare", *plain])


def _side(name: str, store: Store, *, seeds: str | None) -> Any:
    """A study as `name` calls it: a folder of results, a study, or the key of a built table.

    Raises: RecipeError if nothing is called so, ArtifactError if it is not built.
    """
    if (Path(name) / CELLS).is_file():
        return _of_results(name)
    words = _words(name)
    if words and (words[0].endswith(".yaml") or find_recipe("studies", words[0])):
        return _of_study(name, words, store, seeds=seeds)
    folder = find_named(store, name, kinds=(TABULATE,))
    if folder is not None:
        return _of_tables(name, store, folder)
    if Path(name).is_dir():
        raise RecipeError(
            f"compare {name}",
            found=f"a folder without {CELLS}",
            rule="a result folder is what `frontload run STUDY --out DIR` wrote",
            do="name that folder, a study, or the key of its tables",
        )
    names = [*recipe_names("studies"), *built_names(store, kinds=(TABULATE,))]
    raise RecipeError(
        f"compare {name}",
        found="no study, no result folder, and no tables of this key in " + str(store.root),
        rule="studies are " + ", ".join(recipe_names("studies")) + ", or the path of a .yaml file",
        do=suggest(name, names) or nearest(name, names),
    )


def _of_results(name: str) -> Any:
    folder = Path(name)
    cells, key = {}, ""
    if (folder / ORIGINS).is_file():
        origins = read_object(folder / ORIGINS, {"tabulate": str, "cells": dict})
        key = origins["tabulate"].rpartition("-")[2]
        for cell, asked in origins["cells"].items():
            cells[cell] = {one["seed"]: one["evaluation"].rpartition("-")[2] for one in asked}
    recipe = folder / RECIPE
    known = yaml.safe_load(recipe.read_text(encoding="utf-8")) if recipe.is_file() else None
    return _read(name, folder, key=key, evaluations=cells, recipe=known)


def _words(name: str) -> list[str]:
    """The name or file of a study, then its overrides."""
    if Path(name).is_file():
        return [name]
    try:
        return shlex.split(name)
    except ValueError as error:
        raise RecipeError(
            f"compare {name}",
            found=f"it does not read as words ({error})",
            rule="a study with overrides is written as a shell would read it",
            do="close the quotes, e.g. 'laptop rl=null'",
        ) from error


def _of_study(name: str, words: list[str], store: Store, *, seeds: str | None) -> Any:
    first, *overrides = words
    if seeds is not None and not any(one.startswith("seeds=") for one in overrides):
        overrides.append(seeds_override(seeds))
    study = load_study(first, overrides=overrides, settle=settle)
    folder = store.find(TABULATE, study.tabulate.key)
    if folder is None:
        raise ArtifactError(
            f"compare {name}",
            found=f"{study.tabulate.folder} is not built in {store.root}",
            rule="finished studies are compared",
            do=f"run `{run_command(first, store, overrides=overrides)}` first",
        )
    return _of_tables(name, store, folder, study=study)


def _of_tables(name: str, store: Store, folder: Path, *, study: Study | None = None) -> Any:
    """A built table; its study is the one that ships and makes it, unless it is given."""
    manifest = read_manifest(folder)
    asked: dict[str, dict[int, list[str]]] = {}
    for role in (role for roles in manifest["recipe"]["cells"].values() for role in roles):
        cell, _, place = role.rpartition(SEED)
        seed = int(place.partition(" ")[0])  # the suite may follow, of a cell that two suites score
        asked.setdefault(cell, {}).setdefault(seed, []).append(manifest["inputs"][role])
    evaluations = {
        cell: {seed: " ".join(sorted(keys)) for seed, keys in by_seed.items()}
        for cell, by_seed in asked.items()
    }
    key = name_parts(folder)[2]
    if study is None:
        maker = find_maker(key, store, kinds=(TABULATE,))
        more = [seeds_override(maker.seeds)] if maker and maker.seeds else []
        made = load_study(maker.study, overrides=more) if maker else None
        study = made if made and made.tabulate.key == key else None
    recipe = json.loads(json.dumps(canonical(study.recipe))) if study else None
    return _read(name, folder, key=key, evaluations=evaluations, recipe=recipe)


def _read(
    name: str,
    folder: Path,
    *,
    key: str,
    evaluations: Mapping[str, Mapping[int, str]],
    recipe: Mapping[str, Any] | None,
) -> Any:
    words: Any = importlib.import_module("frontload.eval.report.compare")
    cells = read_object(folder / CELLS, {"cells": dict})["cells"]
    for cell, metrics in cells.items():
        for metric, number in metrics.items():
            if not isinstance(number, dict) or not number.keys() >= METRIC_FIELDS:
                raise ArtifactError(
                    f"{folder / CELLS}: {cell} {metric}",
                    found="not the fields of a number",
                    rule="a number has " + ", ".join(sorted(METRIC_FIELDS)),
                    do="write the report again with `frontload report STUDY --out DIR`",
                )
    judged = read_object(folder / VERDICTS, {"format": int, "hypotheses": list})
    return words.Side(
        name=name,
        key=key,
        cells=cells,
        verdicts=judged["hypotheses"],
        verdicts_format=judged["format"],
        evaluations=evaluations,
        recipe=None
        if recipe is None
        else {field: recipe[field] for field in recipe if field != "placement"},
    )
