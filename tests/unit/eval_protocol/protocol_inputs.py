"""A tiny model with a byte-level tokenizer, a root of made-up rows, suites of few benchmarks."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from frontload.data_tools.text.tokenizer import TextTokenizer
from frontload.data_tools.text.train_tokenizer import train_byte_pairs
from frontload.eval.protocol.answers import (
    Generated,
    GenerationRequest,
    Loglikelihood,
    LoglikelihoodRequest,
)
from frontload.eval.protocol.data_root import DataRoot
from frontload.eval.protocol.evaluation import SuiteRequest
from frontload.eval.protocol.gather import GatherRequest, gather
from frontload.eval.protocol.in_process import InProcess
from frontload.megatron_ext.inference.language_model import LanguageModel
from frontload.recipes.runs.suite import TINY, SuiteRecipe, load_suite
from tests.parity.reference_model import draw_weights
from tests.training_inputs import tiny_model

TEXTS = [
    "Ada has 12 apples and gets 30 more. How many apples are there? The answer is 42.",
    "Question: How many pens are there?\nA. 23\nB. 35\nC. 28\nD. 34\nAnswer: B",
    "Problem: We find the sum.\n\nSolution: Let's think step by step. The final answer is 7.",
]
VOCABULARY, CONTEXT = 340, 48


def write_tokenizer(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    trained = train_byte_pairs(TEXTS, vocab_size=VOCABULARY)
    (folder / "tokenizer.json").write_text(trained.tokenizer.to_json())
    return folder / "tokenizer.json"


def make_answerer(folder: Path, *, seed: int = 3, pattern: str = "M-*M") -> InProcess:
    """A drawn model: it writes bytes, and ends now and then."""
    tokenizer = TextTokenizer.load(write_tokenizer(folder))
    size = tokenizer.vocab_size
    model = tiny_model(vocab_size=size, max_sequence_tokens=CONTEXT, pattern=pattern)
    return InProcess(
        LanguageModel(model, draw_weights(model, seed)), tokenizer, identity=f"drawn-{seed}"
    )


def make_root(folder: Path) -> DataRoot:
    """Made-up rows of every benchmark."""
    gather(folder, GatherRequest(sources=("made",), datasets=(), token=None))
    return DataRoot.open(folder)


def few(name: str, *benchmarks: str, longest: int = 24, **changes: object) -> SuiteRecipe:
    """A shipped suite of these benchmarks alone, their answers of at most so many tokens."""
    suite = load_suite(name).value
    chosen = {}
    for one in benchmarks:
        found = suite.benchmarks[one]
        drawn = found.sampling and replace(found.sampling, max_new_tokens=longest)
        chosen[one] = replace(found, **({"sampling": drawn} | changes))
    return replace(suite, asked=benchmarks, benchmarks=chosen)


def request(
    suite: SuiteRecipe,
    root: DataRoot,
    out: Path,
    *,
    size: str = TINY,
    seed: int = 1,
    training_texts: Iterable[str] | None = None,
) -> SuiteRequest:
    out.mkdir(parents=True, exist_ok=True)
    return SuiteRequest(
        suite=suite,
        name="few",
        size=size,
        seed=seed,
        root=root,
        out=out,
        tokenizer=None,
        training_texts=training_texts,
    )


class Scripted:
    """Answers from a function: what a grader must read, or what a bad server says."""

    sums_in_batches = False

    def __init__(self, text: str = "", *, likes: int = 0, fails_after: int = -1) -> None:
        self.identity, self.max_sequence_tokens = "scripted", 4096
        self.text, self.likes, self.fails_after = text, likes, fails_after
        self.asked: list[str] = []

    def generate(self, requests: Iterable[GenerationRequest]) -> Iterator[tuple[str, Generated]]:
        for one in requests:
            self._count(one.key)
            yield one.key, Generated(text=self.text, num_tokens=3, finish="stop")

    def loglikelihood(
        self, requests: Iterable[LoglikelihoodRequest]
    ) -> Iterator[tuple[str, Loglikelihood]]:
        for place, one in enumerate(requests):
            self._count(one.key)
            total = 0.0 if place % 4 == self.likes else -5.0
            yield one.key, Loglikelihood(total=total - 1, is_greedy=False, num_tokens=1)

    def _count(self, key: str) -> None:
        if len(self.asked) == self.fails_after:
            raise ConnectionError("the server is gone")
        self.asked.append(key)


def quiet(name: str, *, done: int, total: int) -> None:
    """A watch that says nothing."""
