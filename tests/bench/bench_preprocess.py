"""Preprocessing against Megatron's flow, gigatoken's files and its bare encoder, in one run.

The peers are the files peer_*.py. Two tables:

- as typed: `frontload data preprocess` and each peer as a command of its own, from start to exit,
  with its imports. This is what its user waits for. A peer imports no more than it needs.
- in process: packages are imported before any clock runs. Every variant is timed in a fork, where
  gigatoken falls back to one thread unless it is told not to: it is told to take two.

With --reasoning each document stands in <think> and </think>, which the tokenizer has added.

    python tests/bench/bench_preprocess.py [FOLDER] [--megabytes 100] [--rounds 3] [--scaling]
        [--skip-megatron] [--reasoning]
"""

import argparse
import json
import os
import random
import re
import resource
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
from itertools import islice
from pathlib import Path

import awkward  # noqa: F401 - gigatoken loads it when it first returns a batch
import psutil
from peer_bare import bare_encode
from peer_encode_files import encode_files_flow, one_write_flow
from peer_megatron import WORKERS, megatron_flow
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from frontload.data_tools.preprocess import run as preprocess_run
from frontload.data_tools.preprocess.request import PreprocessRequest
from frontload.data_tools.preprocess.run import preprocess

EOD = "<|endoftext|>"
MEGATRON = "Megatron's flow (tokenizers)"
MEAN_LOG_CHARACTERS, SPREAD = 7.3, 1.0  # documents of 2.4 kB on average, as web text has


Timed = Callable[[Path], tuple[float, float]]
"""Runs a variant that writes to a prefix; its (wall, CPU) seconds."""


def documents(seed: int) -> Iterator[str]:
    """Code and prose of the installed packages, cut at blank lines into documents."""
    root = Path(sysconfig.get_paths()["purelib"])
    kinds = {".py", ".pyi", ".md", ".rst", ".txt"}
    files = sorted(
        file
        for file in root.rglob("*")
        if file.suffix in kinds and file.is_file() and file.stat().st_size < 200_000
    )
    rng = random.Random(seed)
    rng.shuffle(files)
    for file in files:
        try:
            text = file.read_text("utf-8")
        except UnicodeDecodeError:
            continue
        if file.suffix in (".py", ".pyi"):  # docstrings stand in for web text
            for found in re.finditer(r'"""(.{300,}?)"""', text, re.DOTALL):
                yield found.group(1)
        part: list[str] = []
        length, limit = 0, rng.lognormvariate(MEAN_LOG_CHARACTERS, SPREAD)
        for paragraph in text.split("\n\n"):
            part.append(paragraph)
            length += len(paragraph) + 2
            if length >= limit:
                yield "\n\n".join(part)
                part, length = [], 0
                limit = rng.lognormvariate(MEAN_LOG_CHARACTERS, SPREAD)
        if part:
            yield "\n\n".join(part)


def write_corpus(file: Path, megabytes: float) -> Path:
    """JSONL with so much text; over 300 MB the same documents come again, cut elsewhere."""
    if file.is_file():
        return file
    left, seed = megabytes * 1e6, 0
    partial = file.with_suffix(".partial")
    with open(partial, "w", encoding="utf-8") as out:
        while left > 0:
            seed += 1
            for text in documents(seed):
                if text.strip() and EOD not in text:
                    row = {"text": text, "meta": {"seed": seed}}
                    out.write(json.dumps(row, ensure_ascii=False) + "\n")
                    left -= len(text.encode())
                if left <= 0:
                    break
    os.replace(partial, file)
    return file


