"""Small tokenizers of several origins, a small corpus, and the command as a user types it."""

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from frontload.data_tools.cli import add_commands
from frontload.data_tools.indexed import IndexedWriter
from frontload.data_tools.tokenizer import train_byte_pairs

EOD = "<|endoftext|>"
WORDS = ["the", "of", "and", "def", "return", "import", "class", "self", "data", "model"]
WORDS += ["caf\u00e9", "na\u00efve", "\u4e2d\u6587", "x", "=", "1", "(", ")", ":", "\n\n"]


def documents(count: int, *, seed: int = 1, longest: int = 60) -> list[str]:
    rng = random.Random(seed)
    return ["the " + " ".join(rng.choices(WORDS, k=rng.randrange(longest))) for _ in range(count)]


def write_texts(file: Path, texts: list[str]) -> Path:
    rows = (json.dumps({"text": text, "n": 1}, ensure_ascii=False) + "\n" for text in texts)
    file.write_text("".join(rows), encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE as anyone trains it with `tokenizers`; gigatoken reads it."""
    library = Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=[EOD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    library.train_from_iterator(documents(300), trainer)
    library.enable_truncation(8)  # as many files on the hub ask for: documents stay whole
    library.enable_padding(length=8)
    file = tmp_path_factory.mktemp("foreign") / "tokenizer.json"
    library.save(str(file))
    return file


@pytest.fixture(scope="session")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a byte-level BPE as the stage `tokenizer` trains it."""
    folder = tmp_path_factory.mktemp("ours")
    trained = train_byte_pairs(documents(300), vocab_size=400)
    (folder / "tokenizer.json").write_text(trained.tokenizer.to_json(), encoding="utf-8")
    return folder


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_texts(tmp_path / "corpus.jsonl", documents(700, seed=2))


@pytest.fixture
def frontload() -> Callable[..., int]:
    """`frontload data ...` in this process."""

    def run(*words: object) -> int:
        parser = argparse.ArgumentParser()
        add_commands(parser.add_subparsers(required=True))
        arguments = parser.parse_args([str(word) for word in words])
        return arguments.run(arguments)

    return run


def expected_pair(prefix: Path, tokenizer: Path, texts: list[str], *, eod: int | None) -> Path:
    """What the plain way writes: the library's `encode`, one document after another."""
    library = Tokenizer.from_file(str(tokenizer))
    library.no_truncation()
    library.no_padding()
    with IndexedWriter(prefix, np.dtype(np.uint16)) as writer:
        for text in texts:
            ids = library.encode(text, add_special_tokens=False).ids
            writer.add_document(np.array([*ids, *([] if eod is None else [eod])], dtype=np.uint16))
    return prefix


def pair(prefix: Path) -> tuple[bytes, bytes]:
    return tuple(prefix.with_name(f"{prefix.name}.{kind}").read_bytes() for kind in ("bin", "idx"))


@pytest.fixture(scope="session")
def built_words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A word-level tokenizer as anyone makes it, which gigatoken does not read."""
    vocabulary = {"[UNK]": 0, **{f"w{number}": number + 1 for number in range(9)}}
    library = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    file = tmp_path_factory.mktemp("words") / "tokenizer.json"
    library.save(str(file))
    return file
