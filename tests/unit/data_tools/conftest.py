"""Fixtures of the data room's tests."""

from pathlib import Path

import pytest

from tests.unit.data_tools.room import Room


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


@pytest.fixture(scope="session")
def built_room(tmp_path_factory: pytest.TempPathFactory) -> Room:
    """A room with tokenizer, mixes and indexes of base, ldq and lmq. Read it, never change it."""
    built = Room(tmp_path_factory.mktemp("room"))
    built.tokenizer()
    built.mix("base", "base")
    built.mix("ldq", "ldq")
    built.mix("lmq", "ldq", "shq")
    for name in ("base", "ldq", "lmq"):
        built.index(name)
    return built
