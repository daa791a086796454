"""One small model and one server for the tests of this folder."""

from collections.abc import Iterator

import openai
import pytest

from tests.unit.eval_serving.small_server import Running, Small, make_small, serve


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return make_small(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def running(small: Small) -> Iterator[Running]:
    with serve(small) as found:
        yield found


@pytest.fixture(scope="session")
def client(running: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=running.url, api_key="none", max_retries=0, timeout=30)
