"""lm-eval's stock `hf` model on an exported folder gives the numbers of our own adapter.

Tolerance 1e-4 nats of sums of a few tokens: both sides are float32, in other orders of summation.
The folder is read as any stranger reads it: no option says how.
"""

from dataclasses import dataclass
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from frontload.data_tools.text.tokenizer import ANSWER, TextTokenizer
from frontload.data_tools.text.train_tokenizer import train
from frontload.eval.asking.lm_eval_model import FrontloadLM
from frontload.megatron_ext.hf.convert import export_hf
from frontload.megatron_ext.inference.language_model import LanguageModel
from frontload.recipes.schema import Tokenizer
from tests.parity.conftest import save_drawn
from tests.training_inputs import tiny_model
from tests.unit.data_tools.room import write_jsonl

pytest.importorskip("transformers")

TOLERANCE = 1e-4
TRAINED_TOKENS, CHUNK = 256, 8
SENTENCE = "what is the sum of 3 and 41 ? steps : + = 44 so done . x7"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Our adapter and lm-eval's own on the same weights."""

    ours: FrontloadLM
    stock: Any
    tokenizer: TextTokenizer


@pytest.fixture(scope="module", params=["word", "byte_bpe"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    from lm_eval.models.huggingface import HFLM

    create: Any = HFLM  # its checker sees the registry's decorator only
    root = tmp_path_factory.mktemp("exported")
    rows = [{"id": str(seed), "text": text(seed)} for seed in range(40)]
    corpus = write_jsonl(root / "base.jsonl", rows)
    made = train(Tokenizer(kind=request.param, vocab_size=300), [corpus]).tokenizer
    (root / "tokenizer.json").write_text(made.to_json())
    model = tiny_model(
        pattern="M-*M*-",
        vocab_size=made.vocab_size,
        max_sequence_tokens=TRAINED_TOKENS,
        mamba_chunk_tokens=CHUNK,
    )
    save_drawn(model, root / "checkpoint")
    export_hf(root / "checkpoint", root / "hf", tokenizer=root / "tokenizer.json")
    return Pair(
        ours=FrontloadLM(LanguageModel.load(root / "checkpoint"), made),
        stock=create(pretrained=str(root / "hf"), device="cpu", dtype="float32", batch_size=8),
        tokenizer=made,
    )


def text(seed: int, *, count: int = 12) -> str:
    """Words that the tokenizer learns."""
    return " ".join(Random(seed).choices(SENTENCE.split(), k=count))


def asked(*arguments: object) -> Any:
    return SimpleNamespace(args=arguments)


def test_log_likelihoods_and_greedy_flags(pair: Pair) -> None:
    """From one token to the trained length: one chunk of the scan and a dozen."""
    requests = [
        asked(text(100 + length, count=length), f" {option}")
        for length in (1, 5, 9, 20, 40, 84)
        for option in ("44", "so done", "<|answer|> 41")
    ]
    requests += [asked("", "what is 3"), asked("so done ", "x7")]
    lengths = [len(pair.tokenizer.encode("".join(one.args))) for one in requests]
    assert 8 * CHUNK < max(lengths) <= TRAINED_TOKENS
    ours = pair.ours.loglikelihood(requests)
    stock = pair.stock.loglikelihood(requests, disable_tqdm=True)
    worst = max(abs(a - b) for (a, _), (b, _) in zip(ours, stock, strict=True))
    assert worst < TOLERANCE
    assert [flag for _, flag in ours] == [flag for _, flag in stock]
    assert len({round(value, 3) for value, _ in ours}) > 15  # the requests tell models apart


def test_greedy_generation(pair: Pair) -> None:
    """One prompt at a time: where lm-eval pads prompts to one length, transformers 5.10 is wrong.

    A padding token in the answer is left out of the stock text: such prompts are not compared.
    """
    options = {"until": [], "max_gen_toks": 4, "do_sample": False}
    prompts = [text(200 + seed, count=30) for seed in range(8)]
    written = pair.ours.generate_until([asked(prompt, options) for prompt in prompts])
    pairs = [(p, w) for p, w in zip(prompts, written, strict=True) if "<|pad|>" not in w]
    assert len({one for _, one in pairs}) > 2
    for prompt, one in pairs:
        request = asked(prompt, dict(options))
        assert pair.stock.generate_until([request], disable_tqdm=True) == [one]


def test_rolling_log_likelihood(pair: Pair) -> None:
    """A text within one window: how a longer one is cut is each adapter's own way."""
    requests = [asked(text(300 + count, count=count)) for count in (1, 20, 60)]
    ours = pair.ours.loglikelihood_rolling(requests)
    stock = pair.stock.loglikelihood_rolling(requests, disable_tqdm=True)
    assert ours == pytest.approx(stock, abs=5 * TOLERANCE)  # of up to 60 tokens


def test_the_answer_mark_survives_where_special_tokens_are_skipped(pair: Pair) -> None:
    ids = pair.tokenizer.encode("so done <|answer|> 41 <|unk|> <|end|>")
    shown = pair.stock.tok_decode(ids, skip_special_tokens=True)
    assert shown == pair.tokenizer.decode(ids[:-1])
    assert ANSWER in pair.stock.tok_encode(shown)


def test_the_check_would_see_a_chunk_that_is_too_short(pair: Pair) -> None:
    """With the chunk that the model was trained with, transformers 5.10 is wrong on a CPU."""
    from transformers import AutoModelForCausalLM

    request = asked(text(7, count=40), " 44")
    (right,) = pair.ours.loglikelihood([request])
    short = AutoModelForCausalLM.from_pretrained(
        pair.stock.model.config.name_or_path, chunk_size=CHUNK
    )
    tokens = pair.tokenizer.encode("".join(request.args))
    with torch.no_grad():
        logits = short(torch.tensor([tokens[:-1]]), use_cache=False).logits[0, -1]
    assert abs(float(logits.log_softmax(-1)[tokens[-1]]) - right[0]) > 10 * TOLERANCE
