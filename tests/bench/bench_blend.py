"""The order of a phase's samples against megatron-core's own blended index, each in a process.

Same sources, same counts: 122,070,312 samples (1T tokens at 8192) of 25 sources. Ours is written
to `samples.npy` as a blend writes it; Megatron's two arrays are built by its compiled helpers and
saved as `BlendedDataset` saves them. Runs are taken in turns; a run's peak memory is its own.
Away: how far any source is from its exact share of the first m samples, in samples, over all m.

The shuffle of documents is measured beside it: ours in pieces, Megatron's `_build_document_index`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

NUM_SOURCES = 25


def counts_of(num_samples: int) -> list[int]:
    """Samples of each source: drawn shares, the largest about fifty times the smallest."""
    from fractions import Fraction

    from frontload.data_tools.blending.division import apportion

    weights = [int(weight) for weight in np.geomspace(2, 100, NUM_SOURCES)]
    return apportion(num_samples, [Fraction(weight, sum(weights)) for weight in weights])


def ours(counts: list[int], folder: Path) -> None:
    from frontload.data_tools.blending.arrays import ArrayWriter
    from frontload.data_tools.blending.interleave import interleave

    with ArrayWriter(folder / "samples.npy", np.int64, (2,)) as file:
        for block in interleave(counts, seed=1, phase="b"):
            file.append(np.stack([block.sources, block.numbers * 8192], axis=1))


def megatron_weights(counts: list[int], folder: Path) -> None:
    from megatron.core.datasets import helpers_cpp

    size = sum(counts)
    sources, numbers = np.zeros(size, np.int16), np.zeros(size, np.int64)
    weights = np.array(counts, np.float64) / size
    helpers_cpp.build_blending_indices(sources, numbers, weights, len(counts), size, False)
    np.save(folder / "dataset_index.npy", sources)
    np.save(folder / "dataset_sample_index.npy", numbers)


def megatron_sizes(counts: list[int], folder: Path) -> None:
    from megatron.core.datasets import helpers_cpp

    size = sum(counts)
    sources, numbers = np.zeros(size, np.int16), np.zeros(size, np.int64)
    sizes = np.array(counts, np.int64)
    helpers_cpp.build_exhaustive_blending_indices(sources, numbers, sizes, len(counts))
    np.save(folder / "dataset_index.npy", sources)
    np.save(folder / "dataset_sample_index.npy", numbers)


def our_documents(num_documents: int) -> int:
    from frontload.data_tools.blending.shuffle import Epoch, epoch_pieces

    epoch = Epoch(source="base", epoch=0, seed=1, num_documents=num_documents)
    return sum(len(piece.documents[piece.order()]) for piece in epoch_pieces(epoch))


def megatron_documents(num_documents: int) -> int:
    from megatron.core.datasets.gpt_dataset import _build_document_index

    documents = np.arange(num_documents, dtype=np.int32)
    return len(_build_document_index(documents, 1, np.random.RandomState(1), False))


ORDERS = {
    "frontload": ours,
    "megatron, by weights": megatron_weights,
    "megatron, by sizes": megatron_sizes,
}
SHUFFLES: dict[str, Callable[[int], int]] = {
    "frontload": our_documents,
    "megatron": megatron_documents,
}


def away(counts: list[int], folder: Path) -> float:
    """The farthest that any source ever is from its exact share, in samples."""
    size = sum(counts)
    if (folder / "samples.npy").is_file():
        sources = np.load(folder / "samples.npy", mmap_mode="r")[:, 0].astype(np.int16)
    else:
        sources = np.load(folder / "dataset_index.npy")
    worst = 0.0
    for source, count in enumerate(counts):
        places = np.flatnonzero(sources == source)
        if len(places) != count:
            print(f"  source {source}: {len(places)} samples for {count} asked", file=sys.stderr)
        given = np.arange(len(places))  # just before and just after each of its samples
        for after, m in ((0, places), (1, places + 1)):
            worst = max(worst, float(np.abs(given + after - m * (count / size)).max(initial=0)))
    return worst


def peak_kib() -> int:
    """Largest resident size of this program; getrusage would count the parent's before exec."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


def child(what: str, name: str, size: int, folder: Path) -> None:
    """One run: prints its seconds, its peak memory and by how much it grew."""
    counts = counts_of(size) if what == "order" else []
    if name.startswith("megatron"):
        import megatron.core.datasets.gpt_dataset  # noqa: F401 - its imports are not its work
    before = peak_kib()
    wall, cpu = time.perf_counter(), time.process_time()
    if what == "order":
        ORDERS[name](counts, folder)
    else:
        SHUFFLES[name](size)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    peak = peak_kib()
    print(json.dumps({"wall": wall, "cpu": cpu, "peak": peak / 1024, "grown": peak - before}))


def measure(what: str, names: list[str], *, size: int, rounds: int) -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = {name: [] for name in names}
    far: dict[str, float] = {}
    stored: dict[str, int] = {}
    for _ in range(rounds):
        for name in names:
            with tempfile.TemporaryDirectory(prefix="bench_blend") as folder:
                words = ["--child", what, name, str(size), folder]
                done = subprocess.run(
                    [sys.executable, __file__, *words], check=True, capture_output=True, text=True
                )
                found[name].append(json.loads(done.stdout.splitlines()[-1]))
                if what == "order" and name not in far:
                    far[name] = away(counts_of(size), Path(folder))
                    stored[name] = sum(path.stat().st_size for path in Path(folder).iterdir())
    print(f"{'':24s}{'wall s':>9s}{'CPU s':>9s}{'peak MiB':>10s}{'grown MiB':>11s}", end="")
    print(f"{'stored MB':>11s}{'away':>8s}{'CPU ratio':>11s}" if far else f"{'CPU ratio':>11s}")
    base = min(run["cpu"] for run in found[names[0]])
    for name, runs in found.items():
        best = {key: min(run[key] for run in runs) for key in ("wall", "cpu", "peak", "grown")}
        row = f"{name:24s}{best['wall']:9.2f}{best['cpu']:9.2f}{best['peak']:10.0f}"
        row += f"{best['grown'] / 1024:11.0f}"
        if far:
            row += f"{stored[name] / 1e6:11.0f}{far[name]:8.2f}"
        print(f"{row}{best['cpu'] / base:11.2f}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=122_070_312)
    parser.add_argument("--documents", type=int, default=100_000_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--child", nargs=4, metavar=("WHAT", "NAME", "SIZE", "FOLDER"))
    options = parser.parse_args()
    if options.child:
        what, name, size, folder = options.child
        child(what, name, int(size), Path(folder))
        return
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, best of {options.rounds}\n")
    print(f"order of {options.samples:,} samples of {NUM_SOURCES} sources, built and stored")
    found = measure("order", list(ORDERS), size=options.samples, rounds=options.rounds)
    print(f"\none epoch's order of {options.documents:,} documents")
    measure("documents", list(SHUFFLES), size=options.documents, rounds=options.rounds)
    walls = [run["wall"] for run in found["frontload"]]
    print(f"\nload {os.getloadavg()[0]:.1f}; ours: median wall {statistics.median(walls):.1f} s")


if __name__ == "__main__":
    main()
