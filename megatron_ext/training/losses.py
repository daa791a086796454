"""What a token's loss weighs in fine-tuning, and the start model that some weights compare with."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from frontload.recipes.token_losses import DFT, IW_TOKEN, NLL, TokenLoss


def token_weights(
    loss: TokenLoss,
    losses_BS: Tensor,
    *,
    reference_BS: Tensor | None,
    loss_mask_BS: Tensor,
    document_ids_BS: Tensor,
) -> Tensor:
    """The factor of each token's loss. No gradient flows through it, and it is 1 for nll.

    A conversation of iw_sequence is a document of a row: its tokens share the weight
    exp(exponent x mean over its answer tokens of log p - log p of the start model).

    Shapes: losses_BS minus the log-probability of each label; reference_BS the same under the start
        model, None for a loss that does not need it.
    Source: Wu et al. 2025, arXiv 2508.05629, eq. 9 (dft); Qin and Springenberg 2025, arXiv
        2507.12856, whose code takes the mean log ratio of a sequence, or clips token by token.
    """
    negative_log_BS = losses_BS.detach()
    if loss.kind == NLL:
        return torch.ones_like(negative_log_BS)
    if loss.kind == DFT:
        return torch.exp(-negative_log_BS)
    assert reference_BS is not None
    log_ratio_BS = reference_BS - negative_log_BS
    if loss.kind != IW_TOKEN:
        means_BS = _document_means(log_ratio_BS, loss_mask_BS, document_ids_BS=document_ids_BS)
        log_ratio_BS = loss.exponent * means_BS
    return torch.exp(log_ratio_BS).clamp(loss.least_weight, loss.most_weight)


def _document_means(values_BS: Tensor, loss_mask_BS: Tensor, *, document_ids_BS: Tensor) -> Tensor:
    """At each token the mean of its document's values where the mask is on; 0 where it never is."""
    ids_BS = document_ids_BS.long()
    sums_BD = values_BS.new_zeros(len(ids_BS), int(ids_BS.max()) + 1)
    counts_BD = torch.zeros_like(sums_BD)
    sums_BD.scatter_add_(1, ids_BS, values_BS * loss_mask_BS)
    counts_BD.scatter_add_(1, ids_BS, loss_mask_BS.to(counts_BD.dtype))
    return (sums_BD / counts_BD.clamp(min=1.0)).gather(1, ids_BS)


class StartWeights:
    """This rank's weights as fine-tuning began, which may stand in for those of now."""

    def __init__(self) -> None:
        self._kept: list[Tensor] = []

    def keep(self, module: torch.nn.Module) -> None:
        """Copies the weights of now."""
        self._kept = [parameter.detach().clone() for parameter in module.parameters()]

    @contextmanager
    def swapped_in(self, module: torch.nn.Module) -> Iterator[Any]:
        """The module computes as it did at the start; its own bits come back at the end."""
        assert self._kept, "the loop keeps the start's weights before the first step"
        self._swap(module)
        try:
            yield
        finally:
            self._swap(module)

    def _swap(self, module: torch.nn.Module) -> None:
        with torch.no_grad():
            for parameter, kept in zip(module.parameters(), self._kept, strict=True):
                now = parameter.detach().clone()
                parameter.copy_(kept)
                kept.copy_(now)
