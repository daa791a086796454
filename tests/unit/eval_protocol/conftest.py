"""One root of made-up rows and one drawn model for all files here."""

import pytest

from frontload.eval.protocol.data_root import DataRoot
from frontload.eval.protocol.in_process import InProcess
from tests.unit.eval_protocol.protocol_inputs import make_answerer, make_root


@pytest.fixture(scope="session")
def made_root(tmp_path_factory: pytest.TempPathFactory) -> DataRoot:
    return make_root(tmp_path_factory.mktemp("rows") / "root")


@pytest.fixture(scope="session")
def drawn_model(tmp_path_factory: pytest.TempPathFactory) -> InProcess:
    return make_answerer(tmp_path_factory.mktemp("model") / "tokenizer")
