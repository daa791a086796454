"""Near duplicates and evaluation items against the usual ways, and the memory of choosing sets.

Run: `.venv/bin/python tests/bench/bench_dedup.py` from the repository's root.
"""

import multiprocessing
import random
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / ".imports"), str(ROOT)]

from frontload.data_tools.curation.clusters import NearClusters  # noqa: E402
from frontload.data_tools.curation.columns import (  # noqa: E402
    RECEIPT,
    ColumnPart,
    ColumnWriter,
    Layout,
    RowTable,
)
from frontload.data_tools.curation.items import Item  # noqa: E402
from frontload.data_tools.curation.matches import build_index, find_matches  # noqa: E402
from frontload.data_tools.curation.sets import choose_sets  # noqa: E402
from frontload.data_tools.curation.sketch import band_keys, signatures  # noqa: E402
from frontload.data_tools.text.words import WordHasher  # noqa: E402
from frontload.recipes.artifact import write_json  # noqa: E402
from frontload.recipes.runs.curation import (  # noqa: E402
    CuratedSet,
    Curation,
    Decontamination,
    Duplicates,
    Policy,
    Source,
)

DOCUMENTS, WORDS, ITEMS, ITEM_WORDS, NGRAM = 2000, 200, 1000, 45, 13
RULES = Duplicates(shingle_words=5, permutations=128, bands=16, threshold=0.8, seed=1)
BATCH = 256
ROWS = (500_000, 1_500_000)  # the slope between the two is the memory of a row


def write_documents() -> list[str]:
    """Documents of a Zipf-like vocabulary; every tenth is the one before with a word changed."""
    draw = random.Random(4)
    texts: list[str] = []
    for number in range(DOCUMENTS):
        words = [f"word{int(20000 * draw.random() ** 3)}" for _ in range(WORDS)]
        if number % 10 == 9:
            words = texts[-1].split()
            words[draw.randrange(WORDS)] = f"new{number}"
        texts.append(" ".join(words))
    return texts


def our_clusters(texts: list[str]) -> list[int]:
    """The first near document of each, by signatures of rensa over hashed words."""
    hasher = WordHasher(0)
    parts = [
        signatures(hasher.words(texts[start : start + BATCH]), RULES, hasher=hasher)
        for start in range(0, len(texts), BATCH)
    ]
    found = np.concatenate(parts)
    clusters = NearClusters(len(texts), threshold=RULES.threshold, gather=lambda rows: found[rows])
    for keys in band_keys(found, bands=RULES.bands):
        clusters.add_band(keys)
    return clusters.heads().tolist()


def datasketch_clusters(texts: list[str]) -> list[int]:
    """The same by datasketch, with the same shingles, signature length and bands."""
    from datasketch import MinHash, MinHashLSH

    lsh = MinHashLSH(num_perm=128, params=(16, 8))
    heads: list[int] = []
    sketches = []
    for number, text in enumerate(texts):
        words = text.split()
        sketch = MinHash(num_perm=128)
        sketch.update_batch([" ".join(words[at : at + 5]).encode() for at in range(len(words) - 4)])
        near = [one for one in lsh.query(sketch) if sketch.jaccard(sketches[one]) >= 0.8]
        heads.append(min((heads[one] for one in near), default=number))
        sketches.append(sketch)
        lsh.insert(number, sketch)
    return heads


def evaluation_texts(texts: list[str]) -> list[str]:
    """Items of their own words, and every hundredth cut from a document."""
    draw = random.Random(5)
    found = [
        " ".join(f"item{draw.randrange(9000)}" for _ in range(ITEM_WORDS)) for _ in range(ITEMS)
    ]
    for number in range(0, ITEMS, 100):
        found[number] = " ".join(texts[number].split()[20 : 20 + ITEM_WORDS])
    return found


def our_hits(texts: list[str], items: list[str]) -> set[int]:
    """Documents with a run of 13 words of some item."""
    hasher = WordHasher(0)
    rules = Decontamination(
        benchmarks={},
        ngram_words=NGRAM,
        overlap_words=NGRAM,
        item_share=1.0,
        shortest_item_words=NGRAM,
    )
    listed = [Item(benchmark="b", name=str(place), text=text) for place, text in enumerate(items)]
    index = build_index(listed, rules, hasher=hasher)
    hits: set[int] = set()
    for start in range(0, len(texts), BATCH):
        words = hasher.words(texts[start : start + BATCH])
        hits.update(start + place for place in find_matches(words, index, hasher=hasher))
    return hits


def plain_hits(texts: list[str], items: list[str]) -> set[int]:
    """The same by a set of joined words, as n-gram filters are usually written."""
    known = {gram for text in items for gram in joined_grams(text)}
    return {
        number
        for number, text in enumerate(texts)
        if any(gram in known for gram in joined_grams(text))
    }


