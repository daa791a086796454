"""`data pack` against the plain way to turn conversations into ids: `transformers`, in a pool.

The peer is what trainers do before they pack: `apply_chat_template` of a fast tokenizer, a
conversation at a time, in two processes. It keeps nothing; ours writes rows, loss mask, origins and
digests, with two workers and the gate. The conversations are long traces (30 kB, a think block),
made of the texts of bench_preprocess.

    python tests/bench/bench_conversations.py [FOLDER] [--megabytes 50] [--rounds 3]
"""

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bench_preprocess import documents, timed, train, write_corpus
from peer_megatron import WORKERS
from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

CHARACTERS = 30_000  # of a conversation: a trace of 10,000 tokens
SEQUENCE_TOKENS = 32_768
TEMPLATE = (
    "{%- for message in messages -%}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>"
    "\n{% endfor -%}{%- if add_generation_prompt -%}<|im_start|>assistant\n{% endif -%}"
)


def conversations(megabytes: float) -> Iterator[dict]:
    """Rows of `messages`: a question, and a think block with its answer."""
    held: list[str] = []
    size, left = 0, megabytes * 1e6
    for text in documents(1):
        held.append(text)
        size += len(text)
        if size < CHARACTERS:
            continue
        whole = "\n\n".join(held)
        question, trace, answer = whole[:500], whole[500:-300], whole[-300:]
        content = f"<think>\n{trace}\n</think>\n\n{answer}"
        yield {
            "messages": [
                {"role": "user", "content": question},
                {"role": "assistant", "content": content},
            ]
        }
        left -= len(whole.encode())
        if left <= 0:
            return
        held, size = [], 0


def write_chat(folder: Path, tokenizer: Path, megabytes: float) -> tuple[Path, Path, Path]:
    """Conversations, the tokenizer with the template's tokens, and the template."""
    rows, chat, template = (folder / name for name in ("chat.jsonl", "chat.json", "chat.jinja"))
    rows.write_text("".join(json.dumps(row) + "\n" for row in conversations(megabytes)))
    library = Tokenizer.from_file(str(tokenizer))
    library.add_special_tokens([AddedToken(token) for token in ("<|im_start|>", "<|im_end|>")])
    library.add_tokens([AddedToken(token) for token in ("<think>", "</think>")])
    library.save(str(chat))
    template.write_text(TEMPLATE)
    return rows, chat, template


class PlainWay:
    """The peer's processes: a tokenizer each, one conversation at a time."""

    tokenizer: PreTrainedTokenizerFast

    def __init__(self, file: Path) -> None:
        self.file = file

    def start(self) -> None:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(self.file))
        tokenizer.chat_template = TEMPLATE
        PlainWay.tokenizer = tokenizer

    def encode(self, line: str) -> list[int]:
        messages = json.loads(line)["messages"]
        return PlainWay.tokenizer.apply_chat_template(messages, return_dict=False)


def plain_way(rows: Path, tokenizer: Path) -> None:
    way = PlainWay(tokenizer)
    context = multiprocessing.get_context("fork")
    with open(rows) as lines, context.Pool(WORKERS, initializer=way.start) as pool:
        tokens = sum(len(ids) for ids in pool.imap(way.encode, lines, 8))
    print(f"  plain way: {tokens} tokens", flush=True)


def ours(rows: Path, tokenizer: Path, template: Path, output: Path) -> None:
    """The command, with its start: its workers would import this file if they were ours."""
    words = [rows, "--tokenizer", tokenizer, "--template", template, "--output", output]
    words += ["--sequence-tokens", SEQUENCE_TOKENS, "--over-long", "drop", "--workers", WORKERS]
    command = [sys.executable, "-m", "frontload.launch.cli", "data", "pack", *map(str, words)]
    subprocess.run(command, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, help="keeps corpus and tokenizer")
    parser.add_argument("--megabytes", type=float, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.gettempdir()) / "frontload-bench-preprocess"
    folder.mkdir(parents=True, exist_ok=True)
    trained = train(folder / "tokenizer-32000.json", write_corpus(folder / "corpus-100.jsonl", 100))
    rows, tokenizer, template = write_chat(folder, trained, options.megabytes)
    plain: list[tuple[float, float]] = []
    mine: list[tuple[float, float]] = []
    for turn in range(options.rounds):
        if turn < max(1, options.rounds // 3):  # half a minute of both cores
            plain.append(timed(lambda: lambda: plain_way(rows, tokenizer)))
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            out = Path(temporary) / "pack"
            mine.append(timed(_call(rows, tokenizer, template, out)))
    size = rows.stat().st_size / 1e6
    print(f"\n{size:.0f} MB of conversations, {WORKERS} processes, load {os.getloadavg()[0]:.1f}")
    print(f"{'':36s} {'wall s':>7s} {'MB/s':>6s} {'CPU s':>7s} {'runs':>5s}")
    medians = []
    for name, found in (("transformers, apply_chat_template", plain), ("data pack", mine)):
        wall, cpu = (statistics.median(part) for part in zip(*found, strict=True))
        medians.append((wall, cpu))
        print(f"{name:36s} {wall:7.2f} {size / wall:6.1f} {cpu:7.2f} {len(found):5d}")
    wall, cpu = (theirs / own for theirs, own in zip(*medians, strict=True))
    print(f"data pack against transformers: {wall:.1f} x by wall, {cpu:.1f} x by CPU time")


def _call(
    rows: Path, tokenizer: Path, template: Path, output: Path
) -> Callable[[], Callable[[], None]]:
    return lambda: lambda: ours(rows, tokenizer, template, output)


if __name__ == "__main__":
    main()
