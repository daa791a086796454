"""Few-shot prompts whose examples are read once, against the same engine reading every prompt.

Lengths are those of MMLU with five examples in tokens of SmolLM2, medians over 57 subjects and
14,042 questions: 425 of the examples, 69 of a question. 64 questions are what a block of the runner
asks. Scores of both ways must agree to 1e-4.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from paired import measure, show
from reference_model import draw_weights

from frontload.megatron_ext.inference import beginnings
from frontload.megatron_ext.inference.draws import Sampling
from frontload.megatron_ext.inference.language_model import LanguageModel
from frontload.recipes.schema import Model

EXAMPLES, QUESTION, QUESTIONS, NEW = 425, 69, 64, 16


def of(pattern: str, width: int, *, vocab_size: int) -> Model:
    return Model(
        pattern=pattern, hidden_size=width, ffn_hidden_size=3 * width, num_attention_heads=4,
        num_query_groups=4, kv_channels=width // 4, mamba_num_heads=4, mamba_head_dim=width // 4,
        mamba_state_dim=16, mamba_num_groups=1, mamba_chunk_tokens=32, vocab_size=vocab_size,
        max_sequence_tokens=1024, tie_embeddings=False, norm_epsilon=1e-5, init_std=0.02,
        embedding_init_std=0.02,
    )  # fmt: skip


def prompts(model: Model) -> list[list[int]]:
    """Questions of unlike lengths behind the same examples."""
    rng = np.random.default_rng(0)
    examples = rng.integers(2, model.vocab_size, EXAMPLES).tolist()
    lengths = rng.integers(QUESTION // 2, QUESTION + QUESTION // 2, QUESTIONS)
    return [[*examples, *rng.integers(2, model.vocab_size, one).tolist()] for one in lengths]


@contextmanager
def nothing_shared() -> Iterator[None]:
    """Every row is read whole, as before beginnings were shared."""
    saved, beginnings.LEAST_SAVED = beginnings.LEAST_SAVED, 10**12
    try:
        yield
    finally:
        beginnings.LEAST_SAVED = saved


def compare(title: str, model: Model, *, rounds: int) -> None:
    weights = draw_weights(model, seed=5)
    ours, rows = LanguageModel(model, weights), prompts(model)
    options = [[2, 3, 4, 5]] * len(rows)
    pairs = [[*row, 2, 3, 4] for row in rows]

    def whole(call: Callable[[], object]) -> Callable[[], object]:
        def run() -> object:
            with nothing_shared():
                return call()

        return run

    def one_token() -> object:
        return ours.candidate_scores(rows, options)

    def several_tokens() -> object:
        return ours.token_scores(pairs)

    def written() -> object:
        return ours.generate(
            rows,
            Sampling(max_new_tokens=NEW, temperature=0.0, seed=0, stop_token=-1, num_samples=1),
        )

    size = sum(weight.numel() for weight in weights.values())
    for name, call in (
        ("options of one token", one_token),
        ("options of three tokens", several_tokens),
        (f"{NEW} greedy tokens", written),
    ):
        check(name, call(), whole(call)())
        timings = measure({"read whole": whole(call), "examples once": call}, rounds=rounds)
        show(f"{title}, {size:,} parameters: {name}, {QUESTIONS} x 5-shot (goal 3)", timings,
             base="read whole", tokens=sum(map(len, rows)))  # fmt: skip


def check(name: str, found: object, expected: object) -> None:
    """Both ways say the same."""
    if name.endswith("greedy tokens"):
        assert found == expected
        return
    for one, other in zip(found, expected, strict=True):  # type: ignore[call-overload]
        np.testing.assert_allclose(
            one.log_probabilities_S, other.log_probabilities_S, atol=1e-4, rtol=0
        )


if __name__ == "__main__":
    torch.manual_seed(0)
    compare("laptop study's shape", of("M*-M*-", 64, vocab_size=208), rounds=5)
    compare("a hybrid", of("M-M*M-M-", 128, vocab_size=2048), rounds=3)
    compare("a transformer", of("*-*-*-*-", 128, vocab_size=2048), rounds=3)
