"""All tokens at once against veRL's loop over tokens: equal bits through veRL's own engine."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor
from verl.utils import tensordict_utils, torch_functional
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from frontload.rl.plugins.log_probabilities import score_tokens_at_once

LENGTHS = ([5], [3, 9, 1, 64], [31, 32, 33, 90, 17], [7] * 40)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Puts ours before veRL's, until the test ends."""
    own = torch_functional.logprobs_from_logits_v2
    assert own.__module__ == torch_functional.__name__  # veRL's, not ours of an earlier test
    monkeypatch.setattr(torch_functional, "logprobs_from_logits_v2", own)
    return score_tokens_at_once


@pytest.mark.parametrize("lengths", LENGTHS, ids=lambda lengths: f"{len(lengths)}rows")
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("vocab_size", [16, 37, 256])
def test_veRLs_engine_finds_the_same_bits(
    at_once: Callable[[], None], lengths: list[int], temperature: float, vocab_size: int
) -> None:
    theirs = engine_outputs(lengths, temperature, vocab_size)
    at_once()
    ours = engine_outputs(lengths, temperature, vocab_size)
    for name, expected, found in zip(("log", "entropy", "gradient"), theirs, ours, strict=True):
        assert torch.equal(expected, found), name
    assert ours[2].count_nonzero() > 0


def test_ours_is_what_the_engine_calls(
    at_once: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = count_calls(monkeypatch)
    at_once()
    engine_outputs([3, 9], 1.0, 16)
    assert calls == []  # veRL's was not needed


@pytest.mark.parametrize(
    "change",
    [
        lambda logits, labels: (logits.bfloat16(), labels),
        lambda logits, labels: (logits.double(), labels),
        lambda logits, labels: (logits.view(2, 3, -1), labels.view(2, 3)),
        lambda logits, labels: (logits.t().contiguous().t(), labels),
    ],
    ids=["bf16", "fp64", "rows of rows", "columns first"],
)
def test_other_inputs_are_veRLs(
    at_once: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
) -> None:
    draw = torch.Generator().manual_seed(6)
    drawn = torch.randn(6, 16, generator=draw), torch.randint(16, (6,), generator=draw)
    logits, labels = change(*drawn)
    expected = torch_functional.logprobs_from_logits(logits, labels)
    calls = count_calls(monkeypatch)
    at_once()
    assert torch.equal(torch_functional.logprobs_from_logits(logits, labels), expected)
    assert calls == [logits.dtype]


@pytest.mark.parametrize("labels", [3, 5], ids=["fewer", "more"])
def test_labels_that_do_not_fit_are_refused_as_veRL_does(
    at_once: Callable[[], None], labels: int
) -> None:
    at_once()
    with pytest.raises(RuntimeError):
        torch_functional.logprobs_from_logits(
            torch.ones(4, 16), torch.zeros(labels, dtype=torch.int64)
        )


def count_calls(monkeypatch: pytest.MonkeyPatch) -> list[torch.dtype]:
    """The list that grows with each call of veRL's function from now on."""
    own, calls = torch_functional.logprobs_from_logits_v2, []

    def counted(logits: Tensor, labels: Tensor) -> Tensor:
        calls.append(logits.dtype)
        return own(logits, labels)

    monkeypatch.setattr(torch_functional, "logprobs_from_logits_v2", counted)
    return calls


def engine_outputs(
    lengths: list[int], temperature: float, vocab_size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities, entropies, and the gradient of both in the padded logits."""
    draw = torch.Generator().manual_seed(sum(lengths))
    rows = [torch.randint(vocab_size, (length,), generator=draw) for length in lengths]
    logits = 6 * torch.randn(len(rows), max(lengths), vocab_size, generator=draw)
    logits.requires_grad_()
    nested = torch.nested.as_nested_tensor(rows, layout=torch.jagged)
    batch = TensorDict({"input_ids": nested}, batch_size=[len(rows)])
    tensordict_utils.assign_non_tensor(batch, use_remove_padding=False, calculate_entropy=True)
    engine: Any = SimpleNamespace(engine_config=SimpleNamespace(entropy_checkpointing=False))
    found = FSDPEngineWithLMHead.prepare_model_outputs(
        engine,
        output=SimpleNamespace(logits=logits),
        output_args={
            "temperature": torch.full((len(rows),), temperature),
            "temperature_is_one": temperature == 1.0,
            "input_ids_rmpad_rolled": torch.roll(nested.values(), shifts=-1, dims=0),
        },
        micro_batch=batch,
        logits_processor_func=None,
    )
    log, entropy = found["log_probs"].values(), found["entropy"].values()
    weights = torch.randn(2, len(log), generator=draw)
    (weights[0] * log + weights[1] * entropy).sum().backward()
    assert logits.grad is not None
    return log.detach(), entropy.detach(), logits.grad