def train(file: Path, corpus: Path) -> Path:
    """A byte-level BPE of 32,000 tokens, from every fifth document."""
    if file.is_file():
        return file
    library = Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=32_000,
        special_tokens=[EOD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    with open(corpus, encoding="utf-8") as stream:
        texts = (json.loads(line)["text"] for line in islice(stream, 0, 50_000, 5))
        library.train_from_iterator(texts, trainer)
    library.save(str(file))
    return file


def as_reasoning(corpus: Path, tokenizer: Path) -> tuple[Path, Path]:
    """The same documents in think tags, and the tokenizer with these tags added, not special."""
    tags = ("<think>", "</think>")
    thinking, adding = (file.with_name(f"reasoning-{file.name}") for file in (corpus, tokenizer))
    library = Tokenizer.from_file(str(tokenizer))
    library.add_tokens([AddedToken(tag, normalized=False) for tag in tags])
    library.save(str(adding))
    with open(corpus, encoding="utf-8") as rows, open(thinking, "w", encoding="utf-8") as out:
        for row in map(json.loads, rows):
            row["text"] = f"{tags[0]}\n{row['text']}\n{tags[1]}\n\n"
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
    return thinking, adding


def ours(corpus: Path, tokenizer: Path, prefix: Path) -> dict:
    return preprocess(
        PreprocessRequest(
            inputs=[corpus],
            output_prefix=prefix,
            tokenizer=tokenizer,
            append_eod=True,
            eod_token=EOD,
            workers=WORKERS,
        )
    )


def ours_without_gate(corpus: Path, tokenizer: Path, prefix: Path) -> None:
    compared, preprocess_run.COMPARED_DOCUMENTS = preprocess_run.COMPARED_DOCUMENTS, 1
    try:
        ours(corpus, tokenizer, prefix)
    finally:
        preprocess_run.COMPARED_DOCUMENTS = compared


def timed(prepare: Callable[[], Callable[[], object]]) -> tuple[float, float]:
    """(wall, CPU) seconds of what `prepare` returns, in a process of its own."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        call = prepare()
        before = time.process_time()
        began = time.perf_counter()
        call()
        wall = time.perf_counter() - began
        usage = [
            resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        ]
        cpu = sum(part.ru_utime + part.ru_stime for part in usage) - before
        os.write(write, json.dumps([wall, cpu]).encode())
        os._exit(0)
    os.close(write)
    data = os.read(read, 200)
    os.close(read)
    os.waitpid(child, 0)
    wall, cpu = json.loads(data)
    return wall, cpu


def in_process(corpus: Path, tokenizer: Path) -> dict[str, Timed]:
    """The variants as functions, each in a fork."""

    def fork_of(flow: Callable[[Path, Path, Path], object]) -> Timed:
        return lambda prefix: timed(lambda: lambda: flow(corpus, tokenizer, prefix))

    def bare(*, parallel: bool) -> Timed:
        return lambda prefix: timed(lambda: bare_encode(corpus, tokenizer, parallel=parallel))

    return {
        MEGATRON: fork_of(megatron_flow),
        "gigatoken encode_files + builder": fork_of(encode_files_flow),
        "gigatoken encode_files, in one write": fork_of(one_write_flow),
        "bare gigatoken, one thread": bare(parallel=False),
        "bare gigatoken, two threads": bare(parallel=True),
        "ours": fork_of(ours),
        "ours, gate of one document": fork_of(ours_without_gate),
    }


def as_typed(corpus: Path, tokenizer: Path) -> dict[str, Timed]:
    """The variants as commands."""

    def script(name: str) -> Timed:
        file = Path(__file__).with_name(name)
        return lambda prefix: timed_command([sys.executable, file, corpus, tokenizer, prefix])

    return {
        MEGATRON: script("peer_megatron.py"),
        "gigatoken encode_files + builder": script("peer_encode_files.py"),
        "bare gigatoken, two threads": script("peer_bare.py"),
        "ours": lambda prefix: timed_command(our_command(corpus, tokenizer, prefix)),
    }


def timed_command(words: Sequence[object]) -> tuple[float, float]:
    """(wall, CPU) seconds of a command, from start to exit."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [str(word) for word in words],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def our_command(corpus: Path, tokenizer: Path, prefix: Path) -> list[object]:
    """`frontload data preprocess` as typed."""
    words: list[object] = [Path(sys.executable).with_name("frontload"), "data", "preprocess"]
    words += ["--input", corpus, "--output-prefix", prefix, "--tokenizer", tokenizer]
    return [*words, "--append-eod", "--eod-token", EOD, "--workers", WORKERS]


def compare(corpus: Path, tokenizer: Path, *, rounds: int, skips_megatron: bool) -> None:
    """Interleaved rounds of all variants on one corpus; ratios of medians, wall and CPU."""
    num_bytes = num_texts = 0
    with open(corpus, "rb") as stream:
        for line in stream:
            num_bytes += len(json.loads(line)["text"].encode())
            num_texts += 1
    print(f"\n{num_bytes / 1e6:.0f} MB of text, {num_texts} documents")
    for title, find in (("as typed", as_typed), ("in process", in_process)):
        variants = find(corpus, tokenizer)
        if skips_megatron:
            del variants[MEGATRON]
        show(title, in_turns(variants, corpus.parent, rounds=rounds), num_bytes)


def in_turns(
    variants: dict[str, Timed], folder: Path, *, rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """Name -> what each round took."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    digests: set[bytes] = set()
    for turn in range(rounds):
        for name, run in variants.items():
            if name == MEGATRON and turn >= max(1, rounds // 3):
                continue  # a minute for 100 MB: a third of the rounds
            os.sync()  # what the variant before wrote is not this one's to wait for
            with tempfile.TemporaryDirectory(dir=folder) as temporary:
                prefix = Path(temporary) / "P"
                times[name].append(run(prefix))
                if (file := prefix.with_name("P.bin")).is_file():
                    digests.add(sha256(file.read_bytes()).digest())
    assert len(digests) == 1, "the variants wrote other bytes"
    return times


def show(title: str, times: dict[str, list[tuple[float, float]]], num_bytes: int) -> None:
    """Prints medians, their rates and the ratios to ours."""
    print(f"\n{title + f', load {os.getloadavg()[0]:.1f}':36s} ", end="")
    print(f"{'wall s':>7s} {'MB/s':>6s} {'CPU s':>7s} {'runs':>5s}")
    medians = {}
    for name, found in times.items():
        wall, cpu = (statistics.median(part) for part in zip(*found, strict=True))
        medians[name] = (wall, cpu)
        print(f"{name:36s} {wall:7.2f} {num_bytes / wall / 1e6:6.0f} {cpu:7.2f} {len(found):5d}")
    for mine in [name for name in times if name.startswith("ours")]:
        for theirs in [name for name in times if not name.startswith("ours")]:
            wall, cpu = (b / a for a, b in zip(medians[mine], medians[theirs], strict=True))
            print(f"{mine} against {theirs}: {wall:.2f} x by wall, {cpu:.2f} x by CPU time")


def scaling(folder: Path, tokenizer: Path) -> None:
    """Seconds and peak memory of the command at 10, 100 and 1000 MB."""
    print(f"\n{'MB':>6s} {'wall s':>7s} {'CPU s':>7s} {'CPU ms/MB':>10s} {'peak MiB, tree':>15s}")
    for megabytes in (10, 100, 1000):
        corpus = write_corpus(folder / f"corpus-{megabytes}.jsonl", megabytes)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            prefix = Path(temporary) / "P"
            peak, (wall, cpu) = watched(corpus, tokenizer, prefix)
        per = cpu / megabytes * 1e3
        print(f"{megabytes:6d} {wall:7.2f} {cpu:7.2f} {per:10.1f} {peak / 2**20:15.0f}", flush=True)


def watched(corpus: Path, tokenizer: Path, prefix: Path) -> tuple[int, tuple[float, float]]:
    """Peak memory of the command and its children, (wall, CPU) seconds with start and imports.

    Memory is the sum of proportional set sizes: a page that processes share counts once.
    """
    began, peak = time.perf_counter(), 0
    command = [str(word) for word in our_command(corpus, tokenizer, prefix)]
    process = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    while process.poll() is None:
        total = 0
        for one in [process, *process.children(recursive=True)]:
            with suppress(psutil.Error):
                total += one.memory_full_info().pss
        peak = max(peak, total)
        time.sleep(0.1)
    assert process.returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return peak, (time.perf_counter() - began, cpu)


def main() -> None:
    os.environ["RAYON_NUM_THREADS"] = str(WORKERS)  # of gigatoken's pool, which is made in a fork
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, help="keeps corpora and tokenizer")
    parser.add_argument("--megabytes", type=float, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scaling", action="store_true", help="10, 100, 1000 MB and memory")
    parser.add_argument("--skip-megatron", action="store_true", help="7 minutes for 1000 MB")
    parser.add_argument("--reasoning", action="store_true", help="documents in think tags")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.gettempdir()) / "frontload-bench-preprocess"
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train(
        folder / "tokenizer-32000.json", write_corpus(folder / "corpus-100.jsonl", 100)
    )
    if options.scaling:
        scaling(folder, tokenizer)
    else:
        corpus = write_corpus(folder / f"corpus-{options.megabytes:g}.jsonl", options.megabytes)
        if options.reasoning:
            corpus, tokenizer = as_reasoning(corpus, tokenizer)
        compare(corpus, tokenizer, rounds=options.rounds, skips_megatron=options.skip_megatron)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
