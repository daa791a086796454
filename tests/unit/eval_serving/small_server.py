"""A small model behind the real server, on a free port of this machine, in a thread."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from frontload.data_tools.text.chat import our_template
from frontload.data_tools.text.tokenizer import TextTokenizer
from frontload.data_tools.text.train_tokenizer import corpus_texts, train_byte_pairs
from frontload.eval.serving.app import Address, Server, make_answers
from frontload.eval.serving.engine import Engine
from frontload.megatron_ext.inference.language_model import LanguageModel
from frontload.recipes.schema import Model
from tests.parity.reference_model import draw_weights
from tests.training_inputs import tiny_model
from tests.unit.eval.fake_study import write_corpus

CONTEXT = 192
NAME = "small"


@dataclass(frozen=True, kw_only=True)
class Small:
    """A model with its tokenizer, and the folder of items that the tokenizer was trained on."""

    recipe: Model
    model: LanguageModel
    tokenizer: TextTokenizer
    corpus: Path


@dataclass(frozen=True, kw_only=True)
class Running:
    """A server that answers."""

    url: str
    engine: Engine
    server: Server


def make_small(folder: Path) -> Small:
    """Drawn weights, and byte pairs of a small corpus."""
    write_corpus(folder, per_family=3)
    texts = corpus_texts([folder / "training.jsonl"])
    trained = train_byte_pairs(texts, vocab_size=400).tokenizer
    (folder / "tokenizer.json").write_text(trained.to_json())
    tokenizer = TextTokenizer.load(folder)
    recipe = tiny_model(vocab_size=tokenizer.vocab_size, max_sequence_tokens=CONTEXT)
    model = LanguageModel(recipe, draw_weights(recipe, seed=4))
    return Small(recipe=recipe, model=model, tokenizer=tokenizer, corpus=folder)


@contextmanager
def serve(small: Small, *, api_key: str | None = None, max_rows: int = 256) -> Iterator[Running]:
    """The server, until the block ends."""
    answers = make_answers(
        small.model, small.tokenizer, name=NAME, template=our_template(), max_rows=max_rows
    )
    server = Server(answers, Address(host="127.0.0.1", port=0, api_key=api_key))
    thread = threading.Thread(target=server.serve_until_stopped)
    thread.start()
    try:
        yield Running(url=server.url, engine=answers.engine, server=server)
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        assert not thread.is_alive(), "the server ends when it is asked to"