def joined_grams(text: str) -> list[str]:
    words = text.lower().split()
    return [" ".join(words[at : at + NGRAM]) for at in range(len(words) - NGRAM + 1)]


def bench_recipe() -> Curation:
    """One source, deduplicated both ways, and the long answers of that."""
    return Curation(
        tokenizer="",
        seed=1,
        heldout_share=0.01,
        multi_turn_answer="last",
        policy=Policy(unsplit="drop", truncated="keep"),
        duplicates=RULES,
        decontamination=None,
        sources={"ldq": Source(files=(), adapter="plain_text")},
        sets={
            "ldq": CuratedSet(members=("ldq",), duplicates=("exact", "near")),
            "alf": CuratedSet(members=("ldq",), answer_tokens_above=4096),
            "lmq": CuratedSet(members=("ldq", "alf")),
        },
        overlaps={},
    )


def write_table(folder: Path, rows: int) -> None:
    """Columns of made-up rows, a tenth of them copies of the row before."""
    layout = Layout.of(bench_recipe())
    draw = np.random.default_rng(6)
    with ColumnWriter(folder, layout) as writer:
        for start in range(0, rows, 10_000):
            count = min(10_000, rows - start)
            columns = {
                name: draw.integers(0, 1 << 30, size=(count, width)).astype(dtype)
                for name, (dtype, width) in layout.columns().items()
            }
            columns["domain"][:] = columns["family"][:] = 0
            for values in columns.values():
                values[9::10] = values[8::10][: len(values[9::10])]
            columns["row"] = np.arange(start, start + count)
            writer.append(columns)
    names = {"domain_names": ["math"], "family_names": ["text"]}
    counts = {"source": "ldq", "rows_kept": rows, "rows_read": rows, "dropped": {}, "matches": []}
    write_json(folder / RECEIPT, counts | names)


def peak_mib() -> float:
    """The most memory that this process ever held; getrusage would count its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def peak_of_choosing(folder: str, pipe: Connection) -> None:
    """Sends (MiB at the start, MiB at the peak, CPU seconds) of choosing the sets."""
    before = peak_mib()
    began = time.process_time()
    recipe = bench_recipe()
    part = ColumnPart(source="ldq", file="f", folder=Path(folder))
    chosen = choose_sets(recipe, RowTable([part], Layout.of(recipe)))
    assert sum(len(each.rows) for each in chosen["ldq"].removals)
    after = peak_mib()
    pipe.send((before, after, time.process_time() - began))


def measure_memory() -> None:
    """Prints the peak for two numbers of rows, each in a process of its own."""
    context = multiprocessing.get_context("spawn")
    peaks: list[float] = []
    for rows in ROWS:
        with tempfile.TemporaryDirectory() as folder:
            write_table(Path(folder), rows)
            ours, theirs = context.Pipe()
            process = context.Process(target=peak_of_choosing, args=(folder, theirs))
            process.start()
            before, after, seconds = ours.recv()
            process.join()
        peaks.append(after)
        print(
            f"choosing sets of {rows:,} rows: {before:.0f} MiB before, {after:.0f} MiB at the peak,"
            f" {seconds:.1f} CPU s"
        )
    slope = (peaks[1] - peaks[0]) / (ROWS[1] - ROWS[0]) * 1e6
    disk = Layout.of(bench_recipe()).bytes_a_row
    print(f"memory: {slope:.0f} MiB a million rows; working files: {disk} bytes a row on disk")


def main() -> None:
    """Prints the comparisons, then the memory."""
    from tests.bench.paired import measure, show

    texts = write_documents()
    items = evaluation_texts(texts)
    assert our_clusters(texts) == datasketch_clusters(texts)
    assert our_hits(texts, items) == plain_hits(texts, items)
    timings = measure(
        {
            "datasketch MinHash + LSH": lambda: datasketch_clusters(texts),
            "frontload": lambda: our_clusters(texts),
        },
        rounds=3,
    )
    title = f"near duplicates of {DOCUMENTS} documents of {WORDS} words, 128 permutations"
    show(title, timings, base="datasketch MinHash + LSH", tokens=DOCUMENTS * WORDS)
    timings = measure(
        {
            "set of joined 13-grams": lambda: plain_hits(texts, items),
            "frontload, with longest overlaps": lambda: our_hits(texts, items),
        },
        rounds=3,
    )
    title = f"{ITEMS} items of {ITEM_WORDS} words in the same documents"
    show(title, timings, base="set of joined 13-grams", tokens=DOCUMENTS * WORDS)
    measure_memory()


if __name__ == "__main__":
    main()
