"""Where a context and its continuation meet: every token of the continuation is scored, once."""

import numpy as np
import pytest

from frontload.data_tools.text.tokenizer import END, TextTokenizer
from frontload.data_tools.text.train_tokenizer import train_byte_pairs
from frontload.eval.asking.lm_eval_model import FrontloadLM
from frontload.recipes.errors import RecipeError
from tests.unit.eval.fake_study import BigramModel
from tests.unit.eval.test_lm_eval_model import asked

TEXTS = [
    "The answer is wer and answer, hello world. Answer: C Answer: D caf\u00e9 na\u00efve : C : D"
    "\n\nQuestion: what is 12 + 34 ? It is 46.\n"
] * 50 + ["hello wonderful world answers answering question questions"] * 50


@pytest.fixture(scope="module")
def byte_pairs() -> TextTokenizer:
    return train_byte_pairs(TEXTS, vocab_size=600).tokenizer


@pytest.fixture(scope="module")
def adapter(byte_pairs: TextTokenizer) -> FrontloadLM:
    return FrontloadLM(BigramModel(byte_pairs.vocab_size, seed=1), byte_pairs)


def by_hand(lm: FrontloadLM, context: list[int], continuation: list[int]) -> float:
    log_p_VV = np.asarray(lm.model.log_p_VV, dtype="f8")  # pyright: ignore[reportAttributeAccessIssue]
    tokens = [context[-1], *continuation]
    return float(log_p_VV[tokens[:-1], tokens[1:]].sum())


def scored(lm: FrontloadLM, *pairs: tuple[str, str]) -> list[float]:
    found = lm.loglikelihood([asked(*pair) for pair in pairs])  # pyright: ignore[reportArgumentType]
    return [value for value, _ in found]


@pytest.mark.parametrize(
    ("context", "continuation"),
    [
        ("hello wor", "ld"),  # one token of the whole spans the join and ends with it
        ("hello wor", "ld. Answer: C"),  # more tokens follow the one that spans it
        ("The Ans", "wer"),
        ("caf\u00e9 na", "\u00efve"),
        ("caf", "\u00e9"),
    ],
)
def test_a_token_that_spans_the_join_leaves_the_continuation_whole(
    adapter: FrontloadLM, byte_pairs: TextTokenizer, context: str, continuation: str
) -> None:
    before, after = byte_pairs.encode(context), byte_pairs.encode(continuation)
    found = scored(adapter, (context, continuation))
    assert found == pytest.approx([by_hand(adapter, before, after)])
    assert found[0] < -0.5


def test_an_option_that_merges_does_not_win_by_it(adapter: FrontloadLM) -> None:
    """The case of eval.md: `ld` scored 0.0 and won against any option."""
    found = scored(adapter, ("hello wor", "ld"), ("hello wor", "k"), ("hello wor", " cup"))
    assert all(np.isfinite(found))
    assert max(found) < 0


def test_a_join_between_two_tokens_is_cut_there(
    adapter: FrontloadLM, byte_pairs: TextTokenizer
) -> None:
    """The ids of the whole text, as training saw them, wherever they can be cut."""
    before, after = byte_pairs.encode("The answer is"), byte_pairs.encode(" wer")
    assert byte_pairs.encode("The answer is wer") == before + after
    found = scored(adapter, ("The answer is", " wer"), ("The answer is ", "wer"))
    assert found == pytest.approx([by_hand(adapter, before, after)] * 2)


@pytest.mark.parametrize("blank", ["   ", "\n\n", "\t"])
def test_a_context_of_white_space_is_text_after_the_end_token(
    adapter: FrontloadLM, byte_pairs: TextTokenizer, blank: str
) -> None:
    after = byte_pairs.encode(blank + "wer")
    assert len(after) > 1
    assert scored(adapter, (blank, "wer")) == pytest.approx([by_hand(adapter, [END], after)])


def test_an_end_token_that_a_text_begins_with_is_its_context(
    adapter: FrontloadLM, byte_pairs: TextTokenizer
) -> None:
    plain, marked = scored(adapter, ("", "wer"), ("", "<|end|>wer"))
    assert plain == marked == pytest.approx(by_hand(adapter, [END], byte_pairs.encode("wer")))


@pytest.mark.parametrize(
    ("context", "continuation"), [("The answer is", ""), ("", ""), ("", "<|end|>")]
)
def test_a_continuation_without_a_token_is_refused(
    adapter: FrontloadLM, context: str, continuation: str
) -> None:
    with pytest.raises(RecipeError, match="has no token"):
        scored(adapter, ("The answer is", " C"), (context, continuation))
