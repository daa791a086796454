"""The Megatron stack against the plain token-by-token model, which runs in float64.

Tolerance: 2e-5 of the largest entry; the stack is float32 (6e-8) and sums over a hundred terms in
each of up to seven layers. A dropped term, mask or norm shows at 1e-2 and more.
"""

import pytest
import torch

from tests.parity.conftest import Trained
from tests.parity.reference_model import reference_logits, reference_loss

TOLERANCE = 2e-5


def batch(model_vocabulary: int, *, resets: bool) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(0, model_vocabulary, (3, 30), generator=generator)
    starts = torch.rand(3, 29, generator=generator) < (0.15 if resets else 0.0)
    return tokens[:, :-1], tokens[:, 1:], starts.long().cumsum(1)


@pytest.mark.parametrize("resets", [False, True], ids=["whole rows", "documents"])
def test_logits_loss_and_gradients(trained: Trained, *, resets: bool) -> None:
    from frontload.megatron_ext.model.layers import document_resets

    inputs, labels, ids = batch(trained.model.vocab_size, resets=resets)
    exact = {name: w.double().requires_grad_() for name, w in trained.weights.items()}
    logits = reference_logits(trained.model, exact, inputs, ids)
    loss = reference_loss(logits, labels)
    expected = dict(zip(exact, torch.autograd.grad(loss, list(exact.values())), strict=True))

    packed = document_resets(ids) if resets else None
    module = trained.module
    found_logits = module(inputs, None, None, packed_seq_params=packed)
    error = (found_logits.double() - logits).abs().max() / logits.abs().max()
    assert float(error.detach()) < TOLERANCE
    found_loss = module(inputs, None, None, labels=labels, packed_seq_params=packed).mean()
    assert found_loss.item() == pytest.approx(loss.item(), rel=1e-5)
    parameters = dict(module.named_parameters())
    gradients = torch.autograd.grad(found_loss, list(parameters.values()))
    assert set(parameters) == set(expected)
    for name, gradient in zip(parameters, gradients, strict=True):
        error = (gradient.double() - expected[name]).abs().max() / expected[name].abs().max()
        assert float(error) < TOLERANCE, name


def test_resets_matter(trained: Trained) -> None:
    """Guards the test above: with these weights a leak between documents is a large error."""
    inputs, _, ids = batch(trained.model.vocab_size, resets=True)
    logits = [reference_logits(trained.model, trained.weights, inputs, i) for i in (ids, None)]
    assert float((logits[0] - logits[1]).abs().max() / logits[0].abs().max()) > 1e-2
