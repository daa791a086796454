"""Evaluation items of the recipe's benchmarks, and the index of their runs of words."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from frontload.data_tools.raw.inputs import expand_inputs
from frontload.data_tools.raw.parse import nearest_name
from frontload.data_tools.raw.rows import BadRow, read_rows
from frontload.data_tools.text.words import WordHasher
from frontload.recipes.errors import RecipeError
from frontload.recipes.runs.curation import Benchmark, Decontamination

FILTER_BITS = 24  # ours: a 16 MiB table of which 1M n-grams fill 6%, so few are looked up in vain


@dataclass(frozen=True, kw_only=True)
class Item:
    """One evaluation item: its benchmark, where it stands, and its text."""

    benchmark: str
    name: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Match:
    """What a row shares with one item."""

    item: int
    overlap_words: int  # longest run of words that both have
    share: float  # of the item's n-grams that stand in the row


@dataclass(frozen=True, kw_only=True)
class ItemIndex:
    """Sorted hashes of n-grams, and the items and places that each stands at.

    Shapes: hashes_G uint64; owners_G1 int64, hash g stands at [owners[g], owners[g + 1]) of items_O
            and places_O int32; grams_I int32: n-grams of an item; sizes_I int32: words of its
            n-grams, fewer than `ngram_words` for a short item that is looked for as a whole.
    """

    hashes_G: np.ndarray
    owners_G1: np.ndarray
    items_O: np.ndarray
    places_O: np.ndarray
    grams_I: np.ndarray
    sizes_I: np.ndarray
    sizes: tuple[int, ...]
    is_present: np.ndarray  # bool [2^FILTER_BITS]: some hash begins with these bits


def read_items(name: str, benchmark: Benchmark) -> Iterator[Item]:
    """The items of one benchmark's files.

    Raises: RecipeError naming file and row, when a row has none of the fields.
    """
    at = f"decontamination.benchmarks.{name}"
    if not benchmark.fields:
        raise RecipeError(
            f"{at}.fields",
            found="no field",
            rule="an item's text stands in one or more fields",
            do="name for example question",
        )
    for file in expand_inputs(benchmark.files, asked_by=f"{at}.files"):
        for row in read_rows(file):
            where = f"{file}:{row.number}"
            if isinstance(row, BadRow):
                raise RecipeError(
                    f"{at}: {where}",
                    found=str(row.reason),
                    rule="every row of a benchmark is read, since a lost item is a leak",
                    do="mend the row",
                )
            texts = _texts(row.value, benchmark.fields, asked=f"{at}: {where}", at=at)
            own = row.value.get(benchmark.name_field) if benchmark.name_field else ""
            own = own if isinstance(own, str) else ""
            yield Item(
                benchmark=own or name, name=f"{file.name}:{row.number}", text="\n".join(texts)
            )


def _texts(row: dict[str, Any], fields: Sequence[str], *, asked: str, at: str) -> list[str]:
    """The texts of an item's fields; null is as good as no field."""
    named = ", ".join(fields)
    there = {field: value for field in fields if (value := row.get(field)) is not None}
    for field, value in there.items():
        if not isinstance(value, str):
            raise RecipeError(
                asked,
                found=f"{field} is {value!r:.40}, of type {type(value).__name__}",
                rule=f"an item's {named} are text, since a lost item is a leak",
                do=f"write it as text, or take {field} out of {at}.fields",
            )
    texts = [text for text in there.values() if text.strip()]
    if not texts:
        present = f"{', '.join(there)} without text" if there else ""
        near = "" if present else nearest_name(fields[0], row)
        raise RecipeError(
            asked,
            found=present or f"fields {', '.join(sorted(row)) or 'none'}{near}",
            rule=f"an item has text in one of {named}",
            do="mend the row" if present else f"name the field in {at}.fields",
        )
    return texts


def all_items(rules: Decontamination) -> list[Item]:
    """The items of every benchmark, in the order of the recipe.

    Raises: RecipeError for a benchmark without an item.
    """
    found: list[Item] = []
    for name, benchmark in rules.benchmarks.items():
        before = len(found)
        found.extend(read_items(name, benchmark))
        if len(found) == before:
            raise RecipeError(
                f"decontamination.benchmarks.{name}.files",
                found=f"no row in {', '.join(benchmark.files)}",
                rule="a benchmark has items",
                do="correct the files, or remove the benchmark",
            )
    return found


def benchmark_files(rules: Decontamination | None) -> list[Path]:
    """Every file of items.

    Raises: RecipeError for a pattern without a file.
    """
    if rules is None:
        return []
    return [
        file
        for name, benchmark in rules.benchmarks.items()
        for file in expand_inputs(
            benchmark.files, asked_by=f"decontamination.benchmarks.{name}.files"
        )
    ]


def build_index(items: list[Item], rules: Decontamination, *, hasher: WordHasher) -> ItemIndex:
    """The index of the items' n-grams; an item too short to look for has no n-gram in it."""
    words = hasher.words([item.text for item in items])
    num_words = words.num_words
    sizes_I = np.minimum(num_words, rules.ngram_words)
    sizes_I[num_words < rules.shortest_item_words] = 0
    sizes = tuple(int(size) for size in np.unique(sizes_I) if size)
    hashes, owners, places = [], [], []
    for size in sizes:
        grams = hasher.grams(words, size)
        is_used = sizes_I[grams.texts_G] == size
        hashes.append(grams.hashes_G[is_used])
        owners.append(grams.texts_G[is_used])
        places.append(grams.places_G[is_used])
    flat = np.concatenate([np.zeros(0, np.uint64), *hashes])
    items_O = np.concatenate([np.zeros(0, np.int64), *owners])
    places_O = np.concatenate([np.zeros(0, np.int64), *places])
    order = np.argsort(flat, kind="stable")
    unique, firsts = np.unique(flat[order], return_index=True)
    is_present = np.zeros(1 << FILTER_BITS, dtype=bool)
    is_present[(unique >> np.uint64(64 - FILTER_BITS)).astype(np.int64)] = True
    return ItemIndex(
        hashes_G=unique,
        owners_G1=np.append(firsts, len(flat)),
        items_O=items_O[order].astype(np.int32),
        places_O=places_O[order].astype(np.int32),
        grams_I=np.bincount(items_O, minlength=len(items)).astype(np.int32),
        sizes_I=sizes_I.astype(np.int32),
        sizes=sizes,
        is_present=is_present,
    )
