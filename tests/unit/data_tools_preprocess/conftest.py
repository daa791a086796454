"""Fixtures of the preprocess tests: tokenizers made once, the command as a user types it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from frontload.data_tools.text.train_tokenizer import train_byte_pairs
from tests.unit.data_command import run_data_command
from tests.unit.data_tools_preprocess.files import (
    documents,
    train_foreign,
    word_level,
    write_texts,
)


@pytest.fixture(scope="session")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_foreign(tmp_path_factory.mktemp("foreign") / "tokenizer.json")


@pytest.fixture(scope="session")
def built_words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return word_level(tmp_path_factory.mktemp("words") / "tokenizer.json")


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
    return run_data_command
