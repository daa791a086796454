"""An S3 server, a web server and a hub on loopback, and waits that are over at once."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from frontload.data_tools.stores import stream
from frontload.data_tools.stores.path import open_store
from frontload.data_tools.text.train_tokenizer import train_byte_pairs
from tests.unit.data_tools_stores.servers import Hub, Shelf, hub_server, web_server

SECRET = "key-that-nobody-may-read"


@pytest.fixture(scope="session")
def s3() -> Iterator[Any]:
    """s3fs on a server of its own, with a bucket."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "user")
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        store = open_store("s3")
        store.retries = 1
        store.mkdir("bucket")
        yield store
        server.stop()
        type(store).clear_instance_cache()


@pytest.fixture
def web() -> Iterator[Shelf]:
    """A web server of files."""
    with web_server() as shelf:
        yield shelf


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub of one data set."""
    from huggingface_hub import HfFileSystem, constants

    with hub_server() as (one, address):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        files = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield one
    HfFileSystem.clear_instance_cache()


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a store to come back."""
    monkeypatch.setattr(stream, "WAITS_SECONDS", (0.0, 0.0, 0.0))


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level tokenizer of this project."""
    file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    texts = [f"the {number} ship of that day sailed {number % 7} times" for number in range(200)]
    file.write_text(train_byte_pairs(texts, vocab_size=400).tokenizer.to_json(), encoding="utf-8")
    return file
